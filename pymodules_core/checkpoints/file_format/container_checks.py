"""What a checkpoint file is instead of one: looked at before torch does, reported in one message.

torch checks no CRC, and what it raises for a bad file names no file and advises
``weights_only=False``.
"""

import codecs
import os
import stat
import zipfile
from pathlib import Path

from pymodules_core.checkpoints.file_format.pickle_gate import (
    SAVE_AGAIN,
    SAVE_IN_SCRIPT,
    budget_bytes,
    check_pickle,
)
from pymodules_core.checkpoints.file_format.state_dict import show_key
from pymodules_core.checkpoints.file_format.zip_checks import (
    find_strange_entries,
    find_strange_table,
    pickle_name,
)
from pymodules_core.errors import (
    CheckpointFileError,
    CheckpointNotFoundError,
    closest_match,
    display_path,
    list_words,
)

_GET_AGAIN = "download or copy it again, or take another file"
_GET_WHOLE = "take an earlier pool, or copy the file again"


def check_is_file(path: Path, *, most_bytes: int | None = None) -> None:
    """Refuse what is not there, is not a regular file, or does not fit into memory.

    The limit is the free memory, where ``most_bytes`` gives none and the platform says it.

    Raises:
        CheckpointNotFoundError: There is no such file; those there are are listed.
        CheckpointFileError: It is a folder, device or pipe, cannot be read, or is too large.
    """
    try:
        status = path.stat()
    except FileNotFoundError as error:
        raise _not_found(path) from error
    except OSError as error:
        raise _unreadable(path, error) from error
    if not stat.S_ISREG(status.st_mode):
        kind = "a folder" if stat.S_ISDIR(status.st_mode) else "a device, pipe or socket"
        raise CheckpointFileError(
            f"is {kind}, expected a file",
            file=path,
            found=kind,
            fix="give a file that torch.save(module.state_dict(), file) wrote",
        )
    limit = _free_memory_bytes() if most_bytes is None else most_bytes
    if limit is not None and status.st_size > limit:
        raise CheckpointFileError(
            f"is too large: it has {status.st_size:,} bytes, and memory for {limit:,} is free",
            file=path,
            found=status.st_size,
            fix="free memory, or take a file with fewer weights",
        )


def refuse_link_out(path: Path, root: Path) -> None:
    """Refuse what a link leads out of a folder.

    Raises:
        CheckpointFileError: One does.
    """
    try:
        real = path.resolve()
    except (OSError, RuntimeError):  # links in a circle, which is reported to whoever reads it
        return
    if not real.is_relative_to(root.resolve()):
        raise CheckpointFileError(
            f"is a link that leads out of {display_path(root)}, to {real}",
            file=path,
            found=str(real),
            fix="put the file itself there",
        )


def check_archive(path: Path, *, is_whole: bool = False) -> None:
    """Look at a file before torch does: kind, sizes, checksums, and what its pickle would make.

    Args:
        path: The file.
        is_whole: Its bytes are known to be those that were written, so no checksum is looked at.

    Raises:
        CheckpointFileError: It is not an archive of ``torch.save``, is damaged, or holds more than
            a state dict.
    """
    with _open_archive(path) as archive:
        try:
            damaged = None if is_whole else archive.testzip()
            content = archive.read(pickle_name(archive))
        except Exception as error:
            raise CheckpointFileError(
                f"is damaged: {str(error) or 'an entry ends early'}", file=path, fix=_GET_WHOLE
            ) from error
    if damaged is not None:
        raise CheckpointFileError(
            f"is damaged: the checksum of {show_key(damaged)} does not match",
            file=path,
            found=damaged,
            fix=_GET_WHOLE,
        )
    check_pickle(path, content)


def _open_archive(path: Path) -> zipfile.ZipFile:
    archive, fault = None, None
    try:
        with path.open("rb") as file:
            head = file.read(512)
            if zipfile.is_zipfile(file):
                fault = find_strange_table(file, budget_bytes=budget_bytes(path))
                archive = zipfile.ZipFile(path) if fault is None else None
    except OSError as error:
        raise _unreadable(path, error) from error
    # One flipped bit makes zipfile raise anything: UnicodeDecodeError, NotImplementedError.
    except Exception as error:
        raise CheckpointFileError(
            f"is damaged: its table of contents cannot be read: {error}", file=path, fix=_GET_WHOLE
        ) from error
    if archive is not None:
        fault = find_strange_entries(archive, size_bytes=path.stat().st_size)
        if fault is None:
            return archive
        archive.close()
    if fault is not None:
        fix = _GET_WHOLE if fault.startswith("is damaged") else SAVE_AGAIN
        raise CheckpointFileError(fault, file=path, fix=fix)
    kind, fix = _describe_head(head)
    raise CheckpointFileError(f"is not a checkpoint: it is {kind}", file=path, found=kind, fix=fix)


def _not_found(path: Path) -> CheckpointNotFoundError:
    if path.is_symlink():
        return CheckpointNotFoundError(
            "is a link to nothing", file=path, fix="replace the link by the file itself"
        )
    folder = path.parent
    if not folder.is_dir():
        return CheckpointNotFoundError(
            f"there is no such checkpoint, and no folder {display_path(folder)}",
            file=path,
            found=path.name,
            fix=f"make the folder and put {path.name} there",
        )
    there = sorted(p.name for p in folder.iterdir() if not p.name.startswith("."))
    near = closest_match(path.name, there)
    return CheckpointNotFoundError(
        f"there is no such checkpoint; {display_path(folder)} holds: {list_words(there)}",
        file=path,
        found=path.name,
        closest=near,
        fix=None if near else f"put {path.name} there, or name one that is",
    )


def _unreadable(path: Path, error: OSError) -> CheckpointFileError:
    return CheckpointFileError(
        f"cannot be read: {error.strerror or error}", file=path, fix="make it a readable file"
    )


def _describe_head(head: bytes) -> tuple[str, str]:
    """Say what a file that is not a zip archive is by its first bytes, and the fix."""
    text = head.removeprefix(codecs.BOM_UTF8).lstrip().lower()
    if not head:
        return "empty", _GET_AGAIN
    if not head.strip(b"\0"):
        return "filled with NUL bytes", _GET_AGAIN
    if text.startswith((b"<!doctype", b"<html")):
        return "an HTML page", _GET_AGAIN
    if text.startswith(b"version https://git-lfs"):
        return "a git LFS pointer", "git lfs pull"
    if head.startswith(b"PK"):
        return "a zip archive cut short or damaged", _GET_AGAIN
    if head.startswith(b"\x80"):
        return "a bare pickle, or of a torch before 1.6", SAVE_IN_SCRIPT
    if head[8:10] == b'{"':
        return "a safetensors file", "call it .safetensors"
    if _is_text(head):
        return "text", _GET_AGAIN
    return "no file of torch.save", _GET_AGAIN


def _is_text(head: bytes) -> bool:
    try:
        # Incremental: the head may end in the middle of a character.
        text = codecs.getincrementaldecoder("utf-8-sig")().decode(head)
    except UnicodeDecodeError:
        return False
    return all(char.isprintable() or char in "\t\n\r" for char in text)


def _free_memory_bytes() -> int | None:
    """Return what is free; all there is where only that is known, or None."""
    try:
        lines = Path("/proc/meminfo").read_text("ascii").splitlines()
        free = next(line for line in lines if line.startswith("MemAvailable:"))
        return int(free.split()[1]) * 1024
    except (OSError, StopIteration):  # not Linux
        pass
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):  # Windows
        return None
