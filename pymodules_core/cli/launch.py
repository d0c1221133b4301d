"""Trains in several processes of this machine: starts them, starts them again, says how they ended.

What goes wrong in a process that process reports; here is reported what no process could.
"""

import logging
import os
import signal
import sys
from collections.abc import Mapping, Sequence
from typing import Literal

from pymodules_core.cli import output
from pymodules_core.errors import ProcessesError, ProcessLostError
from pymodules_core.experiment import Experiment
from pymodules_core.processes.environment import LOST_EXIT_CODE
from pymodules_core.run_files import has_run, read_run_file

Existing = Literal["refuse", "reset", "resume"]

_INVALID = 2
# Processes that end with these have said why.
_REPORTED = (1, _INVALID)
# What commonly ends a process so; of most signals no other trace is left.
_WHAT_TO_LOOK_AT = {
    "SIGKILL": "see whether memory ran out (dmesg), or who killed it",
    "SIGABRT": "read what the library that gave up wrote above; of a mismatch it says where one "
    "process calls other modules, or in another order, than the rest",
    **dict.fromkeys(
        ("SIGSEGV", "SIGBUS", "SIGILL", "SIGFPE"),
        "PYTHONFAULTHANDLER=1 shows the line at which native code failed; a full /dev/shm or disk "
        "does so, too",
    ),
}


def launch(
    experiment: Experiment,
    arguments: Sequence[str],
    *,
    existing: Existing,
    processes: int,
    max_restarts: int,
    is_debug: bool,
) -> int:
    """Train an experiment in several processes, and wait for them.

    Args:
        experiment: It is opened again by each process.
        arguments: The command line of each, but for what to do with a run that is there.
        existing: What to do with it.
        processes: How many.
        max_restarts: How often all of them are started again where one fails.
        is_debug: Show what the launcher logs.

    Returns:
        0, the exit code of the process that failed, or 128 and the number of the signal that ended
        the run.
    """
    _set_environment(processes, is_debug=is_debug)
    from pymodules_core.processes.launcher import Launcher

    if not is_debug:
        _silence_torch()
    folder = _folder_of_run(experiment)
    for restart in range(max_restarts + 1):
        # A process that failed early may not have moved the old run yet.
        is_begun = restart > 0 and (existing != "reset" or _folder_of_run(experiment) != folder)
        flag = {"reset": "--reset", "resume": "--resume"}.get("resume" if is_begun else existing)
        launcher = Launcher(
            _command([*arguments, *filter(None, [flag])]),
            count=processes,
            is_at_work=lambda pids: _is_at_work(experiment, pids),
        )
        exit_codes = launcher.run()
        if not exit_codes:
            return _exit_code_of_success(experiment, launcher.received)
        if launcher.received is not None:
            return _report_interrupted(exit_codes, launcher.received)
        _report_failed(exit_codes)
        if restart == max_restarts or set(exit_codes.values()) == {_INVALID}:
            break
        output.say(f"resuming from the latest commit (restart {restart + 1} of {max_restarts})")
    return _exit_code_of(exit_codes)


def _set_environment(processes: int, *, is_debug: bool) -> None:
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, (cores or 1) // processes)))
    if not is_debug:
        # Where a process is gone, torch would print the stack of each lost call of the others.
        os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")


def _silence_torch() -> None:
    for name in list(logging.root.manager.loggerDict):
        if name.startswith("torch.distributed"):  # each has a level of its own
            logging.getLogger(name).setLevel(logging.CRITICAL)


def _folder_of_run(experiment: Experiment) -> int | None:
    """Identify the folder of the run that is there; another run has another one."""
    return experiment.data_dir.stat().st_ino if has_run(experiment) else None


def _is_at_work(experiment: Experiment, pids: Sequence[int]) -> bool:
    """Return whether one of these processes has begun with the run."""
    run = read_run_file(experiment.path)
    return run is not None and run.process in pids


def _command(arguments: Sequence[str]) -> list[str]:
    # -m puts the working directory before all packages, which the command itself does not.
    is_path_safe = sys.path[0] not in {"", os.getcwd()}  # noqa: PTH109  compared as a text
    options = ["-P"] if is_path_safe else []
    return [sys.executable, *options, "-m", "pymodules_core", *arguments]


def _exit_code_of_success(experiment: Experiment, received: signal.Signals | None) -> int:
    """Tell a run that a signal ended, which its processes call a success, from a finished one."""
    run = read_run_file(experiment.path)
    if run is None or run.state != "interrupted":
        return 0
    # None: a signal came to the processes only, and which one they have said.
    return 128 + (received or signal.SIGTERM)


def _report_interrupted(exit_codes: Mapping[int, int], received: signal.Signals) -> int:
    """Say that a signal ended processes before they could save, unless one of them failed."""
    if any(code in _REPORTED for code in exit_codes.values()):
        return _exit_code_of(exit_codes)
    output.say("interrupted")
    return 128 + received


def _report_failed(exit_codes: Mapping[int, int]) -> None:
    """Say which processes ended without a word, and how."""
    is_reported = any(code in _REPORTED for code in exit_codes.values())
    unreported = {
        rank: code
        for rank, code in exit_codes.items()
        if code not in {*_REPORTED, LOST_EXIT_CODE}
        # A library that loses its connection may abort: a consequence of what was reported.
        and not (is_reported and code == -signal.SIGABRT)
    }
    for rank, code in unreported.items():
        if code >= 0:
            how = f"ended with exit code {code}, without a word"
            fix = "look for what calls os._exit, and at the output above"
        else:
            name = _signal_name(-code)
            how, fix = f"was ended by {name}", _WHAT_TO_LOOK_AT.get(name, "see who sent it")
        error = ProcessesError(
            f"process {rank} {how}",
            found=code,
            fix=f"{fix}; --resume resumes from the latest commit",
        )
        output.say(f"error: {error}")
    if not unreported and not is_reported:
        output.say(f"error: {ProcessLostError('a process ended before the others')}")


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def _exit_code_of(exit_codes: Mapping[int, int]) -> int:
    return next((code for code in exit_codes.values() if code in _REPORTED), 1)
