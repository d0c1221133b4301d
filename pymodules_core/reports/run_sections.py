"""The parts of the page that are about one run: its card, modules, checkpoints, lineage."""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from pymodules_core.checkpoints.tools.lineage import Ancestor, ancestry
from pymodules_core.errors import PymodulesError
from pymodules_core.experiment import Experiment
from pymodules_core.reports.checkpoints import checkpoint_section
from pymodules_core.reports.comparison import flatten
from pymodules_core.reports.history import History, finite, table, tables, text, whole
from pymodules_core.reports.markup import Html, data_table, join, tag
from pymodules_core.reports.text import (
    MISSING,
    count_text,
    duration_text,
    moment_text,
    number_text,
    origin_text,
    setting_text,
)
from pymodules_core.run_files import CHECKPOINTS_DIR_NAME
from pymodules_core.specs import WeightsOrigin

_SHOWN_DIGEST_CHARACTERS = 12
_KNOWN_STATES = frozenset({"finished", "running", "interrupted", "failed", "killed", "unreadable"})


def run_card(label: str, history: History, *, style: str) -> Html:
    """Make the card that says how far a run is and how good.

    Args:
        label: What the run is called.
        history: The run.
        style: Its colour.
    """
    facts, best, error = history.facts, history.best, text(history.facts, "error")
    epoch, epochs = whole(facts.get("epoch")), whole(facts.get("epochs"))
    share = min(epoch / epochs, 1.0) if epoch is not None and epochs else None
    # A state that a later version has is reported, without a colour of its own.
    kind = history.state if history.state in _KNOWN_STATES else ""
    return tag(
        "article",
        tag(
            "div",
            tag("h2", label),
            tag("span", history.state, class_=f"pill {kind}".strip()),
            class_="card-head",
        ),
        tag(
            "div",
            tag("b", number_text(best.value) if best else MISSING),
            tag(
                "span",
                f"best {best.metric}, epoch {best.epoch}" if best else "no best value yet",
                class_="muted",
            ),
            class_="figure",
        ),
        None
        if share is None
        else tag("div", tag("i", style=f"width:{share:.1%}"), class_="bar", aria_hidden="true"),
        tag("dl", *(_fact(name, value) for name, value in _facts(history)), class_="facts"),
        tag("p", error, class_="note error") if error else None,
        *(tag("p", note, class_="note") for note in history.notes),
        class_="card",
        style=style,
    )


def run_sections(experiment: Experiment, history: History) -> Html:
    """Make modules, checkpoints, lineage and overrides of one run."""
    return join(
        _block("Modules", partial(_modules, history.facts)),
        _block("Checkpoints", partial(checkpoint_section, experiment.path, history)),
        _block("Where the weights came from", partial(_lineage, experiment)),
        _block("Overridden settings", partial(_overrides, history.facts)),
    )


def _block(title: str, make: Callable[[], Html]) -> Html:
    try:
        content = make()
    except PymodulesError as error:
        content = tag("p", str(error), class_="note error")
    return tag("section", tag("h3", title), content, class_="card block")


def _facts(history: History) -> list[tuple[str, str]]:
    facts = history.facts
    epoch, epochs = whole(facts.get("epoch")), whole(facts.get("epochs"))
    found = [
        ("Epochs", MISSING if epoch is None else f"{epoch:,} of {count_text(epochs)}"),
        ("Steps", count_text(whole(facts.get("step")))),
        ("Wall time", duration_text(finite(facts.get("wall_s")))),
        ("Started", moment_text(text(facts, "started")) or MISSING),
        ("Updated", moment_text(text(facts, "updated")) or MISSING),
        ("Seed", count_text(whole(facts.get("seed")))),
        ("Device", text(facts, "device") or MISSING),
        ("Git commit", text(facts, "git_commit")[:_SHOWN_DIGEST_CHARACTERS] or MISSING),
        ("torch", str(table(facts, "versions").get("torch", MISSING))),
    ]
    if history.resumptions:
        found.append(("Resumed", "; ".join(map(str, history.resumptions))))
    if reason := text(facts, "stop_reason"):
        found.append(("Ended", reason))
    return found


