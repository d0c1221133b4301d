"""The conformance kit: a good plugin passes, and each way to be bad is found by its check."""

import subprocess
import sys

import attrs
import pytest
from support import GOOD_PLUGIN

from pymodules_core import ModuleSpec, hookimpl
from pymodules_core.cli.main import run
from pymodules_core.errors import PluginConformanceError, PluginError
from pymodules_core.testing import assert_plugin_conforms, check_plugin
from pymodules_core.testing.checks import CHECKS, check_surroundings
from pymodules_core.testing.sandbox import NonconformityError, Sandbox
from pymodules_core.testing.under_test import PluginUnderTest

HEAD = """
import attrs
import torch
from torch import nn
from pymodules_core import ModuleSpec, hookimpl

"""
AVERAGE = '''
import attrs
from pymodules_core import ModuleSpec, hookimpl

def build(module_pool):
    import copy
    return copy.deepcopy(module_pool["net"]).requires_grad_(False)

class Average:
    """An average of net."""

    @attrs.frozen
    class Settings:
        """Its table.

        Attributes:
            decay: How much of the average stays.
        """

        decay: float = 0.5

    def __init__(self, settings):
        self.decay = settings.decay
        self.updates = 0

    @hookimpl
    def provide_module(self, context):
        return ModuleSpec(name="average", factory=f"{__name__}:build", description="Of net.")

    @hookimpl
    def train_step_finished(self, run):
        import torch

        self.updates += 1
        weight = 1 - self.decay / self.updates
        with torch.no_grad():
            run.module_pool.average.weight.lerp_(run.module_pool.net.weight, weight)

    def state_dict(self):
        return {"updates": self.updates}

    def load_state_dict(self, state):
        self.updates = state["updates"]
'''


def provider(factory: str, more: str = "", name: str = "bad") -> str:
    return HEAD + (
        f"{more}\n@hookimpl\ndef provide_module(context):\n"
        f"    return ModuleSpec(name='{name}', factory={factory}, description='Bad.')\n"
    )


def find_fault(tmp_path, title: str, plugin: object = "acme-bad") -> str:
    """Make one check and return what it says."""
    (tested,) = PluginUnderTest.find(plugin, {})
    (check,) = [check for check in CHECKS if check.title == title]
    with pytest.raises(NonconformityError) as caught:
        check.run(Sandbox(tested, tmp_path / "sandbox"))
    return str(caught.value)


def test_a_plugin_with_settings_module_hook_and_state_conforms(install_distribution):
    install_distribution("acme-broken", "raise ValueError('boom')")
    install_distribution("acme-average", AVERAGE, target="acme_average:Average")

    found = list(check_plugin("acme-average", settings={"decay": 0.9}))

    assert found == [
        "hooks: provide_module, train_step_finished",
        "settings: decay",
        "modules: average",
        "discovery: no torch",
        "surroundings: unchanged by its import",
        "build: the same under one seed",
        "checkpoints: average",
        "worker process: average",
        "training: 7 steps, stopped after 2, 4 and 6: the same to the last bit",
    ]


def test_everything_that_is_wrong_is_listed_together(install_distribution):
    source = AVERAGE.replace("decay: How", "How").replace(', description="Of net."', "")
    source = source.replace("import attrs", "import attrs, torch", 1)
    install_distribution("acme-average", source, target="acme_average:Average")

    with pytest.raises(PluginConformanceError) as caught:
        assert_plugin_conforms("acme-average:plugin")

    assert isinstance(caught.value, AssertionError)
    assert str(caught.value) == (
        "plugin acme-average:plugin does not conform:\n"
        "  - settings: the docstring of Settings does not describe: decay; write Attributes: and "
        "a line 'decay: ...' for each\n"
        "  - modules: module 'average' has no description, which pymodules list shows; "
        "ModuleSpec(description=...)\n"
        "  fix: mend what is listed; each check is explained in the docs, on writing a plugin"
    )


