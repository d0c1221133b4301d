"""Tables within any width: nothing of a cell is lost, no number torn from its unit."""

import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st
from table_cases import WIDTHS, assert_all_is_shown

from pymodules_core.cli.table_layout import lay_out
from pymodules_core.reports.text import count_text, size_text

STATUS = ("EXPERIMENT", "STATE", "EPOCH", "BEST", "UPDATED", "SIZE")
ROW = ("classifier", "finished", "12/12", "accuracy 0.9972 (epoch 8)", "28 s ago", "612.9 kB")
LONG = "teacher_encoder.origin.of_the_module/that_has_sixty_letters.py"

# Letters of one and of two columns, and one with an accent of its own.
LETTERS = st.sampled_from([*"aBz019._-/:=,@*", "é", "漢", "字", "한", "e\u0301"])
NUMBERS = st.one_of(
    st.integers(0, 2**63).map(count_text),
    st.integers(0, 10**15).map(size_text),
    st.floats(allow_nan=False, allow_infinity=False).map("{:.4g}".format),
    st.tuples(st.integers(0, 999), st.integers(0, 999)).map("{0[0]}/{0[1]}".format),
)
WORDS = st.one_of(
    NUMBERS,
    st.text("abcdefgh_", min_size=1, max_size=60),
    st.lists(LETTERS, min_size=1).map("".join),
)
CELLS = st.lists(WORDS, max_size=4).map(" ".join)
HEADINGS = st.text("ABCDEFGH", min_size=1, max_size=12)
TABLES = st.integers(1, 9).flatmap(
    lambda count: st.tuples(
        st.lists(HEADINGS, min_size=count, max_size=count),
        st.lists(st.lists(CELLS, min_size=count, max_size=count), max_size=4),
    )
)


def laid_out(columns, *rows, width: int) -> list[str]:
    return list(lay_out(columns, rows, width=width))


@given(TABLES, st.sampled_from(WIDTHS))
def test_nothing_of_any_table_is_lost_at_any_width(table, width):
    columns, rows = table

    lines = laid_out(columns, *rows, width=width)

    assert_all_is_shown(lines, columns, rows, width=width)


@given(TABLES)
def test_without_a_width_each_row_is_one_line(table):
    columns, rows = table

    lines = laid_out(columns, *rows, width=sys.maxsize)

    assert len(lines) == 1 + len(rows)


def test_a_table_that_fits_has_a_line_a_row():
    assert laid_out(STATUS, ROW, width=80) == [
        "EXPERIMENT  STATE     EPOCH  BEST                       UPDATED   SIZE",
        "classifier  finished  12/12  accuracy 0.9972 (epoch 8)  28 s ago  612.9 kB",
    ]


def test_the_widest_cells_are_folded_at_their_words():
    assert laid_out(STATUS, ROW, width=64) == [
        "EXPERIMENT  STATE     EPOCH  BEST             UPDATED   SIZE",
        "classifier  finished  12/12  accuracy 0.9972  28 s ago  612.9 kB",
        "                             (epoch 8)",
    ]


def test_what_a_row_is_called_by_is_folded_last():
    columns = ("EXPERIMENT", "NOTE", "SIZE")

    assert laid_out(columns, ("a_name_of_many_words", "some text of words", "1 kB"), width=35) == [
        "EXPERIMENT            NOTE     SIZE",
        "a_name_of_many_words  some     1 kB",
        "                      text of",
        "                      words",
    ]
    assert laid_out(columns, ("a_name_of_many_words", "some text", "1 kB"), width=24) == [
        "EXPERIMENT    NOTE  SIZE",
        "a_name_of_    some  1 kB",
        "many_words    text",
    ]


def test_a_table_that_does_not_fit_has_a_line_a_cell():
    assert laid_out(STATUS, ROW, ("other", "", "-", "-", "-", "0 B"), width=40) == [
        "EXPERIMENT  classifier",
        "STATE       finished",
        "EPOCH       12/12",
        "BEST        accuracy 0.9972 (epoch 8)",
        "UPDATED     28 s ago",
        "SIZE        612.9 kB",
        "",
        "EXPERIMENT  other",
        "EPOCH       -",
        "BEST        -",
        "UPDATED     -",
        "SIZE        0 B",
    ]


def test_a_number_that_has_no_room_beside_its_heading_stays_whole():
    lines = laid_out(("PARAMETERS", "SIZE"), ("9,223,372,036,854,775", "612.9 kB"), width=22)

    assert lines == ["PARAMETERS", "9,223,372,036,854,775", "SIZE  612.9 kB"]


def test_a_table_without_rows_has_its_headings():
    assert laid_out(STATUS, width=80) == ["EXPERIMENT  STATE  EPOCH  BEST  UPDATED  SIZE"]
    assert laid_out(STATUS, width=20) == list(STATUS)


@pytest.mark.parametrize(
    ("cell", "width", "lines"),
    [
        ("pymodules/modules/encoder.py", 20, ["pymodules/modules/", "encoder.py"]),
        ("pymodules-core:directory_scanner", 20, ["pymodules-core:", "directory_scanner"]),
        ("x" * 30, 20, ["x" * 20, "x" * 10]),
        ("layer.0.1.weight", 12, ["layer.0.1.", "weight"]),
        ("loss=0.25 lr=1e-05", 14, ["loss=0.25 lr=", "1e-05"]),
        ("exp--lr=0.001--seed=0", 15, ["exp--lr=0.001--", "seed=0"]),
        ("from -inf to -1.5", 8, ["from", "-inf to", "-1.5"]),
        ("between -1.5e-05 and 3", 12, ["between", "-1.5e-05 and", "3"]),
        ("the best 0.9972 *", 15, ["the best", "0.9972 *"]),
        ("漢字" * 5, 7, ["漢字漢", "字漢字", "漢字漢", "字"]),
        ("e\u0301" * 8, 5, ["e\u0301" * 5, "e\u0301" * 3]),
    ],
)
def test_cells_are_folded_where_they_can_be_read(cell, width, lines):
    assert laid_out(("N",), (cell,), width=width) == ["N", *lines]


def test_wide_characters_are_aligned_by_what_they_take():
    assert laid_out(("N", "SIZE"), ("漢字", "1 B"), ("e\u0301a", "2 B"), width=80) == [
        "N     SIZE",
        "漢字  1 B",
        "e\u0301a    2 B",
    ]


def test_a_thousand_rows_are_within_the_width_too():
    rows = [(f"{LONG}_{number}", "no", count_text(number)) for number in range(1_000)]

    lines = laid_out(("MODULE", "FROZEN", "PARAMETERS"), *rows, width=60)

    assert_all_is_shown(lines, ("MODULE", "FROZEN", "PARAMETERS"), rows, width=60)
    assert lines[0] == "MODULE                                    FROZEN  PARAMETERS"
