"""A training state under today's names, where a plugin migrated the weights of its modules."""

from collections.abc import Collection, Iterator, Mapping
from typing import Any

from pymodules_core.module_pool import Migration


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

    def follow(values: Mapping[str, Any]) -> dict[str, Any]:
        return {new: value for old, value in values.items() if (new := new_name(old)) is not None}

    def follow_group(group: Mapping[str, Any]) -> dict[str, Any]:
        # One that is gone keeps its name, so that it is reported.
        followed = [
            new or old for old in group["params"] if (new := new_name(old)) or old not in today
        ]
        return {**group, "params": followed}

    def follow_start(unit: Mapping[str, Any]) -> dict[str, Any]:
        groups = unit.get("start_groups")  # an older version wrote none
        return {} if groups is None else {"start_groups": [follow_group(one) for one in groups]}

    def follow_unit(unit: Mapping[str, Any]) -> dict[str, Any]:
        optimizer = unit["optimizer"]
        return {
            **unit,
            **follow_start(unit),
            "gradients": follow(unit["gradients"]),
            "optimizer": {
                **optimizer,
                "state": follow(optimizer["state"]),
                "param_groups": [follow_group(group) for group in optimizer["param_groups"]],
            },
        }

    return {
        **state,
        "requires_grad": {**state["requires_grad"], **follow(state["requires_grad"])},
        "optimizers": {name: follow_unit(unit) for name, unit in state["optimizers"].items()},
    }


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
