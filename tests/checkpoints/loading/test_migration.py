"""Weights whose layout a plugin changed between versions: told, migrated, or refused."""

import inspect
import json
import logging
from textwrap import dedent

import pytest
import torch
from plugin_cases import Site
from support import TINY_MODULE, TINY_TASK, write_experiment
from torch import nn

from pymodules_core import (
    CheckpointManager,
    ModulePool,
    ModuleSpec,
    PoolReader,
    Trainer,
    load_initial_weights,
    read_state_dict,
)
from pymodules_core.checkpoints.file_format.digest import Content
from pymodules_core.checkpoints.store.paths import Layout
from pymodules_core.checkpoints.store.records import readable_records
from pymodules_core.checkpoints.tools.export import export_modules
from pymodules_core.errors import (
    CheckpointFileError,
    InvalidSpecError,
    PluginError,
    WeightMismatchError,
)
from pymodules_core.hookspecs import ModuleHooks
from pymodules_core.run_files import checkpoints_dir
from pymodules_core.training.run_output.console import SilentPrinter

# One layer; from version 2 on it is called `stem`, from version 3 on its bias is twice as long.
PLUGIN = """
from collections import OrderedDict

import torch
from torch import nn
from pymodules_core import ModuleSpec, hookimpl

VERSION = {version}
calls = []


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        name = "stem" if VERSION > 1 else "first"
        self.add_module(name, nn.Linear(4, 1))
        self.offset = nn.Parameter(torch.zeros(2 if VERSION > 2 else 1))

    def forward(self, inputs):
        layer = self.stem if VERSION > 1 else self.first
        return layer(inputs) + self.offset.mean()


@hookimpl
def provide_module(context):
    return ModuleSpec(
        name="net", factory="acme_nets:Net", settings={settings}, state_version=VERSION
    )
"""
HOOK = """

@hookimpl
def migrate_state(module_name, state, from_version, to_version):
    calls.append((module_name, sorted(state), from_version, to_version))
    if from_version < 2:
        for part in ("weight", "bias"):
            state[f"stem.{part}"] = state.pop(f"first.{part}")
    if from_version < 3 <= to_version:
        state["offset"] = state["offset"].repeat(2)
    return state
"""
TASK = TINY_TASK.replace("SGD(", "torch.optim.Adam(")
LEARNED = {"first.weight", "first.bias", "offset"}


@pytest.fixture
def site(tmp_path, monkeypatch):
    site = Site(tmp_path / "site", monkeypatch)
    yield site
    site.close()


@pytest.fixture
def acme(site):
    """Install a release of acme-nets and give it: ``acme(2)`` has version 2.0 and layout 2."""

    def install(version: int, *, hook: str = HOOK, settings=None, release: str | None = None):
        source = PLUGIN.format(version=version, settings=settings or {}) + hook
        site.install("acme-nets", source, version=release or f"{version}.0")

    return install


@pytest.fixture
def path(home):
    """An experiment whose only module is the plugin's."""
    return write_experiment(
        home,
        modules={"_none": ""},
        task=TASK,
        toml="[train]\nepochs = 2\nbatch_size = 16\n[checkpoints]\nasynchronous = false\n",
    )


def fit(path, **options):
    return Trainer(path, reporter=SilentPrinter(), **options).fit()


def go_on(path, epochs):
    overrides = {"train.epochs": epochs}
    return fit(path, existing="resume", accept_changes=True, overrides=overrides)


def calls():
    import acme_nets

    return acme_nets.calls


def weights(path, pool, module="net"):
    return torch.load(checkpoints_dir(path) / pool / f"{module}.pt", weights_only=True)


def version_of(state):
    return state._metadata[""].get("pymodules_state_version")


def pool_and_manager(path):
    pool = ModulePool.discover(path)
    return pool, CheckpointManager(checkpoints_dir(path), pool)


def digest(module):
    return Content(module.state_dict()).digest_now()


