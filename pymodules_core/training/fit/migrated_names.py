"""A training state under today's names, where a plugin migrated the weights of its modules."""

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from typing import Any

from pymodules_core.module_pool import Migration

NewName = Callable[[str], str | None]


def follow_migrations(
    state: Mapping[str, Any], migrations: Mapping[str, Migration], today: Collection[str]
) -> Mapping[str, Any]:
    """Return a training state under the names that parameters have today.

    It holds their state in optimizers, their gradients in an open window, and whether they learn.
    Where the migration changed a parameter's values, its state in optimizers and its gradient were
    made for others, and are left out: it starts without state.

    Args:
        state: What ``TrainingState.capture`` returned.
        migrations: Module name to what became of its weights as they were loaded.
        today: The names of all parameters.
    """
    if not migrations:
        return state
    names = dict(_kept_names(migrations, today))

    def new_name(old: str) -> str | None:
        return names.get(old) if old.partition(".")[0] in migrations else old

    requires_grad, optimizers = state["requires_grad"], state["optimizers"]
    return {
        **state,
        "requires_grad": {**requires_grad, **_renamed(requires_grad, new_name)},
        "optimizers": {
            name: _renamed_optimizer(one, new_name, today) for name, one in optimizers.items()
        },
    }


def _renamed(values: Mapping[str, Any], new_name: NewName) -> dict[str, Any]:
    return {new: value for old, value in values.items() if (new := new_name(old)) is not None}


def _renamed_optimizer(
    saved: Mapping[str, Any], new_name: NewName, today: Collection[str]
) -> dict[str, Any]:
    optimizer = saved["optimizer"]
    renamed = {
        **saved,
        "gradients": _renamed(saved["gradients"], new_name),
        "optimizer": {
            **optimizer,
            "state": _renamed(optimizer["state"], new_name),
            "param_groups": _renamed_groups(optimizer["param_groups"], new_name, today),
        },
    }
    if "start_groups" in saved:  # an older version wrote none
        renamed["start_groups"] = _renamed_groups(saved["start_groups"], new_name, today)
    return renamed


def _renamed_groups(
    groups: Iterable[Mapping[str, Any]], new_name: NewName, today: Collection[str]
) -> list[dict[str, Any]]:
    """Return groups with the names of today; a parameter that is gone keeps its own, to report."""
    return [
        {
            **group,
            "params": [
                new or old for old in group["params"] if (new := new_name(old)) or old not in today
            ],
        }
        for group in groups
    ]


def _kept_names(
    migrations: Mapping[str, Migration], today: Collection[str]
) -> Iterator[tuple[str, str]]:
    """Yield old name and name today of each parameter that a migration left as it was."""
    for name, migration in migrations.items():
        # Where two keys were one, the last counts, and that has to be the first of today's: a tied
        # parameter is called by its first key.
        for key, old_key in reversed(list(migration.kept.items())):
            if f"{name}.{key}" in today:
                yield f"{name}.{old_key}", f"{name}.{key}"
