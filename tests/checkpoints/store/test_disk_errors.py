"""What the system says of a disk gets the remedy that fits it."""

import errno
import os
import re

import pytest

from pymodules_core.checkpoints.store.disk_errors import disk_errors
from pymodules_core.errors import CheckpointError

INTACT = "; checkpoints saved before are intact"


@pytest.mark.parametrize(
    ("code", "reason", "fix"),
    [
        (
            errno.ENOSPC,
            r"No space left on device; it needs up to 1,234 bytes and [\d,]+ are free",
            f"make room{INTACT}",
        ),
        (
            errno.EDQUOT,
            "Disk quota exceeded; it needs up to 1,234 bytes",
            f"make room, or ask for a larger quota{INTACT}",
        ),
        (errno.EROFS, "Read-only file system", f"make it writable{INTACT}"),
        (errno.EACCES, "Permission denied", f"make it writable{INTACT}"),
        (
            errno.EIO,
            "Input/output error",
            f"the disk itself fails: see the system's log, and save elsewhere{INTACT}",
        ),
        (
            errno.ENOMEM,
            "Cannot allocate memory",
            f"free memory, or train on a machine that has more{INTACT}",
        ),
        (errno.EISDIR, "Is a directory", f"move away what is in its place{INTACT}"),
        (
            errno.ENOENT,
            "No such file or directory: .*/gone",
            "something took it away meanwhile; pymodules ckpt verify says what is left",
        ),
    ],
    ids=lambda value: errno.errorcode[value] if isinstance(value, int) else "",
)
def test_each_reason_has_a_remedy_of_its_own(tmp_path, code, reason, fix):
    file = tmp_path / "missing" / "file"

    with pytest.raises(CheckpointError) as caught, disk_errors(file, needed_bytes=1234):
        raise OSError(code, os.strerror(code), str(tmp_path / "gone"))

    assert re.fullmatch(f"cannot be written: {reason}", caught.value.what)
    assert (caught.value.file, caught.value.fix) == (file, fix)


@pytest.mark.parametrize("gone", ["from", "to"])
def test_where_a_file_is_moved_the_folder_that_is_gone_is_named(tmp_path, gone):
    source, target = tmp_path / "from" / "a.pt", tmp_path / "to" / "b.pt"
    for path in (source, target):
        if path.parent.name != gone:
            path.parent.mkdir()

    with pytest.raises(CheckpointError) as caught, disk_errors(tmp_path):
        source.rename(target)

    assert caught.value.what == (f"cannot be written: No such file or directory: {tmp_path / gone}")
