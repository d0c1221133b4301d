"""One of three processes fails in the middle of what they do together; each prints what it raises.

Arguments: how it fails, and which.
"""

import json
import os
import signal
import sys
import time

import torch
import torch.distributed as dist

from pymodules_core import Processes
from pymodules_core.errors import StepError


def main():
    """Work together until one fails."""
    how, which = sys.argv[1], int(sys.argv[2])
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # torchrun's, which comes in the middle
    raised = None
    with Processes.join() as processes:
        try:
            for step in range(1000):
                if step == 3 and processes.rank == which:
                    fail(how)
                dist.all_reduce(torch.ones(1000))
                processes.gather(step)
        except RuntimeError as error:
            raised = processes.failure(error)
        told = [processes.rank, type(raised).__name__, str(raised), raised.exit_code]
        os.write(1, f"{json.dumps(told)}\n".encode())  # at once: others write, too
        os._exit(1)


def fail(how):
    """Fail in one of the ways that there are."""
    if how == "raise":
        raise StepError("ouch")
    if how == "leave":
        os._exit(0)
    if how == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    time.sleep(1000)


if __name__ == "__main__":
    main()
