"""``pymodules ckpt``: everything that looks at checkpoint pools or changes them outside a run."""

import click

from pymodules_core.cli.lazy_group import LazyGroup

_COMMANDS = {
    "ls": "List pools: epoch, metrics, modules, sizes.",
    "show": "Show the tensors of a pool's modules.",
    "diff": "Compare two pools, module by module and tensor by tensor.",
    "lineage": "Draw where weights came from, across experiments.",
    "export": "Write modules as safetensors or as one merged file.",
    "verify": "Read every byte and report what is damaged.",
    "repair": "Restore damaged files from intact copies, quarantine the rest.",
    "prune": "Delete old epoch pools.",
}


@click.group("ckpt", cls=LazyGroup, package=__name__, table=_COMMANDS)
def command() -> None:
    """Inspect, compare, export, repair and prune checkpoints.

    EXP is an experiment, or any folder that a CheckpointManager wrote.
    """