@pytest.mark.parametrize("version", [0, -1, True, "2", 1.0, None])
def test_a_version_is_a_whole_number_from_one_on(version):
    with pytest.raises(InvalidSpecError) as caught:
        ModuleSpec(name="net", factory="torch.nn:Identity", state_version=version)

    assert str(caught.value) == (
        "state_version of module 'net': expected a whole number from 1 on, "
        f"found {version!r}\n"
        "  fix: count the layouts of the module's weights from 1"
    )


def test_files_of_version_one_are_what_torch_save_writes_of_the_state_dict(acme, path):
    acme(1)
    pool, manager = pool_and_manager(path)
    with manager as checkpoints:
        checkpoints.start()

    state = weights(path, "last")
    assert version_of(state) is None
    assert state._metadata == pool.net.state_dict()._metadata
    (record,) = readable_records(Layout(checkpoints_dir(path)))
    assert record.pools["last"].modules == {"net": digest(pool.net)}


def test_the_version_is_in_every_file_and_the_file_stays_a_plain_state_dict(acme, path, tmp_path):
    acme(2)
    pool, manager = pool_and_manager(path)
    with manager as checkpoints:
        checkpoints.start()
    stored = PoolReader(checkpoints_dir(path)).read("last")
    export_modules(stored, tmp_path / "out", format_="pt", is_merged=False)

    files = (checkpoints_dir(path) / "last" / "net.pt", tmp_path / "out" / "net.pt")
    for state in (torch.load(file, weights_only=True) for file in files):
        assert version_of(state) == 2
        assert pool.net.load_state_dict(state).missing_keys == []
    assert version_of(pool.net.state_dict()) is None


def test_a_run_continues_with_migrated_weights_and_saves_the_new_version(acme, path):
    acme(1)
    fit(path)
    before = weights(path, "last")
    acme(3)

    result = go_on(path, 3)

    assert result.epochs == 3
    assert calls() == [("net", ["first.bias", "first.weight", "offset"], 1, 3)]
    assert set(weights(path, "last")) == {"stem.weight", "stem.bias", "offset"}
    assert version_of(weights(path, "last")) == 3
    # What is not saved again is as it was written.
    assert torch.equal(weights(path, "epoch_2")["first.weight"], before["first.weight"])
    assert version_of(weights(path, "epoch_2")) is None
    go_on(path, 4)
    assert len(calls()) == 1


def test_a_rename_that_is_migrated_trains_on_as_if_nothing_had_happened(acme, home):
    renamed, whole = (
        write_experiment(home, name, modules={"_none": ""}, task=TASK)
        for name in ("renamed", "whole")
    )
    acme(1)
    fit(renamed)
    fit(whole)
    go_on(whole, 4)
    acme(2)

    go_on(renamed, 4)

    after, expected = weights(renamed, "last"), weights(whole, "last")
    for part in ("weight", "bias"):
        assert torch.equal(after[f"stem.{part}"], expected[f"first.{part}"])
    assert torch.equal(after["offset"], expected["offset"])


def test_optimizer_state_of_what_a_migration_changed_starts_over_and_is_reported(
    acme, path, caplog
):
    acme(1)
    fit(path)
    acme(3)

    go_on(path, 3)

    assert [m for m in caplog.messages if "optimizer" in m] == [
        "optimizer 'main': no state for net.offset: it starts without state"
    ]


def test_optimizer_state_of_what_a_migration_removed_is_dropped_and_reported(acme, path, caplog):
    acme(1)
    fit(path)
    hook = HOOK.replace(
        "    return state", '    state["stem.weight"] = state["stem.weight"] + 1\n    return state'
    )
    acme(2, hook=hook)

    go_on(path, 3)

    told = [m for m in caplog.messages if "optimizer" in m]
    assert told == [
        "optimizer 'main': no state for net.stem.weight: it starts without state",
        "optimizer 'main': no parameter for the state of net.first.weight",
    ]


