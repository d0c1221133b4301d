"""What of a run is in its log."""

import io
import json

import pytest
import torch
from PIL import Image
from pymodules_tensorboard.event_log import EventLog
from pymodules_tensorboard.pictures import as_picture
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch import nn

from pymodules_core import Trainer
from pymodules_core.errors import PymodulesError, SettingsError

EVERY_STEP = "[plugins.settings.tensorboard]\nevery_n_steps = 1\n"


OF_UNKNOWN_LENGTH = """

class Batches:
    def __iter__(self):
        yield from zip(*(tensor.split(8) for tensor in dataset(1).tensors))


def train_data():
    return Batches()
"""


def logged(experiment, phase):
    """Return the metrics of a phase from the run's own file."""
    lines = (experiment / "data" / "metrics.jsonl").read_text().splitlines()
    return [line for line in map(json.loads, lines) if line["phase"] == phase]


def scalars(log, tag):
    return [(event.step, event.value) for event in log.Scalars(tag)]


def test_metrics_are_those_of_the_run(write, read):
    path = write(settings=EVERY_STEP)

    Trainer(path).fit()

    log = read(path)
    for group, phase, tag in (("train_epoch", "train", "size"), ("eval", "eval", "loss")):
        expected = [(line["step"], line["metrics"][tag]) for line in logged(path, phase)]
        found = scalars(log, f"{group}/{tag}")
        assert [step for step, _ in found] == [step for step, _ in expected]
        assert dict(found) == pytest.approx(dict(expected))
    steps = scalars(log, "train/loss")
    assert [step for step, _ in steps] == list(range(1, 31))
    mean = sum(value for _, value in steps[:10]) / 10
    assert logged(path, "train")[0]["metrics"]["loss"] == pytest.approx(mean, rel=1e-5)
    assert sorted(log.Tags()["scalars"]) == [
        "eval/loss",
        "lr/main",
        "lr/main/group_1",
        "train/loss",
        "train/size",
        "train_epoch/loss",
        "train_epoch/size",
    ]


def test_steps_between_are_left_out(write, read):
    path = write(settings=EVERY_STEP.replace("1", "20"))

    Trainer(path).fit()

    log = read(path)
    assert [step for step, _ in scalars(log, "train/loss")] == [1, 20]
    # Also at the end of each epoch, of epoch 0 too, but not twice at step 20.
    rates = scalars(log, "lr/main")
    assert [step for step, _ in rates] == [0, 1, 10, 20, 30]
    assert dict(rates) == pytest.approx(
        {0: 0.05, 1: 0.05, 10: 0.05 * 0.9, 20: 0.05 * 0.9, 30: 0.05 * 0.9**3}
    )
    assert [step for step, _ in scalars(log, "lr/main/group_1")] == [0, 1, 10, 20, 30]


def test_a_step_whose_window_the_end_cuts_short_is_logged_once(write, read):
    path = write(settings=f"[optimizers.main]\naccumulate = 2\n{EVERY_STEP}")
    task = path / "pymodules" / "task.py"
    task.write_text(task.read_text() + OF_UNKNOWN_LENGTH)

    Trainer(path).fit()

    log = read(path)
    assert [step for step, _ in scalars(log, "lr/main")] == list(range(16))
    assert [step for step, _ in scalars(log, "train/loss")] == list(range(1, 16))


def test_a_metric_is_read_only_where_it_is_logged(write, monkeypatch):
    task = """
import torch
from torch.optim import SGD


class Watched(torch.Tensor):
    reads = []

    def __float__(self):
        Watched.reads.append(1)
        return super().__float__()


def train_data():
    return list(torch.ones(30, 2, 4))


def optimizers(module_pool):
    return SGD(module_pool.net.parameters(), lr=0.1)


def train_step(module_pool, batch):
    loss = module_pool.net(batch).square().mean()
    return {"loss": loss, "watched": loss.detach().as_subclass(Watched)}


def run_finished(run):
    (run.data_dir / "reads.txt").write_text(str(len(Watched.reads)))
"""

    reads = []
    for name, n in (("ten", "10"), ("never", "1000")):
        path = write(name, task=task, settings=EVERY_STEP.replace("1", n))
        Trainer(path, overrides={"train.epochs": 1}).fit()
        reads.append(int((path / "data" / "reads.txt").read_text()))

    assert reads[0] - reads[1] == 3


def test_an_epoch_without_eval_has_no_eval_point(write, read):
    path = write(settings="")

    Trainer(path, overrides={"train.eval_every_n_epochs": 2}).fit()

    log = read(path)
    assert [step for step, _ in scalars(log, "eval/loss")] == [0, 20, 30]
    assert [step for step, _ in scalars(log, "train_epoch/loss")] == [10, 20, 30]


def test_checkpoints_and_settings_are_texts(write, read):
    path = write()

    Trainer(path).fit()

    log = read(path)
    (text,) = log.Tensors("experiment/text_summary")
    assert text.step == 0
    assert b'"batch_size": 4' in text.tensor_proto.string_val[0]
    notes = log.Tensors("checkpoints/text_summary")
    texts = [note.tensor_proto.string_val[0].decode() for note in notes]
    assert texts[0].startswith("commit 1: frzn, init, last; epoch 0, step 0; ")
    assert [note.step for note in notes].count(7) == 1  # in mid-epoch
    assert sum(", best moved; epoch 3, step 30; " in text for text in texts) == 1
    assert len(set(texts)) == len(texts)