def test_a_plugin_that_cannot_be_loaded_says_so_and_no_more(install_distribution):
    install_distribution("acme-bad", "raise ValueError('boom')")

    with pytest.raises(PluginConformanceError) as caught:
        assert_plugin_conforms("acme-bad")

    assert caught.value.found == [
        "hooks: ValueError: boom\n    fix: pip install -U acme-bad, or switch it off: [plugins] "
        'disable = ["acme-bad"]'
    ]


def test_a_disabled_plugin_is_reported_as_kept_out(install_distribution, monkeypatch):
    install_distribution("acme-good", GOOD_PLUGIN)
    monkeypatch.setenv("PYMODULES_DISABLE_PLUGINS", "acme-good")

    with pytest.raises(PluginConformanceError) as caught:
        assert_plugin_conforms("acme-good")

    assert caught.value.found == ["hooks: it is disabled: a setting or a variable keeps it out"]


def test_a_name_that_is_not_installed_is_reported_with_the_nearest(install_distribution):
    install_distribution("acme-good", GOOD_PLUGIN)

    with pytest.raises(PluginError) as caught:
        assert_plugin_conforms("acme-god")

    assert str(caught.value) == (
        "no installed plugin is called 'acme-god'; there are: acme-good:plugin\n"
        "  closest match: acme-good\n"
        "  fix: write 'acme-good'"
    )


def test_a_plugin_that_is_not_installed_is_tried_as_an_object(install_distribution):
    @attrs.frozen
    class LocalSettings:
        """Its table.

        Attributes:
            name: Of the module.
        """

        name: str = "local"

    class Local:
        Settings = LocalSettings

        def __init__(self, settings):
            self._name = settings.name

        @hookimpl
        def provide_module(self):
            return ModuleSpec(name=self._name, factory="torch.nn:Identity", description="None.")

    install_distribution("acme-broken", "raise ValueError('boom')")

    found = dict(line.split(": ", 1) for line in check_plugin(Local, settings={"name": "mine"}))

    assert found["modules"] == "mine"
    assert found["surroundings"] == "not looked at: no other process can import it by its name"
    assert found["worker process"] == "mine"


def test_modules_that_change_from_call_to_call_are_found(install_distribution, tmp_path):
    more = "import itertools\ncount = itertools.count()\n"
    source = provider("'torch.nn:Identity'", more).replace("'bad'", "f'bad_{next(count)}'")
    install_distribution("acme-bad", source)

    assert find_fault(tmp_path, "modules") == (
        "provide_module gives other modules the second time: bad_0, then bad_1"
    )


def test_a_version_without_a_way_to_it_is_found(install_distribution, tmp_path):
    source = provider("'torch.nn:Identity'").replace("name='bad'", "name='bad', state_version=2")
    install_distribution("acme-bad", source)

    assert find_fault(tmp_path, "modules") == (
        "bad have a state_version above 1, and there is no migrate_state for weights of older ones"
    )


def test_a_provider_that_raises_is_found(install_distribution, tmp_path):
    install_distribution("acme-bad", GOOD_PLUGIN.replace("return", "raise OSError('no disk')\n   "))

    assert find_fault(tmp_path, "modules") == "OSError: no disk"


def test_an_import_of_torch_for_a_list_is_found(install_distribution, tmp_path):
    install_distribution("acme-bad", provider("'torch.nn:Identity'"))

    assert find_fault(tmp_path, "discovery") == (
        "importing acme_bad imports torch, which makes pymodules list and --help slow: let the "
        "factory name what needs it, 'package.module:function'"
    )


