"""Of several processes that train, the first one logs, and nobody else."""

import json
import subprocess
import sys

import pytest

EVERY_STEP = '[plugins.settings.tensorboard]\nevery_n_steps = 1\nhistograms = ["net"]\n'
FSDP = '[modules.settings.net]\nparallel = "fsdp"\n'


@pytest.mark.parametrize("more", ["", FSDP], ids=["ddp", "fsdp"])
def test_two_processes_write_one_log(write, read, environment, more):
    path = write(settings=EVERY_STEP + more)

    result = subprocess.run(
        [sys.executable, "-m", "pymodules_core", "train", str(path), "--nproc", "2"],
        capture_output=True,
        text=True,
        check=False,
        env=environment,
    )

    assert result.returncode == 0, result.stderr
    assert "training continues without it" not in result.stderr
    assert len(list((path / "data" / "tensorboard").glob("events.*"))) == 1
    log = read(path)
    lines = map(json.loads, (path / "data" / "metrics.jsonl").read_text().splitlines())
    expected = {line["step"]: line["metrics"]["loss"] for line in lines if line["phase"] == "eval"}
    assert {e.step: e.value for e in log.Scalars("eval/loss")} == pytest.approx(expected)
    assert [event.step for event in log.Scalars("train/loss")] == list(range(1, 31))
    assert log.Tags()["histograms"]
    assert log.Tags()["images"] == ["images/predictions"]
