"""A run that is killed and continues has the log of one that was not."""

import multiprocessing
import os
import random
import time
from collections import Counter

import pytest
import torch
from pymodules_tensorboard.event_files import cut_back, event_files
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch.utils.tensorboard.writer import SummaryWriter

from pymodules_core import CheckpointManager, ModulePool, Trainer
from pymodules_core.errors import PymodulesError

SETTINGS = """
[plugins.settings.tensorboard]
every_n_steps = 1
histograms = ["net"]
"""
# So many epochs that a machine which is busy does not end them between two kills.
LONG = """
[train]
epochs = 9
batch_size = 4
device = "cpu"
[checkpoints]
every_n_steps = 7
"""


def notes(log):
    return [
        (event.step, event.tensor_proto.string_val[0].decode().partition(";")[0])
        for event in log.Tensors("checkpoints/text_summary")
    ]


@pytest.fixture
def start():
    """Start a process that resumes a run, from a server that has imported torch already."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(
        ["pymodules_core.training.trainer", "torch.utils.tensorboard", "torch._dynamo"]
    )

    def start_process(path):
        program = (
            "import os\n"
            'os.environ["STEP_S"] = "0.02"\n'
            "from pymodules_core import Trainer\n"
            f"Trainer({str(path)!r}, existing='resume').fit()\n"
        )
        process = context.Process(target=exec, args=(program,))
        process.start()
        return process

    return start_process


def test_a_run_that_is_killed_again_and_again_has_the_same_points(write, read, points, start):
    options = {"settings": SETTINGS, "toml": LONG}
    whole, path = write("whole", **options), write("killed", **options)
    Trainer(whole).fit()
    draw = random.Random(5)
    folder = path / "data" / "tensorboard"
    kills = 0
    while kills < 6:
        files = event_files(folder)
        process = start(path)
        while process.is_alive() and event_files(folder) == files:
            time.sleep(0.005)
        time.sleep(draw.uniform(0, 0.3))
        process.kill()
        process.join()
        if process.exitcode == 0:  # it was faster
            break
        kills += 1

    Trainer(path, existing="resume").fit()

    assert kills >= 3
    assert points(path) == points(whole)
    assert points(path, is_purged=True) == points(whole)
    assert max(Counter(notes(read(path))).values()) == 1
    assert set(notes(read(path))) <= set(notes(read(whole)))


@pytest.mark.parametrize(
    "moment", ["step 3", "step 7", "step 9", "epoch 10", "step 25", "epoch 30"]
)
def test_a_run_that_crashes_has_the_same_points_when_it_continues(
    write, read, points, monkeypatch, moment
):
    whole, path = write("whole", settings=SETTINGS), write("crashed", settings=SETTINGS)
    Trainer(whole).fit()
    monkeypatch.setenv("CRASH_AT", moment)
    with pytest.raises(PymodulesError, match="the power is gone"):
        Trainer(path).fit()
    monkeypatch.delenv("CRASH_AT")

    Trainer(path, existing="resume").fit()

    assert points(path) == points(whole)
    assert points(path, is_purged=True) == points(whole)
    assert sorted(notes(read(path))) == sorted(notes(read(whole)))


def test_a_tensorboard_that_watches_forgets_what_was_taken_back(write, read, monkeypatch):
    path = write(settings=SETTINGS)
    monkeypatch.setenv("CRASH_AT", "step 19")
    with pytest.raises(PymodulesError):
        Trainer(path).fit()
    monkeypatch.delenv("CRASH_AT")
    watching = read(path, is_purged=True)
    seen = [event.step for event in watching.Scalars("train/loss")]

    Trainer(path, existing="resume").fit()

    assert seen[-1] == 18  # the run resumes from step 17
    watching.Reload()
    assert [event.step for event in watching.Scalars("train/loss")] == list(range(1, 31))


def test_a_run_that_gets_more_epochs_continues_in_its_curves(write, points):
    whole, path = write("whole", settings=SETTINGS), write("longer", settings=SETTINGS)
    Trainer(whole).fit()
    Trainer(path, overrides={"train.epochs": 1}).fit()

    Trainer(path, overrides={"train.epochs": 3}, existing="resume").fit()

    texts = [point for point in points(path) if point[0].startswith("experiment")]
    assert [step for _, step, _ in texts] == [0, 10]  # other settings are reported
    assert [point for point in points(path) if point not in texts] == [
        point for point in points(whole) if not point[0].startswith("experiment")
    ]


def test_a_log_without_a_state_is_cut_by_steps(write, points, monkeypatch):
    path = write(settings=SETTINGS)
    monkeypatch.setenv("CRASH_AT", "step 19")
    with pytest.raises(PymodulesError):
        Trainer(path).fit()
    monkeypatch.delenv("CRASH_AT")
    with CheckpointManager(path / "data" / "module_ckps", ModulePool.discover(path)) as checkpoints:
        resumed = checkpoints.resume()
        checkpoints.commit("last", epoch=resumed.epoch, step=resumed.step)

    Trainer(path, existing="resume").fit()

    steps = [step for tag, step, _ in points(path) if tag == "train/loss"]
    assert resumed.step == 17
    assert sorted(steps) == list(range(1, max(steps) + 1))


def test_the_training_is_the_same_with_the_log_and_without(write):
    path, other = write("with", settings=SETTINGS), write("without")
    Trainer(path).fit()
    Trainer(other, load_installed=False).fit()

    states = [
        torch.load(one / "data" / "module_ckps" / "last" / "net.pt", weights_only=True)
        for one in (path, other)
    ]
    assert all(torch.equal(value, states[1][key]) for key, value in states[0].items())
    assert not (other / "data" / "tensorboard").exists()


def log_of(folder, steps):
    writer = SummaryWriter(str(folder))
    for step in steps:
        writer.add_scalar("loss", step, step)
    writer.flush()
    (file,) = folder.iterdir()
    return writer, file


def steps_in(folder):
    log = EventAccumulator(str(folder), purge_orphaned_data=False).Reload()
    return [event.step for event in log.Scalars("loss")]


def test_half_a_record_is_cut_off(tmp_path):
    writer, file = log_of(tmp_path / "log", range(5))
    lengths = {file.name: file.stat().st_size}
    writer.add_scalar("loss", 5, 5)
    writer.close()
    os.truncate(file, file.stat().st_size - 3)

    cut_back(tmp_path / "log", lengths, step=4, is_kept=lambda _: False)

    assert file.stat().st_size == lengths[file.name]
    assert steps_in(tmp_path / "log") == [0, 1, 2, 3, 4]


def test_what_a_disk_lost_leaves_whole_records(tmp_path):
    writer, file = log_of(tmp_path / "log", range(5))
    writer.close()
    size = file.stat().st_size
    os.truncate(file, size - 3)

    cut_back(tmp_path / "log", {file.name: size}, step=4, is_kept=lambda _: False)

    assert file.stat().st_size < size - 3
    assert steps_in(tmp_path / "log") == [0, 1, 2, 3]


def test_files_that_a_checkpoint_does_not_know_are_deleted_and_others_stay(tmp_path):
    writer, _ = log_of(tmp_path / "log", range(5))
    writer.close()
    other = tmp_path / "log" / "notes.txt"
    other.write_text("mine")

    kept = cut_back(tmp_path / "log", {}, step=3, is_kept=lambda event: event.step in {2, 4})

    assert [event.step for event in kept] == [2]
    assert list((tmp_path / "log").iterdir()) == [other]