def test_gradients_of_an_open_window_follow_a_rename(acme, home, monkeypatch):
    task = TASK + (
        "\n\nimport os\n\n"
        "def train_step_finished(run):\n"
        "    if os.environ.get('STOP') and run.step == 5:\n"
        "        raise RuntimeError('the power is gone')\n"
    )
    toml = (
        "[train]\nepochs = 2\nbatch_size = 16\n[optimizers.main]\naccumulate = 2\n"
        "[checkpoints]\nevery_n_steps = 1\nasynchronous = false\n"
    )
    renamed, whole = (
        write_experiment(home, name, modules={"_none": ""}, task=task, toml=toml)
        for name in ("renamed", "whole")
    )
    acme(1)
    monkeypatch.setenv("STOP", "1")
    for one in (renamed, whole):
        with pytest.raises(Exception, match="the power is gone"):
            fit(one)
    monkeypatch.delenv("STOP")
    go_on(whole, 2)
    acme(2)

    go_on(renamed, 2)

    assert torch.equal(
        weights(renamed, "last")["stem.weight"], weights(whole, "last")["first.weight"]
    )


def test_pools_of_older_commits_are_migrated_each_by_its_own_version(acme, path):
    acme(1)
    fit(path)
    acme(2)
    go_on(path, 3)

    pool, manager = pool_and_manager(path)
    with manager as checkpoints:
        reports = [checkpoints.load(name)["net"] for name in ("epoch_1", "epoch_3", "init")]

    assert [report.migration and report.migration.from_version for report in reports] == [
        1,
        None,
        1,
    ]
    assert str(reports[0]) == "net: 3 tensors loaded, 100%, migrated from version 1"
    assert torch.equal(pool.net.stem.weight, weights(path, "init")["first.weight"])


def test_a_frozen_module_is_migrated_each_time_and_its_file_stays(acme, home):
    modules = {"net_of_files": TINY_MODULE}
    task = TINY_TASK.replace("module_pool.net", "module_pool.net_of_files")
    path = write_experiment(home, modules=modules, task=task)
    settings = {"frozen": True}
    acme(1, settings=settings)
    fit(path)
    before = (checkpoints_dir(path) / "frzn" / "net.pt").read_bytes()
    acme(3, settings=settings)

    go_on(path, 3)
    assert len(calls()) == 1
    go_on(path, 5)

    assert len(calls()) == 2
    assert (checkpoints_dir(path) / "frzn" / "net.pt").read_bytes() == before


def test_initial_weights_of_another_experiment_are_migrated(acme, home, path):
    acme(1)
    fit(path)
    source = {"exp_name": path.name, "ckp_pool_name": "best", "module_name": "net"}
    acme(2, settings={"load_weights_from_exp": source})
    other = write_experiment(home, "other", modules={"_none": ""}, task=TASK)

    fit(other)

    assert torch.equal(weights(other, "init")["stem.weight"], weights(path, "best")["first.weight"])
    (told,) = json.loads((other / "data" / "run.json").read_text())["initial_weights"]
    assert told["migrated_from"] == 1


@pytest.mark.parametrize("format_", ["pt", "safetensors"])
@pytest.mark.parametrize("is_merged", [False, True], ids=["apart", "merged"])
def test_initial_weights_from_an_exported_file_keep_their_version(
    acme, home, path, format_, is_merged
):
    acme(2)
    fit(path)
    file = home / "module_ckps" / f"net.{format_}"
    target = file if is_merged else file.parent
    export_modules(
        PoolReader(checkpoints_dir(path)).read("last"),
        target,
        format_=format_,
        is_merged=is_merged,
    )
    source = {"ckp_name": file.name} | ({"rename": {"net.": ""}} if is_merged else {})
    acme(3, settings={"load_weights_from_ckp": source})

    pool = ModulePool.discover(path)
    (report,) = load_initial_weights(pool)

    assert report.migration.from_version == 2
    assert torch.equal(pool.net.stem.weight, weights(path, "last")["stem.weight"])


def test_the_hook_comes_after_rename(acme, home, path):
    acme(1)
    torch.save(
        {f"old.{key}": value for key, value in ModulePool.discover(path).net.state_dict().items()},
        _ckps(home) / "net.pt",
    )
    source = {"ckp_name": "net.pt", "rename": {"old.": ""}}
    acme(2, settings={"load_weights_from_ckp": source})

    load_initial_weights(ModulePool.discover(path))

    assert calls() == [("net", ["first.bias", "first.weight", "offset"], 1, 2)]


