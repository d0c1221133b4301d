"""Takes the weights of one network out of a checkpoint of a whole LightningModule.

``load_weights_from_ckp`` of the core compares a whole file: with keys of other networks in it,
``strict`` refuses it, and without ``strict`` a missing key would pass.
"""

from collections import OrderedDict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import nn

from pymodules_core import LoadReport, apply_weights, match_weights, read_state_dict
from pymodules_core.errors import (
    CheckpointError,
    CheckpointFileError,
    WeightMismatchError,
    closest_match,
    display_path,
    list_words,
)
from pymodules_core.plugin_api import resolve_inside
from pymodules_lightning.network_source import NetworkSource

_WEIGHTS = "state_dict"
# What the core advises where a file is sound, and holds more than weights.
_SAVE_WEIGHTS = "torch.save(module.state_dict()"


def load_weights(network: nn.Module, source: NetworkSource) -> None:
    """Copy the weights that the checkpoint has under the network's attribute into the network.

    Args:
        network: What was taken out of a LightningModule.
        source: Names the attribute and the file: one that Lightning's ``Trainer`` wrote, or a
            state dict of a whole LightningModule, also of safetensors.

    Raises:
        InvalidNameError: A link leads out of the data home.
        CheckpointNotFoundError: There is no such file.
        CheckpointFileError: It is damaged, or would run code.
        WeightMismatchError: Keys or shapes differ, or a value is not finite.
        UninitializedModuleError: The network has lazy parameters without a shape.
    """
    key = f"{source.key}.ckp_name"
    file = resolve_inside(source.data_home, "module_ckps", str(source.settings.ckp_name), kind=key)
    try:
        state = _under(source.settings.attribute, _read(file), file=file)
        try:
            matched, report = match_weights(state, network, module_name=source.name, source=file)
        except WeightMismatchError as error:
            # The core names settings of its own, which are not in this table.
            error.fix = (
                "give the arguments that the LightningModule was trained with"
                if isinstance(error.found, LoadReport) and not error.found.is_complete
                else "take another checkpoint"
            )
            raise
        apply_weights([(network, matched, report)])
    except CheckpointError as error:
        error.what = f"{error.what}\n  asked for by {key}"
        error.key = key
        raise


def _read(file: Path) -> Mapping[Any, Any]:
    try:
        content = read_state_dict(file)
    except CheckpointFileError as error:
        if _SAVE_WEIGHTS in (error.fix or ""):
            target = file.with_name(f"{file.stem}_weights.pt")
            error.fix = (
                "where you trust it, make a file of its weights, and name that: "
                f'torch.save(torch.load("{display_path(file)}", weights_only=False)'
                f'["{_WEIGHTS}"], "{display_path(target)}")'
            )
        raise
    inner = content.get(_WEIGHTS)
    return inner if isinstance(inner, Mapping) else content


def _under(attribute: str, weights: Mapping[Any, Any], *, file: Path) -> "OrderedDict[str, Any]":
    """Return the weights under an attribute, by their keys in it, with torch's versions of them."""
    prefix = f"{attribute}."
    state = OrderedDict(
        (key.removeprefix(prefix), value)
        for key, value in weights.items()
        if isinstance(key, str) and key.startswith(prefix)
    )
    if not state:
        names = list(dict.fromkeys(str(key).partition(".")[0] for key in weights))
        raise WeightMismatchError(
            f"no key starts with {prefix!r}; keys start with: {list_words(names)}",
            file=file,
            found=prefix,
            closest=closest_match(attribute, names),
            fix="take a checkpoint of this LightningModule, as Trainer.save_checkpoint writes it",
        )
    versions = getattr(weights, "_metadata", None)
    if isinstance(versions, Mapping):
        state._metadata = {  # type: ignore[attr-defined]  # torch's own attribute
            f"{path}.".removeprefix(prefix).removesuffix("."): version
            for path, version in versions.items()
            if f"{path}.".startswith(prefix) and isinstance(version, Mapping)
        }
    return state
