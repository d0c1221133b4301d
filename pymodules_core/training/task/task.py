"""The task of a run: its functions, called with what they ask for; errors name the line."""

import inspect
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any

from torch.optim import Optimizer

from pymodules_core.discovery.plugins.implementations import HookImplementation
from pymodules_core.discovery.plugins.manager import PluginManager
from pymodules_core.discovery.plugins.task_file import (
    TASK_NAME,
    code_of,
    line_of_name,
    register_task,
)
from pymodules_core.discovery.scan.import_files import isolated_imports
from pymodules_core.errors import (
    PymodulesError,
    SettingsError,
    StepError,
    TaskError,
    closest_match,
    list_words,
)
from pymodules_core.experiment import Experiment
from pymodules_core.module_pool import ModulePool
from pymodules_core.processes.environment import RankInfo
from pymodules_core.rng import random_stream, seed_everything
from pymodules_core.settings import structure
from pymodules_core.settings.strict import is_structured
from pymodules_core.training.optim.block import is_scheduler
from pymodules_core.training.optim.named_state import parameter_names
from pymodules_core.training.optim.ownership import check_owned
from pymodules_core.training.task.errors import TaskErrors
from pymodules_core.training.task.run import Run

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
        """Import the task and check that it has what a run needs.

        Raises:
            TaskError: A function is missing, or a name is a slip.
            SettingsError: ``[task]`` does not fit the task's ``Config``.
            ModuleFileError: The file fails.
        """
        seed = experiment.settings.train.seed
        seed_everything(seed)

        def own_stream(dotted_name: str, _: Path) -> AbstractContextManager[None]:
            # A file of a module draws the same weights if the task imports it first.
            folder, name = dotted_name.rpartition(".")[::2]
            return random_stream(seed, "module", name) if folder == "modules" else nullcontext()

        with isolated_imports(own_stream):
            namespace, file = register_task(plugins, experiment)
        functions = {}
        for name in _FUNCTIONS:
            found = [i for i in plugins.implementations(name) if i.record.name == TASK_NAME]
            if found:
                functions[name] = found[0]
        _check_complete(namespace, functions, file)
        return cls(file, functions, _make_config(namespace, file, experiment))

    @property
    def has_eval(self) -> bool:
        """Whether there is data and a step for an eval loop."""
        return "eval_step" in self._functions

    def data(self, phase: str, ranks: RankInfo) -> Any:
        """Call ``train_data`` or ``eval_data`` in one of several processes."""
        name = f"{phase}_data"
        arguments = {"config": self.config, "rank": ranks.rank, "world_size": ranks.size}
        with self.errors(name, TaskError):
            return self._functions[name](arguments)

    def optimizers(self, module_pool: ModulePool) -> dict[str, Optimizer]:
        """Call ``optimizers`` and give what it returns by name.

        Raises:
            TaskError: It returns something else, or an optimizer owns a parameter that is frozen or
                of no module in the pool, or its learning rate is not finite.
        """
        with self.errors("optimizers", TaskError):
            result = self._functions["optimizers"](
                {"module_pool": module_pool, "config": self.config}
            )
            if not isinstance(result, Mapping | Optimizer):
                raise TaskError(
                    f"optimizers returns {'None' if result is None else type(result).__name__}, "
                    "expected a torch.optim.Optimizer or a dict of them by name",
                    found=result,
                    fix='return the optimizer, or {"name": optimizer, ...}',
                )
            named = dict(result) if isinstance(result, Mapping) else {MAIN_OPTIMIZER: result}
            names = parameter_names(module_pool)
            for name, optimizer in named.items():
                if not isinstance(name, str):
                    raise TaskError(
                        f"optimizers gives the name {name!r}, expected str",
                        found=name,
                        fix=f"name it {str(name)!r}",
                    )
                if not isinstance(optimizer, Optimizer):
                    raise TaskError(
                        f"optimizers gives {type(optimizer).__name__} for {name!r}, "
                        "expected a torch.optim.Optimizer",
                        found=optimizer,
                        fix="give an instance, such as torch.optim.Adam(parameters)",
                    )
                check_owned(name, optimizer, module_pool, names)
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
                if name not in optimizers:
                    raise TaskError(
                        f"schedulers gives one for {name!r}, and there is no such optimizer; "
                        f"there are: {list_words(optimizers)}",
                        found=name,
                        closest=closest_match(str(name), optimizers),
                        fix="name each as its optimizer",
                    )
                if not is_scheduler(scheduler):
                    raise TaskError(
                        f"schedulers gives {type(scheduler).__name__} for {name!r}, "
                        "expected one of torch.optim.lr_scheduler",
                        found=scheduler,
                        fix="give an instance, such as lr_scheduler.StepLR(optimizer, 10)",
                    )
        return dict(result)

    def step(self, name: str, run: Run) -> Callable[[Any], Any]:
        """Bind ``train_step`` or ``eval_step``: the result takes a batch.

        Arguments are looked up here, once, because the result is called for every batch.
        """
        implementation = self._functions[name]
        fixed = {"module_pool": run.module_pool, "run": run, "config": self.config, "batch": None}
        arguments = [fixed[argument] for argument in implementation.argument_names]
        function = implementation.function
        if "batch" not in implementation.argument_names:
            return lambda _: function(*arguments)
        position = implementation.argument_names.index("batch")

        def call(batch: Any) -> Any:
            arguments[position] = batch
            return function(*arguments)

        return call

    def errors(
        self, where: str, kind: type[PymodulesError] = StepError, *, note: Callable[[], str] = str
    ) -> TaskErrors:
        """Return what is raised inside a ``with`` block the place in ``task.py`` it came from.

        Args:
            where: The function that runs, for the message.
            kind: The error around one of the task's own code, ``SystemExit`` included:
                ``StepError`` in a run, ``TaskError`` before there is one.
            note: Gives what is added to the message.

        Raises:
            kind: Around an error of the task's own code.
            PymodulesError: An error of ours, with file and line added.
        """
        return TaskErrors(self.file, partial(self.first_line, where), where, kind, note)

    def first_line(self, where: str) -> int | None:
        """Return the line of a function's ``def``."""
        implementation = self._functions.get(where)
        code = code_of(implementation.function) if implementation is not None else None
        return code.co_firstlineno if code is not None else None


