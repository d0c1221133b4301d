"""``pymodules ckpt``: everything that looks at checkpoint pools or changes them outside a run."""

import click

from pymodules_core.cli.lazy_group import LazyCommand, LazyGroup

_COMMANDS = {
    "ls": LazyCommand("ls", "List pools: epoch, metrics, modules, sizes."),
    "show": LazyCommand("show", "Show the tensors of a pool's modules."),
    "diff": LazyCommand("diff", "Compare two pools, module by module and tensor by tensor."),
    "lineage": LazyCommand("lineage", "Draw where weights came from, across experiments."),
    "export": LazyCommand("export", "Write modules as safetensors or as one merged file."),
    "verify": LazyCommand("verify", "Read every byte and report what is damaged."),
    "repair": LazyCommand(
        "repair", "Restore damaged files from intact copies, quarantine the rest."
    ),
    "prune": LazyCommand("prune", "Delete old epoch pools."),
}


@click.group("ckpt", cls=LazyGroup, package=__name__, table=_COMMANDS)
def command() -> None:
    """Inspect, compare, export, repair and prune checkpoints.

    EXP is an experiment, or any folder that a CheckpointManager wrote.
    """
