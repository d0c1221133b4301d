"""The checks of the conformance kit, in the order in which they are made."""

import inspect
import pickle
from collections.abc import Callable, Mapping
from typing import Any

import attrs
import torch
from torch.nn.utils.parametrize import is_parametrized

from pymodules_core.checkpoints import CheckpointManager
from pymodules_core.discovery.selection.spec_settings import check_spec_settings
from pymodules_core.errors import list_words
from pymodules_core.names import FRZN, LAST
from pymodules_core.settings.strict import field_names
from pymodules_core.testing import probe
from pymodules_core.testing.digests import digests_of_pool
from pymodules_core.testing.sandbox import NonconformityError, Sandbox
from pymodules_core.testing.steps import TrainedSteps

_NOT_IMPORTABLE = "not looked at: no other process can import it by its name"


@attrs.frozen
class Check:
    """One thing that a plugin has to fulfil.

    Attributes:
        title: What it is about.
        run: Gives what was found, or raises ``NonconformityError``.
        is_needed: Without it the others mean nothing.
    """

    title: str
    run: Callable[[Sandbox], str]
    is_needed: bool = False


def check_hooks(sandbox: Sandbox) -> str:
    """It can be imported, and its hooks fit their specifications."""
    record = sandbox.record()
    if record.failure is not None:
        raise NonconformityError(f"{record.failure.reason}\n    fix: {record.failure.fix}")
    if not record.hooks:
        raise NonconformityError(f"it is {record.state}: a setting or a variable keeps it out")
    return list_words(record.hooks)


def check_settings(sandbox: Sandbox) -> str:
    """Each of its settings is described in the docstring of the class."""
    settings = sandbox.record().settings
    if isinstance(settings, Mapping):
        return "none"
    cls = type(settings)
    names = field_names(cls)
    text = inspect.getdoc(cls) or ""
    if missing := [name for name in names if f"{name}:" not in text]:
        raise NonconformityError(
            f"the docstring of {cls.__name__} does not describe: {list_words(missing)}; write "
            f"Attributes: and a line '{missing[0]}: ...' for each"
        )
    return list_words(names)


def check_specs(sandbox: Sandbox) -> str:
    """It gives valid specs, the same each time, each with a description."""
    specs = sandbox.specs()
    names = [spec.name for spec in specs]
    versions = [spec.name for spec in specs if spec.state_version > 1]
    if versions and "migrate_state" not in sandbox.record().hooks:
        raise NonconformityError(
            f"{list_words(versions)} have a state_version above 1, and there is no migrate_state "
            "for weights of older ones"
        )
    if (again := [spec.name for spec in sandbox.specs()]) != names:
        raise NonconformityError(
            f"provide_module gives other modules the second time: {list_words(names)}, then "
            f"{list_words(again)}"
        )
    for spec in specs:
        raw = spec.settings() if callable(spec.settings) else spec.settings
        check_spec_settings(raw, spec, None)
        if not spec.description:
            raise NonconformityError(
                f"module {spec.name!r} has no description, which pymodules list shows; "
                "ModuleSpec(description=...)"
            )
    if not names and "provide_module" in sandbox.record().hooks:
        return "none is provided with these settings; -s KEY=VALUE, or settings=, choose others"
    return list_words(names)


def check_discovery(sandbox: Sandbox) -> str:
    """Listing modules imports no torch, where factories are dotted names."""
    if sandbox.tested.plugin is not None:
        return "not looked at: it is not installed, so nothing discovers it"
    if not all(isinstance(spec.factory, str) for spec in sandbox.specs()):
        return "not looked at: a factory is not a dotted name, and has to be imported"
    answer = probe.ask("discovery", target=sandbox.tested.target)
    if answer is None:
        raise NonconformityError("importing it ends the process")
    if answer["torch"]:
        raise NonconformityError(
            f"importing {sandbox.tested.target} imports torch, which makes pymodules list and "
            "--help slow: let the factory name what needs it, 'package.module:function'"
        )
    return "no torch"


def check_surroundings(sandbox: Sandbox) -> str:
    """Importing it changes nothing for others."""
    if not sandbox.tested.target:
        return _NOT_IMPORTABLE
    changed = probe.ask(
        "surroundings", environment=sandbox.environment, target=sandbox.tested.target
    )
    if changed is None:
        raise NonconformityError("importing it ends the process")
    if changed:
        raise NonconformityError(f"importing it changes the {list_words(changed)}")
    return "unchanged by its import"


