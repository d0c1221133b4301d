"""The task of a run: its functions, called with what they ask for; errors name the line."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

from torch.optim import Optimizer

from pymodules_core.discovery.implementations import HookImplementation
from pymodules_core.discovery.module_files.files import file_in_folder, line_in_folder
from pymodules_core.discovery.plugin_manager import PluginManager
from pymodules_core.discovery.task_file import TASK_NAME, register_task_file
from pymodules_core.errors import PymodulesError, StepError, TaskError, list_words
from pymodules_core.experiment import Experiment
from pymodules_core.module_pool import ModulePool, seed_everything
from pymodules_core.settings import structure
from pymodules_core.settings.structure import is_structured
from pymodules_core.training.optimize import is_scheduler
from pymodules_core.training.run import Run

_REQUIRED = ("train_data", "optimizers", "train_step")
_FUNCTIONS = ("train_data", "eval_data", "optimizers", "schedulers", "train_step", "eval_step")
MAIN_OPTIMIZER = "main"


class Task:
    """The functions of ``task.py``.

    Args:
        file: The file, for messages.
        functions: Hook name to implementation.
        config: What they get as ``config``.
    """

    def __init__(
        self, file: Path, functions: Mapping[str, HookImplementation], config: Any
    ) -> None:
        self.file = file
        self.config = config
        self._functions = functions

    @classmethod
    def load(cls, plugins: PluginManager, experiment: Experiment) -> "Task":
        """Import ``task.py`` and check that it has what a run needs.

        Raises:
            TaskError: A function is missing, or a name is a slip.
            SettingsError: ``[task]`` does not fit the task's ``Config``.
            ModuleFileError: The file fails.
        """
        seed_everything(experiment.settings.train.seed)
        namespace = register_task_file(plugins, experiment)
        functions = {}
        for name in _FUNCTIONS:
            found = [i for i in plugins.implementations(name) if i.record.name == TASK_NAME]
            if found:
                functions[name] = found[0]
        missing = [name for name in _REQUIRED if name not in functions]
        if ("eval_data" in functions) != ("eval_step" in functions):
            missing += {"eval_data", "eval_step"} - set(functions)
        if missing:
            raise TaskError(
                f"the task lacks {list_words(missing)}",
                file=experiment.task_file,
                found=missing,
                fix=f"write def {missing[0]}(...) in it",
            )
        return cls(experiment.task_file, functions, _make_config(namespace, experiment))

    @property
    def has_eval(self) -> bool:
        """Whether there is data and a step for an eval loop."""
        return "eval_step" in self._functions

    def data(self, phase: str) -> Any:
        """Call ``train_data`` or ``eval_data``."""
        name = f"{phase}_data"
        with self.errors(name, TaskError):
            return self._functions[name]({"config": self.config})

    def optimizers(self, module_pool: ModulePool) -> dict[str, Optimizer]:
        """Call ``optimizers`` and give what it returns by name.

        Raises:
            TaskError: It returns something else, or an optimizer owns a parameter that is frozen or
                of no module in the pool.
        """
        with self.errors("optimizers", TaskError):
            result = self._functions["optimizers"](
                {"module_pool": module_pool, "config": self.config}
            )
            named = dict(result) if isinstance(result, Mapping) else {MAIN_OPTIMIZER: result}
            for name, optimizer in named.items():
                if not isinstance(optimizer, Optimizer):
                    raise TaskError(
                        f"optimizers gives {type(optimizer).__name__} for {name!r}, "
                        "expected a torch.optim.Optimizer",
                        found=optimizer,
                    )
                _check_owned(name, optimizer, module_pool)
            if not named:
                raise TaskError("optimizers returns an empty dict", fix="return an optimizer")
        return named

    def schedulers(
        self, optimizers: Mapping[str, Optimizer], *, epochs: int, steps_per_epoch: int | None
    ) -> dict[str, Any]:
        """Call ``schedulers`` where there is one and give what it returns by optimizer name.

        Raises:
            TaskError: It returns something else.
        """
        function = self._functions.get("schedulers")
        if function is None:
            return {}
        with self.errors("schedulers", TaskError):
            result = function(
                {
                    "optimizers": optimizers,
                    "config": self.config,
                    "epochs": epochs,
                    "steps_per_epoch": steps_per_epoch,
                }
            )
            if result is None:
                return {}
            if not isinstance(result, Mapping):
                if len(optimizers) > 1:
                    raise TaskError(
                        f"schedulers returns one for optimizers {list_words(optimizers)}",
                        fix="return a dict by optimizer name",
                    )
                result = {next(iter(optimizers)): result}
            for name, scheduler in result.items():
                if not is_scheduler(scheduler):
                    raise TaskError(
                        f"schedulers gives {type(scheduler).__name__} for {name!r}, "
                        "expected one of torch.optim.lr_scheduler",
                        found=scheduler,
                    )
        return dict(result)

    def step(self, name: str, run: Run) -> Callable[[Any], Any]:
        """Bind ``train_step`` or ``eval_step``: the result takes a batch.

        Arguments are looked up here, once, because the result is called for every batch.
        """
        implementation = self._functions[name]
        fixed = {
            "module_pool": run.module_pool,
            "run": run,
            "config": self.config,
            "batch": None,
        }
        arguments = [fixed[argument] for argument in implementation.argument_names]
        function = implementation.function
        if "batch" not in implementation.argument_names:
            return lambda _: function(*arguments)
        position = implementation.argument_names.index("batch")

        def call(batch: Any) -> Any:
            arguments[position] = batch
            return function(*arguments)

        return call

    @contextmanager
    def errors(self, where: str, kind: type[PymodulesError] = StepError) -> Iterator[None]:
        """Give what is raised inside the place in ``task.py`` it came from.

        Args:
            where: The function that runs, for the message.
            kind: The error around one of the task's own code: ``StepError`` in a run,
                ``TaskError`` before there is one.

        Raises:
            kind: Around an error of the task's own code.
            PymodulesError: An error of ours, with file and line added.
        """
        folder = self.file.absolute().parent
        try:
            yield
        except PymodulesError as error:
            if error.file is None:
                error.file = file_in_folder(error, folder) or self.file
                error.line = line_in_folder(error, folder) or self._first_line(where)
            raise
        except Exception as error:
            raise kind(
                f"{where} raises {type(error).__name__}: {error}",
                file=file_in_folder(error, folder) or self.file,
                line=line_in_folder(error, folder) or self._first_line(where),
            ) from error

    def _first_line(self, where: str) -> int | None:
        implementation = self._functions.get(where)
        code = getattr(implementation and implementation.function, "__code__", None)
        return code.co_firstlineno if code is not None else None


def _make_config(namespace: ModuleType, experiment: Experiment) -> Any:
    config_class = getattr(namespace, "Config", None)
    table = experiment.settings.task
    if config_class is None:
        return table
    if not is_structured(config_class):
        raise TaskError(
            f"Config is {type(config_class).__name__}, expected an attrs class or dataclass",
            file=experiment.task_file,
            found=config_class,
            fix="decorate it with @attrs.frozen",
        )
    return structure(
        table,
        config_class,
        root="task",
        file=experiment.config_file,
        line_of=lambda path: experiment.line_of(("task", *path)),
    )


def _check_owned(name: str, optimizer: Optimizer, pool: ModulePool) -> None:
    owners = {
        id(parameter): (module_name, key)
        for module_name, module in pool.items()
        for key, parameter in module.named_parameters()
    }
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            owner = owners.get(id(parameter))
            if owner is None:
                raise TaskError(
                    f"optimizer {name!r} owns a parameter of shape {list(parameter.shape)} "
                    "that is in no module of the pool, so it would never be saved",
                    fix="put it into a module of the pool",
                )
            if pool.is_frozen(owner[0]):
                raise TaskError(
                    f"optimizer {name!r} owns {owner[0]}.{owner[1]}, and module {owner[0]!r} is "
                    "frozen",
                    found=".".join(owner),
                    fix=f'leave it out of the optimizer, or set "frozen": False for {owner[0]!r}',
                )
