"""``Processes``: the processes of one run, and their collective calls."""

import os
from collections.abc import Callable, Iterable, Sequence
from datetime import timedelta
from typing import TYPE_CHECKING, Any, TypeVar

import torch
import torch.distributed as dist
from torch.distributed import PrefixStore  # type: ignore[attr-defined]  # documented
from torch.distributed.rendezvous import rendezvous

from pymodules_core.errors import ProcessesError, RankFailedError, RunInterruptedError
from pymodules_core.processes.autograd_collectives import gather_rows, refuse_different_rows
from pymodules_core.processes.environment import RankInfo, rank_info
from pymodules_core.processes.failures import Failure, first_failure

if TYPE_CHECKING:
    from typing import Self

T = TypeVar("T")

# A launcher starts all at once; what they import may take minutes from a slow disk.
_JOIN_TIMEOUT = timedelta(minutes=10)


class Processes:
    """The processes that train one run together, of which this is one.

    ``with Processes.join() as processes:`` makes the group, and leaves it at the end. In one
    process alone every method returns at once, and ``torch.distributed`` is not touched.

    Methods that talk to the others have to be called by all, in the same order. Where one of them
    is gone, the call raises within seconds.

    Args:
        ranks: Which of them this is.

    Attributes:
        ranks: Which of them this is.
        rank: The number of this process, from 0.
        size: How many there are.
        is_first: Whether this is the one that writes and prints.
        is_alone: Whether there are no others.
        control: The group of all, on the CPU, beside the one that gradients go through, which
            nothing here may come between; None alone, and outside the ``with`` block.
    """

    def __init__(self, ranks: RankInfo | None = None) -> None:
        self.ranks = ranks or RankInfo()
        self.rank = self.ranks.rank
        self.size = self.ranks.size
        self.is_first = self.ranks.is_first
        self.is_alone = self.size == 1
        self.control: dist.ProcessGroup | None = None
        self._is_owner = False
        # What was raised here last, and all others know.
        self._known: BaseException | None = None

    @classmethod
    def join(cls) -> "Self":
        """Return the processes that a launcher started this one with; alone without one."""
        return cls(rank_info())

    @classmethod
    def alone(cls) -> "Self":
        """Return this process alone, whatever its environment says."""
        return cls()

    def __enter__(self) -> "Self":
        if self.is_alone:
            return self
        if not dist.is_initialized():
            try:
                dist.init_process_group(
                    "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo",
                    store=self._own_store(),
                    rank=self.rank,
                    world_size=self.size,
                )
            except RuntimeError as error:
                raise ProcessesError(
                    f"the {self.size} processes did not find each other: {error}",
                    found=self.size,
                    fix="see whether all were started, and reach MASTER_ADDR:MASTER_PORT, which is "
                    f"{os.environ['MASTER_ADDR']}:{os.environ['MASTER_PORT']} here",
                ) from error
            self._is_owner = True
        self.control = dist.new_group(backend="gloo")
        return self

    def __exit__(self, _: object, error: BaseException | None, __: object) -> None:
        if self.control is None:
            return
        # After a failure the others may be gone, or wait elsewhere: nothing waits for them here.
        # A signal ends all of them at one point.
        if error is None or isinstance(error, RunInterruptedError):
            self.barrier()
            dist.destroy_process_group(None if self._is_owner else self.control)
        self.control = None

    def _own_store(self) -> PrefixStore:
        """Return a store of these processes, without what those before a restart have left.

        torchrun keeps one store over its restarts. Measured: the next processes take addresses of
        those before, and wait for them forever.
        """
        store, _, _ = next(rendezvous("env://", timeout=_JOIN_TIMEOUT))
        return PrefixStore(f"restart_{self.ranks.restarts}", store)

    def barrier(self) -> None:
        """Return once all have come here."""
        self.gather(None)

    def gather(self, value: T) -> list[T]:
        """Return the values of all, in the order of their ranks, in each.

        Args:
            value: What can be pickled; small.
        """
        if self.control is None:
            return [value]
        found: list[Any] = [None] * self.size
        dist.all_gather_object(found, value, group=self.control)
        return found

    def run_on_rank0(self, make: Callable[[], T]) -> T:
        """Call a function in the first process only, and return its result in all.

        Args:
            make: It must not talk to the others.

        Raises:
            RankFailedError: ``make`` raised, in all processes but the first, where its own error
                is raised.
        """
        if self.control is None:
            return make()
        made: list[Any] = [None, None]
        fault: BaseException | None = None
        if self.is_first:
            try:
                made[0] = make()
            except BaseException as error:  # noqa: BLE001  raised below, after all know
                fault, made[1] = error, Failure.of(0, error)
        dist.broadcast_object_list(made, src=0, group=self.control)
        self._known = fault
        if fault is not None:
            raise fault
        if made[1] is not None:
            raise made[1].as_error()
        result: T = made[0]
        return result

    def run_on_all(self, do: Callable[[], T]) -> T:
        """Call a function in every process; where it fails in one it fails in all.

        Args:
            do: Must not talk to the others, or all have to fail at the same point.

        Raises:
            RankFailedError: It raised in another process, and in none of lower rank. So one of
                them raises its own error, which is the one to report.
        """
        if self.control is None:
            return do()
        fault: BaseException | None = None
        try:
            result = do()
        except RankFailedError:
            raise  # all know it already
        except BaseException as error:  # noqa: BLE001  raised below, after all know
            fault = error
        failures = self.gather(None if fault is None else Failure.of(self.rank, fault))
        first = next(filter(None, failures), None)
        self._known = fault
        if first is None:
            return result
        if fault is not None and first.rank == self.rank:
            raise fault
        raise first.as_error() from fault

    def all_reduce_max(self, numbers: Sequence[float]) -> list[float]:
        """Return the maximum of each number over all processes."""
        return self._all_reduce(numbers, dist.ReduceOp.MAX)

    def all_reduce_sum(self, numbers: Sequence[float]) -> list[float]:
        """Return the sum of each number over all processes."""
        return self._all_reduce(numbers, dist.ReduceOp.SUM)

    def _all_reduce(
        self, numbers: Sequence[float], operation: dist.ReduceOp.RedOpType
    ) -> list[float]:
        if self.control is None:
            return list(numbers)
        values = torch.tensor(numbers, dtype=torch.float64)
        dist.all_reduce(values, op=operation, group=self.control)
        return values.tolist()

    def broadcast(self, tensors: Iterable[torch.Tensor]) -> None:
        """Copy the values of tensors from the first process to all.

        Args:
            tensors: Of equal dtypes, shapes and devices in every process; changed in place.
        """
        if self.control is None:
            return
        kinds: dict[tuple[torch.dtype, torch.device], list[torch.Tensor]] = {}
        for tensor in tensors:
            kinds.setdefault((tensor.dtype, tensor.device), []).append(tensor.detach())
        # Small ones in one call: each takes as long as a large one.
        for group in kinds.values():
            flat = torch.cat([tensor.reshape(-1) for tensor in group])
            dist.broadcast(flat, src=0)
            if not self.is_first:
                parts = torch.split(flat, [tensor.numel() for tensor in group])
                for tensor, part in zip(group, parts, strict=True):
                    tensor.copy_(part.view_as(tensor))

    def all_gather_rows(self, tensor: torch.Tensor) -> torch.Tensor:
        """Return the rows of the tensors of all processes, in the order of their ranks.

        Args:
            tensor: ``(rows, ...)``; the number of rows may differ. Gradients come back to it, see
                ``gather_rows``.

        Raises:
            ProcessesError: The tensors differ in more than their number of rows.
        """
        if self.control is None:
            return tensor
        needs_gradient = tensor.requires_grad and torch.is_grad_enabled()
        form = (tuple(tensor.shape[1:]), str(tensor.dtype), needs_gradient)
        counts, forms = zip(*self.gather((len(tensor), form)), strict=True)
        refuse_different_rows(forms)
        return gather_rows(tensor, counts, self.rank)

    def post(self, name: str, text: str) -> None:
        """Post a text that all processes can read, without waiting for them.

        Any thread may, while another one waits for the others.

        Args:
            name: What it is; each process has one text for a name.
            text: The text, in the place of that before.
        """
        dist.distributed_c10d._get_default_store().set(self._key(name, self.rank), text)

    def posted(self, name: str) -> list[str]:
        """Return the texts of all processes, by rank; empty where one posted nothing."""
        store = dist.distributed_c10d._get_default_store()
        keys = [self._key(name, rank) for rank in range(self.size)]
        return [store.get(key).decode() if store.check([key]) else "" for key in keys]

    def _key(self, name: str, rank: int) -> str:
        return f"pymodules/{name}/{self.ranks.restarts}/{rank}"

    def failure(self, error: BaseException) -> BaseException:
        """Return what this process should raise for an error that ends its part of the run.

        Where one process fails the others see a broken connection. The first one to fail raises
        its own error; all others a ``RankFailedError`` with the text of that one.

        Args:
            error: What was raised here.
        """
        is_known = isinstance(error, RankFailedError | RunInterruptedError) or error is self._known
        return error if self.control is None or is_known else first_failure(self.rank, error)
