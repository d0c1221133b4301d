"""The ``settings`` dict of a module file or spec."""

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Annotated, Literal

import attrs

from pymodules_core.errors import InvalidNameError, SettingsError
from pymodules_core.names import check_module_name, check_path_name, check_pool_name
from pymodules_core.settings.strict import Range
from pymodules_core.settings.structure import LineOf, no_line, structure


@attrs.frozen(kw_only=True)
class WeightsFromCkp:
    """Initial weights from ``<data home>/module_ckps/<ckp_name>``.

    Attributes:
        ckp_name: File name below ``module_ckps``.
        strict: Every key of the module must be in the file and the other way round.
        rename: Old prefix to new prefix, applied to the file's keys.
        skip_mismatched: Leave parameters whose shape differs as they were built.
    """

    ckp_name: str
    strict: bool = True
    rename: dict[str, str] = attrs.field(factory=dict)
    skip_mismatched: bool = False


@attrs.frozen(kw_only=True)
class WeightsFromExp:
    """Initial weights from a checkpoint pool of another experiment in the same data home.

    Attributes:
        exp_name: The other experiment.
        ckp_pool_name: One of its pools: ``frzn``, ``init``, ``last``, ``best``, ``epoch_<n>``.
        module_name: The module in that pool.
        strict: As in ``WeightsFromCkp``, with the two keys that follow.
        rename: Old prefix to new prefix.
        skip_mismatched: Leave parameters whose shape differs as they were built.
    """

    exp_name: str
    ckp_pool_name: str
    module_name: str
    strict: bool = True
    rename: dict[str, str] = attrs.field(factory=dict)
    skip_mismatched: bool = False


@attrs.frozen(kw_only=True)
class CompileSettings:
    """How ``torch.compile`` treats a module; each is an argument of it.

    Attributes:
        mode: What it trades compile time for.
        backend: What compiles.
        dynamic: Whether shapes vary; None finds out.
        fullgraph: Whether a break in the graph is an error.
    """

    mode: Literal["default", "reduce-overhead", "max-autotune", "max-autotune-no-cudagraphs"] = (
        "default"
    )
    backend: str = "inductor"
    dynamic: bool | None = None
    fullgraph: bool = False


@attrs.frozen(kw_only=True)
class ParallelSettings:
    """How several processes share the work of a module.

    Attributes:
        kind: ``"ddp"``: each process holds all of it, and gradients are averaged while they are
            computed. ``"fsdp"``: each holds a part of every parameter. ``"off"``: it has no
            wrapper, and gradients are averaged when its optimizer steps.
        blocks: Class names of its parts that ``fsdp`` gathers one at a time.
        min_block_parameters: Or the size from which on a part is such a block.
        sync_batch_norm: Batch norm takes its statistics over the batch of all processes.
        find_unused_parameters: ``ddp`` looks in each step for parameters without a gradient.
    """

    kind: Literal["ddp", "fsdp", "off"] = "ddp"
    blocks: tuple[str, ...] = ()
    min_block_parameters: Annotated[int, Range(minimum=1)] | None = None
    sync_batch_norm: bool = False
    find_unused_parameters: bool = False


