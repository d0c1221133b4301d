"""The page: what is on it, that nothing breaks out of it, and that it stays small."""

import base64
import json
import math
import re
from datetime import UTC, datetime
from hashlib import sha256
from html.parser import HTMLParser

import pytest
from support import write_experiment
from view_cases import FACTS, ROWS, row, settings, write_run

from pymodules_core import Trainer
from pymodules_core.errors import PymodulesError
from pymodules_core.reports.page import is_page, make_page
from pymodules_core.reports.series import Point, thin
from pymodules_core.reports.subjects import open_subjects
from pymodules_core.training.run_output.console import SilentPrinter

VOID = {"meta", "link", "br"}

NOW = datetime(2026, 3, 4, 5, 6, tzinfo=UTC)
EVIL = "</script ></script><img src=x onerror=alert(1)>&\"'"
FROM_DONOR = """
from torch import nn

module = nn.Linear(4, 1)
settings = {
    "load_weights_from_exp": {
        "exp_name": "donor", "ckp_pool_name": "best", "module_name": "net"
    }
}
"""


class Page(HTMLParser):
    """A page as a browser sees it: texts, and elements with their attributes, all closed."""

    def __init__(self, text):
        super().__init__()
        self.text = text
        self.elements = []
        self.words = []
        self._open = []
        self.feed(text)
        assert self._open == []

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self._open.append(tag)

    def handle_endtag(self, tag):
        assert self._open.pop() == tag

    def handle_data(self, data):
        if data.strip() and self._open[-1] not in {"script", "style"}:
            self.words.append(data)

    def all(self, tag, class_=None):
        return [
            attrs
            for name, attrs in self.elements
            if name == tag and (class_ is None or class_ in (attrs.get("class") or "").split())
        ]

    @property
    def data_text(self):
        return re.search(r'id="plot-data">(.*?)</script>', self.text, re.DOTALL)[1]

    @property
    def data(self):
        return json.loads(self.data_text)

    def lines(self):
        return {
            (chart["title"], chart["isRate"], line["run"], line["phase"]): line
            for chart in self.data["charts"]
            for line in chart["lines"]
        }


def page_of(home, *names):
    return Page(make_page(open_subjects(names, data_home=home), now=NOW))


def test_a_page_of_one_run_reports_how_it_went(tmp_path):
    write_run(tmp_path, started="2026-03-04T05:05:05+00:00", git_commit="0123456789abcdef", seed=17)

    page = page_of(tmp_path, "tiny")

    text = "|".join(page.words)
    assert "tiny · pymodules|tiny|As of 2026-03-04 05:06 UTC, pymodules " in text
    assert "|finished|0.5|best loss, epoch 2|Epochs|2 of 2|Steps|6|Wall time|1 min 2 s|" in text
    assert (
        "|Started|2026-03-04 05:05 UTC|Updated|2026-03-04 05:06 UTC|Seed|17|Device|cpu|"
        "Git commit|0123456789ab|torch|2.13.0|Ended|all 2 epochs done|"
    ) in text
    assert "|net|Linear|1,234|trained|built|pymodules/modules/net.py| sha256 abababababab|" in text


def test_train_and_eval_are_two_lines_of_one_chart_and_rates_come_last(tmp_path):
    write_run(tmp_path)

    page = page_of(tmp_path, "tiny")

    assert [(chart["title"], chart["isRate"]) for chart in page.data["charts"]] == [
        ("loss", False),
        ("main", True),
    ]
    assert page.lines() == {
        ("loss", False, 0, "eval"): {
            "run": 0,
            "phase": "eval",
            "epochs": [0, 1, 2],
            "steps": [0, 3, 6],
            "values": [2.0, 1.0, 0.5],
        },
        ("loss", False, 0, "train"): {
            "run": 0,
            "phase": "train",
            "epochs": [1, 2],
            "steps": [3, 6],
            "values": [1.5, 0.75],
        },
        ("main", True, 0, "train"): {
            "run": 0,
            "phase": "train",
            "epochs": [1, 2],
            "steps": [3, 6],
            "values": [0.1, 0.05],
        },
    }
    assert page.data["runs"] == [
        {"label": "tiny", "best": {"metric": "loss", "epoch": 2}, "resumed": []}
    ]
    assert len(page.all("figure", "chart")) == 2


