"""The training state of a commit: everything besides weights that the next step depends on."""

import logging
from collections.abc import Mapping
from typing import Any, TypeGuard

import attrs

from pymodules_core.errors import CheckpointError, RunChangedError, TaskError, list_words
from pymodules_core.module_pool import Migration
from pymodules_core.processes.dtensor import is_dtensor
from pymodules_core.rng import derive_seed, random_state, restore_random_state, seed_everything
from pymodules_core.training.fit.migrated_names import follow_migrations
from pymodules_core.training.fit.plugin_states import PluginStates
from pymodules_core.training.fit.position import Position, Stage, whole_number
from pymodules_core.training.loop.stop_conditions import StopConditions
from pymodules_core.training.optim.named_state import parameter_names
from pymodules_core.training.preparation.session import Session
from pymodules_core.training.task.metrics import merged_sums

logger = logging.getLogger("pymodules_core")

_FORMAT = 1
# What each of several processes has of its own.
_OF_EACH = ("averages", "data", "random")
# What of a sharded module is saved beside the state that an optimizer keeps of a parameter.
_GRADIENT = "gradient of the open window"


def is_training_state(state: Mapping[str, Any] | None) -> TypeGuard[Mapping[str, Any]]:
    """Return whether ``TrainingState.capture`` made it, and not a loop of the user's own."""
    return state is not None and {"format", "position", "optimizers"} <= state.keys()