def _ckps(home):
    folder = home / "module_ckps"
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def test_weights_without_the_hook_are_refused_with_the_version_the_run_had(acme, path):
    acme(1, hook="", release="1.4")
    fit(path)
    acme(2, hook="", release="2.0")

    pool, manager = pool_and_manager(path)
    before = digest(pool.net)
    with manager as checkpoints, pytest.raises(WeightMismatchError) as caught:
        checkpoints.resume()

    file = checkpoints_dir(path) / "last" / "net.pt"
    assert str(caught.value) == (
        f"{file}: weights of module 'net' have version 1 (the file names none), and acme-nets 2.0 "
        "(plugin) has version 2 and no migrate_state\n"
        "  fix: pip install acme-nets==1.4, which the run had, or implement migrate_state in "
        "acme-nets"
    )
    assert digest(pool.net) == before


def test_where_the_writer_is_not_known_no_version_is_made_up(acme, home, path):
    acme(1)
    torch.save(ModulePool.discover(path).net.state_dict(), _ckps(home) / "net.pt")
    acme(2, hook="", settings={"load_weights_from_ckp": {"ckp_name": "net.pt"}})

    with pytest.raises(WeightMismatchError) as caught:
        load_initial_weights(ModulePool.discover(path))

    assert caught.value.fix == (
        "install the version of acme-nets that wrote them, or implement migrate_state in acme-nets"
    )


def test_a_version_that_is_installed_is_not_advised(acme, path):
    acme(1, hook="", release="1.0")
    fit(path)
    acme(2, hook="", release="1.0")

    _, manager = pool_and_manager(path)
    with manager as checkpoints, pytest.raises(WeightMismatchError) as caught:
        checkpoints.load("last")

    assert caught.value.fix == (
        "install the version of acme-nets that wrote them, or implement migrate_state in acme-nets"
    )


def test_weights_newer_than_the_plugin_are_refused(acme, path):
    acme(3)
    fit(path)
    acme(2)

    pool, manager = pool_and_manager(path)
    before = digest(pool.net)
    with manager as checkpoints, pytest.raises(WeightMismatchError) as caught:
        checkpoints.load("best")

    file = checkpoints_dir(path) / "best" / "net.pt"
    assert str(caught.value) == (
        f"{file}: weights of module 'net' have version 3, and acme-nets 2.0 (plugin) knows "
        "versions up to 2: the plugin is older than the file\n"
        "  fix: pip install -U acme-nets"
    )
    assert digest(pool.net) == before


@pytest.mark.parametrize(
    ("body", "message", "fix"),
    [
        (
            "raise KeyError('stem')",
            "migrate_state of plugin acme-nets 2.0 (plugin) raises KeyError: 'stem' "
            "(module 'net', version 1 to 2)",
            "report it to acme-nets; no module was changed",
        ),
        (
            "raise SystemExit(3)",
            "migrate_state of plugin acme-nets 2.0 (plugin) raises SystemExit: 3 "
            "(module 'net', version 1 to 2)",
            "report it to acme-nets; no module was changed",
        ),
        (
            "state.clear()",
            "migrate_state of plugin acme-nets 2.0 (plugin) gives None, expected a dict of keys "
            "and tensors (module 'net', version 1 to 2)",
            "return the state",
        ),
        (
            "return list(state)",
            "migrate_state of plugin acme-nets 2.0 (plugin) gives list, expected a dict of keys "
            "and tensors (module 'net', version 1 to 2)",
            "report it to acme-nets",
        ),
        (
            "return {**state, 3: None}",
            "migrate_state of plugin acme-nets 2.0 (plugin) gives a key of type int, expected a "
            "dict of keys and tensors (module 'net', version 1 to 2)",
            "report it to acme-nets",
        ),
    ],
)
def test_a_hook_that_fails_is_named_and_changes_nothing(acme, path, body, message, fix):
    acme(1)
    fit(path)
    before = weights(path, "last")
    acme(2, hook=f"\n\n@hookimpl\ndef migrate_state(state):\n    {body}\n")

    pool, manager = pool_and_manager(path)
    live = digest(pool.net)
    with manager as checkpoints, pytest.raises(PluginError) as caught:
        checkpoints.resume()

    assert (caught.value.what, caught.value.fix) == (message, fix)
    assert digest(pool.net) == live
    assert torch.equal(weights(path, "last")["first.weight"], before["first.weight"])


