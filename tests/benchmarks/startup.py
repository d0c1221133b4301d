"""Times whole processes: ``--help`` and ``list`` beside ``import torch``, in interleaved rounds.

The experiment has 1,000 module files, and 300 distributions are installed, 20 of them plugins. Both
are made in a temporary folder. Before anything is timed, ``list`` runs under an audit hook: if it
imports torch or executes a module file, the script says so and exits with 1.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

import attrs
from tables import print_machine, print_table

MODULE_FILES = 1_000
DISTRIBUTIONS = 300
PLUGINS = 20
EXPERIMENT = "thousand"
_NO_BYTECODE = ("PYTHONDONTWRITEBYTECODE", "PYTHONPYCACHEPREFIX")
TORCH = 'python -c "import torch"'
TARGETS_S = {"pymodules --help": 0.15, "pymodules list EXP": 0.4, "pymodules list EXP --json": 0.4}

MODULE_FILE = '''"""Block {number}: a residual block with a projection where the width changes."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class Block{number}(nn.Module):
    """Two linear layers around a skip connection."""

    def __init__(self, width: int = {width}, out_width: int | None = None) -> None:
        super().__init__()
        out_width = out_width or width
        self.norm = nn.LayerNorm(width)
        self.expand = nn.Linear(width, 4 * width)
        self.reduce = nn.Linear(4 * width, out_width)
        self.project = nn.Identity() if out_width == width else nn.Linear(width, out_width)
        self.scale = nn.Parameter(torch.full((out_width,), 1 / math.sqrt(2)))

    def forward(self, inputs: Tensor) -> Tensor:
        """Map ``(batch, width)`` to ``(batch, out_width)``."""
        hidden = F.gelu(self.expand(self.norm(inputs)))
        return self.project(inputs) + self.scale * self.reduce(hidden)

    def widths(self) -> Sequence[int]:
        """Return the widths in the order of the layers."""
        return self.expand.in_features, self.expand.out_features, self.reduce.out_features


module = Block{number}()
{settings}
'''
FROM_EXP = """settings = {
    "load_weights_from_exp": {
        "exp_name": "pretrained",
        "ckp_pool_name": "best",
        "module_name": "block",
    },
}"""
# Cycled over the files: of ten, five plain, two frozen, two with weights of another run, one that
# cannot be known without running the file.
SETTINGS = (
    "settings = {}",
    'settings = {"frozen": False}',
    'settings = {"frozen": True}',
    FROM_EXP,
    "settings = {}",
    'settings = {"frozen": False, "mode": "eval"}',
    FROM_EXP.replace("settings = {", 'settings = {\n    "frozen": True,'),
    "settings = {}",
    'settings = {"frozen": True}',
    'settings = {"frozen": bool(int("0"))}',
)

PLUGIN_FILE = """from pymodules_core import ModuleSpec, hookimpl


@hookimpl
def provide_module(context):
    return ModuleSpec(
        name="{package}_net",
        factory="{package}.nets:build",
        settings={{"frozen": True}},
        description="A network of {package}",
    )
"""
NETS_FILE = """from torch import nn


def build():
    return nn.Linear(8, 8)
"""
CONSOLE_SCRIPTS = "[console_scripts]\n{package} = {package}.cli:main\n"

# Python imports `sitecustomize` before the program; the hook sees every `exec` of a file's code.
AUDIT_FILE = '''"""Writes down what this process executed and imported that `list` must not."""

import atexit
import json
import os
import sys

_MODULES = os.environ["BENCH_MODULES_DIR"]
_executed = []


def _watch(event, arguments):
    if event == "exec":
        file = getattr(arguments[0], "co_filename", "")
        if file.startswith(_MODULES):
            _executed.append(file)


def _write():
    found = {"torch": "torch" in sys.modules, "executed": _executed}
    with open(os.environ["BENCH_AUDIT_FILE"], "w") as file:
        json.dump(found, file)