@attrs.frozen(kw_only=True)
class ModuleSettings:
    """Settings of one module.

    Attributes:
        frozen: No gradients for its parameters, always in eval mode, saved to ``frzn`` only.
        mode: ``"eval"`` keeps a module that trains in eval mode, for fixed batch-norm statistics.
        compile: Compile it in place before the first step; a table sets how.
        parallel: How several processes share its work; a table sets more than the kind.
        sharded: Several processes save it in shards, each its own, instead of one file.
        forward_methods: Methods besides ``forward`` that a task calls to train it.
        load_weights_from_ckp: Initial weights from a checkpoint file.
        load_weights_from_exp: Initial weights from another experiment.
    """

    frozen: bool = False
    mode: Literal["train", "eval"] = "train"
    compile: bool | CompileSettings = False
    parallel: Literal["ddp", "fsdp", "off"] | ParallelSettings = "ddp"
    sharded: bool = False
    forward_methods: tuple[str, ...] = ()
    load_weights_from_ckp: WeightsFromCkp | None = None
    load_weights_from_exp: WeightsFromExp | None = None

    @property
    def sharing(self) -> ParallelSettings:
        """``parallel`` as a table."""
        if isinstance(self.parallel, ParallelSettings):
            return self.parallel
        return ParallelSettings(kind=self.parallel)

    @property
    def weights_source(self) -> WeightsFromCkp | WeightsFromExp | None:
        """Where the initial weights come from, or None for weights as built."""
        return self.load_weights_from_ckp or self.load_weights_from_exp

    @property
    def weights_text(self) -> str | None:
        """The source as one word: ``<ckp_name>`` or ``<exp>/<pool>/<module>``."""
        if self.load_weights_from_ckp is not None:
            return self.load_weights_from_ckp.ckp_name
        if self.load_weights_from_exp is not None:
            source = self.load_weights_from_exp
            return f"{source.exp_name}/{source.ckp_pool_name}/{source.module_name}"
        return None


# Table, key in it, and what refuses a name that is not allowed there.
_NAME_CHECKS: tuple[tuple[str, str, Callable[[object], str]], ...] = (
    ("load_weights_from_ckp", "ckp_name", partial(check_path_name, kind="ckp_name")),
    ("load_weights_from_exp", "exp_name", partial(check_path_name, kind="exp_name")),
    ("load_weights_from_exp", "ckp_pool_name", check_pool_name),
    ("load_weights_from_exp", "module_name", check_module_name),
)


def structure_module_settings(
    raw: object,
    *,
    file: Path | None = None,
    line_of: LineOf = no_line,
    overlay: Mapping[str, object] | None = None,
    overlay_root: str = "",
) -> ModuleSettings:
    """Check a module's ``settings`` and lay the experiment's table for it on top.

    Args:
        raw: The dict as written beside the module.
        file: Where ``raw`` was written.
        line_of: Finds the line of a key in ``file``.
        overlay: ``[modules.settings.<name>]`` of ``experiment.toml``; its keys win.
        overlay_root: Dotted path of that table; an error's key begins with it.

    Raises:
        SettingsError: Unknown key, wrong type, missing key, or both sources of weights.
        InvalidNameError: A name in it is not allowed.
    """
    settings = _structure_checked(raw, "settings", file, line_of)
    if not overlay:
        return settings
    over = _structure_checked(overlay, overlay_root, None, no_line)
    changes = {key: getattr(over, key) for key in overlay}
    # A source of weights in the overlay replaces the module's own, whichever kind that was.
    if over.weights_source is not None:
        changes |= {
            "load_weights_from_ckp": over.load_weights_from_ckp,
            "load_weights_from_exp": over.load_weights_from_exp,
        }
    return attrs.evolve(settings, **changes)


def _structure_checked(
    raw: object, root: str, file: Path | None, line_of: LineOf
) -> ModuleSettings:
    settings = structure(raw, ModuleSettings, root=root, file=file, line_of=line_of)
    for table, key, check in _NAME_CHECKS:
        source = getattr(settings, table)
        try:
            if source is not None:
                check(getattr(source, key))
        except InvalidNameError as error:
            error.file, error.line = file, line_of((table, key))
            error.key = f"{root}.{table}.{key}"
            error.what = f"{error.key}: {error.what}"
            raise
    if settings.load_weights_from_ckp and settings.load_weights_from_exp:
        raise SettingsError(
            f"{root}: both load_weights_from_ckp and load_weights_from_exp are given",
            file=file,
            line=line_of(("load_weights_from_exp",)),
            key=f"{root}.load_weights_from_exp",
            found=settings.weights_text,
            fix="keep the one the weights should come from",
        )
    return settings