class TrainingState:
    """Reads and writes the state of all parts of a run.

    What each of several processes has of its own, such as random streams, is saved of each; all the
    rest of the first one.

    Args:
        session: The parts of the run.
        stop_conditions: Limits and patience.
        position: Where the run is.
    """

    def __init__(
        self, session: Session, stop_conditions: StopConditions, position: Position
    ) -> None:
        self._run = session.run
        self._control = session.loops.control
        self._optimizers = session.optimizers
        self._plugins = PluginStates(session.plugins, session.run)
        self._data = {"train": session.loops.train_batches}
        if session.loops.eval_batches is not None:
            self._data["eval"] = session.loops.eval_batches
        self._stop_conditions = stop_conditions
        self._position = position
        self._processes = session.processes
        self._names = parameter_names(session.pool)

    def capture(self) -> tuple[dict[str, Any], dict[str, dict[str, Any]]]:
        """Return the state as it is now, as tensors and primitives; every process has to call it.

        Returns:
            What every process holds whole, and module name to what is the module's own, sharded as
            it is.

        Raises:
            TaskError: Something of the task's cannot be held by a checkpoint.
            PluginError: A plugin's ``state_dict`` fails.
        """
        run, position = self._run, self._position
        is_training = position.stage is Stage.TRAINING
        state: dict[str, Any] = {
            "format": _FORMAT,
            "epoch": run.epoch,
            "step": run.step,
            "position": {**attrs.asdict(position), "stage": position.stage.value},
            "averages": self._control.averages.state_dict() if is_training else None,
            "unsaved_metrics": self._unsaved_metrics() if is_training else [],
            "requires_grad": {
                name: parameter.requires_grad for parameter, name in self._names.items()
            },
            "optimizers": {
                name: optimizer.state_dict(self._names)
                for name, optimizer in self._optimizers.items()
            },
            "data": {phase: batches.state_dict() for phase, batches in self._data.items()},
            "stopping": self._stop_conditions.state_dict(),
            "user": run.state.state_dict(),
            "plugins": self._plugins.state_dict(),
            # Last: nothing above may draw, and if it did, the next step would notice.
            "random": random_state(),
        }
        if not self._processes.is_alone:
            _, *state["others"] = self._processes.gather({key: state[key] for key in _OF_EACH})
        return state, self._split_off_modules(state)

    def _split_off_modules(self, state: dict[str, Any]) -> dict[str, dict[str, Any]]:
        """Take out what optimizers keep of sharded modules: module name to optimizer to it."""
        per_module: dict[str, dict[str, Any]] = {}
        sharded = {name for parameter, name in self._names.items() if is_dtensor(parameter)}
        for name, saved in state["optimizers"].items():
            states, gradients = saved["optimizer"]["state"], saved["gradients"]
            for key in sorted(sharded & {*states, *gradients}):
                values = states.pop(key, {})
                if key in gradients:
                    values = {**values, _GRADIENT: gradients.pop(key)}
                of_module = per_module.setdefault(key.partition(".")[0], {})
                of_module.setdefault(name, {})[key] = values
        return per_module

    def restore(
        self,
        state: Mapping[str, Any],
        migrations: Mapping[str, Migration],
        module_states: Mapping[str, Mapping[str, Any]] | None = None,
        *,
        accepts_losses: bool = False,
    ) -> Mapping[str, Any] | None:
        """Restore all but the weights, which have to be loaded already.

        Args:
            state: What ``capture`` returned.
            migrations: Module name to what became of its weights as they were loaded, of those
                that an older version of a plugin wrote.
            module_states: What of it was saved per module, unsharded.
            accepts_losses: Report what of the optimizers cannot be restored, and do not refuse it.

        Returns:
            The sums of metrics of the epoch's first part, in stage ``training``.

        Raises:
            CheckpointError: A newer version wrote it.
            RunChangedError: Something of the optimizers cannot be restored.
            PluginError: A plugin cannot take its state back.
        """
        if state["format"] > _FORMAT:
            raise CheckpointError(
                f"the training state has format {state['format']}, and this version reads "
                f"{_FORMAT}",
                found=state["format"],
                fix="pip install --upgrade pymodules-core",
            )
        run, position = self._run, self._position
        own = self._own_rank_state(state)
        _merge_module_states(state["optimizers"], module_states or {})
        state = follow_migrations(state, migrations, set(self._names.values()))
        run.epoch, run.step = whole_number(state["epoch"]), whole_number(state["step"])
        position.restore(state["position"])
        self._restore_gradients(state["requires_grad"])
        self._restore_optimizers(state["optimizers"], accepts_losses=accepts_losses)
        for phase, batches in self._data.items():
            batches.load_state_dict(own["data"].get(phase))
        self._stop_conditions.load_state_dict(state["stopping"], step=run.step)
        run.state.load_state_dict(state["user"])
        self._plugins.load_state_dict(state["plugins"])
        if own["random"] is not None:
            restore_random_state(own["random"])
        else:
            seed_everything(derive_seed(run.seed, "run", run.step, *self._processes.ranks.rng_key))
        if state["unsaved_metrics"]:
            logger.warning(
                "train metrics that accumulate by themselves know only the rest of epoch %d: %s. "
                "Fix: keep them in run.state, where they have state_dict",
                run.epoch,
                list_words(state["unsaved_metrics"]),
            )
        averages: Mapping[str, Any] | None = own["averages"]
        return averages

    def _own_rank_state(self, state: Mapping[str, Any]) -> Mapping[str, Any]:
        """Return what is this process's: all of its own, where there were as many processes.

        Else the first one resumes with the sums of all, and one that was not there with nothing.

        Raises:
            TaskError: Data that keeps its own position in each process was read by other ones.
        """
        saved: list[Mapping[str, Any]] = [state, *state.get("others", [])]
        rank, keeps = self._processes.rank, any(state["data"].values())
        if keeps and len(saved) != self._processes.size:
            raise TaskError(
                f"the data keeps its position in each process, and {len(saved)} processes read it "
                f"when the run was saved; now there are {self._processes.size}",
                found=self._processes.size,
                fix=f"resume with {len(saved)} processes, or return data without state_dict",
            )
        if len(saved) == self._processes.size:
            return saved[rank]
        averages = None
        if rank == 0 and state["averages"] is not None:
            averages = merged_sums([one["averages"] for one in saved])
        random = saved[rank]["random"] if rank < len(saved) else None
        return {"data": {}, "random": random, "averages": averages}

    def _restore_gradients(self, saved: Mapping[str, bool]) -> None:
        """Freeze and unfreeze what hooks had; a module that is frozen as such stays so."""
        pool = self._run.module_pool
        for parameter, name in self._names.items():
            is_wanted = saved.get(name, parameter.requires_grad)
            if parameter.requires_grad != is_wanted and not pool.is_frozen(name.partition(".")[0]):
                parameter.requires_grad_(is_wanted)

    def _restore_optimizers(self, states: Mapping[str, Any], *, accepts_losses: bool) -> None:
        lost = [
            f"there is no optimizer {name!r} any more: its state is dropped"
            for name in sorted(states.keys() - self._optimizers.keys())
        ]
        for name, optimizer in self._optimizers.items():
            if name in states:
                lost += optimizer.load_state_dict(states[name], self._names)
            else:
                logger.warning("optimizer %r is new: it starts without state", name)
        if lost and not accepts_losses:
            shown = "\n".join(f"  {line}" for line in lost)
            raise RunChangedError(
                f"the optimizers cannot be restored as they were saved\n{shown}",
                found=lost,
                fix="let the task make them as it did, or resume without what is lost: "
                "--resume --accept-changes",
            )
        for line in lost:
            logger.warning("%s", line)
        try:
            for optimizer in self._optimizers.values():
                optimizer.check_ownership()
        except TaskError as error:
            raise RunChangedError(
                f"today's optimizers do not fit what the run added to them: {error.what}",
                key=error.key,
                found=error.found,
                fix="let the task make them as it did",
            ) from error

    def _unsaved_metrics(self) -> list[str]:
        """Name the metric objects of the pass at hand that ``run.state`` does not hold."""
        kept = {id(value) for value in self._run.state.values()}
        metrics = self._control.averages.stateful
        return [name for name, one in metrics.items() if id(one) not in kept]


def _merge_module_states(
    optimizers: Mapping[str, Any], module_states: Mapping[str, Mapping[str, Any]]
) -> None:
    """Put back what ``capture`` took out of the states of optimizers, per module."""
    for of_module in module_states.values():
        for name, states in of_module.items():
            for key, values in states.items():
                if _GRADIENT in values:
                    optimizers[name]["gradients"][key] = values.pop(_GRADIENT)
                if values:
                    optimizers[name]["optimizer"]["state"][key] = values