def check_build(sandbox: Sandbox) -> str:
    """Modules depend on the run's seed and on nothing else."""
    torch.manual_seed(1)
    first = sandbox.pool()
    torch.manual_seed(2)
    torch.rand(3)
    before = torch.random.get_rng_state()
    second = sandbox.pool()
    if not torch.equal(before, torch.random.get_rng_state()):
        raise NonconformityError("building shifts the random stream of the caller")
    one, other = digests_of_pool(first), digests_of_pool(second)
    if differing := [name for name in one if one[name] != other[name]]:
        raise NonconformityError(
            f"built twice under one seed, {list_words(differing)} differ: draw from torch's, "
            "numpy's or Python's global stream, which the host seeds, and from nothing else"
        )
    return "the same under one seed"


def check_round_trip(sandbox: Sandbox) -> str:
    """Weights go into files that anyone can open, and come back to the last bit."""
    pool = sandbox.pool()
    names = sandbox.own_modules(pool)
    folder = sandbox.folder / "round_trip"
    with CheckpointManager(folder, pool) as checkpoints:
        checkpoints.start()
    for name in names:
        pool_name = FRZN if pool.is_frozen(name) else LAST
        torch.load(folder / pool_name / f"{name}.pt", weights_only=True)
    other = sandbox.pool(seed=1)
    with CheckpointManager(folder, other) as checkpoints:
        checkpoints.resume()
    before, after = digests_of_pool(pool), digests_of_pool(other)
    if differing := [name for name in names if before[name] != after[name]]:
        raise NonconformityError(
            f"{list_words(differing)} differ after they were saved and loaded: all that belongs to "
            "the weights has to be in the state dict"
        )
    return list_words(names)


def check_worker(sandbox: Sandbox) -> str:
    """Modules can be sent to a worker process, as data loaders do."""
    pool = sandbox.pool()
    names = sandbox.own_modules(pool)
    if not names:
        return "none to send"
    if parametrized := [name for name in names if any(map(is_parametrized, pool[name].modules()))]:
        return f"not looked at: torch pickles no parametrized modules, {list_words(parametrized)}"
    file = sandbox.folder / "modules.pickle"
    try:
        file.write_bytes(pickle.dumps({name: pool[name] for name in names}))
    # Pickling runs the modules' code: what it raises is anything.
    except Exception as error:
        raise NonconformityError(
            f"pickling {list_words(names)} raises {type(error).__name__}: {error}; functions "
            "and classes have to be defined at the top of a file"
        ) from error
    found = probe.ask("digests", pickled=str(file))
    if found is None:
        raise NonconformityError(f"another process cannot unpickle {list_words(names)}")
    digests = digests_of_pool(pool)
    if differing := [name for name in names if found[name] != digests[name]]:
        raise NonconformityError(f"{list_words(differing)} arrive changed in another process")
    return list_words(names)


def check_training(sandbox: Sandbox) -> str:
    """A run with it continues exactly where it stopped, and trains others as one without it."""
    whole = sandbox.train("whole", 7)
    for steps in (2, 4, 6):
        sandbox.train("stopped", steps)
    stopped = sandbox.train("stopped", 7)
    if fault := _first_difference(whole, stopped):
        raise NonconformityError(
            f"a run that stopped and continued is not the run that did not: {fault}; what a plugin "
            "remembers belongs into run.state, or its state_dict() and load_state_dict(state)"
        )
    alone = sandbox.train("alone", 7, has_plugin=False)
    if fault := _first_difference(alone, whole):
        raise NonconformityError(f"it changes the training of modules of others: {fault}")
    return "7 steps, stopped after 2, 4 and 6: the same to the last bit"


def _first_difference(one: TrainedSteps, other: TrainedSteps) -> str | None:
    """Compare the modules of ``one``, which ``other`` may have more of, and the metrics."""
    first, second = digests_of_pool(one.pool), digests_of_pool(other.pool)
    if differing := [name for name in first if first[name] != second[name]]:
        return f"module {list_words(differing)} differs"
    for row, other_row in zip(one.rows, other.rows, strict=True):
        if row != other_row:
            return f"metrics {_show(row)} and {_show(other_row)}"
    return None


def _show(row: Mapping[str, Any]) -> str:
    return f"{row['metrics']} of epoch {row['epoch']} ({row['phase']})"


CHECKS = (
    Check("hooks", check_hooks, is_needed=True),
    Check("settings", check_settings),
    Check("modules", check_specs, is_needed=True),
    Check("discovery", check_discovery),
    Check("surroundings", check_surroundings),
    Check("build", check_build, is_needed=True),
    Check("checkpoints", check_round_trip),
    Check("worker process", check_worker),
    Check("training", check_training),
)