def _fact(name: str, value: str) -> Html:
    return tag(
        "div",
        tag("dt", name),
        tag("dd", value),
        class_="wide-fact" if name in {"Ended", "Resumed"} else None,
    )


def _modules(facts: Mapping[str, Any]) -> Html:
    modules = tables(facts, "modules")
    if not modules:
        return _nothing("No module is on record.")
    rows = [
        (
            text(module, "name") or MISSING,
            tag("code", text(module, "class") or MISSING),
            count_text(whole(module.get("parameters"))),
            "frozen" if module.get("frozen") is True else "trained",
            text(module, "weights") or "built",
            _origin(table(module, "origin")),
        )
        for module in modules
    ]
    total = sum(whole(module.get("parameters")) or 0 for module in modules)
    trained = sum(
        whole(module.get("parameters")) or 0
        for module in modules
        if module.get("frozen") is not True
    )
    return join(
        data_table(
            ("Module", "Class", "Parameters", "Trained", "Weights from", "Origin"),
            rows,
            caption="Modules",
            numeric=[2],
        ),
        tag("p", f"{total:,} parameters, {trained:,} of them trained", class_="muted small"),
    )


def _origin(origin: Mapping[str, Any]) -> Html:
    digest = text(origin, "sha256")
    entry_point = text(origin, "entry_point")
    return join(
        tag("code", origin_text(origin)),
        tag("span", f" sha256 {digest[:_SHOWN_DIGEST_CHARACTERS]}", class_="muted small")
        if digest
        else None,
        tag("span", f" {entry_point}", class_="muted small") if entry_point else None,
    )


def _lineage(experiment: Experiment) -> Html:
    ancestors = ancestry(experiment.data_home, experiment.path)
    if not ancestors:
        return _nothing("No commit says it.")
    return join(*map(_chain, ancestors))


def _chain(one: Ancestor) -> Html:
    """Draw what one module came from, a step back after the other."""
    nodes = [tag("li", tag("span", one.module, class_="node own"))]
    while one.origin is not None:
        nodes.append(tag("li", _source_node(one, one.origin)))
        if one.parent is None:
            return tag("ol", *nodes, class_="chain")
        one = one.parent
    if one.module is not None:
        nodes.append(tag("li", tag("span", "as built", class_="node built")))
    elif one.same_as:
        holders = f"same content as {', '.join(one.same_as)}"
        nodes.append(tag("li", tag("span", holders, class_="node built")))
    return tag("ol", *nodes, class_="chain")


def _source_node(one: Ancestor, origin: WeightsOrigin) -> Html:
    if origin.experiment is None:
        name = f"{CHECKPOINTS_DIR_NAME}/{origin.ckp_name}"
    else:
        name = f"{origin.experiment}/{origin.pool}/{origin.module}"
    epoch = "" if origin.epoch is None else f"epoch {origin.epoch}, "
    gone = "is gone" if one.parent is None else "holds other weights now"
    return tag(
        "span",
        name,
        tag(
            "small",
            f"{epoch}digest {origin.digest[:_SHOWN_DIGEST_CHARACTERS]}",
            tag("span", f", {gone}", class_="gone") if one.is_there is False else None,
        ),
        class_="node",
    )


def _overrides(facts: Mapping[str, Any]) -> Html:
    """Make a table of what ``-s`` and options put in place of ``experiment.toml``."""
    overrides: dict[str, Any] = {}
    for key, value in table(facts, "overrides").items():
        # The keys are dotted already; a table given as a whole is taken apart.
        overrides |= flatten(value, f"{key}.") if isinstance(value, Mapping) else {key: value}
    if not overrides:
        return _nothing("None: the run had the settings of experiment.toml.")
    rows = [(key, tag("code", setting_text(value))) for key, value in overrides.items()]
    return data_table(("Setting", "Value"), rows, caption="Overridden settings")


def _nothing(why: str) -> Html:
    return tag("p", why, class_="muted")