def test_a_result_that_does_not_fit_is_shown_with_the_version_it_came_from(acme, path):
    acme(1)
    fit(path)
    acme(2, hook="\n\n@hookimpl\ndef migrate_state(state):\n    return state\n")

    pool, manager = pool_and_manager(path)
    live = digest(pool.net)
    with manager as checkpoints, pytest.raises(WeightMismatchError) as caught:
        checkpoints.load("last", strict=True)

    lines = str(caught.value).splitlines()
    assert lines[0].endswith(
        "weights do not fit module 'net', although its plugin migrated them from version 1 to 2:"
    )
    assert "  first.weight: not in the module" in lines
    assert lines[-1] == (
        "  fix: report it to the plugin: its migrate_state has to give the keys and shapes of "
        "version 2"
    )
    assert digest(pool.net) == live


def test_the_hook_of_another_plugin_is_not_asked(acme, site, path):
    acme(1)
    fit(path)
    site.install("acme-other", "import acme_nets\nfrom pymodules_core import hookimpl\n" + HOOK)
    acme(2, hook="")

    _, manager = pool_and_manager(path)
    with manager as checkpoints, pytest.raises(WeightMismatchError):
        checkpoints.resume()


def test_the_hook_gets_a_copy_that_no_file_lies_behind(acme, path):
    acme(1)
    fit(path)
    hook = HOOK.replace(
        "    return state",
        "    calls.append([v.untyped_storage().filename for v in state.values()])\n"
        "    [v.fill_(7) for v in state.values()]\n    return state",
    )
    acme(2, hook=hook)

    pool, manager = pool_and_manager(path)
    with manager as checkpoints:
        checkpoints.load("last")

    assert calls()[1] == [None, None, None]
    assert pool.net.stem.weight.eq(7).all()
    assert not weights(path, "last")["first.weight"].eq(7).any()


def test_optimizer_state_of_what_the_hook_changed_in_place_starts_over(acme, path, caplog):
    acme(1)
    fit(path)
    acme(2, hook=HOOK.replace("    return state", '    state["offset"].add_(1)\n    return state'))

    go_on(path, 3)

    assert [m for m in caplog.messages if "optimizer" in m] == [
        "optimizer 'main': no state for net.offset: it starts without state"
    ]


def test_the_hook_draws_from_a_stream_of_its_own_and_records_no_gradient(acme, path):
    acme(1)
    fit(path)
    acme(
        2,
        hook=HOOK.replace(
            "    return state",
            '    assert not torch.is_grad_enabled()\n    state["offset"] = torch.rand(1)\n'
            "    return state",
        ),
    )
    found = []
    for seed in (0, 1):
        pool, manager = pool_and_manager(path)
        with manager as checkpoints:
            torch.manual_seed(seed)
            expected = torch.rand(3)
            torch.manual_seed(seed)
            checkpoints.load("last")

            assert torch.equal(torch.rand(3), expected)
        found.append(pool.net.offset.detach().clone())

    assert torch.equal(*found)


def test_versions_of_another_provider_say_nothing(acme, home, path):
    acme(3)
    fit(path)
    source = {"exp_name": path.name, "ckp_pool_name": "last", "module_name": "net"}
    modules = {
        "net": f"""
            from torch import nn
            from acme_nets import Net

            module = Net()
            settings = {{"load_weights_from_exp": {source!r}}}
        """
    }
    toml = '[modules.override]\nnet = "files"\n'
    other = write_experiment(home, "other", modules=modules, task=TASK, toml=toml)

    pool = ModulePool.discover(other)
    (report,) = load_initial_weights(pool)

    assert report.migration is None
    assert torch.equal(pool.net.stem.weight, weights(path, "last")["stem.weight"])
    with CheckpointManager(home / "out", pool) as checkpoints:
        checkpoints.start()
    assert version_of(torch.load(home / "out" / "last" / "net.pt", weights_only=True)) is None


