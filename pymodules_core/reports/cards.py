"""The card of a run: how far it is, how good, and under which circumstances it ran."""

from collections.abc import Mapping
from typing import Any

from pymodules_core.reports.history import History, Resumption, finite, table, text, whole
from pymodules_core.reports.markup import Html, tag
from pymodules_core.reports.text import (
    MISSING,
    count_text,
    duration_text,
    moment_text,
    number_text,
)

_SHOWN_COMMIT_CHARACTERS = 12
_KNOWN_STATES = frozenset({"finished", "running", "interrupted", "failed", "killed", "unreadable"})


def run_card(label: str, history: History, *, style: str) -> Html:
    """Make the card that says how far a run is and how good.

    Args:
        label: What the run is called.
        history: The run.
        style: Its colour.
    """
    facts, best = history.facts, history.best
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
        _error_note(facts),
        *(tag("p", note, class_="note") for note in history.notes),
        class_="card",
        style=style,
    )


def resumption_text(one: Resumption) -> str:
    """Return where a run continued, and when."""
    when = f", {moment_text(one.time)}" if one.time else ""
    return f"at epoch {one.epoch:,}, step {one.step:,}{when}"


def _facts(history: History) -> list[tuple[str, str]]:
    facts = history.facts
    epoch, epochs = whole(facts.get("epoch")), whole(facts.get("epochs"))
    seed, step = whole(facts.get("seed")), whole(facts.get("step"))
    versions = table(facts, "versions")
    resumptions = history.resumptions
    found = [
        ("Epochs", MISSING if epoch is None else f"{epoch:,} of {count_text(epochs)}"),
        ("Steps", count_text(step)),
        ("Wall time", duration_text(finite(facts.get("wall_s")))),
        ("Started", moment_text(text(facts, "started")) or MISSING),
        ("Updated", moment_text(text(facts, "updated")) or MISSING),
        ("Seed", count_text(seed)),
        ("Device", text(facts, "device") or MISSING),
        ("Git commit", text(facts, "git_commit")[:_SHOWN_COMMIT_CHARACTERS] or MISSING),
        ("torch", str(versions.get("torch", MISSING))),
    ]
    if resumptions:
        found.append(("Resumed", "; ".join(map(resumption_text, resumptions))))
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


def _error_note(facts: Mapping[str, Any]) -> Html | None:
    error = text(facts, "error")
    return tag("p", error, class_="note error") if error else None