def test_each_chart_has_its_values_as_a_table(tmp_path):
    write_run(tmp_path, rows=[row(0, loss=2.0), row(1, "train", loss=None), row(1, loss=1 / 3)])

    text = "|".join(page_of(tmp_path, "tiny").words)

    assert "|Values as a table|loss|epoch|step|eval|train|0|0|2|-|1|3|0.333333|not finite|" in text


def test_the_monitored_metric_comes_first(tmp_path):
    rows = [row(1, other=1.0, accuracy=0.5)]
    write_run(tmp_path, rows=rows, best={"metric": "accuracy", "value": 0.5, "epoch": 1})

    titles = [chart["title"] for chart in page_of(tmp_path, "tiny").data["charts"]]

    assert titles == ["accuracy", "other"]


def test_runs_with_nothing_in_common_are_laid_over_one_another(tmp_path):
    write_run(tmp_path, "a", rows=[row(1, loss=1.0)])
    write_run(tmp_path, "b", rows=[row(1, "train", mmd=2.0)], settings=settings(seed=5))

    page = page_of(tmp_path, "a", "b")

    assert {key[:1] + key[2:] for key in page.lines()} == {
        ("loss", 0, "eval"),
        ("mmd", 1, "train"),
    }
    text = "|".join(page.words)
    assert "|2 runs side by side|" in text
    assert "|What differs|" in text
    assert "|train.seed|0|5|" in text


def test_what_differs_names_the_best(tmp_path):
    write_run(tmp_path, "a")
    write_run(tmp_path, "b", best={"metric": "loss", "value": 0.25, "epoch": 1})

    text = "|".join(page_of(tmp_path, "a", "b").words)

    assert "|best value|0.5|0.25 ★|" in text


