"""Fuzzing targets that are whole stores: their records, objects, shards and training states."""

import contextlib
import json
import logging
import random
import shutil
from collections import OrderedDict
from pathlib import Path
from typing import Any

import torch
from blake3 import blake3
from fuzzing.cases import Target
from fuzzing.damage import damage_bytes, damage_tree, strange_text, strange_value
from fuzzing.files import CraftedFile, digest_of, make_net
from hostile_files import saved
from safetensors.torch import save as save_safetensors
from torch import nn

from pymodules_core import CheckpointManager, ModulePool, PoolReader, Trainer, read_state_dict
from pymodules_core.checkpoints.file_format.read import digest_of_file
from pymodules_core.checkpoints.sharded.index import make_index
from pymodules_core.checkpoints.store.checksums import checksum_of_file
from pymodules_core.checkpoints.store.paths import Layout
from pymodules_core.checkpoints.store.records import read_record, record_numbers
from pymodules_core.checkpoints.store.verification import verify_store
from pymodules_core.checkpoints.tools.lineage import newest_record
from pymodules_core.checkpoints.tools.overview import overview
from pymodules_core.checkpoints.tools.statistics import tensor_statistics
from pymodules_core.errors import CheckpointError, PymodulesError
from pymodules_core.testing import write_experiment
from pymodules_core.training.run_output.console import SilentPrinter


class _Warnings(logging.Handler):
    """Counts what is told to a person."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.count = 0

    def emit(self, record: logging.LogRecord) -> None:
        self.count += 1


class _Store(Target):
    """A store whose two newest commits differ."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.path = folder / "a" / "data" / "module_ckps"
        self._template = folder / "template"
        self.net = make_net()
        self.pool = ModulePool.from_modules(
            {"net": self.net, "lens": nn.Linear(2, 2)}, settings={"lens": {"frozen": True}}
        )
        with CheckpointManager(self._template, self.pool, link="copy") as checkpoints:
            checkpoints.start(state={"seen": torch.arange(3)})
            for epoch in (1, 2):
                self.old = digest_of(self.net.state_dict())
                with torch.no_grad():
                    self.net[0].weight.add_(1)
                pools = ("last", "best", f"epoch_{epoch}")
                metrics = {"loss": 1 / epoch, "accuracy": float("nan")}
                checkpoints.commit(*pools, epoch=epoch, metrics=metrics, state={"seen": [epoch]})
        # Named by what they hold; a crafted record may take one for another.
        self.digests = {path.stem for path in Layout(self._template).objects.iterdir()}
        self.layout = Layout(self.path)
        # What is to be put back; None where a writer may have changed anything.
        self._changed: list[Path] | None = []
        self.warnings = _Warnings()
        logging.getLogger("pymodules_core").addHandler(self.warnings)
        shutil.copytree(self._template, self.path)
        self.number = record_numbers(self.layout)[0]
        self._record = read_record(self.newest)

    def renew(self) -> None:
        """Put the store back to where it was."""
        self.warnings.count = 0
        if self._changed is None:
            shutil.rmtree(self.path)
            shutil.copytree(self._template, self.path)
        for file in self._changed or ():
            file.unlink(missing_ok=True)
            with contextlib.suppress(FileNotFoundError):
                shutil.copy2(self._template / file.relative_to(self.path), file)
        self._changed = []

    @property
    def newest(self) -> Path:
        """The record of the newest commit."""
        return self.layout.record(self.number)

    def replace(self, file: Path, content: bytes) -> None:
        """Overwrite a file, though it is read-only."""
        assert self._changed is not None
        self._changed.append(file)
        file.unlink(missing_ok=True)
        file.write_bytes(content)

    def look(self) -> None:
        """Do what readers do: list, verify, follow the weights."""
        for reading in (
            lambda: overview(self.path),
            lambda: verify_store(self.layout, digest_of_file),
            lambda: newest_record(self.folder / "a"),
        ):
            with contextlib.suppress(PymodulesError):
                reading()

    def read(self) -> None:
        """Read pools; what comes was saved so, and older weights are reported."""
        reader = PoolReader(self.path)
        for pool_name in ("last", "best", "frzn"):
            for stored in reader.read(pool_name).values():
                found = digest_of(stored.state)
                assert found in self.digests, "other weights than were ever saved"
                assert found != self.old or self.warnings.count, "older weights, and nobody told"

    def resume(self) -> None:
        """Go on as a writer does, which may repair what it finds."""
        self._changed = None
        with CheckpointManager(self.path, self.pool, link="copy") as checkpoints:
            checkpoints.resume()
            found = digest_of(self.net.state_dict())
            assert found in self.digests, "other weights than were ever saved"
            assert found != self.old or self.warnings.count, "older weights, and nobody told"