def _check_complete(
    namespace: ModuleType, functions: Mapping[str, HookImplementation], file: Path
) -> None:
    missing = [name for name in _REQUIRED if name not in functions]
    fix = ""
    for name, other in (("eval_data", "eval_step"), ("eval_step", "eval_data")):
        if name in functions and other not in functions:
            missing.append(other)
            fix = f", or remove {name}"
    if not missing:
        return
    helpers = [
        name
        for name, value in vars(namespace).items()
        if inspect.isfunction(value) and name not in functions
    ]
    raise TaskError(
        f"the task lacks {list_words(missing)}",
        file=file,
        found=missing,
        closest=closest_match(missing[0], helpers),
        fix=f"write def {missing[0]}(...) in it{fix if len(missing) == 1 else ''}",
    )


def _make_config(namespace: ModuleType, file: Path, experiment: Experiment) -> Any:
    """Build the task's ``Config`` from ``[task]``, or give the table where the task has none.

    Args:
        namespace: The imported task.
        file: Its file.
        experiment: Whose table it is.

    Raises:
        SettingsError: The table does not fit the class.
        TaskError: The class is none that settings can be made of.
    """
    config_class = getattr(namespace, "Config", None)
    table = experiment.settings.task
    if config_class is None:
        return table
    if not is_structured(config_class):
        is_class = isinstance(config_class, type)
        raise TaskError(
            f"Config is {'a plain class' if is_class else type(config_class).__name__}, "
            "expected an attrs class or dataclass",
            file=file,
            line=line_of_name(file, "Config"),
            found=config_class,
            fix="decorate it with @attrs.frozen"
            if is_class
            else "write @attrs.frozen class Config",
        )
    try:
        return structure(table, config_class, root="task")
    except SettingsError as error:
        experiment.locate(error)
        raise
    except PymodulesError:
        raise
    except Exception as error:
        # The class is the user's: annotations that no converter knows, or that name nothing.
        raise TaskError(
            f"Config cannot be made from [task]: {type(error).__name__}: {error}",
            file=file,
            line=line_of_name(file, "Config"),
            found=config_class,
            fix="annotate its fields with types of TOML: str, int, float, bool, list, dict",
        ) from error