def test_histograms_are_of_the_modules_that_are_named(write, read):
    path = write(settings='[plugins.settings.tensorboard]\nhistograms = ["n*"]')

    Trainer(path).fit()

    log = read(path)
    tags = log.Tags()["histograms"]
    assert sorted(tags) == [f"weights/net.{i}.{k}" for i in (0, 2) for k in ("bias", "weight")]
    events = log.Histograms("weights/net.0.weight")
    assert [event.step for event in events] == [0, 10, 20, 30]
    weight = torch.load(path / "data/module_ckps/last/net.pt", weights_only=True)["0.weight"]
    assert events[-1].histogram_value.num == weight.numel()
    assert events[-1].histogram_value.max == pytest.approx(weight.max().item())


def test_a_pattern_without_a_module_is_warned_of(write, caplog):
    path = write(settings='[plugins.settings.tensorboard]\nhistograms = ["encoder"]')

    Trainer(path, overrides={"train.epochs": 1}).fit()

    assert "tensorboard.histograms: 'encoder' matches no module; there are: net" in caplog.text


def test_images_are_pictures(write, read):
    path = write()

    Trainer(path).fit()

    events = read(path).Images("images/predictions")
    assert [event.step for event in events] == [0, 10, 20, 30]
    picture = Image.open(io.BytesIO(events[-1].encoded_image_string))
    assert picture.size == (2 * 2 + 1, 1)  # two images of two pixels, and a line between them


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_a_batch_becomes_a_grid(channels):
    images = torch.arange(1, 6).reshape(5, 1, 1, 1).expand(5, channels, 2, 3) / 255

    grid = as_picture(images)

    assert grid.shape == (channels, 2 * 3 - 1, 3 * 4 - 1)
    assert grid[0].tolist() == [
        [1, 1, 1, 0, 2, 2, 2, 0, 3, 3, 3],
        [1, 1, 1, 0, 2, 2, 2, 0, 3, 3, 3],
        [0] * 11,
        [4, 4, 4, 0, 5, 5, 5, 0, 0, 0, 0],
        [4, 4, 4, 0, 5, 5, 5, 0, 0, 0, 0],
    ]


def test_values_that_are_no_brightness_are_clipped():
    image = torch.tensor([[[0.5, 2.0, -1.0, float("nan")]]])

    assert as_picture(image).tolist() == [[[128, 255, 0, 0]]]
    assert as_picture(image.bfloat16()).tolist() == [[[128, 255, 0, 0]]]
    assert as_picture(torch.tensor([[[7]]], dtype=torch.uint8)).tolist() == [[[7]]]


def test_weights_that_are_not_finite_are_left_out_of_a_histogram(tmp_path):
    net = nn.Linear(4, 2)
    with torch.no_grad():
        net.weight[0, :2] = torch.tensor([float("nan"), float("inf")])
        net.bias.fill_(float("nan"))
    folder = tmp_path / "log"
    log = EventLog(folder, lengths={}, resumed_step=None)

    log.histograms("net", net.bfloat16(), 1)
    log.close()

    events = EventAccumulator(str(folder)).Reload()
    assert events.Tags()["histograms"] == ["weights/net.weight"]
    assert events.Histograms("weights/net.weight")[0].histogram_value.num == 6


def test_a_run_that_fails_has_all_of_its_log(write, read):
    path = write(settings=EVERY_STEP)
    task = path / "pymodules" / "task.py"
    failing = "\n\ndef train_step_finished(run):\n    if run.step == 5:\n        raise OSError\n"
    task.write_text(task.read_text() + failing)

    with pytest.raises(PymodulesError):
        Trainer(path).fit()

    # The task's hook comes first: the step that it ends is told to nobody.
    assert [step for step, _ in scalars(read(path), "train/loss")] == [1, 2, 3, 4]


# The thread that writes ends with the error, which it also hands on.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_log_that_cannot_be_written_does_not_end_the_training(write, caplog):
    path = write(settings=EVERY_STEP)
    task = path / "pymodules" / "task.py"
    removing = """

def train_step_finished(run):
    if run.step == 5:
        import shutil

        shutil.rmtree(run.data_dir / "tensorboard")
        (run.data_dir / "tensorboard").write_text("in the way")
"""
    task.write_text(task.read_text() + removing)

    result = Trainer(path).fit()

    assert result.steps == 30
    (warning,) = [record.message for record in caplog.records if record.levelname == "WARNING"]
    assert warning.startswith("the log of TensorBoard ends here, it cannot be written: ")


@pytest.mark.parametrize("line", ["every_n_steps = 0", "every_n_step = 5", 'histograms = "net"'])
def test_wrong_settings_are_refused(write, line):
    path = write(settings=f"[plugins.settings.tensorboard]\n{line}")

    with pytest.raises(SettingsError) as caught:
        Trainer(path).fit()

    assert caught.value.key.startswith("plugins.settings.tensorboard.")
    assert caught.value.line is not None


def test_a_note_is_on_disk_at_once(tmp_path):
    folder = tmp_path / "log"
    log = EventLog(folder, lengths={}, resumed_step=None)

    log.note("commit 1", 0)

    notes = EventAccumulator(str(folder)).Reload().Tensors("checkpoints/text_summary")
    assert [note.tensor_proto.string_val[0] for note in notes] == [b"commit 1"]
    log.close()
