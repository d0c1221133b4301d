"""What two processes find when each calls the same functions; a test reads what they print."""

import copy
import json
import pickle
from types import SimpleNamespace

import torch
from torch import nn
from torch.optim import SGD

from pymodules_core import ModulePool, Processes
from pymodules_core.errors import ProcessesError
from pymodules_core.processes.dtensor import gathered
from pymodules_core.settings import OptimizerSettings
from pymodules_core.training.optim.accumulation import Accumulation
from pymodules_core.training.optim.block import OptimizeBlock, manage_optimizers
from pymodules_core.training.optim.precision import Precision
from pymodules_core.training.parallel import SharedModules
from pymodules_core.training.parallel.batch_norm import synchronise_batch_norm
from pymodules_core.training.parallel.modules import make_mesh
from pymodules_core.training.task.metrics import MetricAverages

CPU = torch.device("cpu")
FULL = Precision(device_type="cpu")


class Coder(nn.Module):
    """A module with a method besides forward, and a part that forward does not use."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.first = nn.Linear(4, 4).double()
        self.second = nn.Linear(4, 4).double()

    def forward(self, x):
        return self.second(self.first(x))

    def encode(self, x):
        return self.first(x)


def samples(processes):
    """Return this process's half of eight samples, and all of them."""
    whole = torch.arange(32, dtype=torch.float64).reshape(8, 4).sin()
    return whole[processes.rank * 4 : processes.rank * 4 + 4], whole


def share(
    processes,
    modules,
    settings=None,
    optimizers=None,
    *,
    skips=False,
    precision=FULL,
    **of_optimizers,
):
    """Return the optimizers of modules that are shared among the processes."""
    pool = ModulePool.from_modules(modules, settings=settings)
    shared = SharedModules(pool, processes, mesh=make_mesh(pool, processes, CPU))
    make = optimizers or (lambda _: {n: SGD(m.parameters(), 0.1) for n, m in pool.items()})
    managed = manage_optimizers(
        make(pool),
        schedulers={},
        settings=of_optimizers,
        pool=pool,
        precision=precision,
        skip_nonfinite=skips,
        processes=processes,
        modules=shared,
    )
    return SimpleNamespace(pool=pool, shared=shared, optimizers=managed)


def step(parts, loss, name):
    """Do one train step of one optimizer; give the optimizers that updated."""
    parts.shared.start_step()
    for unit in parts.optimizers.values():
        unit.start_step()
    stepped = set()
    with OptimizeBlock(parts.optimizers[name], stepped) as block:
        for one in loss():
            block.backward(one)
    for unit in parts.optimizers.values():
        unit.end_step()
    return stepped


def by_hand(loss, modules, rate=0.1):
    """Return the weights after one step of plain SGD."""
    loss.backward()
    return [p - rate * p.grad for m in modules for p in m.parameters() if p.grad is not None]


def largest_error(found, expected):
    return max(
        float((a.detach() - b.detach()).abs().max()) for a, b in zip(found, expected, strict=True)
    )


def trained_by(processes, kind, *, forward_methods=(), loss_of=lambda m, x: m(x).square().mean()):
    own, whole = samples(processes)
    settings = {"coder": {"parallel": kind, "forward_methods": forward_methods}}
    parts = share(processes, {"coder": Coder()}, settings)
    coder = parts.pool.coder
    step(parts, lambda: [loss_of(coder, own)], "coder")
    plain = Coder()
    expected = by_hand(loss_of(plain, whole), [plain])
    pairs = zip(coder.parameters(), plain.parameters(), strict=True)
    found = [gathered(parameter) for parameter, own in pairs if own.grad is not None]
    return largest_error(found, expected) < 1e-12


def ddp_averages(processes):
    return trained_by(processes, "ddp")


def fsdp_averages(processes):
    return trained_by(processes, "fsdp")


def off_averages(processes):
    return trained_by(processes, "off")


def encode_loss(module, x):
    return module.encode(x).square().mean()


def a_method_that_is_not_named(processes):
    return trained_by(processes, "ddp", loss_of=encode_loss)


def a_method_that_is_named(processes):
    unused = {"kind": "ddp", "find_unused_parameters": True}
    return trained_by(processes, unused, forward_methods=["encode"], loss_of=encode_loss)


def a_method_of_fsdp_that_is_named(processes):
    return trained_by(processes, "fsdp", forward_methods=["encode"], loss_of=encode_loss)