def test_an_experiment_without_a_run_is_refused_with_the_way_to_one(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_run(tmp_path, "a")
    write_experiment(tmp_path, "b")

    with pytest.raises(PymodulesError) as caught:
        page_of(tmp_path, "a", "b")

    assert str(caught.value) == (
        "experiments/b/data: experiment 'b' has no run yet: there is no run.json\n"
        "  fix: pymodules train b"
    )


def test_a_run_that_resumes_says_so(tmp_path):
    write_run(tmp_path, state="running", best=None, rows=[])

    page = page_of(tmp_path, "tiny")

    text = "|".join(page.words)
    assert "Still running when this page was made: tiny. Plot again for what came since." in text
    assert "|running|-|no best value yet|" in text
    assert "|No metrics are logged yet.|" in text
    assert page.all("figure") == []


def test_damage_is_said_on_the_page(tmp_path):
    write_run(tmp_path, tail='{"epoch": 3')

    text = "|".join(page_of(tmp_path, "tiny").words)

    assert "|The last line of metrics.jsonl is cut off and left out: the run is writing it" in text


def test_a_failed_run_reports_its_error_and_where_it_was_resumed(tmp_path):
    write_run(
        tmp_path,
        state="failed",
        error="NonFiniteLossError: <nan>",
        stop_reason=None,
        resumed=[{"time": "2026-03-04T05:06:07+00:00", "epoch": 1, "step": 5}],
    )

    page = page_of(tmp_path, "tiny")

    text = "|".join(page.words)
    assert "|failed|" in text
    assert "|Resumed|at epoch 1, step 5, 2026-03-04 05:06 UTC|NonFiniteLossError: <nan>|" in text
    assert "▲ resumed" in text
    # Five of six steps: between the ends of epochs 1 and 2.
    assert page.data["runs"][0]["resumed"] == [{"epoch": 1.667, "step": 5, "begun": 1}]


def test_a_real_run_shows_pools_lineage_and_overrides(tmp_path):
    donor = write_experiment(tmp_path, "donor")
    Trainer(donor, reporter=SilentPrinter()).fit()
    path = write_experiment(tmp_path, "user", modules={"net": FROM_DONOR})
    Trainer(path, overrides={"train.epochs": 3}, reporter=SilentPrinter()).fit()
    record = json.loads((path / "data/run.json").read_text())

    page = page_of(tmp_path, "user")

    text = "|".join(page.words)
    marks = [attrs["title"] for attrs in page.all("i") if "title" in attrs]
    assert [title.split(",")[0] for title in marks if not title.startswith("best moved")] == [
        "init: epoch 0",
        "last: epoch 3",
        f"best: epoch {record['best']['epoch']}",
        "epoch_1: epoch 1",
        "epoch_2: epoch 2",
        "epoch_3: epoch 3",
    ]
    assert re.search(r"\|net\|donor/best/net\|epoch \d, digest [0-9a-f]{12}\|as built\|", text)
    assert "|Overridden settings|Setting|Value|train.epochs|3" in text


def test_a_source_that_moved_on_is_said_to(tmp_path):
    donor = write_experiment(tmp_path, "donor")
    Trainer(donor, reporter=SilentPrinter()).fit()
    path = write_experiment(tmp_path, "user", modules={"net": FROM_DONOR})
    Trainer(path, reporter=SilentPrinter()).fit()
    again = {"train.seed": 9}
    Trainer(donor, existing="reset", overrides=again, reporter=SilentPrinter()).fit()

    text = "|".join(page_of(tmp_path, "user").words)

    assert "|, holds other weights now|" in text


def test_no_text_of_a_file_becomes_markup(tmp_path):
    write_run(
        tmp_path,
        state=EVIL,
        device=EVIL,
        error=EVIL,
        git_commit=EVIL,
        overrides={EVIL: [EVIL]},
        versions={"torch": EVIL},
        modules=[{"name": EVIL, "class": EVIL, "weights": EVIL, "origin": {"file": EVIL}}],
        best={"metric": EVIL, "value": 1.0, "epoch": 1},
        resumed=[{"time": EVIL, "epoch": 1, "step": 3}],
        settings={"train": {"monitor": EVIL}},
        rows=[row(1, EVIL, **{EVIL: 1.0}) | {"learning_rates": {EVIL: 1.0}}],
    )
    write_run(tmp_path, "other")

    for names in (("tiny",), ("tiny", "other")):
        page = page_of(tmp_path, *names)

        assert page.all("img") == []
        assert len(page.all("script")) == 2
        assert "<" not in page.data_text
        assert page.data["charts"][0]["title"] == EVIL
        assert EVIL in page.words


def test_the_page_asks_for_nothing_outside_itself(tmp_path):
    write_run(tmp_path)

    page = page_of(tmp_path, "tiny")

    (policy,) = [
        attrs["content"]
        for attrs in page.all("meta")
        if attrs.get("http-equiv") == "Content-Security-Policy"
    ]
    script = re.search(r"<script>(.*?)</script>", page.text, re.DOTALL)[1]
    digest = base64.b64encode(sha256(script.encode()).digest()).decode()
    assert policy.startswith(f"default-src 'none'; script-src 'sha256-{digest}'; ")
    assert [attrs for _, attrs in page.elements if {"src", "href"} & set(attrs)] == []
    assert not re.search(r"@import|url\(", page.text)
    assert "http" not in page.text.replace("http://www.w3.org/2000/svg", "").replace(
        "http-equiv", ""
    )


def test_ten_thousand_rows_make_a_page_of_less_than_two_megabytes(tmp_path):
    names = [f"metric_{number}" for number in range(20)]
    rows = [
        row(epoch, phase, **{name: math.sin(epoch / 50) + epoch for name in names})
        for epoch in range(1, 5001)
        for phase in ("train", "eval")
    ]
    rows[4001]["metrics"]["metric_0"] = 1e9
    rows[6001]["metrics"]["metric_0"] = None
    write_run(tmp_path, rows=rows, best={"metric": "metric_0", "value": 1.0, "epoch": 4321})

    page = page_of(tmp_path, "tiny")

    line = page.lines()["metric_0", False, 0, "eval"]
    assert len(page.text.encode()) < 2_000_000
    assert (line["epochs"][0], line["epochs"][-1]) == (1, 5000)
    assert 1e9 in line["values"]
    assert None in line["values"]
    assert 4321 in line["epochs"]
    assert 500 < len(line["values"]) < 1000
    assert "metric_0: 200 of 5000 rows" in page.words


def test_few_points_are_all_kept_and_many_keep_their_peaks_and_gaps():
    few = [Point(n, n, float(n)) for n in range(10)]
    many = [Point(n, n, None if n == 700 else math.sin(n)) for n in range(1000)]
    many[500] = Point(500, 500, 99.0)
    many[501] = Point(501, 501, -99.0)

    thinned = thin(many, 50, keep_epochs={123})

    assert thin(few, 10) == few
    assert len(thinned) <= 52
    assert {many[i] for i in (0, 123, 500, 501, 700, 999)} <= set(thinned)
    assert thinned == sorted(thinned, key=lambda point: point.epoch)


def test_gaps_alone_are_thinned_too():
    gaps = [Point(n, n, None) for n in range(1000)]

    assert len(thin(gaps, 50)) == 26


@pytest.mark.parametrize(
    "rows",
    [[row(1, loss=1.0)], [row(1, "train", loss=1.0)], [row(0, loss=None)], [row(3, **{"": 1.0})]],
)
def test_small_logs_make_a_page(tmp_path, rows):
    write_run(tmp_path, rows=rows)

    page = page_of(tmp_path, "tiny")

    assert len(page.data["charts"]) == 1
    assert page.data["charts"][0]["lines"][0]["values"] == list(rows[0]["metrics"].values())


def test_a_damaged_run_file_still_makes_a_page(tmp_path):
    write_run(tmp_path, run_text="[")

    text = "|".join(page_of(tmp_path, "tiny").words)

    assert "|unreadable|-|no best value yet|Epochs|-|Steps|-|" in text
    assert "|run.json cannot be read; only metrics and checkpoints are shown.|" in text
    assert "|No module is on record.|" in text


def test_every_type_in_the_run_file_may_be_wrong(tmp_path):
    facts = {key: 3.5 if isinstance(value, str) else "x" for key, value in FACTS.items()}
    nested = {key: [{"name": 3, "origin": 3}] for key in ("modules", "plugins", "resumed")}
    write_run(tmp_path, "a", **facts)
    write_run(tmp_path, "b", **nested, versions={"torch": [1]}, files={"x": 3}, overrides=[1])

    page = page_of(tmp_path, "a", "b")

    assert len(page.all("article", "card")) == 2


def test_a_page_is_recognised_by_its_first_bytes(tmp_path):
    write_run(tmp_path)

    text = page_of(tmp_path, "tiny").text

    assert is_page(text.encode()[:1000])
    assert not is_page(b'<!DOCTYPE html>\n<html lang="en">\n<head>\n</head>')


def luminance(color):
    parts = [int(color[index : index + 2], 16) / 255 for index in (1, 3, 5)]
    linear = [p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
    return sum(weight * p for weight, p in zip((0.2126, 0.7152, 0.0722), linear, strict=True))


def contrast(one, other):
    low, high = sorted((luminance(one), luminance(other)))
    return (high + 0.05) / (low + 0.05)


def test_texts_and_lines_stand_out_in_light_and_dark(tmp_path):
    write_run(tmp_path)
    style = re.search(r"<style>(.*?)</style>", page_of(tmp_path, "tiny").text, re.DOTALL)[1]
    blocks = re.findall(r":root \{(.*?)\}", style, re.DOTALL)
    light, dark = (dict(re.findall(r"--([\w-]+): (#[0-9a-f]{6})", block)) for block in blocks)

    for scheme in (light, dark):
        grounds = [scheme[name] for name in ("page", "surface", "sunken")]
        texts = [scheme[name] for name in ("text", "muted", "accent", "good", "warn", "bad")]
        runs = [color for name, color in scheme.items() if name.startswith("run-")]
        assert len(runs) == 8
        assert min(contrast(text, ground) for text in texts for ground in grounds) >= 4.5
        assert min(contrast(run, ground) for run in runs for ground in grounds) >= 3


def test_making_a_page_changes_nothing(tmp_path):
    path = write_run(tmp_path, rows=ROWS)
    before = {file: file.stat().st_mtime_ns for file in path.rglob("*")}

    page_of(tmp_path, "tiny")

    assert {file: file.stat().st_mtime_ns for file in path.rglob("*")} == before
