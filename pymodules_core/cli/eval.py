"""``pymodules eval``."""

import json
from functools import partial
from pathlib import Path

import attrs
import click

from pymodules_core.cli import options, output


@click.command("eval")
@options.experiment
@click.option("--pool", default="best", show_default=True, help="The checkpoint pool.")
@options.json
@options.overrides
@options.data_home
@options.no_plugins
@options.debug
def command(
    exp: str,
    pool: str,
    as_json: bool,
    settings: tuple[str, ...],
    data_home: Path | None,
    load_installed: bool,
) -> None:
    """Evaluate the weights of a checkpoint pool of EXP on its evaluation data.

    Nothing is written. RECORDED is what the run itself measured of these weights.
    """
    from pymodules_core.cli.trust_notice import print_trust_notice
    from pymodules_core.experiment import Experiment
    from pymodules_core.training.evaluation import evaluate
    from pymodules_core.training.run_output.console import ConsoleReporter, SilentPrinter

    experiment = Experiment.open(
        exp, data_home=data_home, overrides=options.parse_overrides(settings)
    )
    reporter = SilentPrinter() if as_json else ConsoleReporter()
    found = evaluate(
        experiment,
        pool,
        load_installed=load_installed,
        reporter=reporter,
        before_building=partial(print_trust_notice, load_installed=load_installed, err=as_json),
    )
    if as_json:
        click.echo(json.dumps({"experiment": experiment.name, **attrs.asdict(found)}))
        return
    of_epoch = "" if found.epoch is None else f" of epoch {found.epoch}"
    output.echo(f"{experiment.name}, pool {found.pool}{of_epoch}")
    output.print_table(
        ("METRIC", "NOW", "RECORDED"),
        [
            (
                name,
                f"{value:.6g}",
                "-" if (before := found.recorded.get(name)) is None else f"{before:.6g}",
            )
            for name, value in found.metrics.items()
        ],
    )
