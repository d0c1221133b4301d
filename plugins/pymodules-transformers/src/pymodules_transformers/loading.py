"""How a folder's weights fit a model: what transformers would only log is an error here."""

from collections.abc import Collection, Iterable, Mapping
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from transformers import PreTrainedModel

from pymodules_core.errors import SettingsError, WeightMismatchError, closest_match, list_words
from pymodules_transformers.settings import ModelSettings

_MOST_SHOWN = 6


def check_fit(
    model: PreTrainedModel,
    info: Mapping[str, Any],
    settings: ModelSettings,
    *,
    folder: Path,
    key: str,
) -> None:
    """Refuse weights that are missing, left over or of another shape, unless settings name them.

    Args:
        model: The model as it was loaded.
        info: What ``from_pretrained`` gave with ``output_loading_info``.
        settings: Their ``new_weights`` and ``unused_weights`` are what may differ.
        folder: The folder, for messages.
        key: Dotted path of the settings, for messages.

    Raises:
        WeightMismatchError: With one table of all that does not fit.
        SettingsError: A pattern matches nothing that differs.
    """
    shapes = {name: (tuple(theirs), tuple(own)) for name, theirs, own in info["mismatched_keys"]}
    missing = sorted(info["missing_keys"])
    unexpected = sorted(info["unexpected_keys"])
    lacking = [*missing, *shapes]
    _refuse_idle(settings.new_weights, lacking, "the folder lacks", key=f"{key}.new_weights")
    _refuse_idle(
        settings.unused_weights, unexpected, "the model lacks", key=f"{key}.unused_weights"
    )
    wrong_new = [name for name in lacking if not _is_named(name, settings.new_weights)]
    wrong_unused = [name for name in unexpected if not _is_named(name, settings.unused_weights)]
    if not wrong_new and not wrong_unused:
        return
    absent = [name for name in wrong_new if name not in shapes]
    rows = [
        f"missing in the folder: {list_words(absent, most=_MOST_SHOWN)}" if absent else "",
        *(
            f"shape of {name}: {list(shapes[name][0])} in the folder, {list(shapes[name][1])} here"
            for name in [name for name in wrong_new if name in shapes][:_MOST_SHOWN]
        ),
        f"only in the folder: {list_words(wrong_unused, most=_MOST_SHOWN)}" if wrong_unused else "",
    ]
    saved_from = list_words(model.config.architectures or (), none="no named class")
    raise WeightMismatchError(
        "\n  ".join(
            [
                f"{key}: the weights do not fit {type(model).__name__}; they were saved from "
                f"{saved_from}:",
                *filter(None, rows),
            ]
        ),
        file=folder,
        key=key,
        found={"missing": absent, "mismatched": shapes, "unexpected": wrong_unused},
        fix=_fix(wrong_new, wrong_unused),
    )


def _fix(new: Collection[str], unused: Collection[str]) -> str:
    ways = ["choose the head and config that it was saved with"]
    if new:
        ways.append(f"for weights to begin random: new_weights = {_patterns(new)}")
    if unused:
        ways.append(f"for weights to leave out: unused_weights = {_patterns(unused)}")
    return "; ".join(ways)


def _patterns(names: Iterable[str]) -> str:
    """Return patterns over names, one for each layer that they belong to, as TOML."""
    layers = dict.fromkeys(
        f"{name.rpartition('.')[0]}.*" if "." in name else name for name in names
    )
    quoted = list_words((f'"{layer}"' for layer in layers), most=_MOST_SHOWN)
    return f"[{quoted}]"


def _is_named(name: str, patterns: Iterable[str]) -> bool:
    return any(fnmatchcase(name, pattern) for pattern in patterns)


def _refuse_idle(patterns: Iterable[str], names: Collection[str], what: str, *, key: str) -> None:
    for pattern in patterns:
        if not any(fnmatchcase(name, pattern) for name in names):
            near = closest_match(pattern, names)
            raise SettingsError(
                f"{key}: {pattern!r} matches no weight that {what}; there are: "
                f"{list_words(names, most=_MOST_SHOWN)}",
                key=key,
                found=pattern,
                closest=near,
                fix=None if near else f"remove {pattern!r}",
            )
