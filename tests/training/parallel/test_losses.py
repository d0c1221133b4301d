"""Losses over whole batches, and over several blocks: what several processes train, one trains."""

from pathlib import Path

import pytest
from rank_cases import assert_close, case, differing, train_alone, train_cases, weights_of
from support import write_experiment

# Of 23 samples by 7 the last batch has two: fewer than three processes, and uneven ones before.
PAIRS = """
import torch
from torch.nn.functional import cross_entropy, normalize
from torch.optim import SGD
from torch.utils.data import TensorDataset

DTYPE = torch.{dtype}


def train_data():
    g = torch.Generator().manual_seed(0)
    hidden = torch.randn(23, 4, generator=g)
    images, texts = (hidden @ torch.randn(4, n, generator=g) for n in (12, 6))
    return TensorDataset(images.to(DTYPE), texts.to(DTYPE), torch.arange(23))


def optimizers(module_pool, config):
    parameters = [p for m in module_pool.values() for p in m.parameters()]
    return SGD(parameters, 0.02 * config["shrunk"], momentum=0.9)


def train_step(module_pool, batch, run):
    images, texts, numbers = batch
    raw = module_pool.image(images)
    image, text = normalize(raw, dim=1), normalize(module_pool.text(texts), dim=1)
    scale = module_pool.temperature()
    everyone, numbers_of_all = run.gather(text), run.gather(numbers)
    run.log("spread", run.gather(raw).std())
{loss}

def train_step_finished(run):
    if run.config["compares_ranks"]:
        own = [p.detach().flatten() for m in run.module_pool.values() for p in m.parameters()]
        of_ranks = run.gather(torch.cat(own)[None])
        assert len(of_ranks) == run.world_size
        assert (of_ranks == of_ranks[0]).all()
"""
LOSSES = {
    # Every process computes the loss of all pairs, as CLIP's paper has it.
    "all_pairs": """
    logits = scale * run.gather(image) @ everyone.T
    labels = torch.arange(len(logits))
    loss = (cross_entropy(logits, labels) + cross_entropy(logits.T, labels)) / 2
    return (loss + 0.01 * raw.square().mean()) / run.config["shrunk"]
""",
    # Every process computes that of its own rows against all: open_clip's local loss.
    "own_rows": """
    labels = (numbers[:, None] == numbers_of_all).float().argmax(1)
    loss = cross_entropy(scale * image @ everyone.T, labels)
    return (loss + 0.01 * raw.square().mean()) / run.config["shrunk"]
""",
}
TOWER = """
    import torch
    from torch import nn

    module = nn.Sequential(nn.Linear({size}, 16), nn.GELU(), nn.Linear(16, 5)).to(torch.{dtype})
    settings = {{}}
"""
TEMPERATURE = """
    import torch
    from torch import nn

    class Scale(nn.Module):
        def __init__(self):
            super().__init__()
            self.log = nn.Parameter(torch.tensor(2.0, dtype=torch.{dtype}))

        def forward(self):
            return self.log.exp()

    module = Scale()
    settings = {{}}
"""
# A network that has a part outside of its blocks, which FSDP2 leaves gathered after a forward.
NETWORK = """
    import torch
    from torch import nn

    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = nn.Sequential(nn.Linear(4, 6), nn.Tanh())
            self.outer = nn.Linear(6, 4)

        def forward(self, x):
            return self.outer(self.inner(x))

    module = Net().double()
    settings = {}
"""
BLOCKS = """
import torch
from torch.optim import SGD
from torch.utils.data import TensorDataset


def train_data():
    numbers = torch.Generator().manual_seed(0)
    return TensorDataset(torch.randn(23, 4, generator=numbers, dtype=torch.float64))


def optimizers(module_pool):
    others = [*module_pool.g.parameters(), *module_pool.h.parameters()]
    return {{
        "d": SGD(module_pool.d.parameters(), 0.1, momentum=0.9),
        "g": SGD(others, 0.1, momentum=0.9),
    }}


def train_step(module_pool, batch, run):
    d, g, batch = module_pool.d, module_pool.g, batch[0]
{step}

def train_step_finished(run):
    if run.config["compares_ranks"]:
        own = [p.detach().flatten() for m in run.module_pool.values() for p in m.parameters()]
        of_ranks = run.gather(torch.cat(own)[None])
        assert (of_ranks == of_ranks[0]).all()
"""
STEPS = {
    "inside": """
    with run.optimize("d") as step:
        fake = g(batch)
        step.loss = d(fake.detach()).square().mean()
    with run.optimize("g") as step:
        step.loss = (d(fake) - 1).square().mean() + 0.001 * g(batch).square().mean()
""",
    "not_detached": """
    with run.optimize("d") as step:
        fake = g(batch)
        step.loss = d(fake).square().mean()
    with run.optimize("g") as step:
        step.backward((d(fake) - 1).square().mean())
        step.backward(0.1 * g(batch).square().mean())
""",
    "again_after_the_update": """
    with run.optimize("g") as step:
        step.loss = (d(g(batch)) - 1).square().mean()
    with run.optimize("d") as step:
        step.loss = d(g(batch)).square().mean()
    with run.optimize("g") as step:
        step.loss = (d(g(batch)) - 2).square().mean()
""",
}
# The update of "g" follows a backward that leaves out one of its modules, which is gathered then.
LEFT_OUT = """
    with run.optimize("d") as step:
        step.loss = d(g(batch)).square().mean()
    with run.optimize("g") as step:
        step.loss = (g(batch) if run.step % 2 == 0 else module_pool.h(batch)).square().mean()
    with run.optimize("d") as step:
        step.loss = d(g(batch).square()).mean()
"""
FSDP = {"kind": "fsdp", "blocks": ["Sequential"]}
KINDS = {
    "ddp": ("ddp", "ddp"),
    "fsdp": (FSDP, FSDP),
    "off": ("off", "off"),
    "ddp_and_fsdp": ("ddp", FSDP),
}


