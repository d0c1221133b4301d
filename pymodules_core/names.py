"""Names of modules, experiments, checkpoint files and pools: what is allowed, and where they lead.

Names reach paths on disk, attributes of the pool and keys of state dicts, so each kind is checked
once here, before anything is opened.
"""

import keyword
import re
import unicodedata
from collections.abc import Iterable
from pathlib import Path

from pymodules_core.errors import (
    DuplicateModuleError,
    InvalidNameError,
    closest_match,
    display_path,
    list_words,
)

FRZN = "frzn"
INIT = "init"
LAST = "last"
BEST = "best"
EPOCH_PREFIX = "epoch_"
CHECKPOINT_SUFFIX = ".pt"

_FIXED_POOLS = (FRZN, INIT, LAST, BEST)
_LONGEST_NAME_BYTES = 200
_EPOCH_POOL = re.compile(rf"{EPOCH_PREFIX}([1-9][0-9]{{0,17}})")
_WINDOWS_RESERVED = frozenset(
    ["con", "prn", "aux", "nul", "conin$", "conout$"]
    + [f"{port}{number}" for port in ("com", "lpt") for number in "123456789¹²³"]
)
_NOT_ON_WINDOWS = '<>:"|?*'
# Public attributes of torch.nn.ModuleDict and of ModulePool. Spelt out because torch may not be
# imported here; a test compares the list with both classes.
RESERVED_MODULE_NAMES = frozenset(
    """
    T_destination add_module apply bfloat16 buffers call_super_init children clear compile cpu cuda
    data_home discover double dump_patches entries eval experiment extra_repr float forward
    from_modules get get_buffer get_extra_state get_parameter get_submodule half ipu is_frozen items
    keys load_state_dict modules mtia named_buffers named_children named_modules named_parameters
    origins parameters pending_weights pop register_backward_hook register_buffer
    register_forward_hook register_forward_pre_hook register_full_backward_hook
    register_full_backward_pre_hook register_load_state_dict_post_hook
    register_load_state_dict_pre_hook register_module register_parameter
    register_state_dict_post_hook register_state_dict_pre_hook requires_grad_ seed
    set_extra_state set_submodule set_training settings share_memory shared_parameters
    state_dict to to_empty train training type update values weights_origins xpu zero_grad
    """.split()  # noqa: SIM905  one word a line would be sixty lines
)


def check_module_name(name: object, *, file: Path | None = None) -> str:
    """Return ``name`` if it may name a module.

    A module name is a Python identifier that is not a keyword, does not start with ``_``, is in
    Unicode form NFKC, and is not an attribute of ``ModulePool`` or ``torch.nn.ModuleDict``.

    Raises:
        InvalidNameError: If it may not.
    """
    if (fault := _module_name_fault(name)) is not None:
        what, fix = fault
        raise InvalidNameError(what, file=file, found=name, fix=fix)
    return check_path_name(name, kind="module name", file=file)


def check_path_name(name: object, *, kind: str, file: Path | None = None) -> str:
    """Return ``name`` if it is one plain path component on every common file system.

    Args:
        name: The name to check.
        kind: What it names, for the message: ``"exp_name"``, ``"ckp_name"``.
        file: Where the name was written.

    Raises:
        InvalidNameError: For separators, drives, ``..``, control characters, what Windows does not
            take, a leading ``-``, a trailing dot, spaces around it, another Unicode form than NFC,
            and over-long names.
    """
    if not isinstance(name, str):
        raise InvalidNameError(
            f"{kind}: expected str, found {type(name).__name__}", file=file, found=name
        )
    reason = _path_name_fault(name)
    if reason is not None:
        shown = name if len(name) <= 80 else f"{name[:80]}…"
        raise InvalidNameError(
            f"{kind} {shown!r} is not allowed: {reason}",
            file=file,
            found=name,
            fix="use one plain name of letters, digits, '_', '-' and '.'",
        )
    return name


def is_path_name(name: str) -> bool:
    """Return whether ``check_path_name`` allows ``name``."""
    return _path_name_fault(name) is None


def resolve_inside(root: Path, *parts: str, kind: str, fix: str | None = None) -> Path:
    """Join ``parts`` below ``root`` and refuse a path that a symlink leads out of it.

    ``root`` itself may be a symlink.

    Args:
        root: The folder.
        parts: Names below it.
        kind: What is named; the dotted key of a setting is named, too.
        fix: What to do where a link leads out; by default to copy what it leads to.

    Raises:
        InvalidNameError: If the real path is outside ``root``.
    """
    path = root.joinpath(*parts)
    where = f"{kind}: {display_path(path)}" if "." in kind else display_path(path)
    try:
        real_root, real = root.resolve(), path.resolve()
    except (OSError, RuntimeError) as error:  # RuntimeError: links in a circle, until Python 3.13
        raise InvalidNameError(
            f"{where} cannot be followed: its links lead in a circle",
            key=kind,
            found=str(path),
            fix="replace the link by the file itself",
        ) from error
    if not real.is_relative_to(real_root):
        raise InvalidNameError(
            f"{where} leads out of the data home, to {real}",
            key=kind,
            found=str(path),
            fix=fix or f"copy it below {display_path(root)} instead of linking to it",
        )
    return path


