"""The pluggy markers of this project."""

import pluggy

PROJECT_NAME = "pymodules"

hookspec = pluggy.HookspecMarker(PROJECT_NAME)
hookimpl = pluggy.HookimplMarker(PROJECT_NAME)