def test_what_an_import_changes_is_found(install_distribution, tmp_path):
    changes = """
import logging, os, random, signal, sys, warnings

torch.set_default_dtype(torch.float64)
torch.manual_seed(7)
random.random()
os.environ["OMP_NUM_THREADS"] = "7"
warnings.simplefilter("ignore")
logging.basicConfig(level="DEBUG")
sys.path.insert(0, "/nowhere")
signal.signal(signal.SIGUSR1, signal.SIG_IGN)
"""
    install_distribution("acme-bad", provider("nn.Identity", changes))

    assert find_fault(tmp_path, "surroundings") == (
        "importing it changes the default dtype, sys.path, signal handlers, random stream of "
        "random, random stream of torch, environment, filters of warnings, root logger"
    )


def test_what_an_import_has_changed_in_this_process_already_is_found(
    install_distribution, tmp_path, monkeypatch
):
    monkeypatch.setenv("ACME_MODE", "unset")
    install_distribution(
        "acme-bad", provider("nn.Identity", "import os\nos.environ['ACME_MODE'] = 'set'\n")
    )
    (tested,) = PluginUnderTest.find("acme-bad", {})
    sandbox = Sandbox(tested, tmp_path / "sandbox")
    sandbox.plugins()

    with pytest.raises(NonconformityError, match="importing it changes the environment"):
        check_surroundings(sandbox)


def test_an_import_that_ends_the_process_is_found(install_distribution, tmp_path, monkeypatch):
    source = provider("nn.Identity", "import os\nif 'HOST' not in os.environ: os._exit(0)\n")
    install_distribution("acme-bad", source)
    (tested,) = PluginUnderTest.find("acme-bad", {})
    (check,) = [check for check in CHECKS if check.title == "surroundings"]

    with pytest.raises(NonconformityError) as caught:
        check.run(Sandbox(tested, tmp_path))

    assert str(caught.value) == "importing it ends the process"


def test_weights_that_no_seed_decides_are_found(install_distribution, tmp_path):
    more = (
        "import os\ndef build():\n    torch.manual_seed(int.from_bytes(os.urandom(4)))\n"
        "    return nn.Linear(2, 2)\n"
    )
    install_distribution("acme-bad", provider("build", more))

    assert find_fault(tmp_path, "build").startswith("built twice under one seed, bad differ: ")


def test_weights_that_do_not_come_back_are_found(install_distribution, tmp_path):
    more = (
        "class Leaky(nn.Linear):\n"
        "    def load_state_dict(self, state, *args, **kwargs):\n"
        "        return super().load_state_dict({'bias': state['bias']}, strict=False)\n"
    )
    install_distribution("acme-bad", provider("lambda: Leaky(2, 2)", more))

    assert find_fault(tmp_path, "checkpoints").startswith("bad differ after they were saved")


def test_modules_that_no_worker_can_take_are_found(install_distribution, tmp_path):
    more = "def build():\n    net = nn.Identity()\n    net.scale = lambda x: x\n    return net\n"
    install_distribution("acme-bad", provider("build", more))

    fault = find_fault(tmp_path, "worker process")
    assert fault.startswith("pickling bad raises ")
    assert fault.endswith("functions and classes have to be defined at the top of a file")


def test_modules_that_change_on_their_way_to_a_worker_are_found(install_distribution, tmp_path):
    more = (
        "class Odd(nn.Linear):\n"
        "    def __setstate__(self, state):\n"
        "        super().__setstate__(state)\n"
        "        self.bias.data += 1\n"
        "def build():\n    return Odd(2, 2)\n"
    )
    install_distribution("acme-bad", provider("build", more))

    assert find_fault(tmp_path, "worker process") == "bad arrive changed in another process"


def test_a_memory_that_is_lost_with_the_process_is_found(install_distribution, tmp_path):
    source = AVERAGE.replace("def state_dict", "def forgotten")
    install_distribution("acme-bad", source, target="acme_bad:Average")

    assert find_fault(tmp_path, "training").startswith(
        "a run that stopped and continued is not the run that did not: module average differs; "
    )


def test_a_plugin_that_touches_modules_of_others_is_found(install_distribution, tmp_path):
    source = HEAD + "@hookimpl\ndef weights_ready(run):\n    run.module_pool.net.weight.data += 1\n"
    install_distribution("acme-bad", source)

    assert find_fault(tmp_path, "training") == (
        "it changes the training of modules of others: module net differs"
    )


