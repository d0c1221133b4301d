"""Builds a network as a LightningModule makes it, and takes it out."""

import copy
from contextlib import suppress
from typing import Any

from torch import nn

from pymodules_core.errors import BuildError, PymodulesError, closest_match, list_words
from pymodules_core.plugin_api import format_value
from pymodules_lightning.lightning_class import check_arguments, find_class
from pymodules_lightning.network_source import NetworkSource
from pymodules_lightning.network_weights import load_weights


# Underscored: all other names are arguments of the class, which may be called anything.
def build(*, _source: NetworkSource, **arguments: Any) -> nn.Module:
    """Make a LightningModule, and give one network of it; the rest is dropped.

    Args:
        _source: The class, the network, and a checkpoint, if its weights are from one.
        **arguments: Of the class.

    Returns:
        The network, in the mode that the class leaves it in. It does not know the LightningModule.

    Raises:
        SettingsError: No such class, argument or submodule.
        BuildError: The class raises, or the network holds the LightningModule.
        InvalidNameError: A link leads out of the data home.
        CheckpointError: The checkpoint is not there, is damaged or unsafe, or does not fit.
    """
    cls = find_class(_source)
    check_arguments(cls, arguments, _source)
    try:
        whole = cls(**arguments)
        # As load_from_checkpoint of Lightning does: networks may be made only here.
        whole.configure_model()
    except PymodulesError:
        raise
    except (Exception, SystemExit) as error:
        reason = ": ".join(filter(None, (type(error).__name__, " ".join(str(error).split()))))
        raise BuildError(
            f"{_source.key}: making {cls.__name__} raises {reason}",
            key=_source.key,
            fix="give it other arguments, or mend the class",
        ) from error
    network = _take(whole, _source)
    _refuse_back_reference(network, whole, _source)
    if _source.settings.ckp_name is not None:
        load_weights(network, _source)
    return network


def _take(whole: nn.Module, source: NetworkSource) -> nn.Module:
    """Return the submodule; only one that is registered has keys in a checkpoint."""
    # All names of a module that has several.
    paths: dict[str, nn.Module] = dict(whole.named_modules(remove_duplicate=False))
    attribute = source.settings.attribute
    if attribute in paths:
        return paths[attribute]
    del paths[""]
    owner, last = whole, attribute
    parent, _, rest = attribute.rpartition(".")
    if parent in paths:
        owner, last = paths[parent], rest
    kind, value = type(whole).__name__, None
    # A property raises anything: those of Lightning do without a trainer.
    with suppress(Exception):
        value = getattr(owner, last)
    near = closest_match(attribute, paths)
    what = f"{kind} has no submodule {attribute!r}"
    if value is not None:
        what = f"{attribute!r} of {kind} is {format_value(value)}, no submodule"
    names = [name for name in paths if "." not in name]
    raise source.error(
        "attribute",
        f"{what}; it has: {list_words(names)}",
        found=attribute,
        closest=near,
        fix=None if near else "name one of them, or a part of one: model.encoder",
    )


def _refuse_back_reference(network: nn.Module, whole: nn.Module, source: NetworkSource) -> None:
    """Refuse a network that holds its LightningModule, which would be copied and pickled with it.

    A copy meets whatever the network holds: attributes, and the owners of methods in hooks. Tensors
    are taken for copied, so that it costs no memory.
    """
    memo: dict[int, Any] = {
        id(tensor): tensor for part in (whole.parameters(), whole.buffers()) for tensor in part
    }
    # What cannot be copied may still be trained; what was met until then is in the memo.
    with suppress(Exception):
        copy.deepcopy(network, memo)
    if id(whole) in memo:
        kind, attribute = type(whole).__name__, source.settings.attribute
        raise BuildError(
            f"{source.key}.attribute: {attribute!r} of {kind} holds the {kind} itself, in an "
            "attribute or by a method in one of its hooks",
            key=f"{source.key}.attribute",
            found=attribute,
            fix=f"let {kind} reach into the network instead, or name a part of it that does not",
        )
