"""Commit records: one says which objects every pool is made of, and once it exists they are it."""

import json
import logging
import os
import re
import stat
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import attrs
import cattrs
from blake3 import blake3
from cattrs.gen import override

from pymodules_core.checkpoints.store.paths import RECORD_SUFFIX, Layout
from pymodules_core.checkpoints.store.record_schema import (
    NUMBER_OR_TEXT,
    OMITTED_IF_EMPTY,
    Provenance,
    make_converter,
)
from pymodules_core.errors import CheckpointFileError
from pymodules_core.names import check_path_name, check_pool_name
from pymodules_core.specs import DistributionOrigin, WeightsOrigin

FORMAT = 1
# With sharded objects, which versions that read format 1 alone do not know.
FORMAT_WITH_PARTS = 2
# The file of a sharded object that says what its shards are, in the view of its module.
INDEX_NAME = "index.pt"

# A writer that commits as fast as it can may remove the record that is being read.
ATTEMPTS = 100

logger = logging.getLogger("pymodules_core")

_DIGEST = re.compile(r"[0-9a-f]{64}")
_NUMBER = re.compile(r"[0-9]{8}|[1-9][0-9]{8,17}")  # as Layout.record writes it
# One of ten thousand objects takes about 2 MB; read, it takes some 30 times as much memory.
_MOST_BYTES = 1 << 26
# Of a commit; the names of files have room for as many digits.
MOST_NUMBER = 10**18 - 1


@attrs.frozen(kw_only=True)
class StoredObject:
    """What is known of an object beside its digest.

    Attributes:
        size_bytes: Length of the file.
        mtime_ns: When it was written, as the file system says it.
        checksum: Digest of every byte of the file.
        parts: File name to digest of the further objects that it needs; it is their index then.
    """

    size_bytes: int
    mtime_ns: int
    checksum: str
    parts: dict[str, str] = attrs.field(factory=dict)


@attrs.frozen(kw_only=True)
class StoredPool:
    """One checkpoint pool.

    Attributes:
        modules: Module name to digest.
        epoch: The epoch of these weights.
        step: Their step.
        commit: Number of the commit that set them.
        metrics: What was measured of them.
    """

    modules: dict[str, str]
    epoch: int
    step: int
    commit: int
    metrics: dict[str, float | None] = attrs.field(factory=dict)


@attrs.frozen(kw_only=True)
class StoredBest:
    """The best value of the monitored metric; NaN where it was never a number."""

    metric: str
    mode: str
    value: float
    epoch: int


@attrs.frozen(kw_only=True)
class CommitRecord:
    """The whole truth after one commit.

    Attributes:
        number: Counts commits from 1.
        parent: The commit before, None for the first.
        time: When, in UTC.
        epoch: The epoch of ``last``.
        step: Its step.
        changed: The pools that this commit set.
        pools: All pools, changed or not.
        objects: Digest to what is known of it, of every object that a pool or the state needs.
        state: Digest of the training state, where there is one.
        module_states: Module name to digest of training state that is the module's own.
        best: The best value so far.
        link: How files of pools come from objects: ``reflink``, ``hard link`` or ``copy``.
        weights_origins: Module name to where its initial weights were loaded from.
        provenance: Origins of modules, versions, and what else says how the run came about.
    """

    number: int
    parent: int | None
    time: datetime
    epoch: int
    step: int
    changed: list[str]
    pools: dict[str, StoredPool]
    objects: dict[str, StoredObject]
    state: str | None = None
    module_states: dict[str, str] = attrs.field(factory=dict)
    best: StoredBest | None = None
    link: str | None = None
    weights_origins: dict[str, WeightsOrigin] = attrs.field(factory=dict)
    provenance: dict[str, Any] = attrs.field(factory=dict)

    def used_digests(self) -> set[str]:
        """Return the digests that pools and state name, and those of their parts."""
        used = {digest for pool in self.pools.values() for digest in pool.modules.values()}
        return self.with_parts(used | self.state_digests())

    def after(self, **changes: Any) -> "CommitRecord":
        """Return the record after this one, where some fields change."""
        parent = self.number or None  # 0 stands for no commit
        return attrs.evolve(
            self, number=self.number + 1, parent=parent, time=datetime.now(UTC), **changes
        )

    def without_unused(self) -> "CommitRecord":
        """Return the record with the objects that pools and state need, and no others."""
        used = sorted(self.used_digests())
        return attrs.evolve(self, objects={digest: self.objects[digest] for digest in used})

    def state_digests(self) -> set[str]:
        """Return the digests of the training state."""
        return {*self.module_states.values(), *([self.state] if self.state else ())}

    def with_parts(self, digests: Iterable[str]) -> set[str]:
        """Add to digests those of their parts."""
        found = set(digests)
        for digest in tuple(found):
            if digest in self.objects:
                found.update(self.objects[digest].parts.values())
        return found

    def provider_of(self, module_name: str) -> DistributionOrigin | None:
        """Return the plugin that built a module; None for any other origin, or none known."""
        modules = self.provenance.get("modules")
        return DistributionOrigin.from_json(
            modules.get(module_name) if isinstance(modules, dict) else None
        )