def check_distinct(names: Iterable[str]) -> None:
    """Refuse names that differ only in case, which some file systems hold for one.

    Raises:
        DuplicateModuleError: With both names.
    """
    seen: dict[str, str] = {}
    for name in names:
        folded = fold_name(name)
        if folded in seen and seen[folded] != name:
            raise DuplicateModuleError(
                f"module names {seen[folded]!r} and {name!r} differ only in case: "
                "some file systems hold them for one",
                found=name,
                fix="rename one of them",
            )
        seen[folded] = name


def fold_name(name: str) -> str:
    """Return what is equal for names that some file system holds for one."""
    return unicodedata.normalize("NFKC", name).casefold()


def epoch_pool(epoch: int) -> str:
    """Return the name of the pool of an epoch, counted from 1."""
    return f"{EPOCH_PREFIX}{epoch}"


def parse_epoch_pool(pool_name: str) -> int | None:
    """Return the epoch of an ``epoch_<n>`` pool name, or None for any other name."""
    match = _EPOCH_POOL.fullmatch(pool_name)
    return int(match[1]) if match else None


def check_pool_name(pool_name: object, *, existing: Iterable[str] | None = None) -> str:
    """Return ``pool_name`` if it is one of the pool names.

    Args:
        pool_name: ``frzn``, ``init``, ``last``, ``best`` or ``epoch_<n>``.
        existing: Pools on disk, listed in the message.

    Raises:
        InvalidNameError: For any other name.
    """
    if isinstance(pool_name, str) and _is_pool_name(pool_name):
        return pool_name
    if existing is None:
        there = [*_FIXED_POOLS, epoch_pool(1)]
        choice = f"pools are {list_words(_FIXED_POOLS)} and {EPOCH_PREFIX}<n>"
    else:
        there = list(existing)
        choice = f"there are: {list_words(there)}"
    raise InvalidNameError(
        f"unknown checkpoint pool {pool_name!r}; {choice}",
        found=pool_name,
        closest=closest_match(str(pool_name), there),
    )


def pool_names_in(folder: Path) -> list[str]:
    """Return the folders that are named like checkpoint pools, in the order of a run."""
    if not folder.is_dir():
        return []
    names = (path.name for path in folder.iterdir() if path.is_dir())
    return sorted(filter(_is_pool_name, names), key=pool_sort_key)


def pool_sort_key(pool_name: str) -> tuple[int, int]:
    """Order pools as a run writes them: frzn, init, last, best, then epochs by number."""
    if pool_name in _FIXED_POOLS:
        return _FIXED_POOLS.index(pool_name), 0
    return len(_FIXED_POOLS), parse_epoch_pool(pool_name) or 0


def _is_pool_name(name: str) -> bool:
    return name in _FIXED_POOLS or parse_epoch_pool(name) is not None


def _module_name_fault(name: object) -> tuple[str, str] | None:
    """Return why a name may not be a module's, and the fix."""
    if not isinstance(name, str):
        fix = f"name it {str(name)!r}" if str(name).isidentifier() else "name it with a text"
        return f"module name: expected str, found {type(name).__name__}", fix
    refused = f"module name {name!r} is"
    if not name.isidentifier() or keyword.iskeyword(name) or name.startswith("_"):
        rule = "a module name is a Python identifier that does not start with '_'"
        better = _suggest_identifier(name)
        fix = f"name it {better!r}" if better else "choose another name"
        return f"{refused} not allowed: {rule}", fix
    normal = unicodedata.normalize("NFKC", name)
    if normal != name:
        reason = "not in Unicode form NFKC, so file and attribute would differ"
        return f"{refused} {reason}", f"name it {normal!r}"
    if name in RESERVED_MODULE_NAMES:
        return f"{refused} an attribute of the module pool", f"name it {name + '_net'!r}"
    return None


def _path_name_fault(name: str) -> str | None:
    if not name.strip():
        return "it is empty"
    foreign = next((one for one in name if one in _NOT_ON_WINDOWS), None)
    # Control characters are never printable; asking that first spares most names the loop.
    is_control = not name.isprintable() and any(unicodedata.category(c)[0] == "C" for c in name)
    faults = {
        "it names a folder's parent or itself": name in {".", ".."},
        "it holds a path separator": "/" in name or "\\" in name,
        "it starts with a drive": re.match(r"[A-Za-z]:", name),
        "it holds a control character": is_control,
        f"some file systems take no {foreign!r}": foreign,
        "a leading '-' reads as an option": name[0] == "-",
        "a leading '.' hides it": name[0] == ".",
        "a trailing dot or space is lost on some file systems": name[-1] in ". ",
        "it begins or ends with a space": name != name.strip(),
        "it is not in Unicode form NFC, so another name would look the same": (
            not unicodedata.is_normalized("NFC", name)
        ),
        "the name is reserved on Windows": (
            name.split(".", maxsplit=1)[0].rstrip().lower() in _WINDOWS_RESERVED
        ),
        f"it is longer than {_LONGEST_NAME_BYTES} bytes": (
            len(name.encode(errors="surrogatepass")) > _LONGEST_NAME_BYTES
        ),
    }
    return next((reason for reason, is_fault in faults.items() if is_fault), None)


def _suggest_identifier(name: str) -> str | None:
    candidate = re.sub(r"\W", "_", name).strip("_")
    if candidate[:1].isdigit():
        candidate = f"m{candidate}"
    if keyword.iskeyword(candidate):
        candidate = f"{candidate}_module"
    return candidate if candidate.isidentifier() else None
