"""Times one update of an average by pymodules-ema beside a bare lerp and ``AveragedModel``.

The bare lerp is ``torch._foreach_lerp_`` over lists of parameters that were made before, and a copy
of the buffers: less cannot be done. One torch thread, interleaved rounds.
"""

import argparse
import copy
import sys
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

sys.path.insert(0, str(Path(__file__).parents[2] / "plugins" / "pymodules-ema" / "src"))

import torch
from pymodules_ema.average import Average, copy_for_average
from tables import print_machine, print_table
from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

DECAY = 0.999


def small() -> nn.Module:
    """Four tensors."""
    return nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10))


def convolutions() -> nn.Module:
    """Sixty convolutions with batch norm."""
    pairs = [[nn.Conv2d(16, 16, 3), nn.BatchNorm2d(16)] for _ in range(60)]
    return nn.Sequential(*[layer for pair in pairs for layer in pair])


def transformer() -> nn.Module:
    """Nine million parameters."""
    return nn.TransformerEncoder(nn.TransformerEncoderLayer(256, 4, 1024, batch_first=True), 12)


def make_updates(net: nn.Module) -> dict[str, Callable[[], object]]:
    """Return one update of each kind, by name."""
    bare = copy.deepcopy(net)
    ours, theirs = (list(one.parameters()) for one in (bare, net))
    copies, buffers = (list(one.buffers()) for one in (bare, net))

    @torch.no_grad()
    def lerp() -> None:
        torch._foreach_lerp_(ours, theirs, 1 - DECAY)
        if copies:
            torch._foreach_copy_(copies, buffers)

    average = Average(
        net, copy_for_average(net, name="net"), name="net_ema", averages_buffers=False
    )
    averaged = AveragedModel(net, multi_avg_fn=get_ema_multi_avg_fn(DECAY))
    return {
        "bare lerp": lerp,
        "pymodules-ema": lambda: average.update(DECAY),
        "AveragedModel": lambda: averaged.update_parameters(net),
    }


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=50, help="rounds that count")
    rounds = parser.parse_args().rounds
    torch.set_num_threads(1)
    print_machine()
    rows = []
    for build in (small, convolutions, transformer):
        updates = make_updates(build())
        times: dict[str, list[float]] = {name: [] for name in updates}
        for number in range(rounds + 5):
            for name, update in updates.items():
                start = time.perf_counter()
                update()
                if number >= 5:
                    times[name].append((time.perf_counter() - start) * 1e6)
        medians = {name: median(values) for name, values in times.items()}
        bare = medians["bare lerp"]
        cells = (f"{value:,.0f} ({value / bare:.2f})" for value in medians.values())
        rows.append([str(build.__doc__).rstrip("."), *cells])
    print_table(["network", *(f"{name}, µs (ratio)" for name in times)], rows)


if __name__ == "__main__":
    main()
