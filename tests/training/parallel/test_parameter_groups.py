"""Parameter groups that a task adds during a run of several processes."""

from rank_cases import (
    assert_close,
    assert_same_bits,
    case,
    differing,
    rows_of,
    stoppable,
    train_alone,
    train_cases,
)
from support import write_experiment

TOLERANCE = 1e-9
EPOCHS = 3
MODULE = """
from torch import nn

module = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4)).double()
module{resting}.requires_grad_(False)
settings = {{}}
"""
# Half of a module, and a whole one that nothing of trained before, begin to learn in mid-epoch.
TASK = """
import torch
import torch.distributed as dist
from torch.nn.functional import mse_loss
from torch.optim import SGD
from torch.utils.data import TensorDataset


def dataset(seed):
    generator = torch.Generator().manual_seed(seed)
    inputs = torch.randn(40, 4, generator=generator, dtype=torch.float64)
    return TensorDataset(inputs, inputs.flip(1))


def train_data():
    return dataset(1)


def eval_data():
    return dataset(2)


def optimizers(module_pool):
    return SGD(module_pool.head[1].parameters(), lr=0.05, momentum=0.9)


def add(run, part, **options):
    part.requires_grad_(True)
    run.optimizers["main"].add_param_group({"params": list(part.parameters()), **options})


def forward(module_pool, inputs):
    return module_pool.head(module_pool.body(inputs))


def train_step(module_pool, batch, run):
    if run.step == 4:
        add(run, module_pool.head[0], lr=0.1)
    if run.step == 5:
        add(run, module_pool.body)
    inputs, targets = batch
    return mse_loss(forward(module_pool, inputs), targets)


def eval_step(module_pool, batch):
    inputs, targets = batch
    return {"loss": mse_loss(forward(module_pool, inputs), targets)}


def epoch_finished(run):
    for key, value in [(k, p) for m in run.module_pool.values() for k, p in m.named_parameters()]:
        if run.world_size > 1 and not hasattr(value, "full_tensor"):
            mine, first = value.detach(), value.detach().clone()
            dist.broadcast(first, 0)
            assert torch.equal(mine, first), f"rank {run.rank} drifts: {key}"
"""
# A layer comes to the optimizer of another module: that module has two of them from then on.
TWO = (
    TASK.replace(
        "return SGD(module_pool.head[1].parameters(), lr=0.05, momentum=0.9)",
        "return {n: SGD(m[1].parameters(), lr=0.05, momentum=0.9) for n, m in module_pool.items()}",
    )
    .replace("run, part, **options):", 'run, part, name="head", **options):')
    .replace('optimizers["main"]', "optimizers[name]")
    .replace("    if run.step == 5:\n        add(run, module_pool.body)\n", "")
    .replace(
        "    return mse_loss(forward(module_pool, inputs), targets)\n\n\ndef eval",
        """    for name, factor in ("head", 1.0), ("body", 0.5):
        with run.optimize(name) as block:
            block.loss = mse_loss(forward(module_pool, inputs), targets) * factor


def eval""",
    )
    .replace(
        "def epoch_finished(run):\n",
        """def epoch_finished(run):
    if run.epoch == 1:
        add(run, run.module_pool.body[0])
""",
    )
)
CASES = {
    "ddp": {},
    "fsdp": {},
    "off": {},
    "ddp in a window": {"optimizers__main__accumulate": 2},
    "ddp clipped": {"optimizers__main__clip_norm": 0.1},
    **{f"{kind} of two": {"optimizers__head__accumulate": 2} for kind in ("ddp", "fsdp", "off")},
    "fsdp sharded": {"optimizers__main__clip_norm": 0.1},
}


def settings_of(name):
    kind = name.partition(" ")[0]
    modules = {f"modules__settings__{one}__parallel": kind for one in ("head", "body")}
    if "sharded" in name:
        modules |= {f"modules__settings__{one}__sharded": True for one in ("head", "body")}
    return {"train__epochs": EPOCHS, "train__batch_size": 16, **modules, **CASES[name]}


def train_all(home):
    """Return for each case a run of two processes, one that stopped after step 5, and one alone."""
    found, cases = {}, []
    for name in CASES:
        is_of_two = name.endswith("two")
        modules = {
            "head": MODULE.format(resting="[0]"),
            "body": MODULE.format(resting="[0]" if is_of_two else ""),
        }
        whole, stopped, alone = (
            stoppable(
                write_experiment(
                    home,
                    f"{name.replace(' ', '_')}_{one}",
                    modules=modules,
                    task=TWO if is_of_two else TASK,
                    toml="",
                )
            )
            for one in ("whole", "stopped", "alone")
        )
        settings = settings_of(name)
        cases += [
            case(whole, **settings),
            case(stopped, stop_at=5, **settings),
            case(stopped, existing="resume", **settings),
        ]
        train_alone(case(alone, **settings))
        found[name] = whole, stopped, alone
    train_cases(2, cases, home)
    return found


def test_what_is_added_is_averaged_as_all_else_and_a_resume_has_it_bit_for_bit(tmp_path):
    runs = train_all(tmp_path)

    def compare(name):
        whole, stopped, alone = runs[name]
        assert_close(whole, alone, tolerance=TOLERANCE)
        assert len(rows_of(whole)) == 1 + 2 * EPOCHS
        assert_same_bits(stopped, whole)

    assert differing(CASES, compare) == {}
