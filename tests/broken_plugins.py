"""Ways in which an installed plugin is broken, each as a source or as damage to its metadata."""

from collections.abc import Callable
from pathlib import Path

from pymodules_core.testing import write_distribution

_HEAD = "import attrs\nfrom pymodules_core import ModuleSpec, hookimpl\n"
_DEF = "@hookimpl\ndef provide_module(context):\n    "
_HOOK = f"{_HEAD}{_DEF}"

# What the source of a plugin is, by what is wrong with it.
SOURCES = {
    "raises at import": "raise ValueError('boom')\n",
    "exits at import": "import sys\nsys.exit(0)\n",
    "raises no Exception": "class Stop(BaseException):\n    pass\nraise Stop('now')\n",
    "is cancelled": "import asyncio\nraise asyncio.CancelledError\n",
    "misses a library": "import a_library_that_is_not_there\n",
    "is not a Python": "def provide_module(:\n",
    "recurses": "def f():\n    f()\nf()\n",
    "has no hook": "x = 1\n",
    "forgot the decorator": "def provide_module(context):\n    return None\n",
    "misspells a hook": f"{_HEAD}@hookimpl\ndef provide_modul(context):\n    return None\n",
    "wants another argument": f"{_HEAD}@hookimpl\ndef provide_module(contxt):\n    return None\n",
    "has a default": f"{_HEAD}@hookimpl\ndef provide_module(context=None):\n    return None\n",
    "wraps a hook": f"{_HEAD}@hookimpl(wrapper=True)\ndef provide_module(context):\n    yield\n",
    "is async": f"{_HEAD}@hookimpl\nasync def provide_module(context):\n    return None\n",
    "returns a dict": f"{_HOOK}return {{'net': 1}}\n",
    "returns a text": f"{_HOOK}return 'net'\n",
    "raises in its hook": f"{_HOOK}raise OSError('no disk')\n",
    "raises late": f"{_HOOK}yield ModuleSpec(name='x', factory='a:b')\n    raise OSError('late')\n",
    "gives a wrong name": f"{_HOOK}return ModuleSpec(name='a-b', factory='a:b')\n",
    "gives a wrong factory": f"{_HOOK}return ModuleSpec(name='net', factory=3)\n",
    "has plain settings": f"{_HEAD}class Settings:\n    x = 1\n{_DEF}return None\n",
    "has attributes that raise": f"{_HOOK}return None\ndef __getattr__(name):\n    1 / 0\n",
    "has settings without defaults": (
        f"{_HEAD}@attrs.frozen\nclass Settings:\n    x: int\n{_DEF}return None\n"
    ),
}
# What happens to the ``dist-info`` of one whose source is fine.
DAMAGE: dict[str, Callable[[Path], object]] = {
    "has no METADATA": lambda info: (info / "METADATA").unlink(),
    "has no name": lambda info: (info / "METADATA").write_text("Version: 1.0\n"),
    "has no equals sign": lambda info: (info / "entry_points.txt").write_text(
        "[pymodules]\nplugin\n"
    ),
    "is not an UTF-8": lambda info: (info / "entry_points.txt").write_bytes(
        b"[pymodules]\nplugin = x\n# \xff\n"
    ),
    "names what is not there": lambda info: (info / "entry_points.txt").write_text(
        "[pymodules]\nplugin = a_package_that_is_not_there\n"
    ),
}
GOOD = f"{_HOOK}return ModuleSpec(name='{{name}}', factory='torch.nn:Identity')\n"


def write_good_and_broken(folder: Path, *, good: int, broken: int) -> None:
    """Write distributions ``good-000`` … and ``broken-000`` …, these broken in turn in all ways.

    Args:
        folder: A folder of ``sys.path``.
        good: How many provide a module of their own, called ``good_000`` ….
        broken: How many do not.
    """
    for number in range(good):
        name = f"good-{number:03}"
        write_distribution(folder, name, GOOD.format(name=name.replace("-", "_")))
    ways = [*SOURCES, *DAMAGE]
    for number in range(broken):
        way = ways[number % len(ways)]
        info = write_distribution(folder, f"broken-{number:03}", SOURCES.get(way, GOOD))
        if way in DAMAGE:
            DAMAGE[way](info)