sys.addaudithook(_watch)
atexit.register(_write)
'''


@attrs.frozen
class Workspace:
    """The temporary folder: an experiment, installed distributions, an audit hook.

    Attributes:
        path: The folder.
    """

    path: Path

    @property
    def data_home(self) -> Path:
        """Holds the experiment."""
        return self.path / "data"

    @property
    def modules_dir(self) -> Path:
        """Folder of the module files."""
        return self.data_home / "experiments" / EXPERIMENT / "pymodules" / "modules"

    @property
    def site_dir(self) -> Path:
        """Folder of the installed distributions."""
        return self.path / "site"

    @property
    def audit_dir(self) -> Path:
        """Folder of the ``sitecustomize`` with the audit hook."""
        return self.path / "audit"

    @property
    def environment(self) -> dict[str, str]:
        """The environment of every process that is timed.

        Bytecode may be written, so that a checkout runs from bytecode as an installed wheel does.
        """
        own = {name: text for name, text in os.environ.items() if name not in _NO_BYTECODE}
        return {**own, "PYTHONPATH": os.fspath(self.site_dir)}

    def write(self) -> None:
        """Write all files."""
        self.modules_dir.mkdir(parents=True)
        for number in range(MODULE_FILES):
            text = MODULE_FILE.format(
                number=number, width=8 + number % 57, settings=SETTINGS[number % len(SETTINGS)]
            )
            (self.modules_dir / f"block_{number:04}.py").write_text(text, encoding="utf-8")
        for number in range(DISTRIBUTIONS):
            self._write_distribution(number)
        self.audit_dir.mkdir()
        (self.audit_dir / "sitecustomize.py").write_text(AUDIT_FILE, encoding="utf-8")

    def _write_distribution(self, number: int) -> None:
        """Write a ``dist-info`` as pip does; a third has no entry points, most have scripts."""
        is_plugin = number % (DISTRIBUTIONS // PLUGINS) == 0
        package = f"acme_{number:03}"
        info = self.site_dir / f"{package}-1.{number}.0.dist-info"
        info.mkdir(parents=True)
        requirements = "".join(f"Requires-Dist: library-{i} (>=1.{i})\n" for i in range(12))
        (info / "METADATA").write_text(
            f"Metadata-Version: 2.4\nName: {package.replace('_', '-')}\nVersion: 1.{number}.0\n"
            f"Summary: Distribution {number}\nLicense: Apache-2.0\n{requirements}\n"
            + "A paragraph of the long description.\n"
            * 100,
            encoding="utf-8",
        )
        (info / "INSTALLER").write_text("pip\n", encoding="utf-8")
        (info / "RECORD").write_text(
            "".join(f"{package}/file_{i}.py,sha256=0,0\n" for i in range(40)), encoding="utf-8"
        )
        scripts = CONSOLE_SCRIPTS.format(package=package)
        if is_plugin:
            entry_points = f"{scripts}\n[pymodules]\nnets = {package}.plugin\n"
            folder = self.site_dir / package
            folder.mkdir()
            (folder / "__init__.py").write_text("", encoding="utf-8")
            (folder / "plugin.py").write_text(PLUGIN_FILE.format(package=package), encoding="utf-8")
            (folder / "nets.py").write_text(NETS_FILE, encoding="utf-8")
        elif number % 3:
            entry_points = scripts
        else:
            return
        (info / "entry_points.txt").write_text(entry_points, encoding="utf-8")


def make_commands(workspace: Workspace) -> dict[str, list[str]]:
    """Return each command under the name that the table shows."""
    script = Path(sys.executable).with_name("pymodules")
    start = [os.fspath(script)] if script.exists() else [sys.executable, "-m", "pymodules_core"]
    listing = [*start, "list", EXPERIMENT, "--data-home", os.fspath(workspace.data_home)]
    return {
        "python -c pass": [sys.executable, "-c", "pass"],
        "pymodules --help": [*start, "--help"],
        "pymodules list EXP": listing,
        "pymodules list EXP --json": [*listing, "--json"],
        TORCH: [sys.executable, "-c", "import torch"],
    }


def find_faults(workspace: Workspace, commands: dict[str, list[str]]) -> list[str]:
    """Run each ``list`` under the audit hook.

    Returns:
        What is wrong: torch imported, module files executed, modules that were not listed.
    """
    module_file = workspace.modules_dir / "block_0000.py"
    control = [sys.executable, "-c", f"import runpy; runpy.run_path({os.fspath(module_file)!r})"]
    _, found = _run_audited(workspace, control)
    if found != {"torch": True, "executed": [os.fspath(module_file)]}:
        return [f"the audit hook did not see a module file that was executed: {found}"]
    faults = []
    expected = MODULE_FILES + PLUGINS
    for name, command in commands.items():
        if "list" not in command:
            continue
        output, found = _run_audited(workspace, command)
        if found["torch"]:
            faults.append(f"{name} imported torch")
        if found["executed"]:
            count = len(found["executed"])
            faults.append(f"{name} executed {count} module files: {found['executed'][0]}, ...")
        listed = len(json.loads(output)) if "--json" in command else len(output.splitlines()) - 1
        if listed != expected:
            faults.append(f"{name} listed {listed} modules, expected {expected}")
    return faults


def measure(commands: dict[str, list[str]], environment: dict[str, str], runs: int) -> list[dict]:
    """Time every command once a round, after one round that does not count.

    Returns:
        Of each round the wall time in seconds by name.
    """
    rounds = [
        {name: _time_s(command, environment) for name, command in commands.items()}
        for _ in range(runs + 1)
    ]
    return rounds[1:]


def main() -> int:
    """Write the files, look for faults, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=9, help="rounds that count")
    runs = parser.parse_args().runs
    with tempfile.TemporaryDirectory(prefix="pymodules-startup-") as folder:
        workspace = Workspace(Path(folder).resolve())
        workspace.write()
        commands = make_commands(workspace)
        faults = find_faults(workspace, commands)
        if faults:
            print("\n".join(faults), file=sys.stderr)
            return 1
        rounds = measure(commands, workspace.environment, runs)
    print_machine()
    print(
        f"Whole processes, {runs} interleaved rounds after one warm-up; {MODULE_FILES:,} module "
        f"files, {DISTRIBUTIONS} distributions beside the environment's own, {PLUGINS} of them "
        "plugins. The ratio is the median of the rounds' ratios. "
        "`list` imported no torch and executed no module file."
    )
    rows = []
    for name in commands:
        times = [one[name] for one in rounds]
        ratio = median(one[name] / one[TORCH] for one in rounds)
        target = f"< {TARGETS_S[name]:g}" if name in TARGETS_S else ""
        numbers = [f"{value:.3f}" for value in (median(times), min(times), max(times))]
        rows.append([f"`{name}`", *numbers, f"{ratio:.2f}", target])
    print_table(["command", "median s", "min s", "max s", "of `import torch`", "target s"], rows)
    return 0


def _run_audited(workspace: Workspace, command: list[str]) -> tuple[str, dict]:
    report = workspace.path / "audit.json"
    report.unlink(missing_ok=True)
    done = subprocess.run(
        command,
        env={
            **workspace.environment,
            "PYTHONPATH": os.pathsep.join(
                map(os.fspath, (workspace.audit_dir, workspace.site_dir))
            ),
            "BENCH_MODULES_DIR": os.fspath(workspace.modules_dir),
            "BENCH_AUDIT_FILE": os.fspath(report),
        },
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    return done.stdout, json.loads(report.read_text(encoding="utf-8"))


def _time_s(command: list[str], environment: dict[str, str]) -> float:
    start = time.perf_counter()
    subprocess.run(command, env=environment, stdout=subprocess.DEVNULL, check=True)
    return time.perf_counter() - start


if __name__ == "__main__":
    sys.exit(main())
