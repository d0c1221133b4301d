"""Refuses to train with processes that differ: in files, plugins, settings, or initial weights."""

from collections.abc import Mapping
from typing import Any

import torch

from pymodules_core.checkpoints.file_format.digest import Content, memory_of
from pymodules_core.checkpoints.file_format.state_dict import live_state_dict
from pymodules_core.checkpoints.store.checksums import fingerprint
from pymodules_core.discovery import PluginManager, PluginState
from pymodules_core.discovery.plugins.distribution_files import digest_of_files, lock_distributions
from pymodules_core.errors import ProcessesError
from pymodules_core.experiment import Experiment
from pymodules_core.installed import versions
from pymodules_core.module_pool import ModulePool
from pymodules_core.processes.group import Processes
from pymodules_core.settings.structure import unstructure
from pymodules_core.specs import FileOrigin
from pymodules_core.training.preparation.torch_flags import torch_flags
from pymodules_core.training.run_output.code_snapshot import source_digests

_MOST_LINES = 8
_FIX = "let all machines see the same experiment, and install the same packages on each"
_FIX_SHAPES = (
    "let build and __init__ give the same module in each process: a size hangs on something that "
    "differs between them, such as the rank, the machine or its environment"
)
_FIX_WEIGHTS = (
    "let build and __init__ draw from torch, random or numpy, which are seeded, and from nothing "
    "else: no time, no id, no os.urandom"
)


def refuse_differences(
    processes: Processes, experiment: Experiment, plugins: PluginManager, pool: ModulePool
) -> None:
    """Compare what the processes are about to train.

    Raises:
        ProcessesError: They differ; in all of them, with the differences to the first.
        RankFailedError: In all but the first process.
    """
    if processes.is_alone:
        return
    facts = processes.run_on_all(lambda: _facts(experiment, plugins, pool))
    found = processes.gather(facts)
    first = found[0]
    differences: list[str] = []
    for rank, other in enumerate(found):
        for key in sorted(first.keys() | other.keys()):
            if first.get(key) != other.get(key):
                mine, theirs = first.get(key, "not there"), other.get(key, "not there")
                differences.append(f"{key}: {theirs} in process {rank}, {mine} in process 0")
    if not differences:
        return
    # Weights differ wherever files or shapes do; alone they say that a build is not a function of
    # its seed.
    others = [one for one in differences if not one.startswith("weights of ")]
    shapes = [one for one in others if one.startswith("tensor ")]
    relevant, fix = differences, _FIX_WEIGHTS
    if others:
        relevant, fix = others, _FIX_SHAPES if shapes == others else _FIX
    shown = relevant[:_MOST_LINES]
    more = len(relevant) - len(shown)
    text = "\n".join(f"  {line}" for line in shown) + (f"\n  … {more} more" if more else "")

    def refuse() -> None:
        raise ProcessesError(
            f"the processes differ, and would not train one model\n{text}",
            found=differences,
            fix=fix,
        )

    processes.run_on_rank0(refuse)


def _facts(experiment: Experiment, plugins: PluginManager, pool: ModulePool) -> dict[str, Any]:
    """Return what has to be equal, in words for a person."""
    facts: dict[str, Any] = {}
    facts |= {f"version of {name}": version for name, version in versions().items()}
    facts |= {f"torch flag {name}": repr(value) for name, value in torch_flags().items()}
    facts |= {f"file {name}": digest[:12] for name, digest in source_digests(experiment).items()}
    facts |= {
        f"plugin {record.name}": str(record.origin)
        for record in plugins.records
        # Files are compared by what they hold: their paths may differ between machines.
        if record.state is PluginState.ACTIVE and not isinstance(record.origin, FileOrigin)
    }
    locked = (one.to_json() for one in lock_distributions(pool.origins.values()))
    for one in locked:
        digest = digest_of_files(one["files"])[:12]
        facts[f"files of {one['distribution']}"] = f"{one['version']} ({digest})"
    facts |= _flat(unstructure(experiment.settings), "setting ")
    for name, entry in pool.entries.items():
        facts[f"module {name}"] = f"{type(entry.module).__name__} of {entry.origin.provider}"
        facts |= _flat(unstructure(entry.settings), f"settings of module {name}: ")
        state = live_state_dict(entry.module, name=name)
        facts |= {
            f"tensor {name}.{key}": f"{str(value.dtype).removeprefix('torch.')} {[*value.shape]}"
            for key, value in state.items()
            if isinstance(value, torch.Tensor)
        }
        facts[f"weights of {name}"] = _fingerprint(state)
    return facts


def _fingerprint(state: Mapping[str, Any]) -> str:
    content = Content(state)
    parts = [repr(content.outline).encode(), *(fingerprint(memory_of(t)) for t in content.tensors)]
    return fingerprint(memoryview(b"".join(parts))).hex()


def _flat(table: Any, prefix: str) -> dict[str, str]:
    if not isinstance(table, dict):
        return {prefix: repr(table)}
    found: dict[str, str] = {}
    for key, value in table.items():
        is_table = isinstance(value, dict)
        found |= _flat(value, f"{prefix}{key}.") if is_table else {f"{prefix}{key}": repr(value)}
    return found
