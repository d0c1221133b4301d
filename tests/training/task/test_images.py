"""``run.log_image``: what counts as an image, and that it reaches whoever listens."""

import sys

import pytest
from support import TINY_TASK, write_experiment

from pymodules_core import Trainer
from pymodules_core.errors import TaskError
from pymodules_core.training.run_output.console import SilentPrinter

RECORDER = """
from pymodules_core import hookimpl

images = []

@hookimpl
def image_logged(run, name, image):
    images.append((run.epoch, run.step, name, tuple(image.shape), image.requires_grad))
"""


def logging(call: str, step: str = "train_step") -> str:
    """Return the tiny task with a call in one of its steps."""
    head = f"def {step}(module_pool, batch"
    return TINY_TASK.replace(f"{head}):", f"{head}, run):\n    {call}")


def fit(tmp_path, task):
    path = write_experiment(tmp_path, task=task, toml="[train]\nepochs = 1\nbatch_size = 20\n")
    return Trainer(path, reporter=SilentPrinter()).fit()


@pytest.mark.parametrize(
    ("image", "shape"),
    [
        ("module_pool.net.weight[None]", (1, 1, 4)),
        ("torch.rand(2, 3, 5, 5)", (2, 3, 5, 5)),
        ("torch.zeros(4, 2, 2, dtype=torch.uint8)", (4, 2, 2)),
        ("torch.rand(1, 2, 2).half()", (1, 2, 2)),
    ],
    ids=["grey", "batch", "bytes", "half"],
)
def test_an_image_of_a_step_reaches_the_hook_detached(install_distribution, tmp_path, image, shape):
    install_distribution("acme-broken", RECORDER.replace("images.append", "missing.append"))
    install_distribution("acme-recorder", RECORDER)

    fit(tmp_path, logging(f"run.log_image('shown', {image})"))

    assert sys.modules["acme_recorder"].images == [
        (1, 0, "shown", shape, False),
        (1, 1, "shown", shape, False),
    ]


def test_an_image_of_an_eval_step_reaches_the_hook(install_distribution, tmp_path):
    install_distribution("acme-recorder", RECORDER)

    fit(tmp_path, logging("run.log_image('made', torch.rand(1, 2, 2))", "eval_step"))

    epochs = [epoch for epoch, *_ in sys.modules["acme_recorder"].images]
    assert epochs == [0, 0, 1, 1]


@pytest.mark.parametrize(
    ("call", "what", "fix"),
    [
        (
            "run.log_image(3, torch.rand(1, 2, 2))",
            "an image is called 3, expected str",
            "call it '3'",
        ),
        (
            "run.log_image('a', [[0.5]])",
            "image 'a' is list [[0.5]], expected a tensor",
            "torch.as_tensor(image)",
        ),
        (
            "run.log_image('a', torch.rand(8, 8))",
            "image 'a' has shape [8, 8], expected (channels, height, width) or (images, channels, "
            "height, width) with 1, 3 or 4 channels",
            "image.unsqueeze(-3) adds the channel of grey images",
        ),
        (
            "run.log_image('a', torch.rand(2, 7, 8, 8))",
            "image 'a' has shape [2, 7, 8, 8], expected (channels, height, width) or (images, "
            "channels, height, width) with 1, 3 or 4 channels",
            "image.reshape(-1, channels, height, width)",
        ),
        (
            "run.log_image('a', torch.ones(1, 2, 2, dtype=torch.int64))",
            "image 'a' has dtype torch.int64, expected float from 0 to 1, or uint8",
            "image.float(), scaled to 0 to 1",
        ),
    ],
    ids=["name", "list", "flat", "channels", "integers"],
)
def test_what_no_logger_could_show_is_refused_although_nobody_listens(tmp_path, call, what, fix):
    with pytest.raises(TaskError) as caught:
        fit(tmp_path, logging(call))

    assert caught.value.what == f"{what} (epoch 1, step 1, batch 1)"
    assert caught.value.fix == fix
    assert caught.value.line is not None


def test_metrics_of_a_step_hold_no_graph_and_are_those_of_that_step(install_distribution, tmp_path):
    install_distribution(
        "acme-recorder",
        "from pymodules_core import hookimpl\nseen = []\n"
        "@hookimpl\ndef train_step_finished(metrics):\n    seen.append(metrics)\n",
    )

    fit(tmp_path, logging("run.log('size', run.step)"))

    first, second = sys.modules["acme_recorder"].seen
    assert (first["size"], second["size"]) == (0, 1)
    assert not first["loss"].requires_grad
    assert first["loss"] > second["loss"]