def a_method_with_no_wrapper(processes):
    return trained_by(processes, "off", loss_of=encode_loss)


def unused_parameters(processes):
    return trained_by(processes, "ddp", forward_methods=["encode"], loss_of=encode_loss)


def several_losses_in_a_block(processes):
    own, whole = samples(processes)
    parts = share(processes, {"coder": Coder()})
    coder = parts.pool.coder
    step(parts, lambda: [coder(own).square().mean(), coder(own + 1).abs().mean()], "coder")
    plain = Coder()
    loss = plain(whole).square().mean() + plain(whole + 1).abs().mean()
    return largest_error(coder.parameters(), by_hand(loss, [plain])) < 1e-12


def modules_that_share_parameters(processes):
    own, whole = samples(processes)

    def make():
        first, second = Coder(), Coder()
        second.first = first.first
        return {"first": first, "second": second}

    both = {"first": {"forward_methods": ["encode"]}}
    parts = share(
        processes,
        make(),
        both,
        lambda pool: {"both": SGD({*pool.first.parameters(), *pool.second.parameters()}, 0.1)},
    )
    pool = parts.pool
    step(parts, lambda: [(pool.first(own) + pool.second(own)).square().mean()], "both")
    plain = make()
    by_hand((plain["first"](whole) + plain["second"](whole)).square().mean(), [])
    expected = [p - 0.1 * p.grad for m in plain.values() for p in m.parameters()]
    found = [p for m in pool.values() for p in m.parameters()]
    is_tied = pool.first.first is pool.second.first
    return is_tied and largest_error(found, expected) < 1e-12


def shared_parameters_under_fsdp(processes):
    first, second = Coder(), Coder()
    second.first = first.first
    share(processes, {"a": first, "b": second}, {"a": {"parallel": "fsdp"}})


def one_module_of_two_optimizers(processes):
    own, whole = samples(processes)

    def optimizers(pool):
        coder = pool.coder
        return {
            "first": SGD(coder.first.parameters(), 0.1),
            "second": SGD(coder.second.parameters(), 0.1),
        }

    parts = share(processes, {"coder": Coder()}, optimizers=optimizers)
    coder = parts.pool.coder
    step(parts, lambda: [coder(own).square().mean()], "first")
    plain = Coder()
    plain.second.requires_grad_(False)
    expected = by_hand(plain(whole).square().mean(), [plain])
    return largest_error(coder.first.parameters(), expected) < 1e-12


def one_optimizer_of_parts_and_wholes(processes, *, foreach=None):
    own, whole = samples(processes)

    def optimizers(pool):
        parameters = [*pool.first.parameters(), *pool.second.parameters()]
        return {"both": SGD(parameters, 0.1, foreach=foreach)}

    modules = {"first": Coder(), "second": Coder()}
    parts = share(processes, modules, {"first": {"parallel": "fsdp"}}, optimizers)
    pool = parts.pool
    step(parts, lambda: [pool.second(pool.first(own)).square().mean()], "both")
    plain = [Coder(), Coder()]
    expected = by_hand(plain[1](plain[0](whole)).square().mean(), plain)
    found = [gathered(p) for module in pool.values() for p in module.parameters()]
    return largest_error(found, expected) < 1e-12


def one_call_over_parts_and_wholes(processes):
    return one_optimizer_of_parts_and_wholes(processes, foreach=True)


def parameters_that_begin_to_train(processes):
    own, whole = samples(processes)
    coder = Coder()
    coder.first.requires_grad_(False)
    parts = share(processes, {"coder": coder})
    step(parts, lambda: [coder(own).square().mean()], "coder")
    coder.first.requires_grad_(True)
    before = [p.detach().clone() for p in coder.parameters()]
    step(parts, lambda: [coder(own).square().mean()], "coder")
    plain = Coder()
    for parameter, value in zip(plain.parameters(), before, strict=True):
        parameter.data.copy_(value)
    return largest_error(coder.parameters(), by_hand(plain(whole).square().mean(), [plain])) < 1e-12


def a_module_that_one_process_leaves_out(processes):
    own, _ = samples(processes)
    parts = share(
        processes,
        {"coder": Coder(), "same": Coder()},
        optimizers=lambda pool: {
            "both": SGD([*pool.coder.parameters(), *pool.same.parameters()], 0.1)
        },
    )
    pool = parts.pool

    def loss():
        # What the second process averages next, of the same size, takes the place of the first.
        return [(pool.coder if processes.is_first else pool.same)(own).square().mean()]

    step(parts, loss, "both")
    parts.shared.check_calls()


