"""Every mistake is one clear error."""

import pytest

from pymodules_core import ModulePool, Trainer
from pymodules_core.errors import (
    BuildError,
    PluginError,
    SettingsError,
    UninitializedModuleError,
)

LAZY = "from torch import nn\nmodule = nn.LazyLinear(1)\nsettings = {}"

UNCOPYABLE = """
import threading

from torch import nn

module = nn.Linear(4, 1)
module.lock = threading.Lock()
settings = {}
"""


def table(modules, rest=""):
    return f"[plugins.settings.ema]\nmodules = {modules}\n{rest}"


def refusal(path, **options):
    with pytest.raises(SettingsError) as caught:
        ModulePool.discover(path, **options)
    return caught.value


def test_an_unknown_name_is_reported_with_its_line_and_the_closest_match(write):
    path = write(settings=table('["nett"]'))

    error = refusal(path)

    assert error.key == "plugins.settings.ema.modules"
    assert error.closest == "net"
    assert str(error) == (
        f"{path / 'experiment.toml'}:8: plugins.settings.ema.modules: there is no module 'nett' in "
        "the pool; there are: net\n  closest match: net\n  fix: write 'net'"
    )


def test_the_average_of_an_average_is_refused(write):
    error = refusal(write(settings=table('["net", "net_ema"]')))

    assert error.key == "plugins.settings.ema.modules"
    assert "'net_ema' is the average of 'net'" in error.what
    assert error.fix == "remove 'net_ema'"


def test_an_average_alone_is_an_unknown_name(write):
    error = refusal(write(settings=table('["net_ema"]')))

    assert "there is no module 'net_ema'" in error.what
    assert error.closest == "net"


def test_a_repeated_name_is_refused(write):
    error = refusal(write(settings=table('["net", "net"]')))

    assert error.key == "plugins.settings.ema.modules"
    assert "'net' is named 2 times" in error.what
    assert error.line == 8


@pytest.mark.parametrize(
    ("settings", "text"),
    [
        (table('["my-net"]'), "plugins.settings.ema.modules: 'my-net' is not a name of a module"),
        (table("[]", "decay = 1.5"), "plugins.settings.ema.decay: expected float less than 1"),
        (table("[]", "decay = 0.0"), "expected float more than 0, found float 0.0"),
        (table("[]", 'buffers = "mean"'), "expected one of 'copy', 'average'"),
        (table("[]", "decai = 0.5"), "decai: unknown key"),
    ],
)
def test_wrong_values_are_refused(write, settings, text):
    error = refusal(write(settings=settings))

    assert text in error.what
    assert error.key.startswith("plugins.settings.ema")
    assert error.line is not None


def test_the_table_is_named_as_it_was_written(write):
    path = write(settings='[plugins.settings.pymodules-ema]\nmodules = ["nett"]')

    error = refusal(path)

    assert error.key == "plugins.settings.pymodules-ema.modules"
    assert error.line == 8


def test_an_override_is_named_as_one(write):
    path = write(settings=table('["net"]'))

    with pytest.raises(SettingsError) as caught:
        Trainer(path, overrides={"plugins.settings.ema.modules": ["nett"]}).fit()

    assert caught.value.what.startswith("override plugins.settings.ema.modules: ")
    assert caught.value.file is None


@pytest.mark.parametrize(
    ("module", "key", "text"),
    [
        ("net", "plugins.settings.ema.modules", "module 'net' is frozen"),
        ("net_ema", "modules.settings.net_ema.frozen", "a frozen module may not"),
    ],
)
def test_what_is_frozen_is_refused_and_nothing_is_written(write, module, key, text):
    other = "from torch import nn\nmodule = nn.Linear(4, 1)\nsettings = {}"
    path = write(
        modules={"net": other, "other": other},
        settings=f"{table(['net'])}\n[modules.settings.{module}]\nfrozen = true",
    )
    task = path / "pymodules" / "task.py"
    task.write_text(task.read_text().replace("pool.net.parameters", "pool.other.parameters"))

    with pytest.raises(SettingsError) as caught:
        Trainer(path).fit()

    assert caught.value.key == key
    assert text in caught.value.what
    assert caught.value.line is not None
    assert caught.value.exit_code == 2
    assert not (path / "data").exists()


def test_an_average_that_is_not_shared_as_its_source_is_refused_and_nothing_is_written(write):
    path = write(settings=f'{table(["net"])}\n[modules.settings.net_ema]\nparallel = "fsdp"')

    with pytest.raises(SettingsError) as caught:
        Trainer(path).fit()

    assert str(caught.value) == (
        f"{path / 'experiment.toml'}:11: modules.settings.net_ema.parallel: 'fsdp', and 'net' has "
        "'ddp': an average follows its source part by part\n"
        "  says plugin pymodules-ema 0.1.0 (ema)\n"
        "  fix: remove it: the average is shared as its source is"
    )
    assert not (path / "data").exists()


def test_a_lazy_module_is_refused(write):
    path = write(modules={"net": LAZY}, settings=table('["net"]'))

    with pytest.raises(UninitializedModuleError, match="'net' has lazy parameters"):
        ModulePool.discover(path)


def test_a_module_that_cannot_be_copied_is_refused(write):
    path = write(modules={"net": UNCOPYABLE}, settings=table('["net"]'))

    with pytest.raises(BuildError, match="'net' cannot be copied for its average: TypeError"):
        ModulePool.discover(path)


def test_a_source_that_changed_since_it_was_copied_is_refused(write):
    path = write(settings=table('["net"]'))
    task = path / "pymodules" / "task.py"
    task.write_text(
        task.read_text().replace(
            "    return SGD(", "    module_pool.net.append(torch.nn.Linear(1, 1))\n    return SGD("
        )
    )

    with pytest.raises(PluginError, match=r"differ in parameters: 4\.bias, 4\.weight"):
        Trainer(path).fit()