class RecordFile(_Store):
    """A commit record by itself, damaged or crafted."""

    name, share = "commit record", 14_000

    def prepare(self, choice: random.Random) -> object:
        self.renew()
        content = self.newest.read_bytes()
        is_crafted = choice.random() < 0.5
        if is_crafted:
            record = damage_tree(json.loads(content), choice, strange_value)
            self.replace(self.newest, _sealed(record))
        else:
            self.replace(self.newest, damage_bytes(content, choice))
        return is_crafted

    def try_it(self, given: Any) -> None:
        record = read_record(self.newest)
        assert given or record == self._record, "another record than was written"
        for path in (
            *map(self.layout.object, record.objects),
            *map(self.layout.view, record.pools),
        ):
            assert self.path in path.resolve().parents, "a name that leads elsewhere"


class DamagedRecord(_Store):
    """A commit record that a disk or an editor changed: its checksum says."""

    name, share = "store with a damaged record", 1_200

    def prepare(self, choice: random.Random) -> object:
        self.renew()
        self.replace(self.newest, damage_bytes(self.newest.read_bytes(), choice))
        return choice.random() < 0.2

    def try_it(self, given: Any) -> None:
        self.look()
        self.read()
        if given:
            self.resume()


class CraftedRecord(_Store):
    """A commit record with a right checksum, by a stranger: it becomes paths and sizes."""

    name, share = "store with a crafted record", 1_200

    def prepare(self, choice: random.Random) -> object:
        self.renew()
        content = damage_tree(json.loads(self.newest.read_bytes()), choice, strange_value)
        name = self.newest
        if choice.random() < 0.1:
            stem = choice.choice(("\u00b2", "9" * 200, "-1", "1e3", "0" * 30, "\u0663", " 7"))
            name = self.newest.with_name(f"{stem}.json")
        self.replace(name, _sealed(content))
        return choice.random() < 0.2

    def try_it(self, given: Any) -> None:
        self.warnings.count += 1  # a stranger's record may well call the older weights the newest
        for act in (self.look, self.read, *([self.resume] if given else [])):
            try:
                act()
            finally:
                assert self.layout.objects.is_dir()


class DamagedObject(_Store):
    """The file of some weights or of a training state, damaged."""

    name, share = "store with a damaged object", 1_200

    def prepare(self, choice: random.Random) -> object:
        self.renew()
        file = choice.choice(sorted(self.layout.objects.iterdir()))
        self.replace(file, damage_bytes(file.read_bytes(), choice))
        return choice.random() < 0.2

    def try_it(self, given: Any) -> None:
        self.look()
        if given:
            self.resume()
        self.read()


class CraftedStore(_Store):
    """A stranger's store: a crafted object, and a record that vouches for it."""

    name, share = "store with a crafted object", 1_200

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        (folder / "files").mkdir()
        self._crafted = CraftedFile(folder / "files")

    def prepare(self, choice: random.Random) -> object:
        self.renew()
        self._crafted.prepare(choice)
        crafted = self._crafted.file
        record = json.loads(self.newest.read_bytes())
        digest = record["pools"]["last"]["modules"]["net"]
        if choice.random() < 0.2:
            digest = record["state"]
        self.replace(self.layout.object(digest), crafted.read_bytes())
        try:
            checksum = checksum_of_file(crafted)
        except (ValueError, OverflowError, MemoryError):
            checksum = "0" * 32
        record["objects"][digest] |= {"size_bytes": crafted.stat().st_size, "seal": checksum}
        self.replace(self.newest, _sealed(record))
        return choice.random() < 0.3

    def try_it(self, given: Any) -> None:
        self.look()
        reader = PoolReader(self.path)
        try:
            for stored in reader.read("last").values():
                tensor_statistics(stored.state)
        finally:
            if given:
                self._changed = None
                with CheckpointManager(self.path, self.pool, link="copy") as checkpoints:
                    checkpoints.load("last")
                    checkpoints.resume()


