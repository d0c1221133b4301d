"""The architecture page: short, and true of the tree."""

import re
from pathlib import Path

REPOSITORY = Path(__file__).parents[2]
CORE = REPOSITORY / "pymodules_core"
PAGE = REPOSITORY / "docs" / "architecture.md"
MOST_LINES = 150
PATH = re.compile(r"`((?:[a-z_]+/)*[a-z_]+\.py|(?:[a-z_]+/)+)`")


def test_the_page_is_short_and_every_path_on_it_exists():
    text = PAGE.read_text("utf-8")

    paths = PATH.findall(text)
    missing = [
        path for path in paths if not (CORE / path).exists() and not (REPOSITORY / path).exists()
    ]

    assert text.count("\n") <= MOST_LINES
    assert len(paths) > 50
    assert missing == []
