"""Where a wrong value is said to be: its line in ``experiment.toml``, or the override."""

from typing import Annotated

import attrs
import pytest
from support import write_experiment

from pymodules_core import Experiment, ModulePool, Range, Trainer
from pymodules_core.cli.main import run
from pymodules_core.errors import PymodulesError, SettingsError
from pymodules_core.settings import structure
from pymodules_core.training.run_output.console import SilentPrinter

FILE = "data/experiments/tiny/experiment.toml"


def build(home, overrides):
    ModulePool.discover(Experiment.open("tiny", overrides=overrides))


def train(home, overrides):
    Trainer("tiny", overrides=overrides, reporter=SilentPrinter()).fit()


@pytest.mark.parametrize(
    ("act", "key", "value", "message"),
    [
        (
            build,
            "modules.args.net.width",
            3,
            "override modules.args.net: net.py defines module, which takes no arguments\n"
            "  fix: define def build(...) in the file instead of module",
        ),
        (
            build,
            "modules.args.nett.width",
            3,
            "override modules.args.nett: no module is called 'nett'; there are: net\n"
            "  closest match: net\n"
            "  fix: write 'net'",
        ),
        (
            build,
            "modules.settings.net.frozn",
            True,
            "override modules.settings.net.frozn: unknown key\n"
            "  closest match: frozen\n"
            "  fix: write 'frozen' or remove 'frozn'",
        ),
        (
            train,
            "optimizers.mian.clip_norm",
            1.0,
            "override optimizers.mian: there is no optimizer 'mian'; there are: main\n"
            "  closest match: main\n"
            "  fix: write [optimizers.main]",
        ),
        (
            train,
            "train.monitor",
            "los",
            "override train.monitor: 'los' is not among the metrics: loss\n"
            "  closest match: loss\n"
            '  fix: [train] monitor = "loss", or return it from eval_step',
        ),
        (
            train,
            "train.device",
            "gpu",
            "override train.device: 'gpu' is not a device; there are: auto, cpu, cuda, "
            "cuda:<index>\n  closest match: cuda\n"
            '  fix: device = "auto" takes what there is',
        ),
    ],
    ids=["arguments", "no module", "settings", "optimizer", "monitor", "device"],
)
def test_an_override_is_blamed_itself_and_not_a_line_of_the_file(home, act, key, value, message):
    write_experiment(home, toml="[train]\nseed = 1\n")

    with pytest.raises(PymodulesError) as caught:
        act(home, {key: value})

    assert str(caught.value) == message


def test_a_device_of_the_file_is_reported_with_its_line(home):
    write_experiment(home, toml='[train]\nseed = 1\ndevice = "gpu"\n')

    with pytest.raises(SettingsError) as caught:
        train(home, {})

    assert str(caught.value).startswith(f"{FILE}:3: train.device: 'gpu' is not a device; ")


def test_list_reports_the_line_of_a_wrong_table(home, capsys):
    write_experiment(home, toml="[modules.settings.net]\nfrozn = true\n")

    code = run(["list", "tiny"])

    assert code == 0
    assert capsys.readouterr().err == (
        f"problem: module 'net': {FILE}:2: modules.settings.net.frozn: unknown key\n"
        "  closest match: frozen\n"
        "  fix: write 'frozen' or remove 'frozn'\n"
    )


def test_a_validator_names_its_own_key_and_an_upper_bound_is_reported():
    @attrs.frozen
    class Own:
        share: Annotated[float, Range(above=0, below=1)] = 0.5
        names: tuple[str, ...] = attrs.field(default=())

        @names.validator
        def _check(self, attribute, value):
            if "x" in value:
                raise SettingsError("'x' is taken", key=attribute.name, found="x", fix="take 'y'")

    with pytest.raises(SettingsError) as bound:
        structure({"share": 1.0}, Own, root="own")
    with pytest.raises(SettingsError) as taken:
        structure({"names": ["x"]}, Own, root="own")

    assert str(bound.value) == "own.share: expected float less than 1, found float 1.0"
    assert str(taken.value) == "own.names: 'x' is taken\n  fix: take 'y'"
    assert (taken.value.key, taken.value.found) == ("own.names", "x")