def a_window_of_two_steps(processes, *, kind="ddp"):
    own, whole = samples(processes)
    optimizer = OptimizerSettings(accumulate=2, clip_norm=0.1)
    parts = share(processes, {"coder": Coder()}, {"coder": {"parallel": kind}}, coder=optimizer)
    coder = parts.pool.coder
    step(parts, lambda: [coder(own).square().mean()], "coder")
    step(parts, lambda: [coder(own + 1).square().mean()], "coder")
    plain = Coder()
    ((plain(whole).square().mean() + plain(whole + 1).square().mean()) / 2).backward()
    nn.utils.clip_grad_norm_(plain.parameters(), 0.1)
    expected = [p - 0.1 * p.grad for p in plain.parameters()]
    return largest_error(map(gathered, coder.parameters()), expected) < 1e-12


def a_window_of_two_steps_under_fsdp(processes):
    return a_window_of_two_steps(processes, kind="fsdp")


def windows_that_never_end_in_one_step(processes, *, kind="ddp"):
    """Train two modules whose windows of two steps begin at different ones."""
    own, whole = samples(processes)
    names, two = ("first", "second"), OptimizerSettings(accumulate=2)
    settings = {name: {"parallel": kind} for name in names}
    modules = {name: Coder() for name in names}
    parts = share(processes, modules, settings, **dict.fromkeys(names, two))
    accumulation = Accumulation(parts.optimizers.values(), processes)
    plain = {name: Coder() for name in names}
    unsynced, errors = [], []
    for number, trained in enumerate([["first"], names, names]):
        for name in trained:
            step(parts, lambda m=modules[name], n=number: [m(own + n).square().mean()], name)
            (plain[name](whole + number).square().mean() / 2).backward()
        accumulation.step_ended()
        unsynced.append(accumulation.is_unsynced)
        if number == 1:
            waiting = [gathered(p.grad) for p in modules["second"].parameters()]
            errors.append(largest_error(waiting, [p.grad for p in plain["second"].parameters()]))
        if number:
            closed = names[number - 1]
            for parameter in plain[closed].parameters():
                parameter.data -= 0.1 * parameter.grad
                parameter.grad = None
            found = map(gathered, modules[closed].parameters())
            errors.append(largest_error(found, plain[closed].parameters()))
    return [unsynced, max(errors) < 1e-12]


def windows_that_never_end_in_one_step_under_fsdp(processes):
    return windows_that_never_end_in_one_step(processes, kind="fsdp")


def a_window_that_is_cut_short_after_a_step_without_its_module(processes, *, kind="ddp"):
    own, whole = samples(processes)
    parts = share(
        processes,
        {"first": Coder(), "second": Coder()},
        {name: {"parallel": kind} for name in ("first", "second")},
        first=OptimizerSettings(accumulate=2),
    )
    pool = parts.pool
    step(parts, lambda: [pool.first(own).square().mean()], "first")
    step(parts, lambda: [pool.second(own).square().mean()], "second")
    parts.optimizers["first"].flush()
    plain = Coder()
    expected = by_hand(plain(whole).square().mean(), [plain])
    return largest_error(map(gathered, pool.first.parameters()), expected) < 1e-12


def a_window_under_fsdp_that_is_cut_short_after_a_step_without_its_module(processes):
    return a_window_that_is_cut_short_after_a_step_without_its_module(processes, kind="fsdp")


def a_module_that_a_step_within_a_window_leaves_out(processes):
    own, whole = samples(processes)
    modules = {"first": Coder(), "second": Coder()}
    parts = share(
        processes,
        modules,
        optimizers=lambda pool: {
            "both": SGD([*pool.first.parameters(), *pool.second.parameters()], 0.1)
        },
        both=OptimizerSettings(accumulate=3),
    )
    pool = parts.pool

    def through_both():
        return [pool.second(pool.first(own)).square().mean()]

    def through_one():
        return [pool.second(own).square().mean()]

    for loss in (through_both, through_one, through_both):
        step(parts, loss, "both")
    plain = [Coder(), Coder()]
    first, second = plain
    both, one = second(first(whole)).square().mean(), second(whole).square().mean()
    expected = by_hand((2 * both + one) / 3, plain)
    found = [p for module in pool.values() for p in module.parameters()]
    return largest_error(found, expected) < 1e-12


