"""What ``pymodules train`` prints at the end of a run."""

from pathlib import Path

from pymodules_core.cli import output
from pymodules_core.errors import display_path
from pymodules_core.reports.text import count_text, counted, size_text
from pymodules_core.run_files import (
    CHECKPOINTS_DIR_NAME,
    METRICS_FILE_NAME,
    RUN_FILE_NAME,
    RunFile,
    read_run_file,
)
from pymodules_core.training.run_output.result import RunResult


def print_result(result: RunResult) -> None:
    """Print how a run ended, its modules, and where everything is."""
    output.echo()
    counts = f"{counted(result.epochs, 'epoch')}, {counted(result.steps, 'step')}"
    output.echo(f"{result.experiment}: {counts} in {result.wall_s:.1f} s ({result.stop_reason})")
    if run := read_run_file(result.data_dir.parent):
        _print_modules(run)
    folder = result.data_dir / CHECKPOINTS_DIR_NAME
    files = [file for file in folder.glob("[!.]*/**/*") if file.is_file()]
    size = sum(file.stat().st_size for file in files)
    pools = ", ".join(_pool_names(result))
    _print_path("checkpoints", folder / "<pool>" / "<module_name>.pt")
    output.echo(f"             pools {pools}: {counted(len(files), 'file')}, {size_text(size)}")
    _print_path("metrics", result.data_dir / METRICS_FILE_NAME)
    _print_path("record", result.data_dir / RUN_FILE_NAME)
    for file in sorted(result.data_dir.glob("*.png")):
        _print_path("picture", file)


def _print_modules(run: RunFile) -> None:
    if best := run.best:
        output.echo(
            f"best {best.metric}: none, it was never a number"
            if best.value is None
            else f"best {best.metric}: {best.value:.4g} after epoch {best.epoch}"
        )
    output.echo()
    output.print_table(
        ("MODULE", "TRAINED", "PARAMETERS", "WEIGHTS FROM"),
        [
            (
                module.name,
                "frozen" if module.frozen else "yes" if module.trained else "no",
                count_text(module.parameters),
                module.weights or "built",
            )
            for module in run.modules
        ],
    )
    output.echo()


def _pool_names(result: RunResult) -> list[str]:
    epochs = [name for name in result.pools if name.startswith("epoch_")]
    pools = [name for name in result.pools if name not in epochs]
    return pools + (epochs if len(epochs) < 2 else [f"{epochs[0]} … {epochs[-1]}"])


def _print_path(label: str, path: Path) -> None:
    output.echo(f"{label:<13}{display_path(path)}")