@pytest.mark.parametrize(
    "hook", ["train_step_finished", "epoch_finished", "image_logged", "run_failed"]
)
def test_a_hook_that_raises_is_found_although_training_continues(install_distribution, hook):
    source = HEAD + f"@hookimpl\ndef {hook}(run):\n    raise OSError('no disk')\n"
    install_distribution("acme-bad", source)

    with pytest.raises(PluginConformanceError) as caught:
        assert_plugin_conforms("acme-bad")

    assert f"{hook} of plugin acme-bad 1.0 (plugin) raises OSError: no disk" in str(caught.value)


def test_each_plugin_of_a_distribution_is_tried_to_the_end(install_distribution):
    info = install_distribution("acme-bad", provider("lambda: nn.Linear(2, 2)", name="one"))
    (info.parent / "acme_more.py").write_text(
        provider("nn.Identity", name="two").replace(", description='Bad.'", "")
    )
    with (info / "entry_points.txt").open("a") as file:
        file.write("more = acme_more\n")

    with pytest.raises(PluginConformanceError) as caught:
        assert_plugin_conforms("acme-bad")

    assert "module 'two' has no description" in str(caught.value)
    assert "acme-bad:more, acme-bad:plugin" in str(caught.value)


def test_modules_that_torch_itself_does_not_pickle_are_left_to_it(install_distribution, tmp_path):
    factory = "lambda: nn.utils.parametrizations.spectral_norm(nn.Linear(2, 2))"
    install_distribution("acme-norm", provider(factory))
    (tested,) = PluginUnderTest.find("acme-norm", {})
    (check,) = [check for check in CHECKS if check.title == "worker process"]

    assert check.run(Sandbox(tested, tmp_path)) == (
        "not looked at: torch pickles no parametrized modules, bad"
    )


def test_a_plugin_that_needs_settings_is_said_to_have_provided_nothing(install_distribution):
    source = GOOD_PLUGIN.replace("    return ", "    if context.settings:\n        return ")
    install_distribution("acme-shy", source)

    found = dict(line.split(": ", 1) for line in check_plugin("acme-shy"))

    assert found["modules"].startswith("none is provided with these settings")


def test_the_command_prints_what_it_finds(install_distribution, capsys):
    install_distribution("acme-average", AVERAGE, target="acme_average:Average")

    code = run(["check", "--plugin", "acme-average", "-s", "decay=0.25"])

    output = capsys.readouterr().out.splitlines()
    assert code == 0
    assert output[1] == "ok  settings: decay"
    assert len(output) == 10
    assert output[-1] == "acme-average fulfils all that a plugin has to"


def test_the_command_refuses_a_key_that_the_plugin_does_not_have(install_distribution, capsys):
    install_distribution("acme-average", AVERAGE, target="acme_average:Average")

    code = run(["check", "--plugin", "acme-average", "-s", "decy=0.25"])

    assert code == 2
    error = capsys.readouterr().err
    assert "plugins.settings.acme-average:plugin.decy: unknown key" in error
    assert "closest match: decay" in error


@pytest.mark.parametrize("arguments", [["check"], ["check", "tiny", "--plugin", "acme"]])
def test_the_command_wants_an_experiment_or_a_plugin(arguments, capsys):
    assert run(arguments) == 2
    assert "name either an experiment, or a plugin with --plugin NAME" in capsys.readouterr().err


def test_the_pytest_plugin_costs_other_test_runs_nothing():
    script = "import sys, pymodules_core.testing.plugin\nprint(*sys.modules)"

    result = subprocess.run([sys.executable, "-c", script], capture_output=True, check=True)

    names = set(result.stdout.decode().split())
    assert not names & {"torch", "cattrs", "click", "importlib_metadata", "pymodules_core.errors"}
