"""Reads a folder that ``save_pretrained`` wrote: config and weights, and never code."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import attrs
from torch import Tensor

from pymodules_core import read_state_dict
from pymodules_core.errors import (
    CheckpointFileError,
    CheckpointNotFoundError,
    InvalidNameError,
    closest_match,
    display_path,
    list_words,
)
from pymodules_core.plugin_api import check_path_name, resolve_inside

CONFIG_NAME = "config.json"
GENERATION_NAME = "generation_config.json"
# In the order of preference; each may also be the index of several files.
_WEIGHTS_NAMES = ("model.safetensors", "pytorch_model.bin")
_INDEX_SUFFIX = ".index.json"
_ADAPTER_NAME = "adapter_config.json"


@attrs.frozen
class ModelFolder:
    """A folder with ``config.json`` and weights.

    Attributes:
        path: The folder.
        root: What no file of it may lead out of by a link; None where a program named the folder.
        key: Dotted path of the setting that names it, for messages.
    """

    path: Path
    root: Path | None
    key: str

    def read_config(self) -> dict[str, Any]:
        """Read ``config.json``.

        Raises:
            CheckpointNotFoundError: There is no such folder, or no such file in it.
            CheckpointFileError: It is not JSON object, or the folder is one of an adapter.
        """
        if not self.path.is_dir():
            raise self._no_folder_error()
        if not (self.path / CONFIG_NAME).is_file():
            raise CheckpointNotFoundError(
                f"{self.key}: the folder has no {CONFIG_NAME}; there are: {self._list_files()}",
                file=self.path,
                key=self.key,
                fix="copy the whole folder that model.save_pretrained(folder) wrote",
            )
        if (self.path / _ADAPTER_NAME).is_file():
            raise CheckpointFileError(
                f"{self.key}: the folder holds an adapter of PEFT, which is not loaded",
                file=self.path / _ADAPTER_NAME,
                key=self.key,
                fix="merge it first: model.merge_and_unload().save_pretrained(folder)",
            )
        return self._read_json(CONFIG_NAME)

    def read_generation_config(self) -> dict[str, Any] | None:
        """Read ``generation_config.json``; None where there is none.

        Raises:
            CheckpointFileError: It is not JSON object.
        """
        if not (self.path / GENERATION_NAME).is_file():
            return None
        return self._read_json(GENERATION_NAME)

    def read_weights(self) -> dict[str, Tensor]:
        """Read all weights, on the CPU.

        Returns:
            Key to tensor, as in the files.

        Raises:
            CheckpointNotFoundError: There are no weights, or a file that the index names is gone.
            CheckpointFileError: A file is damaged, or would run code.
        """
        for name in _WEIGHTS_NAMES:
            if (self.path / name).is_file():
                return dict(read_state_dict(self._file(name)))
            index = f"{name}{_INDEX_SUFFIX}"
            if (self.path / index).is_file():
                weights: dict[str, Tensor] = {}
                for part in self._names_in(index):
                    weights |= read_state_dict(self._file(part))
                return weights
        raise CheckpointNotFoundError(
            f"{self.key}: the folder has no weights; there are: {self._list_files()}",
            file=self.path,
            key=self.key,
            fix=f"put {_WEIGHTS_NAMES[0]} there, as model.save_pretrained(folder) writes it",
        )

    def _names_in(self, index: str) -> list[str]:
        names = self._read_json(index).get("weight_map")
        if not isinstance(names, Mapping) or not names:
            raise CheckpointFileError(
                "has no weight_map of keys to files",
                file=self.path / index,
                fix="copy the whole folder again",
            )
        try:
            return sorted({check_path_name(name, kind="weight_map") for name in names.values()})
        except InvalidNameError as error:
            error.file = self.path / index
            raise

    def _read_json(self, name: str) -> dict[str, Any]:
        file = self._file(name)
        try:
            content = json.loads(file.read_text("utf-8"), object_hook=_to_float)
        except (OSError, ValueError) as error:
            raise CheckpointFileError(
                f"is not JSON: {error}", file=file, fix="copy the whole folder again"
            ) from error
        if not isinstance(content, dict):
            raise CheckpointFileError(
                f"holds {type(content).__name__}, expected an object",
                file=file,
                fix="copy the whole folder again",
            )
        return content

    def _file(self, name: str) -> Path:
        path = self.path / name
        if self.root is None:
            return path
        return resolve_inside(self.root, str(path.relative_to(self.root)), kind=self.key)

    def _list_files(self) -> str:
        return list_words(sorted(path.name for path in self.path.iterdir()))

    def _no_folder_error(self) -> CheckpointNotFoundError:
        parent = self.path.parent
        names = sorted(p.name for p in parent.iterdir() if p.is_dir()) if parent.is_dir() else []
        what = "is a file" if self.path.exists() else "does not exist"
        return CheckpointNotFoundError(
            f"{self.key}: the folder {display_path(self.path)} {what}; folders in "
            f"{display_path(parent)}: {list_words(names)}",
            key=self.key,
            found=self.path.name,
            closest=closest_match(self.path.name, names),
            fix="put there what model.save_pretrained(folder) writes; nothing is downloaded",
        )


def _to_float(content: dict[str, Any]) -> Any:
    """Return an infinity or NaN as transformers writes it; any other object as it is."""
    if content.keys() == {"__float__"}:
        return float(content["__float__"])
    return content