def a_loss_that_is_not_finite_in_one(processes):
    own, _ = samples(processes)
    parts = share(processes, {"coder": Coder()}, skips=True)
    coder = parts.pool.coder
    before = [p.detach().clone() for p in coder.parameters()]
    bad = own * (float("nan") if processes.rank else 1.0)
    step(parts, lambda: [coder(bad).square().mean()], "coder")
    is_kept = largest_error(coder.parameters(), before) == 0
    return is_kept and parts.optimizers["coder"].skipped_steps == 1


def gradients_that_overflow_in_one(processes):
    """Of a module in shards only the last rows get infinity: those of the second process."""
    half = Precision(device_type="cpu", dtype=torch.float16)
    settings = {"linear": {"parallel": "fsdp"}}
    parts = share(processes, {"linear": nn.Linear(4, 4)}, settings, precision=half)
    linear = parts.pool.linear

    def stepped(factor):
        inputs = torch.full((2, 4), factor)
        return sorted(step(parts, lambda: [linear(inputs)[:, 3].mean()], "linear"))

    return [stepped(1e37), stepped(1.0)]


def copies_are_plain(processes):
    parts = share(processes, {"coder": Coder()})
    coder = parts.pool.coder
    copied, sent = copy.deepcopy(coder), pickle.loads(pickle.dumps(coder))  # noqa: S301  our own
    names = {type(one).__name__ for one in (coder, copied, sent)}
    return [
        isinstance(coder, Coder),
        type(coder) is not Coder,
        type(copied) is type(sent) is Coder,
        names == {"Coder"},
        list(coder.state_dict()) == list(Coder().state_dict()),
    ]


def a_frozen_module_is_not_wrapped(processes):
    frozen = {"coder": {"frozen": True}, "copy": {}}
    idle = Coder().requires_grad_(False)
    parts = share(processes, {"coder": Coder(), "copy": idle}, frozen, lambda _: {})
    return [type(module) is Coder for module in parts.pool.values()]


def a_frozen_module_is_sharded_on_request(processes):
    settings = {"coder": {"frozen": True, "parallel": "fsdp"}}
    parts = share(processes, {"coder": Coder()}, settings, lambda _: {})
    own, _ = samples(processes)
    plain = Coder()
    with torch.no_grad():
        is_same = largest_error([parts.pool.coder(own)], [plain(own)]) < 1e-12
    parts.shared.release()
    weight = parts.pool.coder.first.weight
    return is_same and weight.to_local().numel() == 8


def blocks_by_class(processes):
    settings = {"net": {"parallel": {"kind": "fsdp", "blocks": ["Coder"]}}}
    parts = share(processes, {"net": nn.Sequential(Coder(), nn.ReLU(), Coder())}, settings)
    return [type(part).__name__ for part in parts.pool.net]


def blocks_by_size(processes):
    settings = {"net": {"parallel": {"kind": "fsdp", "min_block_parameters": 30}}}
    net = nn.Sequential(nn.ModuleList([nn.Linear(5, 5), nn.Linear(2, 2)]), nn.Linear(6, 6))
    parts = share(processes, {"net": net}, settings)
    return [type(one).__name__ for one in (*parts.pool.net[0], parts.pool.net[1])]


def a_block_that_is_not_there(processes):
    settings = {"net": {"parallel": {"kind": "fsdp", "blocks": ["Codr"]}}}
    share(processes, {"net": nn.Sequential(Coder())}, settings)


def a_method_that_is_not_there(processes):
    share(processes, {"coder": Coder()}, {"coder": {"forward_methods": ["encod"]}})


def batch_norm(processes):
    whole = torch.randn(2, 10, 3, 4, generator=torch.Generator().manual_seed(0)).double()
    # Of the ten samples the first process has three.
    cut = slice(0, 3) if processes.is_first else slice(3, 10)
    errors = []
    for momentum in (0.1, None):
        plain = nn.BatchNorm1d(3, momentum=momentum).double()
        synced = synchronise_batch_norm(copy.deepcopy(nn.Sequential(plain)))
        for batch in whole:
            leaf, own = (x.clone().requires_grad_() for x in (batch, batch[cut]))
            expected, found = plain(leaf), synced(own)
            weights = torch.arange(batch.numel()).reshape(batch.shape).cos()
            (expected * weights).sum().backward()
            (found * weights[cut]).sum().backward()
            errors += [
                largest_error([found, own.grad], [expected[cut], leaf.grad[cut]]),
                largest_error(synced.buffers(), plain.buffers()),
            ]
    summed = synced[0].weight.grad.clone()
    torch.distributed.all_reduce(summed)
    return max(errors) < 1e-6 and largest_error([summed], [plain.weight.grad]) < 1e-6


