"""Runs saves one after the other, in a thread of its own or at once."""

from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor, wait


class Writer:
    """Runs jobs in order; after one that failed the next do not run until that is reported.

    Args:
        is_asynchronous: In a thread; else ``submit`` returns when the job is done.
    """

    def __init__(self, *, is_asynchronous: bool) -> None:
        self._is_asynchronous = is_asynchronous
        self._thread: ThreadPoolExecutor | None = None
        self._pending: deque[Future[None]] = deque()
        self._has_failed = False

    def submit(self, job: Callable[[], None]) -> None:
        """Run a job after those before it."""
        if not self._is_asynchronous:
            job()
            return
        if self._thread is None:
            self._thread = ThreadPoolExecutor(1, "pymodules-writer")
        self._pending.append(self._thread.submit(self._run, job))

    @property
    def is_idle(self) -> bool:
        """Whether every job has ended and was reported."""
        return not self._pending

    def raise_failure(self) -> None:
        """Raise what failed since the last time, without waiting.

        Raises:
            Exception: What the first failed job raised.
        """
        while self._pending and self._pending[0].done():
            self._report()

    def wait(self) -> None:
        """Return when all jobs are done.

        Raises:
            Exception: What the first failed job raised.
        """
        while self._pending:
            # It stays pending until it has ended: a signal may end the waiting before that.
            wait([self._pending[0]])
            self._report()

    def close(self) -> None:
        """Wait, and end the thread; safe to call twice.

        Raises:
            Exception: What the first failed job raised.
        """
        try:
            self.wait()
        finally:
            if self._thread is not None:
                self._thread.shutdown()
                self._thread = None

    def _run(self, job: Callable[[], None]) -> None:
        if self._has_failed:
            return
        try:
            job()
        except BaseException:
            self._has_failed = True
            raise

    def _report(self) -> None:
        """Take the first job, which has ended, off the list; raise what it raised."""
        fault = self._pending[0].exception()
        if fault is not None:
            # Those after it did nothing; what is submitted next runs again.
            wait(self._pending)
            self._pending.clear()
            self._has_failed = False
            raise fault
        self._pending.popleft()
