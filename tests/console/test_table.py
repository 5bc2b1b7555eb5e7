"""Tables: fitted to a terminal, the same rounding in a pipe, and forms for programs."""

import csv
import io
import json

import pytest
from rich.console import Console

from sadcl.console import show_table, table, table_form, terminal

ROWS = [
    {"key": "study-tuned-s0-aaaaa111", "study": "study", "val_mAP": 71.23456, "tau": 0.0123456},
    {"key": "study-tuned-s0-bbbbb222", "study": "study", "val_mAP": 9.5, "tau": None},
]
NARROW = [
    {
        "rank": n,
        "id": row["key"][-4:],
        "study": row["study"],
        "held-out": row["val_mAP"],
        "loss.prototype_weight": "1.5" if n == 1 else "0.25",
        "arm": "a long name of an arm" if n == 1 else "another",
        "seed": "",
    }
    for n, row in enumerate(ROWS, 1)
]


@pytest.fixture
def printed(monkeypatch):
    """Print a table on a terminal of a width, and return the lines."""

    def lines(width, *args, **kwargs):
        out = io.StringIO()
        wide = Console(file=out, force_terminal=True, width=width, color_system=None)
        monkeypatch.setattr(table, "console", wide)
        monkeypatch.setattr(terminal, "console", wide)
        show_table(*args, **kwargs)
        return out.getvalue().splitlines()

    return lines


def test_a_row_takes_one_line_and_what_is_equal_is_said_once(printed):
    assert printed(80, ROWS, narrow=NARROW) == [
        "study study",
        "rank  id    held-out  loss.prototype_weight  arm",
        "----  ----  --------  ---------------------  ---------------------",
        "   1  a111     71.23                    1.5  a long name of an arm",
        "   2  b222      9.50                   0.25  another",
    ]


def test_headings_are_broken_before_texts_are_cut_and_columns_left_out(printed):
    heading = printed(56, ROWS, narrow=NARROW)[1:4]
    assert [line.split() for line in heading] == [
        ["loss."],
        ["prototype_"],
        ["rank", "id", "held-out", "weight", "arm"],
    ]
    lines = printed(47, ROWS, narrow=NARROW)
    assert max(map(len, lines)) <= 47
    assert "   1  a111  71.23         1.5  a long name of…" in "\n".join(lines)
    lines = printed(40, ROWS, narrow=NARROW)  # no heading is broken within a word
    assert [line.split() for line in lines[1:3]] == [
        ["loss.prototype_"],
        ["rank", "id", "held-out", "weight"],
    ]
    lines = printed(30, ROWS, narrow=NARROW)
    assert max(map(len, lines[:-2])) <= 30
    assert " ".join(line.strip() for line in lines[-2:]) == (
        "Too wide for this terminal: arm. --wide shows all."
    )


def test_texts_are_wrapped_where_a_row_may_take_several_lines(printed):
    rows = [{"column": "val_mAP", "meaning": "percent, on the held-out training images"}]
    assert printed(34, rows)[2:] == [
        "val_mAP  percent, on the held-out",
        "         training images",
    ]


def test_spare_columns_are_left_out_first(printed):
    rows = [{"arm": "x", "SSCL": "✓" * 9, "PSCL": "✓" * 9, "difference": "+0.23 (-0.16 to +0.62)"}]
    text = "\n".join(printed(40, rows, spare=["SSCL", "PSCL"]))
    assert "+0.23 (-0.16 to +0.62)" in text
    assert "Too wide for this terminal: SSCL, PSCL." in text
    assert "✓" in "\n".join(printed(60, rows, spare=["SSCL", "PSCL"]))


def test_a_pipe_has_the_same_rounding_and_every_column(capsys):
    show_table(ROWS, narrow=NARROW, title="t")
    assert capsys.readouterr().out == (
        "# t\nkey\tstudy\tval_mAP\ttau\n"
        "study-tuned-s0-aaaaa111\tstudy\t71.23\t0.0123\n"
        "study-tuned-s0-bbbbb222\tstudy\t9.50\t\n"
    )


def test_forms_for_programs_have_every_digit(capsys):
    with table_form("raw"):
        show_table(ROWS)
    assert "\t71.23456\t0.0123456\n" in capsys.readouterr().out
    with table_form("json"):
        show_table([*ROWS, {**ROWS[0], "tau": float("nan")}])
    rows = json.loads(capsys.readouterr().out)
    assert rows[:2] == ROWS
    assert rows[2]["tau"] is None
    with table_form("csv"):
        show_table(ROWS)
    assert [row["val_mAP"] for row in csv.DictReader(io.StringIO(capsys.readouterr().out))] == [
        "71.23456",
        "9.5",
    ]


def test_several_tables_have_their_titles(capsys):
    with table_form("json"):
        show_table(ROWS)
        show_table([{"epoch": 1}], title="epochs")
    assert json.loads(capsys.readouterr().out) == {"rows": ROWS, "epochs": [{"epoch": 1}]}


def test_names_in_a_table_are_no_markup(printed):
    text = "\n".join(printed(80, [{"[/x] [w]": "[/y] :duck:"}], ["[/x] [w]"]))
    assert "[/x] [w]" in text
    assert "[/y] :duck:" in text


def test_a_short_name_is_of_one_field_in_all_rows(capsys):
    show_table([{"settings": {"stage1.lr": 0.1, "loss.tau": 0.2}}, {"settings": {"stage2.lr": 1}}])
    assert capsys.readouterr().out.splitlines() == [
        "settings",
        "stage1.lr=0.1 tau=0.2",
        "stage2.lr=1",
    ]
