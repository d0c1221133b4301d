"""Workers of data loaders, and ranks of torchrun, see the plugins that their parent sees."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from support import GOOD_PLUGIN, start_command, write_experiment

from pymodules_core.testing import write_distribution

TASK = """
import json

import torch
from torch.optim import SGD
from torch.utils.data import DataLoader, Dataset

PATH = {path!r}


class Seen(Dataset):
    def __len__(self):
        return 4

    def __getitem__(self, index):
        from pymodules_core import ModulePool
        from pymodules_core.discovery import PluginManager, PluginState
        from pymodules_core.experiment import Experiment
        from pymodules_core.testing.digests import digests_of_pool

        experiment = Experiment.open(PATH)
        plugins = PluginManager.for_experiment(experiment)
        digests = digests_of_pool(ModulePool.discover(experiment, plugins=plugins))
        active = [r.name for r in plugins.records if r.state is PluginState.ACTIVE]
        text = json.dumps([torch.utils.data.get_worker_info().id, active, digests])
        return torch.tensor([*text.encode().ljust(2000)], dtype=torch.uint8)


def train_data():
    return DataLoader(Seen(), batch_size=1, num_workers=2, multiprocessing_context={method!r})


def optimizers(module_pool):
    return SGD(module_pool.net.parameters(), lr=0.1)


def run_started(run):
    from pymodules_core.testing.digests import digests_of_pool

    (run.data_dir / "parent.json").write_text(json.dumps(digests_of_pool(run.module_pool)))


def train_step(module_pool, batch, run):
    with (run.data_dir / "seen.jsonl").open("a") as file:
        file.write(bytes(batch[0].tolist()).decode() + "\\n")
    return module_pool.net(torch.zeros(1, 4)).sum() * 0
"""
RANK = """
import json
import os
import sys
from pathlib import Path

from pymodules_core import ModulePool
from pymodules_core.discovery import PluginManager
from pymodules_core.experiment import Experiment
from pymodules_core.testing.digests import digests_of_pool

experiment = Experiment.open(Path(sys.argv[1]))
plugins = PluginManager.for_experiment(experiment)
digests = digests_of_pool(ModulePool.discover(experiment, plugins=plugins))
seen = [sorted((r.name, r.state) for r in plugins.records), digests]
Path(sys.argv[2], f"rank_{os.environ['RANK']}.json").write_text(json.dumps(seen))
"""


@pytest.fixture
def site(tmp_path) -> Path:
    """A folder with a good plugin, one that a test keeps out, and a broken one."""
    folder = tmp_path / "site"
    write_distribution(folder, "acme-good", GOOD_PLUGIN)
    write_distribution(folder, "acme-other", GOOD_PLUGIN.replace('"good"', '"other"'))
    write_distribution(folder, "acme-broken", "raise ValueError('boom')")
    return folder


@pytest.mark.parametrize(
    ("method", "toml", "arguments", "active"),
    [
        ("fork", "", [], ["acme-good:plugin", "acme-other:plugin"]),
        ("spawn", '[plugins]\ndisable = ["acme-other"]\n', [], ["acme-good:plugin"]),
        ("fork", "", ["--no-plugins"], []),
    ],
    ids=["all", "disabled", "no plugins"],
)
def test_workers_see_what_the_run_sees(tmp_path, site, method, toml, arguments, active):
    path = write_experiment(tmp_path, toml=f"[train]\nepochs = 1\n{toml}")
    (path / "pymodules" / "task.py").write_text(TASK.format(path=str(path), method=method))

    result = start_command("train", str(path), *arguments, PYTHONPATH=str(site))

    assert result.returncode == 0, result.stderr
    rows = [json.loads(line) for line in (path / "data" / "seen.jsonl").read_text().splitlines()]
    parent = json.loads((path / "data" / "parent.json").read_text())
    plugins = json.loads((path / "data" / "run.json").read_text())["plugins"]
    assert [p["name"] for p in plugins if p["name"].startswith("acme")] == active
    assert {worker for worker, *_ in rows} == {0, 1}
    for _, names, digests in rows:
        assert [name for name in names if name.startswith("acme")] == active
        assert digests == parent


def test_ranks_of_torchrun_see_the_same(tmp_path, site):
    path = write_experiment(tmp_path, toml='[plugins]\ndisable = ["acme-other"]\n')
    script = tmp_path / "rank.py"
    script.write_text(RANK)

    start = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    environment = {"PYTHONPATH": str(site), "OMP_NUM_THREADS": "1", "PATH": "/usr/bin:/bin"}
    result = subprocess.run(
        [*start, script, path, tmp_path], env=environment, capture_output=True, check=False
    )

    assert result.returncode == 0, result.stderr.decode()
    first, second = (json.loads((tmp_path / f"rank_{n}.json").read_text()) for n in (0, 1))
    assert first == second
    assert ["acme-good:plugin", "active"] in first[0]
    assert ["acme-other:plugin", "disabled"] in first[0]
    assert ["acme-broken:plugin", "failed"] in first[0]
    assert sorted(first[1]) == ["good", "net"]
