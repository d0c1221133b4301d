"""Several processes that train together: real ones, started by torch's launcher.

As a script it trains a list of cases one after the other in one group, which saves their starts.
"""

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterable
from pathlib import Path

import pytest
import torch

from pymodules_core import PoolReader, Processes, Trainer
from pymodules_core.errors import RunInterruptedError
from pymodules_core.training.run_output.console import SilentPrinter

EXAMPLES = Path(__file__).parents[1] / "data" / "experiments"
KINDS = ("ddp", "fsdp")
STOP_HOOK = """

def train_step_finished(run):
    import os, signal

    if run.step == int(os.environ.get("STOP_AT", "0")) and run.rank == run.world_size - 1:
        os.kill(os.getpid(), signal.SIGTERM)
"""
TIMEOUT_S = 300


def launch(count: int, *command: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run a Python script or module in ``count`` processes of one group."""
    return subprocess.run(
        [
            *(sys.executable, "-m", "torch.distributed.run", "--standalone"),
            *("--nproc-per-node", str(count), *command),
        ],
        capture_output=True,
        text=True,
        check=False,
        timeout=TIMEOUT_S,
        env={
            **os.environ,
            "OMP_NUM_THREADS": "1",
            "CUDA_VISIBLE_DEVICES": "",
            **environment,
        },
    )


def run_script(count: int, script: Path, *arguments: str) -> list[str]:
    """Run a script in several processes, which has to succeed; give the lines they print."""
    result = launch(count, str(script), *arguments)
    assert result.returncode == 0, result.stderr[-4000:]
    return result.stdout.splitlines()


def case(
    path: Path, *, existing: str = "refuse", stop_at: int = 0, **overrides: object
) -> dict[str, object]:
    """Describe one training.

    Args:
        path: The experiment.
        existing: As for ``Trainer``.
        stop_at: The step after which the last process gets a signal to stop, of an experiment
            that ``stoppable`` made so.
        overrides: With ``__`` in their names for a dot.
    """
    named = {key.replace("__", "."): value for key, value in overrides.items()}
    return {"experiment": str(path), "existing": existing, "overrides": named, "stop_at": stop_at}


def train_cases(count: int, cases: list[dict[str, object]], folder: Path) -> None:
    """Train each case in ``count`` processes."""
    file = folder / f"cases_{count}.json"
    file.write_text(json.dumps(cases))
    run_script(count, Path(__file__), str(file))


def train_alone(one: dict[str, object]) -> None:
    """Train a case in this process."""
    _train(one, Processes.alone())


def _train(one, processes: Processes) -> None:
    os.environ["STOP_AT"] = str(one["stop_at"])
    trainer = Trainer(
        one["experiment"],
        overrides=one["overrides"],
        existing=one["existing"],
        reporter=SilentPrinter(),
        processes=processes,
    )
    if one["stop_at"]:
        with pytest.raises(RunInterruptedError):
            trainer.fit()
    else:
        trainer.fit()


def stoppable(path: Path) -> Path:
    """Let the last process of an experiment get a signal after the step that ``STOP_AT`` says."""
    with (path / "pymodules" / "task.py").open("a") as task:
        task.write(STOP_HOOK)
    return path


def shared(kind: str, *, sharded: bool = False) -> dict[str, object]:
    """Return overrides by which processes share the classifier's modules."""
    return {
        "modules__settings__encoder__parallel": {"kind": kind, "sync_batch_norm": True},
        "modules__settings__head__parallel": kind,
        "modules__settings__encoder__sharded": sharded,
        "modules__settings__head__sharded": sharded,
    }


def copy_example(home: Path, name: str) -> Path:
    """Copy the classifier as it is, with its dropout."""
    target = home / "experiments" / name
    ignored = shutil.ignore_patterns("data", "data.*")
    shutil.copytree(EXAMPLES / "digits_classifier", target, ignore=ignored)
    return target


def exact_example(home: Path, example: str, name: str) -> Path:
    """Copy an example as one whose result depends on no random number of a step, in float64.

    Rounding then moves weights by some 1e-12, and what is computed wrongly by far more.
    """
    target = home / "experiments" / name
    shutil.copytree(EXAMPLES / example, target, ignore=shutil.ignore_patterns("data", "data.*"))
    for file in (target / "pymodules" / "modules").glob("[!_]*.py"):
        text = re.sub(r"Dropout\([^)]*\)", "Dropout(0.0)", file.read_text())
        if "def build" in text:
            text += "\n\nbuild_single = build\n\n\ndef build(**arguments):\n"
            text += "    return build_single(**arguments).double()\n"
        else:
            text += "\nmodule = module.double()\n"
        file.write_text(text)
    task = target / "pymodules" / "task.py"
    text = task.read_text().replace("float32", "float64").replace(".float().", ".double().")
    # Noise that comes with the batch: the same for a sample in whichever process it is.
    text = text.replace(
        "torch.randn(len(images), NOISE_SIZE, device=run.device)",
        "(images.flatten(1).repeat(1, 2)[:, :NOISE_SIZE] * 37).sin()",
    )
    text = text.replace("generator=fixed)", "generator=fixed, dtype=torch.float64)")
    task.write_text(text)
    return target


def weights_of(path: Path, pool: str = "last") -> dict[str, torch.Tensor]:
    """Return all tensors of a pool by module and key."""
    found = PoolReader(path / "data" / "module_ckps").read(pool)
    return {
        f"{name}.{key}": value for name, one in found.items() for key, value in one.state.items()
    }


def rows_of(path: Path) -> list[dict[str, object]]:
    """Return the rows of ``metrics.jsonl``."""
    lines = (path / "data" / "metrics.jsonl").read_text().splitlines()
    return [json.loads(line) for line in lines]


def assert_close(path: Path, other: Path, *, tolerance: float) -> None:
    """Compare the weights and metrics of two runs."""
    found, expected = weights_of(path), weights_of(other)
    assert found.keys() == expected.keys()
    assert found
    for key, value in expected.items():
        torch.testing.assert_close(found[key], value, rtol=tolerance, atol=tolerance, msg=key)
    assert len(rows_of(path)) == len(rows_of(other))
    for row, expected_row in zip(rows_of(path), rows_of(other), strict=True):
        assert row["metrics"].keys() == expected_row["metrics"].keys()
        for name, value in expected_row["metrics"].items():
            assert row["metrics"][name] == pytest.approx(value, rel=tolerance, abs=tolerance)


def assert_same_bits(path: Path, other: Path) -> None:
    """Compare two runs bit by bit: all pools, and the whole log."""
    pools = PoolReader(other / "data" / "module_ckps").pools()
    assert PoolReader(path / "data" / "module_ckps").pools() == pools
    for pool in pools:
        found, expected = weights_of(path, pool), weights_of(other, pool)
        assert found.keys() == expected.keys()
        assert all(torch.equal(found[key], value) for key, value in expected.items()), pool
    assert rows_of(path) == rows_of(other)


def differing(names: Iterable[str], compare: Callable[[str], None]) -> dict[str, str]:
    """Return what ``compare`` finds different, by name: one launch trains many cases."""
    found = {}
    for name in names:
        try:
            compare(name)
        except AssertionError as error:
            found[name] = str(error)
    return found


def main() -> None:
    """Train the cases of a file in the processes that the launcher started."""
    with Processes.join() as processes:
        for one in json.loads(Path(sys.argv[1]).read_text()):
            _train(one, processes)


if __name__ == "__main__":
    main()
