"""Looks at a plugin in a process of its own, where nothing has been imported yet.

Run as ``python -m pymodules_core.testing.probe``: one JSON request on standard input, the answer in
the file that it names. Standard output is the plugin's.
"""

import json
import logging
import os
import pickle
import random
import signal
import subprocess
import sys
import tempfile
import threading
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

_PREFIX = "probe-"


def ask(question: str, *, environment: Mapping[str, str] | None = None, **request: Any) -> Any:
    """Ask a process of its own.

    Args:
        question: ``discovery``, ``surroundings`` or ``digests``.
        environment: That of the process; by default it has this one's.
        request: What that function of this file takes; JSON values.

    Returns:
        Its answer; None where the process died, whose standard error is then on ours.
    """
    with tempfile.TemporaryDirectory(prefix=_PREFIX) as folder:
        answer = Path(folder) / "answer.json"
        subprocess.run(  # noqa: S603  this file, in this Python
            [sys.executable, "-m", __name__],
            input=json.dumps({"question": question, "answer": str(answer), **request}),
            text=True,
            check=False,
            # What this process can import that one can: a worker gets the same.
            env={
                **(environment or os.environ),
                "PYTHONPATH": os.pathsep.join(filter(None, sys.path)),
            },
            stdout=subprocess.DEVNULL,
        )
        return json.loads(answer.read_text()) if answer.exists() else None


def discovery(target: str) -> dict[str, Any]:
    """Import a plugin and return whether that imported torch."""
    _import(target)
    return {"torch": "torch" in sys.modules}


def surroundings(target: str) -> list[str]:
    """Import a plugin where torch is already, and name what that changed."""
    import torch

    def look() -> dict[str, Any]:
        return {
            "default dtype": torch.get_default_dtype(),
            "grad mode": torch.is_grad_enabled(),
            "default device": torch.get_default_device(),
            "number of torch threads": torch.get_num_threads(),
            "precision of float32 products": torch.get_float32_matmul_precision(),
            "working directory": Path.cwd(),
            "standard streams": [sys.stdout, sys.stderr],
            "sys.path": list(sys.path),
            "signal handlers": [signal.getsignal(number) for number in signal.Signals],
            "set of running threads": threading.enumerate(),
            "random stream of random": random.getstate(),
            "random stream of torch": torch.get_rng_state().tolist(),
            "deterministic mode": torch.are_deterministic_algorithms_enabled(),
            "environment": dict(os.environ),
            "filters of warnings": list(warnings.filters),
            "root logger": (logging.root.level, list(logging.root.handlers)),
        }

    before = look()
    _import(target)
    after = look()
    return [name for name, value in before.items() if after[name] != value]


def digests(pickled: str) -> dict[str, str]:
    """Unpickle modules as a worker process would, and return the digest of each."""
    modules = pickle.loads(Path(pickled).read_bytes())  # noqa: S301  the caller made it
    from pymodules_core.testing.digests import digest_of_module

    return {name: digest_of_module(module, name=name) for name, module in modules.items()}


def _import(target: str) -> None:
    import importlib_metadata

    importlib_metadata.EntryPoint(name="plugin", value=target, group="pymodules").load()


_QUESTIONS: Mapping[str, Callable[..., Any]] = {
    "discovery": discovery,
    "surroundings": surroundings,
    "digests": digests,
}


def main() -> None:
    """Answer one request."""
    request = json.load(sys.stdin)
    answer = Path(request.pop("answer"))
    answer.write_text(json.dumps(_QUESTIONS[request.pop("question")](**request)))


if __name__ == "__main__":
    main()
