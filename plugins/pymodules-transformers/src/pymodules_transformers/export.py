"""Writes a model of a pool as a folder that ``from_pretrained`` reads, here and anywhere."""

from pathlib import Path

from torch import nn
from transformers import PreTrainedModel

from pymodules_core import apply_weights, match_weights, read_state_dict
from pymodules_core.errors import BuildError, CheckpointError, display_path
from pymodules_transformers.quiet import quiet_and_offline


def save_folder(
    module: nn.Module, folder: str | Path, *, weights: str | Path | None = None
) -> Path:
    """Write ``config.json`` and ``model.safetensors``, as ``save_pretrained`` does.

    Args:
        module: A model of transformers, of a pool or from ``build_model``.
        folder: Where to; made with its parents, and refused if there is something in it.
        weights: A file of a checkpoint pool, such as ``data/module_ckps/best/lm.pt``; it is loaded
            into ``module`` first. None takes the weights that ``module`` has.

    Returns:
        The folder.

    Raises:
        BuildError: ``module`` is not a model of transformers.
        CheckpointError: The folder is not empty, or the file does not fit the module.
    """
    if not isinstance(module, PreTrainedModel):
        raise BuildError(
            f"save_folder: expected a model of transformers, found {type(module).__name__}",
            found=type(module).__name__,
            fix="give one that build_model or [plugins.settings.transformers] made",
        )
    folder = Path(folder)
    if folder.exists() and not (folder.is_dir() and next(folder.iterdir(), None) is None):
        raise CheckpointError(
            f"save_folder: {display_path(folder)} is there already",
            found=str(folder),
            fix="name another folder, or remove that one",
        )
    if weights is not None:
        file = Path(weights)
        matched = match_weights(read_state_dict(file), module, module_name=file.stem, source=file)
        apply_weights([(module, *matched)])
    with quiet_and_offline():
        module.save_pretrained(folder)
    return folder
