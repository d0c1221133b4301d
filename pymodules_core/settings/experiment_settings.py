"""The schema of ``experiment.toml``. Every key is optional; an unknown one is an error."""

from typing import Annotated, Any, Literal

import attrs

from pymodules_core.settings.strict import Range

Count = Annotated[int, Range(minimum=1)]
Whole = Annotated[int, Range(minimum=0)]
Positive = Annotated[float, Range(above=0)]
NonNegative = Annotated[float, Range(minimum=0)]


@attrs.frozen(kw_only=True)
class TrainSettings:
    """``[train]``.

    Attributes:
        epochs: How many epochs to train; 0 only evaluates the initial weights.
        max_steps: Stop after this many training steps in all.
        max_minutes: Stop after this many minutes of wall time.
        seed: Seed of initial weights, data order and every random number of the run.
        batch_size: Samples a step where the task returns a Dataset.
        num_workers: Worker processes of the loaders the trainer makes.
        seed_items: Seed the random numbers of items for each batch, or for each sample: then they
            stay the same in batches of another size.
        device: ``"auto"``, ``"cpu"``, ``"cuda"`` or ``"cuda:1"``.
        precision: Autocast of the steps.
        monitor: The metric of ``eval_step`` that decides ``best``.
        mode: Whether a smaller or a larger ``monitor`` is better.
        min_delta: How much better it has to be to count.
        patience: Stop after this many evaluations without a better one; never, unless given.
        startup: Epochs before ``patience`` counts.
        on_nonfinite: What a NaN or infinite loss does: fail the run or skip the update.
        eval_every_n_epochs: Evaluate after every n-th epoch, and after the last.
        eval_at_start: Evaluate the initial weights as epoch 0.
    """

    epochs: Whole = 10
    max_steps: Count | None = None
    max_minutes: Positive | None = None
    seed: Whole = 0
    batch_size: Count = 64
    num_workers: Whole = 0
    seed_items: Literal["batch", "sample"] = "batch"
    device: str = "auto"
    precision: Literal["fp32", "bf16", "fp16"] = "fp32"
    monitor: str = "loss"
    mode: Literal["min", "max"] = "min"
    min_delta: NonNegative = 0.0
    patience: Count | None = None
    startup: Whole = 0
    on_nonfinite: Literal["raise", "skip"] = "raise"
    eval_every_n_epochs: Count = 1
    eval_at_start: bool = True


@attrs.frozen(kw_only=True)
class TaskChoice:
    """``[experiment]``.

    Attributes:
        task: A task of an installed package, ``<distribution>:<entry point>``, in the place of
            ``pymodules/task.py``.
    """

    task: str | None = None


@attrs.frozen(kw_only=True)
class OptimizerSettings:
    """``[optimizers.<name>]``.

    Attributes:
        accumulate: Steps whose gradients are averaged into one update.
        clip_norm: Largest norm of all gradients of the optimizer together.
        clip_value: Largest absolute value of a gradient's element.
        schedule: Whether its scheduler steps after each epoch or after each update.
    """

    accumulate: Count = 1
    clip_norm: Positive | None = None
    clip_value: Positive | None = None
    schedule: Literal["epoch", "step"] = "epoch"


@attrs.frozen(kw_only=True)
class CheckpointSettings:
    """``[checkpoints]``.

    Attributes:
        keep_epochs: How many ``epoch_<n>`` pools stay; the oldest go first.
        every_n_epochs: Write ``epoch_<n>`` after an evaluation n or more epochs after the last.
        every_n_steps: Also commit ``last`` every n steps within an epoch.
        every_n_minutes: Also commit ``last`` every n minutes within an epoch.
        asynchronous: Training waits only until the weights are copied; a thread writes them.
        link: ``copy`` lets pools share nothing on disk; ``auto`` shares what the disk can.
    """

    keep_epochs: Count | Literal["all"] = "all"
    every_n_epochs: Count = 1
    every_n_steps: Count | None = None
    every_n_minutes: Positive | None = None
    asynchronous: bool = True
    link: Literal["auto", "copy"] = "auto"


@attrs.frozen(kw_only=True)
class ModulesSettings:
    """``[modules]``.

    Attributes:
        include: Patterns over module names that join the pool.
        exclude: Patterns over module names that do not.
        override: Module name to the provider that wins: ``"files"`` or a distribution.
        settings: Module name to settings that overlay its own.
        args: Module name to keyword arguments of its build function.
    """

    include: tuple[str, ...] = ("*",)
    exclude: tuple[str, ...] = ()
    override: dict[str, str] = attrs.field(factory=dict)
    settings: dict[str, dict[str, Any]] = attrs.field(factory=dict)
    args: dict[str, dict[str, Any]] = attrs.field(factory=dict)


@attrs.frozen(kw_only=True)
class PluginsSettings:
    """``[plugins]``; names are of distributions, entry points, or ``<dist>:<entry point>``.

    Attributes:
        disable: Plugins that are never imported.
        allow: If given, the only plugins that are imported.
        settings: Entry-point or distribution name to a table handed to that plugin.
        close_timeout_s: How long ``run_finished`` and ``run_failed`` of a plugin may take; what is
            not done by then is ended.
    """

    disable: tuple[str, ...] = ()
    allow: tuple[str, ...] | None = None
    settings: dict[str, dict[str, Any]] = attrs.field(factory=dict)
    close_timeout_s: Positive = 300.0


@attrs.frozen(kw_only=True)
class ExperimentSettings:
    """The whole of ``experiment.toml``; ``task`` is the user's and typed by the task."""

    experiment: TaskChoice = attrs.field(factory=TaskChoice)
    train: TrainSettings = attrs.field(factory=TrainSettings)
    optimizers: dict[str, OptimizerSettings] = attrs.field(factory=dict)
    checkpoints: CheckpointSettings = attrs.field(factory=CheckpointSettings)
    modules: ModulesSettings = attrs.field(factory=ModulesSettings)
    plugins: PluginsSettings = attrs.field(factory=PluginsSettings)
    task: dict[str, Any] = attrs.field(factory=dict)