def encode_record(record: CommitRecord) -> bytes:
    """Return the bytes of a record's file: JSON with a checksum over the rest of it."""
    has_parts = any(stored.parts for stored in record.objects.values())
    format_ = FORMAT_WITH_PARTS if has_parts or record.module_states else FORMAT
    content = {"format": format_, **_CONVERTER.unstructure(record)}
    return _dump({**content, "checksum": _checksum(content)}) + b"\n"


def read_record(path: Path) -> CommitRecord:
    """Read a record.

    Raises:
        OSError: It cannot be read.
        CheckpointFileError: It is damaged, or of a newer format.
    """
    status = path.lstat()
    try:
        # A pipe would keep the reader waiting, and a device or link may give bytes without end.
        if not stat.S_ISREG(status.st_mode) or status.st_size > _MOST_BYTES:
            raise ValueError("not a file of that size")
        content: Any = json.loads(path.read_bytes())
        checksum, format_ = content.pop("checksum"), content.pop("format")
        if type(format_) is not int or checksum != _checksum({"format": format_, **content}):
            raise ValueError("another checksum")
        if format_ not in {FORMAT, FORMAT_WITH_PARTS}:
            raise CheckpointFileError(
                f"is a commit of store format {format_}, and this version reads formats up to "
                f"{FORMAT_WITH_PARTS}",
                file=path,
                found=format_,
                fix="pip install -U pymodules-core",
            )
        record = _CONVERTER.structure(content, CommitRecord)
        _CONVERTER.structure(record.provenance, Provenance)
        _check_names(record)
        if record.number != int(path.name.removesuffix(RECORD_SUFFIX)):
            raise ValueError("it is called by another number")
    except CheckpointFileError:
        raise
    except (
        *(ValueError, TypeError, KeyError, AttributeError, RecursionError),
        cattrs.BaseValidationError,
    ) as error:
        raise CheckpointFileError(
            "is a damaged commit record",
            file=path,
            fix="pymodules ckpt repair takes the one before",
        ) from error
    return record


def _check_names(record: CommitRecord) -> None:
    """Refuse names that lead elsewhere: a record may come from a stranger and becomes paths."""
    for pool_name, pool in record.pools.items():
        check_pool_name(pool_name)
        for module_name in pool.modules:
            check_path_name(module_name, kind="module name")
    for stored in record.objects.values():
        for file_name in stored.parts:
            check_path_name(file_name, kind="file name")
    digests = record.used_digests() | record.with_parts(record.objects)
    if not all(map(_DIGEST.fullmatch, digests)) or not digests <= set(record.objects):
        raise ValueError("a digest is malformed, or its object is not described")


def record_numbers(layout: Layout) -> list[int]:
    """Return the numbers of the commits on disk, newest first.

    Raises:
        CheckpointFileError: A link or pipe is in the place of a part of the store.
    """
    layout.check()
    return listed_numbers(layout)


def listed_numbers(layout: Layout) -> list[int]:
    """Return what ``record_numbers`` returns, for a writer that looked at the store already."""
    try:
        names = os.listdir(layout.commits)  # noqa: PTH208  half the time of iterdir, at each commit
    except (FileNotFoundError, NotADirectoryError):
        return []
    stems = [name.removesuffix(RECORD_SUFFIX) for name in names if name.endswith(RECORD_SUFFIX)]
    return sorted(map(int, filter(_NUMBER.fullmatch, stems)), reverse=True)


def readable_records(layout: Layout) -> list[CommitRecord]:
    """Return the whole commits on disk, newest first; a writer may be at work meanwhile.

    Raises:
        CheckpointFileError: One is of a newer format.
    """
    for _ in range(ATTEMPTS):
        found = []
        try:
            for number in record_numbers(layout):
                try:
                    found.append(read_record(layout.record(number)))
                except CheckpointFileError as error:
                    if error.found is not None:
                        raise
                    logger.warning("%s", error)
        except FileNotFoundError:
            continue
        return found
    return []


def _dump(content: Mapping[str, Any]) -> bytes:
    return json.dumps(content, separators=(",", ":"), sort_keys=True).encode()


def _checksum(content: Mapping[str, Any]) -> str:
    return blake3(_dump(content)).hexdigest()


_CONVERTER = make_converter(
    {
        StoredObject: {"parts": OMITTED_IF_EMPTY, "checksum": override(rename="seal")},
        StoredBest: {"value": NUMBER_OR_TEXT},
        CommitRecord: {"module_states": OMITTED_IF_EMPTY},
    }
)
