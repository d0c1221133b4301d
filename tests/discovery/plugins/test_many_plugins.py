"""Many plugins, a third of them broken: what works is listed, what does not is reported once."""

import re
from collections import Counter

from broken_plugins import DAMAGE, SOURCES, write_good_and_broken
from support import start_command


def test_each_of_a_hundred_failures_is_reported_once_and_hides_nothing(tmp_path):
    write_good_and_broken(tmp_path, good=200, broken=100)

    result = start_command("list", PYTHONPATH=str(tmp_path))

    assert result.returncode == 0, result.stderr
    listed = [line.split()[0] for line in result.stdout.splitlines()[1:]]
    assert listed == [f"good_{number:03}" for number in range(200)]
    told = Counter(re.findall(r"^warning: plugin (broken.\d+)", result.stderr, re.MULTILINE))
    named = {name.replace("_", "-"): count for name, count in told.items()}
    assert named == {f"broken-{number:03}": 1 for number in range(100)}
    assert result.stderr.count("warning: ") == 100
    assert result.stderr.count("\n  fix: ") == 100


def test_each_way_to_be_broken_has_its_own_reason(tmp_path):
    ways = len(SOURCES) + len(DAMAGE)
    write_good_and_broken(tmp_path, good=1, broken=ways)

    result = start_command("plugins", PYTHONPATH=str(tmp_path))

    reasons = re.findall(r"^warning: plugin broken.*?: (.*)$", result.stderr, re.MULTILINE)
    assert len(reasons) == ways
    # Two are broken in ways that read the same: what a hook or a generator of it raises.
    assert len(set(reasons)) >= ways - 2
