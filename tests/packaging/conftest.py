"""Wheels of this repository, built once, and a new environment that sees the libraries.

The environment has pip, our wheel and the plugins' wheels; torch and the other libraries are seen
through a path file, because installing them takes a minute. Tests marked ``long`` install all.
"""

from pathlib import Path

import pytest
from wheel_cases import REPOSITORY, Environment, build_wheel


@pytest.fixture(scope="session")
def core_wheel(tmp_path_factory) -> Path:
    return build_wheel(REPOSITORY, tmp_path_factory.mktemp("core"))


@pytest.fixture(scope="session")
def plugin_wheels(tmp_path_factory) -> dict[str, Path]:
    """Name of each package in ``plugins/`` to its wheel."""
    folder = tmp_path_factory.mktemp("plugins")
    sources = sorted(path.parent for path in (REPOSITORY / "plugins").glob("*/pyproject.toml"))
    return {source.name: build_wheel(source, folder) for source in sources}


@pytest.fixture(scope="session")
def example_wheel(plugin_wheels) -> Path:
    return plugin_wheels["pymodules-example"]


@pytest.fixture(scope="session")
def environment(tmp_path_factory, core_wheel) -> Environment:
    environment = Environment(tmp_path_factory.mktemp("env") / "venv", sees_libraries=True)
    environment.pip("install", "--no-index", "--no-deps", "--ignore-installed", str(core_wheel))
    return environment
