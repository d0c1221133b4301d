"""Lets no thread and no exit handler of other people's code keep a process that is done.

Python waits without end for threads that are not daemons, and for whatever runs at exit. A plugin
that forgot its thread would hold a machine for nothing.
"""

import _thread
import os
import sys
import threading
import time
import traceback
from contextlib import suppress

WARN_AFTER_S = 10.0
ENDED_AFTER_S = 300.0
_MOST_FRAMES = 4


def end_in_time(code: int) -> None:
    """Say what the process waits for at its end, and end it where that takes too long.

    To be called last: all is written, and what is left is to exit. The time it gives is enough for
    an upload to come to its end; Ctrl-C gives up waiting for threads.

    Args:
        code: The exit code.
    """
    # Not `Thread.start`: it waits for its thread, without end where there is no memory for one.
    with suppress(RuntimeError):
        _thread.start_new_thread(_watch, (code,))


def _watch(code: int) -> None:
    time.sleep(WARN_AFTER_S)
    more_s = ENDED_AFTER_S - WARN_AFTER_S
    _say(f"the process ends in {more_s:g} s at the latest: all is done, but {_what_is_left()}")
    time.sleep(more_s)
    _say(f"the process ends now, although {_what_is_left()}")
    for stream in (sys.stdout, sys.stderr):
        with suppress(Exception):
            stream.flush()
    os._exit(code)


def _what_is_left() -> str:
    main = threading.main_thread()
    threads = [one.name for one in threading.enumerate() if one is not main and not one.daemon]
    if threads:
        return f"threads are running that are not daemons: {', '.join(threads)}"
    # A function of C that was registered itself has no frame.
    frame = sys._current_frames().get(main.ident or 0)
    stack = traceback.extract_stack(frame)[-_MOST_FRAMES:] if frame else []
    return "\n".join(["what runs at exit is not done", *traceback.format_list(stack)]).rstrip()


def _say(text: str) -> None:
    with suppress(Exception):  # the terminal may be gone
        sys.stderr.write(f"warning: {text}\n")
        sys.stderr.flush()