def gathered(home, name, *, loss, kind="ddp", precision="fp32", accumulate=1, ranks=1):
    """Write an experiment with a loss over a whole batch, and describe its training."""
    dtype = "float64" if precision == "fp32" else "float32"
    modules = {
        "image": TOWER.format(size=12, dtype=dtype),
        "text": TOWER.format(size=6, dtype=dtype),
        "temperature": TEMPERATURE.format(dtype=dtype),
    }
    task = PAIRS.format(dtype=dtype, loss=LOSSES[loss])
    path = write_experiment(home, name, modules=modules, task=task)
    return case(
        path,
        train__epochs=2,
        train__batch_size=7,
        train__precision=precision,
        task__compares_ranks=ranks > 1 and kind != "fsdp",
        # Gradients are as many times larger as there are processes before they are averaged, and
        # those of a larger loss overflow fp16 in one step more.
        task__shrunk=1 if precision == "fp32" else 64,
        optimizers__main__accumulate=accumulate,
        modules__settings__image__parallel=kind,
        modules__settings__text__parallel=kind,
        modules__settings__temperature__parallel="off" if kind == "off" else "ddp",
    )


def blocks(home, name, *, step, kind="ddp", accumulate=1, ranks=1):
    """Write an experiment with two optimizers, and describe its training."""
    task = BLOCKS.format(step=STEPS.get(step, LEFT_OUT))
    path = write_experiment(home, name, modules=dict.fromkeys("dgh", NETWORK), task=task)
    d, g = KINDS[kind]
    return case(
        path,
        train__epochs=2,
        train__batch_size=7,
        task__compares_ranks=ranks > 1 and "fsdp" not in kind,
        optimizers__d__accumulate=accumulate,
        optimizers__g__accumulate=accumulate,
        modules__settings__d__parallel=d,
        modules__settings__g__parallel=g,
        modules__settings__h__parallel=g,
    )


# How each is written, with what, and what shares its modules out.
CASES = {
    f"{loss}_{kind}_{accumulate}": (gathered, {"loss": loss, "accumulate": accumulate}, kind)
    for loss in LOSSES
    for kind in ("ddp", "fsdp", "off")
    for accumulate in (1, 2)
} | {
    f"{step}_{kind}_{accumulate}": (blocks, {"step": step, "accumulate": accumulate}, kind)
    for step in STEPS
    for kind in KINDS
    for accumulate in (1, 2)
}
CASES["left_out_fsdp_2"] = (blocks, {"step": "left_out", "accumulate": 2}, "fsdp")
MIXED = {
    f"all_pairs_{kind}_{precision}": (gathered, {"loss": "all_pairs", "precision": precision}, kind)
    for kind in ("ddp", "fsdp", "off")
    for precision in ("bf16", "fp16")
}
ALL = CASES | MIXED
# What is told apart in seconds; all of it takes minutes.
QUICK = {
    2: [
        *(name for name in CASES if name.endswith("_2") and not name.startswith("own_rows")),
        "all_pairs_ddp_bf16",
        "all_pairs_ddp_fp16",
    ],
    3: [f"{loss}_{kind}_1" for loss in LOSSES for kind in ("ddp", "fsdp", "off")],
}


def name_alone(options: dict[str, object]) -> str:
    return "_".join(["alone", *map(str, options.values())])


def train_all(home, ranks, names):
    """Train cases in several processes."""
    train_cases(
        ranks,
        [
            write(home, f"{name}_{ranks}", **options, kind=kind, ranks=ranks)
            for name in names
            for write, options, kind in [ALL[name]]
        ],
        home,
    )


def assert_trained_alike(home, ranks, name):
    """Compare a run of several processes with that of one."""
    found = home / "experiments" / f"{name}_{ranks}"
    alone = home / "experiments" / name_alone(ALL[name][1])
    if name in CASES:
        assert_close(found, alone, tolerance=1e-9)
        return
    weights, initial = weights_of(found), weights_of(alone, "init")
    for key, value in weights_of(alone).items():
        assert (weights[key] - value).norm() < 0.05 * (value - initial[key]).norm(), key


@pytest.fixture(scope="module")
def home(tmp_path_factory) -> Path:
    """A data home where one process has trained each of them."""
    home = tmp_path_factory.mktemp("losses")
    written = {name_alone(options): (write, options) for write, options, _ in ALL.values()}
    for name, (write, options) in written.items():
        train_alone(write(home, name, **options))
    return home


def compare_all(home, ranks, names):
    """Train cases in several processes; return what differs from one, by name."""
    train_all(home, ranks, names)
    return differing(names, lambda name: assert_trained_alike(home, ranks, name))


@pytest.mark.parametrize("ranks", [2, pytest.param(3, marks=pytest.mark.long)])
def test_several_processes_train_what_one_trains(home, ranks):
    assert compare_all(home, ranks, QUICK[ranks]) == {}


@pytest.mark.long
@pytest.mark.parametrize("ranks", QUICK)
def test_several_processes_train_all_that_one_trains(home, ranks):
    assert compare_all(home, ranks, [name for name in ALL if name not in QUICK[ranks]]) == {}


def test_each_of_them_trains_all_its_modules(home):
    for path in (home / "experiments").glob("alone_*"):
        initial, last = weights_of(path, "init"), weights_of(path)

        moved = [key for key, value in initial.items() if (last[key] - value).norm() > 1e-3]
        assert {*moved} >= {key for key in initial if not key.startswith("h.")}, path.name
