"""What is heavy is imported when a run starts."""

import subprocess
import sys


def test_listing_imports_neither_torch_nor_tensorboard(write, environment):
    path = write(settings='[plugins.settings.tensorboard]\nhistograms = ["net"]')
    program = (
        "import sys\n"
        "from pymodules_core.plugin_api import PluginManager\n"
        "from pymodules_core import Experiment\n"
        f"plugins = PluginManager.for_experiment(Experiment.open({str(path)!r}))\n"
        "names = {record.name: record.state for record in plugins.records}\n"
        "print(names['pymodules-tensorboard:tensorboard'].value)\n"
        "print({'torch', 'tensorboard', 'numpy'} & set(sys.modules))\n"
    )

    done = subprocess.run(
        [sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=True
    )

    assert done.stdout.splitlines() == ["active", "set()"]
