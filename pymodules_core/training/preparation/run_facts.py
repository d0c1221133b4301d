"""What ``run.json`` and each commit say of how a run came about."""

import os
import platform
from collections.abc import Mapping
from typing import Any

import torch

from pymodules_core.checkpoints import LoadReport
from pymodules_core.checkpoints.saving.commits import git_commit
from pymodules_core.discovery import PluginState
from pymodules_core.discovery.plugins.distribution_files import digest_of_files, lock_distributions
from pymodules_core.discovery.plugins.task_file import TASK_NAME
from pymodules_core.errors import display_path
from pymodules_core.experiment import Experiment
from pymodules_core.installed import versions
from pymodules_core.settings.structure import unstructure
from pymodules_core.specs import FileOrigin, Origin
from pymodules_core.training.preparation.session import Session
from pymodules_core.training.preparation.torch_flags import torch_flags
from pymodules_core.training.run_output.code_snapshot import source_digests


def run_facts(session: Session) -> dict[str, Any]:
    """Return how a run came about: settings, modules, files, plugins, versions."""
    experiment, pool, plugins = session.experiment, session.pool, session.plugins
    files = plugins.files.executed() if plugins.files else {}
    task = [record.origin for record in plugins.records if record.name == TASK_NAME]
    return {
        "experiment": experiment.name,
        "seed": experiment.settings.train.seed,
        "device": str(session.run.device),
        "settings": unstructure(experiment.settings),
        "overrides": experiment.overrides,
        "modules": [
            {
                "name": name,
                "class": entry.kind.__name__,
                "frozen": entry.settings.frozen,
                "trained": any(one.requires_grad for one in entry.module.parameters()),
                "parameters": entry.parameter_count,
                "weights": entry.weights_text,
                "origin": _origin_facts(entry.origin, experiment, files),
            }
            for name, entry in pool.entries.items()
        ],
        "initial_weights": [_report_facts(report) for report in session.reports],
        "files": files,
        "sources": source_digests(experiment),
        "shared_parameters": pool.shared_parameters,
        "plugins": [
            {"name": record.name, **record.origin.to_json()}
            for record in plugins.records
            if record.state is PluginState.ACTIVE
        ],
        "distributions": [
            locked.to_json() for locked in lock_distributions([*pool.origins.values(), *task])
        ],
        "versions": versions(),
        "threads": torch.get_num_threads(),
        "torch_flags": torch_flags(),
        "processes": session.processes.size,
        "git_commit": git_commit(experiment.path),
        "process": os.getpid(),
        "host": platform.node(),
    }


def provenance_of(facts: Mapping[str, Any]) -> dict[str, Any]:
    """Return those of a run's facts that every commit keeps."""
    kept = (
        *("experiment", "seed", "device", "threads", "processes", "settings", "overrides"),
        *("sources", "plugins", "versions", "git_commit", "torch_flags"),
    )
    return {
        "modules": {module["name"]: module["origin"] for module in facts["modules"]},
        # A commit is small: run.json has the files.
        "distributions": {
            locked["distribution"]: digest_of_files(locked["files"])
            for locked in facts["distributions"]
        },
        **{key: facts[key] for key in kept},
    }


def _origin_facts(
    origin: Origin, experiment: Experiment, executed: Mapping[str, str]
) -> dict[str, str]:
    """Return an origin, a file with the digest of what ran and its path in the experiment."""
    if not isinstance(origin, FileOrigin):
        return origin.to_json()
    file = origin.file.relative_to(experiment.path)
    sha256 = executed[origin.file.relative_to(experiment.modules_dir.parent).as_posix()]
    return {"kind": "file", "file": file.as_posix(), "sha256": sha256}


def _report_facts(report: LoadReport) -> dict[str, Any]:
    return {
        "module": report.module_name,
        "source": display_path(report.source),
        "loaded": len(report.loaded),
        "missing": list(report.missing),
        "unexpected": list(report.unexpected),
        "mismatched": list(report.mismatched),
        "coverage": report.coverage,
        "migrated_from": report.migration and report.migration.from_version,
    }