class DamagedShards(Target):
    """A folder of shards with its index, damaged or crafted."""

    name, share = "shards", 2_000

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self._state = make_net().state_dict()
        self._digest = digest_of(self._state)
        self._net = folder / "net"
        self._net.mkdir()
        halves = self._state["0.weight"].split(2)
        self._shards = {
            f"shard_{number}.safetensors": save_safetensors(
                {"0.weight": half},
                {"DCP_SHARDING_INFO": json.dumps({"0.weight": {"saved_offsets": [2 * number, 0]}})},
            )
            for number, half in enumerate(halves)
        }
        rest = OrderedDict(self._state)
        rest["0.weight"] = {"$shard": "0.weight", "shape": [4, 3], "dtype": "float32"}
        rest._metadata = self._state._metadata  # type: ignore[attr-defined]
        self._rest = rest

    def prepare(self, choice: random.Random) -> object:
        for file in self._net.iterdir():
            file.unlink()
        is_crafted = choice.random() < 0.5
        shards = dict(self._shards)
        name = choice.choice(list(shards))
        if is_crafted:  # digests that are right for what was damaged
            shards[name] = damage_bytes(shards[name], choice)
        files = {key: blake3(content).hexdigest() for key, content in shards.items()}
        index: Any = make_index(self._rest, files)
        if is_crafted:
            index = damage_tree(index, choice, strange_value)
            if choice.random() < 0.1:
                index["files"] = {strange_text(choice): strange_text(choice)}
        else:
            shards[name] = damage_bytes(shards[name], choice)
        content = saved(index)
        if choice.random() < 0.2:
            content = damage_bytes(content, choice)
        (self._net / "index.pt").write_bytes(content)
        for key, shard in shards.items():
            (self._net / key).write_bytes(shard)
        return is_crafted

    def try_it(self, given: Any) -> None:
        state = read_state_dict(self._net)
        assert given or digest_of(state) == self._digest, "other weights than were saved"


class TrainingStates(Target):
    """A training state by a stranger, which a run is told to resume from."""

    name, share = "training state", 600

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        toml = "[train]\nepochs = 2\nbatch_size = 16\n[checkpoints]\nkeep_epochs = 1\n"
        self._experiment = write_experiment(folder, toml=toml)
        self._trainer().fit()
        self._path = self._experiment / "data" / "module_ckps"
        self._template = folder / "template"
        shutil.copytree(self._experiment / "data", self._template)
        pool = ModulePool.discover(self._experiment)
        with CheckpointManager(self._path, pool) as checkpoints:
            self._state = checkpoints.resume().state

    def _trainer(self, **more: Any) -> Trainer:
        return Trainer(self._experiment, reporter=SilentPrinter(), load_installed=False, **more)

    def prepare(self, choice: random.Random) -> object:
        shutil.rmtree(self._experiment / "data")
        shutil.copytree(self._template, self._experiment / "data")
        return damage_tree(dict(self._state or {}), choice, _state_leaf)

    def try_it(self, given: Any) -> None:
        pool = ModulePool.discover(self._experiment)
        with CheckpointManager(self._path, pool) as checkpoints:
            checkpoints.resume()
            try:
                checkpoints.commit("last", epoch=1, step=3, state=given)
            except CheckpointError:  # what a checkpoint cannot hold cannot come from one
                return
        before = _files(self._path)
        try:
            self._trainer(existing="resume").fit()
        except PymodulesError:
            assert before <= _files(self._path), "a run that was refused has lost something"
            raise


def _state_leaf(choice: random.Random) -> Any:
    return choice.choice(
        (
            torch.zeros(3),
            torch.tensor(float("nan")),
            torch.zeros(5056, dtype=torch.uint8),
            {"$": "deque", "value": [[1], None]},
            {"$": "path", "value": "../../x"},
            {"$": strange_text(choice), "value": strange_value(choice)},
            strange_value(choice),
        )
    )


def _files(folder: Path) -> set[Path]:
    return {file for file in folder.rglob("*.pt") if file.is_file()}


def _sealed(content: Any) -> bytes:
    """Return the bytes of a record with the checksum that belongs to it."""
    if isinstance(content, dict):
        content = {key: value for key, value in content.items() if key != "checksum"}
        content["checksum"] = blake3(_dump(content)).hexdigest()
    return _dump(content)


def _dump(content: Any) -> bytes:
    return json.dumps(content, separators=(",", ":"), sort_keys=True).encode()


TARGETS = (
    *(RecordFile, DamagedRecord, CraftedRecord, DamagedObject, CraftedStore, DamagedShards),
    TrainingStates,
)
