"""The log and ``run.json`` of a run whose files have second names, as ``cp -al`` makes them."""

import subprocess
from pathlib import Path

from support import write_experiment

from pymodules_core.cli.main import run


def test_a_run_beside_a_linked_copy_writes_its_own_files_only(home):
    write_experiment(home)
    assert run(["train", "tiny", "--epochs", "2"]) == 0
    data = Path("data/experiments/tiny/data")
    subprocess.run(["cp", "-al", "data", "copy"], check=True)
    copied = Path("copy/experiments/tiny/data")
    before = {name: (copied / name).read_bytes() for name in ("metrics.jsonl", "run.json")}

    assert run(["train", "tiny", "--resume", "--epochs", "4"]) == 0

    assert len((data / "metrics.jsonl").read_text().splitlines()) == 9
    assert {name: (copied / name).read_bytes() for name in before} == before