def buffers_are_those_of_the_first(processes):
    norm = nn.Sequential(nn.BatchNorm1d(3), Coder())
    parts = share(processes, {"norm": norm})
    norm[0].running_mean.fill_(processes.rank + 1.0)
    parts.shared.copy_buffers()
    return norm[0].running_mean.tolist()


def metrics_of_all(processes):
    averages = MetricAverages()
    averages.add("loss", 1.0 + processes.rank, 3 - processes.rank)
    if processes.rank:
        averages.add("extra", 5.0, 2)
    return averages.means(processes)


class Counter:
    """A metric that accumulates by itself, and can take in others."""

    def __init__(self):
        self.seen = []

    def update(self, value):
        self.seen.append(value)

    def compute(self):
        return sum(self.seen)

    def reset(self):
        self.seen = []

    def merge_state(self, metrics):
        for one in metrics:
            self.seen += one.seen


class Lonely(Counter):
    merge_state = None


def a_metric_object(processes):
    averages, counter = MetricAverages(), Counter()
    counter.update(10**processes.rank)
    averages.add("seen", counter, 1)
    return averages.means(processes)


def a_metric_object_that_cannot_be_merged(processes):
    averages = MetricAverages()
    averages.add("seen", Lonely(), 1)
    return averages.means(processes)


def rows_of_all(processes):
    return processes.all_gather_rows(torch.full((processes.rank + 1, 2), processes.rank)).tolist()


def rows_with_second_gradients(processes):
    """Three rows, one of the first process and two of the second; losses that differ by process."""
    rows = torch.arange(1.0, 4.0, dtype=torch.float64).reshape(3, 1).repeat(1, 2)
    own = rows[processes.rank : 2 * processes.rank + 1].clone().requires_grad_()
    loss = (processes.rank + 1) * processes.all_gather_rows(own).pow(3).sum()
    (first,) = torch.autograd.grad(loss, own, create_graph=True)
    (second,) = torch.autograd.grad(first.sum(), own)
    # Of both losses, 1 and 2 times the sum of cubes.
    expected = own.detach()
    return torch.equal(first, 9 * expected**2) and torch.equal(second, 18 * expected)


def rows_that_need_no_graph(processes):
    rows = torch.ones(1, 2, requires_grad=True)
    with torch.no_grad():
        return not processes.all_gather_rows(rows).requires_grad


def parameters_that_were_gathered(processes):
    parts = share(
        processes,
        {"coder": Coder()},
        {"coder": {"parallel": "fsdp"}},
        lambda pool: {"coder": SGD([pool.coder.first.weight], 0.1)},
    )
    unit = parts.optimizers["coder"]
    parts.pool.coder.unshard()
    unit.optimizer.add_param_group({"params": [parts.pool.coder.second.weight]})
    unit.check_groups()


def rows_of_other_shapes(processes):
    processes.all_gather_rows(torch.zeros(1, 2 + processes.rank))


def rows_of_which_one_has_no_graph(processes):
    processes.all_gather_rows(torch.zeros(1, 2, requires_grad=processes.is_first))


def what_the_first_makes(processes):
    return processes.run_on_rank0(lambda: processes.rank + 7)


def what_the_first_fails_to_make(processes):
    def fail():
        raise ProcessesError("no way", found=processes.rank)

    processes.run_on_rank0(fail)


def what_the_second_fails_to_do(processes):
    def fail():
        if processes.rank:
            raise ProcessesError("no way")

    processes.run_on_all(fail)


def what_both_fail_to_do(processes):
    def fail():
        raise ProcessesError(f"no way for {processes.rank}")

    processes.run_on_all(fail)


CHECKS = {
    name: value
    for name, value in list(globals().items())
    if getattr(value, "__code__", None)
    and value.__code__.co_varnames[:1] == ("processes",)
    and value.__code__.co_argcount == 1
    and name != "samples"
}


def main():
    """Run all checks, and print what each process found."""
    with Processes.join() as processes:
        for name, check in CHECKS.items():
            try:
                found = check(processes)
            except Exception as error:  # noqa: BLE001  the test reads it
                found = f"{type(error).__name__}: {error}"
            results = processes.gather(found)
            if processes.is_first:
                print(json.dumps([name, results]))  # noqa: T201  for the test


if __name__ == "__main__":
    main()
