"""DDP in place: a module stays what it is, and its calls go through ``DistributedDataParallel``.

torch's wrapper is another module, which hides methods, changes keys, and is not what a task or a
plugin was given. Here the wrapper stands beside it: the module's class becomes a subclass of itself
whose calls go through it while a step trains, and only then.
"""

import inspect
from collections.abc import Iterable, Mapping
from typing import Any, cast

import torch
from torch import nn
from torch.nn import Parameter
from torch.nn.parallel import DistributedDataParallel

from pymodules_core.errors import ProcessesError, TaskError, list_words

_CALL = "__call__"
# Buffers are the trainer's: a broadcast between two calls of one step would change what the first
# one's backward needs. torch 2.13 renamed the option.
_OPTIONS: dict[str, Any] = {
    "forward_sync_buffers"
    if "forward_sync_buffers" in inspect.signature(DistributedDataParallel).parameters
    else "broadcast_buffers": False
}


class InPlaceDDP:
    """Modules that share parameters, or one that shares none, behind one DDP.

    Args:
        members: Name to module; changed in place.
        forward_methods: Name to methods besides ``forward`` whose calls train.
        find_unused_parameters: As in DDP.

    Attributes:
        names: The modules.
        is_training: A train step is at work: calls take the way through DDP.
        is_called: One did so since the step began.
        parameters: Those of all members, shared ones once.
        shared_steps: How many steps did so whose backward averages gradients: as many in each
            process, or what belongs to one module is added to another.
    """

    def __init__(
        self,
        members: Mapping[str, nn.Module],
        *,
        forward_methods: Mapping[str, tuple[str, ...]],
        find_unused_parameters: bool,
    ) -> None:
        self.names = tuple(members)
        self.is_training = False
        self.is_called = False
        self.shared_steps = 0
        self._members = dict(members)
        self.parameters = list({p: None for one in members.values() for p in one.parameters()})
        self._kinds = {name: type(module) for name, module in members.items()}
        self._find_unused = find_unused_parameters
        self._ddp: DistributedDataParallel | None = None
        self._learning: set[Parameter] = set()
        self._is_inside = False
        for name, module in members.items():
            _route(module, name, forward_methods[name], self)

    @property
    def averaged(self) -> set[Parameter]:
        """The parameters whose gradients the backward of the step at hand averages."""
        if self._ddp is None or not (self.is_called and self._ddp.require_backward_grad_sync):
            return set()
        return self._learning

    def refresh(self) -> None:
        """Build DDP, again where other parameters train than before: it reads them only once."""
        learning = {parameter for parameter in self.parameters if parameter.requires_grad}
        if learning == self._learning:
            return
        self._learning = learning
        self._ddp = None
        if learning:
            self._ddp = DistributedDataParallel(
                _Dispatch(self._members, self._kinds),
                find_unused_parameters=self._find_unused,
                **_OPTIONS,
            )

    def start_step(self, *, is_synced: bool) -> None:
        """Begin a step; DDP decides at forward whether its backward averages gradients."""
        self.refresh()
        self.is_training, self.is_called = True, False
        if self._ddp is not None:
            self._ddp.require_backward_grad_sync = is_synced

    def end_step(self) -> None:
        """End it: further calls do not train."""
        self.is_training = False

    def call(self, name: str, method: str, args: Any, kwargs: Any) -> Any:
        """Call a method of a member."""
        ddp = self._ddp
        # One member may call another, or itself again: the wrapper is around all of it.
        if ddp is None or self._is_inside or not self.is_training or not torch.is_grad_enabled():
            return getattr(self._kinds[name], method)(self._members[name], *args, **kwargs)
        if ddp.require_backward_grad_sync and not self.is_called:
            self.shared_steps += 1
        self._is_inside = self.is_called = True
        try:
            return ddp(name, method, args, kwargs)
        finally:
            self._is_inside = False

    def check_backward(self) -> None:
        """Refuse gradients that a backward left without averaging them.

        Raises:
            TaskError: It did.
        """
        ddp = self._ddp
        # Within a window nothing is averaged yet, and a step may leave the module out.
        if ddp is None or not ddp.require_backward_grad_sync:
            return
        shown = list_words(map(repr, self.names))
        if not self.is_called:
            if any(parameter.grad is not None for parameter in self.parameters):
                raise TaskError(
                    f"module {shown} was trained by other ways than its forward, which several "
                    "processes do not average",
                    key=self.names[0],
                    fix=f'name the methods that train it: "forward_methods": ["..."], or set '
                    f'"parallel": "off" for {self.names[0]!r}',
                )
            return
        try:
            ddp._check_reducer_finalized()  # type: ignore[no-untyped-call]  # torch's
        except RuntimeError as error:
            idle = [
                f"{name}.{key}"
                for name, module in self._members.items()
                for key, parameter in module.named_parameters()
                if parameter.requires_grad and parameter.grad is None
            ]
            raise TaskError(
                f"the loss does not reach all parameters of module {shown}: {list_words(idle)}",
                key=self.names[0],
                found=idle,
                fix=f"[modules.settings.{self.names[0]}] "
                'parallel = {kind = "ddp", find_unused_parameters = true}, or parallel = "off"',
            ) from error


class _Dispatch(nn.Module):
    """What DDP wraps: its ``forward`` is any method of any member."""

    def __init__(self, members: Mapping[str, nn.Module], kinds: Mapping[str, type]) -> None:
        super().__init__()
        self.members = nn.ModuleList(members.values())
        self._by_name = dict(members)
        self._kinds = kinds

    def forward(self, name: str, method: str, args: Any, kwargs: Any) -> Any:
        return getattr(self._kinds[name], method)(self._by_name[name], *args, **kwargs)


def _new(kind: Any) -> Any:
    return kind.__new__(kind)


def _route(module: nn.Module, name: str, methods: Iterable[str], group: InPlaceDDP) -> None:
    """Route calls of a module through its group."""
    kind = type(module)

    def through(method: str) -> Any:
        def call(_: nn.Module, *args: Any, **kwargs: Any) -> Any:
            return group.call(name, method, args, kwargs)

        return call

    def reduce(self: nn.Module, protocol: Any) -> Any:
        # A copy, or what goes to another process, is the module without the way through DDP.
        function, arguments, *rest = cast("tuple[Any, ...]", kind.__reduce_ex__(self, protocol))
        if arguments == (routed,):  # copyreg's own, which takes no other class than the object's
            function = _new
        return (function, tuple(kind if one is routed else one for one in arguments), *rest)

    body: dict[str, Any] = {one: through(one) for one in (_CALL, *methods)}
    body |= {"__reduce_ex__": reduce, "__module__": kind.__module__, "__doc__": kind.__doc__}
    body["built_as"] = kind
    routed = type(kind.__name__, (kind,), body)
    try:
        module.__class__ = routed
    except TypeError as error:
        raise ProcessesError(
            f"module {name!r} is {kind.__name__}, whose calls cannot be led through DDP: {error}",
            key=f"modules.settings.{name}.parallel",
            found=kind.__name__,
            fix='"parallel": "off" averages its gradients when its optimizer steps',
        ) from error
