"""The one gate for pickles: what torch is given is tensors and primitives, and not too much."""

import pickletools
from pathlib import Path

from pymodules_core.checkpoints.file_format.pickle_values import (
    ForeignObjectError,
    StrangeContentError,
)
from pymodules_core.checkpoints.file_format.pickle_walk import PickleWalk
from pymodules_core.errors import CheckpointFileError

SAVE_AGAIN = "save it with torch.save(module.state_dict(), file)"
SAVE_IN_SCRIPT = f"where you trust it, load it in a script of yours and there {SAVE_AGAIN}"

# What reading may take: so much, and so much a byte of the file.
_FREE_BYTES = 64 << 20
_BYTES_A_FILE_BYTE = 3


def budget_bytes(path: Path) -> int:
    """Return what the objects of a file may take in memory, and its tensors claim."""
    return _FREE_BYTES + _BYTES_A_FILE_BYTE * path.stat().st_size


def check_pickle(path: Path, content: bytes) -> None:
    """Refuse a pickle before torch reads it.

    Args:
        path: The file.
        content: Its ``data.pkl``.

    Raises:
        CheckpointFileError: It names what a state dict does not need, is damaged, or would take
            more than ``budget_bytes``.
    """
    walk = PickleWalk(budget_bytes=budget_bytes(path))
    try:
        walk.follow(content)
    except ForeignObjectError as error:
        raise _foreign(path, content, error.name) from None
    except StrangeContentError as error:
        raise CheckpointFileError(error.what, file=path, fix=error.fix or SAVE_AGAIN) from None
    # Of damaged bytes genops and the walk raise anything.
    except Exception as error:
        raise CheckpointFileError(
            f"cannot be read: its pickle is damaged: {ascii(str(error))[1:-1][:200]}",
            file=path,
            fix=f"take an earlier pool, or {SAVE_AGAIN}",
        ) from error


def _foreign(path: Path, content: bytes, name: str | None) -> CheckpointFileError:
    """Say what could run code: a whole module, or a name."""
    names, texts = _scan(content)
    foreign = (name for name in names if not name.startswith(("torch.", "collections.")))
    name = (name or next(foreign, "an unknown object")).removeprefix("builtins.")
    if {"_parameters", "_modules"} <= texts:
        what = f"holds a whole pickled module, {name}, expected a state dict"
    elif name == "bytearray":
        what = "holds a bytearray, which is not a tensor or primitive and could take all memory"
    else:
        what = f"holds {name}, which is not a tensor or primitive and could run code"
    return CheckpointFileError(what, file=path, found=name, fix=SAVE_IN_SCRIPT)


def _scan(content: bytes) -> tuple[list[str], set[str]]:
    """Return the names and texts of a pickle."""
    names: list[str] = []
    texts: list[str] = []
    try:
        for operation, argument, _ in pickletools.genops(content):
            if operation.name == "GLOBAL":
                names.append(str(argument).replace(" ", "."))
            elif operation.name == "STACK_GLOBAL":
                names.append(".".join(texts[-2:]))
            elif isinstance(argument, str):
                texts.append(argument)
    # A pickle that is damaged as well: what was read so far has to do.
    except Exception:  # noqa: BLE001, S110
        pass
    return names, set(texts)