def test_weights_of_another_plugin_are_compared_as_they_are(acme, site, home, path):
    acme(3)
    fit(path)
    source = {"exp_name": path.name, "ckp_pool_name": "last", "module_name": "net"}
    site.install(
        "acme-other",
        f"""
        from pymodules_core import ModuleSpec, hookimpl

        @hookimpl
        def provide_module(context):
            settings = {{"load_weights_from_exp": {source!r}}}
            return ModuleSpec(
                name="other", factory="acme_nets:Net", settings=settings, state_version=2
            )
        """,
    )
    other = write_experiment(home, "other", modules={"_none": ""}, task=TASK)

    pool = ModulePool.discover(other)
    (report,) = load_initial_weights(pool)

    assert report.migration is None
    assert torch.equal(pool.other.stem.weight, weights(path, "last")["stem.weight"])


def test_a_mark_that_is_not_a_version_is_refused(acme, home, path):
    acme(2)
    state = ModulePool.discover(path).net.state_dict()
    state._metadata[""]["pymodules_state_version"] = "two"
    torch.save(state, _ckps(home) / "net.pt")
    acme(2, settings={"load_weights_from_ckp": {"ckp_name": "net.pt"}})

    with pytest.raises(CheckpointFileError) as caught:
        load_initial_weights(ModulePool.discover(path))

    assert "pymodules_state_version is 'two', expected a whole number from 1 on" in str(
        caught.value
    )


def test_versions_of_torchs_own_parts_stay_those_of_the_file(acme, home, path):
    acme(1)
    state = ModulePool.discover(path).net.state_dict()
    state._metadata[""]["version"] = 7
    torch.save(state, _ckps(home) / "net.pt")
    acme(2, settings={"load_weights_from_ckp": {"ckp_name": "net.pt"}})
    pool = ModulePool.discover(path)
    seen = []
    for part in (pool.net, pool.net.stem):
        part.register_load_state_dict_pre_hook(lambda *given: seen.append((given[2], given[3])))

    load_initial_weights(pool)

    assert [(prefix, facts["version"]) for prefix, facts in seen] == [("", 7), ("stem.", 1)]


def test_a_migration_is_reported(acme, path, caplog):
    acme(1)
    fit(path)
    acme(2)

    with caplog.at_level(logging.INFO, logger="pymodules_core"):
        go_on(path, 3)

    assert "weights of module 'net': migrated from version 1 to 2 by acme-nets 2.0 (plugin)" in (
        caplog.messages
    )


def test_a_program_s_own_modules_have_version_one():
    pool = ModulePool.from_modules({"net": nn.Linear(2, 2)})

    assert pool.entries["net"].state_version == 1
    assert pool.entries["net"].migrator is None


def test_the_documented_plugin_migrates_from_every_version(site, home):
    documentation = inspect.getdoc(ModuleHooks.migrate_state) or ""
    example = dedent(documentation.partition("in two::\n")[2])
    nets = """
        from torch import nn

        def build():
            parts = {"stem": nn.Linear(3, 2, bias=False)}
            parts |= {name: nn.Linear(2, 2, bias=False) for name in ("query", "key")}
            return nn.ModuleDict(parts)
    """
    path = write_experiment(home, modules={"_none": ""})
    first = {"0.weight": torch.rand(2, 3), "attention.weight": torch.rand(4, 2)}
    torch.save(first, _ckps(home) / "first.pt")
    site.install("acme-encoders", example, files={"nets.py": nets})
    table = '[modules.settings.acme_encoder.load_weights_from_ckp]\nckp_name = "first.pt"\n'
    (path / "experiment.toml").write_text(table)

    pool = ModulePool.discover(path)
    (report,) = load_initial_weights(pool)

    assert report.migration.to_version == 3
    assert torch.equal(pool.acme_encoder["key"].weight, first["attention.weight"][2:])
    assert read_state_dict(home / "module_ckps" / "first.pt").keys() == first.keys()
