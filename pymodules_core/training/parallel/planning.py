"""Which modules are wrapped together, and what their settings ask for."""

from pymodules_core.errors import ProcessesError, SettingsError, closest_match, list_words
from pymodules_core.module_pool import ModulePool
from pymodules_core.module_pool.setting_location import locate_setting
from pymodules_core.settings import ParallelSettings


def group_modules(pool: ModulePool) -> list[list[str]]:
    """Return the names of modules that share parameters together, all others alone."""
    group_of: dict[str, list[str]] = {name: [name] for name in pool}
    for shared in pool.shared_parameters:
        names = {key.partition(".")[0] for key in shared}
        joined = sorted({one for name in names for one in group_of[name]})
        group_of |= dict.fromkeys(joined, joined)
    return [list(one) for one in dict.fromkeys(map(tuple, group_of.values()))]


def settings_of(pool: ModulePool, names: list[str]) -> ParallelSettings:
    """Return the settings of a group, which have to agree.

    Raises:
        SettingsError: They do not.
        ProcessesError: FSDP2 would untie what they share.
    """
    found = {name: pool.settings[name].sharing for name in names}
    first = found[names[0]]
    if len(names) == 1:
        return first
    shown = list_words(names)
    if any(one.kind == "fsdp" for one in found.values()):
        raise ProcessesError(
            f"modules {shown} share parameters, and FSDP2 would untie them",
            key=f"modules.settings.{names[0]}.parallel",
            found="fsdp",
            fix='make one module that holds them all, or set "parallel": "ddp" for each',
        )
    if any(one != first for one in found.values()):
        raise SettingsError(
            f"modules {shown} share parameters and are wrapped as one, and their settings "
            "'parallel' differ",
            key=f"modules.settings.{names[-1]}.parallel",
            found=found[names[-1]].kind,
            fix="give all of them the same",
        )
    return first


def check_forward_methods(pool: ModulePool, name: str) -> None:
    """Refuse ``forward_methods`` of a module that name none.

    Raises:
        SettingsError: One does not.
    """
    module = pool[name]
    for method in pool.settings[name].forward_methods:
        if method == "forward" or not callable(getattr(module, method, None)):
            own = [one for one, value in vars(type(module)).items() if callable(value)]
            near = closest_match(method, [one for one in own if not one.startswith("_")])
            error = SettingsError(
                f"modules.settings.{name}.forward_methods: {type(module).__name__} has no method "
                f"{method!r} besides forward",
                key=f"modules.settings.{name}.forward_methods",
                found=method,
                closest=near,
                fix=None if near else "name methods of the module that train it",
            )
            raise locate_setting(pool, name, "forward_methods", error)
