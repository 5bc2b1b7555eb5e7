"""The result of a search: typed values, and the table and sentences that are made of them."""

from __future__ import annotations

import dataclasses
import io
import json

from rich.console import Console

from sadcl import Search, recipes
from sadcl.console import table
from sadcl.reports import search_summary
from sadcl.reports.search_summary import Spread
from sadcl.reports.statistics import Verdict, interval
from sadcl.search import Float

SEARCH = Search(
    name="s",
    question="?",
    base=recipes.coco14(),
    demo=recipes.demo(),
    space={"loss.tau": Float(0.05, 0.5)},
    published=85.6,
)


def row(key, phase, arm, val, *, seed=0, params=None, test=None, status="complete", **more):
    base = {
        "stage1_key": "st",
        "scale": "full",
        "checkpoint": f"{key}.pt",
        "cause": None,
        "admitted": None,
        "study": "s",
        "started": "2026-02-01",
    }
    row = {"key": key, "phase": phase, "arm": arm, "val_mAP": val, "seed": seed, "test_mAP": test}
    return {**base, **row, "params": json.dumps(params or {}), "status": status, **more}


A, B = {"loss.tau": 0.1}, {"loss.tau": 0.2}


def text_of(rows):
    return "\n".join(" | ".join(row.values()) for row in rows)


def summary_text(rows, search=SEARCH):
    table, sentences = search_summary.summary(rows, search)
    return text_of(table), " ".join(sentences)


def test_summary_says_what_it_shows_and_no_more():
    rows = [
        row("st", "stage1", "stage1", 60.0),
        row("base", "baseline", "baseline", 55.0),
        row("control", "baseline", "stage2", 62.0),
        row("a", "search", "tuned", 64.0, params=A, admitted=30.0),
        row("b", "search", "tuned", 63.0, params=B, status="failed", cause="NaN"),
        row("c7", "confirm", "stage2", 61.0, seed=7),
        row("c8", "confirm", "stage2", 60.0, seed=8),
        row("c9", "confirm", "stage2", 60.5, seed=9),
        row("a7", "confirm", "tuned", 62.1, seed=7, params=A),
        row("a8", "confirm", "tuned", 61.2, seed=8, params=A),
        row("a9", "confirm", "tuned", 61.65, seed=9, params=A),
        row(
            "b8", "confirm", "tuned", 99.0, seed=8, params=B
        ),  # of a setting that was the best once
        row("f", "final", "tuned", None, params=A, test=65.5),
        row("old", "final", "tuned", None, params=A, test=11.0, started="2026-01-01"),
    ]
    table, text = summary_text(rows)
    gain, half = interval([62.1 - 61.0, 61.2 - 60.0, 61.65 - 60.5])
    bounds = f"{gain - half:+.2f} to {gain + half:+.2f}"
    assert f"{gain:+.2f} held-out mAP over 3 pairs of seeds (95 % interval {bounds}): a sig" in text
    assert "gain. The setting was chosen on these images, so this figure is optimistic." in text
    assert "Test mAP of the final run: 65.50 (one run, seed 0); the paper reports 85.6." in text
    assert "Best setting: loss.tau = 0.1." in text
    assert "1 run failed: b: NaN --retry-failed runs it again" in text
    assert "99.00" not in table
    assert "61.65 ± " in table
    assert "optimistic" in table
    assert "Rows per label that the bank admitted in the last epoch: best of search 30.0." in text


def test_a_gain_of_other_fields_is_not_called_one_of_the_contrasts():
    rows = [row(f"c{seed}", "confirm", "stage2", 60.0 + seed, seed=seed) for seed in (1, 2, 3)]
    rows += [
        row(f"a{seed}", "confirm", "tuned", 63.0 + seed, seed=seed, params=A) for seed in (1, 2, 3)
    ]
    rows += [row("a", "search", "tuned", 64.0, params=A), row("c", "baseline", "stage2", 62.0)]
    assert "Contrasts compared with stage 2 without them: +3.00" in summary_text(rows)[1]
    rates = dataclasses.replace(SEARCH, space={**SEARCH.space, "stage2.lr": Float(1e-5, 1e-3)})
    text = summary_text(rows, rates)[1]
    assert "The best setting compared with stage 2 without contrasts: +3.00 held-out" in text
    weights = dataclasses.replace(SEARCH, space={"loss.class_weight": Float(0.5, 2.0)})
    assert "The best setting compared with stage 2 without" in summary_text(rows, weights)[1]
    alone = {"stage2.epochs": 0}
    heads = dataclasses.replace(
        SEARCH,
        base=SEARCH.base.override(alone),
        demo=SEARCH.demo.override(alone),
        space={"stage1.lr": Float(1e-5, 1e-3)},
    )
    table, text = summary_text(rows, heads)
    assert "The best setting compared with the setting of the base: +3.00 held-out" in text
    assert "ontrast" not in table + text


def test_no_gain_is_shown_where_the_interval_holds_zero():
    confirm = [row(f"c{s}", "confirm", "stage2", 60.0, seed=s) for s in (7, 8, 9)]
    figures = ((7, 65.0), (8, 59.0), (9, 61.0))
    tuned = [row(f"a{s}", "confirm", "tuned", v, seed=s, params=A) for s, v in figures]
    _, text = summary_text([row("a", "search", "tuned", 64.0, params=A), *confirm, *tuned])
    assert ": no significant difference." in text
    losing = [row(f"a{s}", "confirm", "tuned", 58.0 + s / 100, seed=s, params=A) for s in (7, 8, 9)]
    _, text = summary_text([row("a", "search", "tuned", 64.0, params=A), *confirm, *losing])
    assert ": a significant loss." in text
    _, text = summary_text([row("a", "search", "tuned", 64.0, params=A), confirm[0], tuned[0]])
    assert "+5.00 held-out mAP over 1 pair of seeds: 1 pair decides nothing" in text


def test_two_seeds_decide_nothing_even_without_a_spread():
    rows = [row("a", "search", "tuned", 64.0, params=A)]
    rows += [row(f"c{s}", "confirm", "stage2", 60.0, seed=s) for s in (7, 8)]
    rows += [row(f"a{s}", "confirm", "tuned", 58.0, seed=s, params=A) for s in (7, 8)]
    table, text = summary_text(rows)
    assert "-2.00 held-out mAP over 2 pairs of seeds: 2 pairs decide nothing" in text
    assert "significant" not in text
    assert "± 0.00" not in table


def test_few_images_are_warned_of_beside_the_answer():
    rows = [row("a", "search", "tuned", 64.0, params=A)]
    images = {"coco14": {"train": 400, "val": 49, "test": 50}}
    text = " ".join(search_summary.summary(rows, SEARCH, images)[1])
    assert "WARNING: coco14 has only 49 held-out images." in text
    assert "test images" not in text


def test_summary_of_a_study_without_a_result():
    table, text = summary_text(
        [row("b", "search", "tuned", None, params=B, status="failed", cause="NaN")]
    )
    assert "failed" in text
    assert table == ""


def test_the_demo_is_not_set_beside_the_paper():
    _, text = summary_text(
        [
            row("a", "search", "tuned", 64.0, params=A, scale="demo"),
            row("f", "final", "tuned", None, params=A, test=65.5, scale="demo"),
        ]
    )
    assert "the paper reports" not in text


def test_the_values_behind_the_sentences():
    confirm = [row(f"c{s}", "confirm", "stage2", 60.0, seed=s, test=50.0) for s in (7, 8)]
    tuned = [
        row(f"a{s}", "confirm", "tuned", 65.0, seed=s, params=A, test=test, admitted=0)
        for s, test in ((7, 52.0), (8, 58.0), (9, 59.0))
    ]
    failed = row("x", "search", "tuned", None, status="failed", cause="NaN")
    pruned = row("p", "search", "tuned", 10.0, status="pruned")
    first = row("a", "search", "tuned", 64.0, params=A)
    result = search_summary.search_result([first, failed, pruned, *confirm, *tuned], SEARCH)
    assert result.settings == A
    assert result.confirmed == Spread(*interval([52.0, 58.0, 59.0]), 3)
    assert [(g.split, g.difference.mean, g.difference.num_runs) for g in result.gains] == [
        ("val", 5.0, 2),
        ("test", 5.0, 2),
    ]
    assert [g.verdict for g in result.gains] == [Verdict.TOO_FEW] * 2
    assert (result.final, result.published, result.nothing_admitted) == (None, 85.6, True)
    assert (result.num_pruned, result.failed) == (1, (failed,))
    assert [line.name for line in result.lines] == [
        "best of search",
        "control, confirmed",
        "tuned, confirmed",
    ]
    assert result.lines[-1].admitted == 0
    empty = search_summary.search_result([failed], SEARCH)
    assert (empty.lines, empty.settings, empty.gains) == ((), None, ())


def test_the_front_of_several_objectives_is_in_the_table():
    several = dataclasses.replace(SEARCH, objectives=("val_mAP", "seconds"))
    rows = [
        row(key, "search", "tuned", value, params={"loss.tau": value / 1000}, seconds=seconds)
        for key, value, seconds in (("a", 64.0, 9.0), ("b", 63.0, 5.0), ("c", 62.0, 6.0))
    ]
    table, _ = search_summary.summary(rows, several)
    assert "nothing beats it: seconds 5" in text_of(table)
    assert "seconds 6" not in text_of(table)


def test_several_searches_at_a_glance():
    rows = [
        row("a", "search", "tuned", 64.0, params=A, dataset="coco14"),
        row("a7", "confirm", "tuned", 62.1, seed=1001, params=A, test=61.0),
        row("a8", "confirm", "tuned", 61.2, seed=1002, params=A, test=62.0),
        row("b8", "confirm", "tuned", 61.2, seed=1002, params=B, test=99.0),
        row("f", "final", "tuned", None, params=A, test=65.5),
        row("old", "final", "tuned", None, params=A, test=11.0, started="2026-01-01"),
        row("o", "final", "tuned", None, params=A, test=77.7, study="other"),
    ]
    first, second = search_summary.overview(rows, {"s": SEARCH, "t": SEARCH})
    assert list(first.values()) == [
        "s",
        "coco14",
        "1",
        str(Spread(*interval([61.0, 62.0]), 2)),
        "65.50",
        "85.6",
    ]
    assert list(second.values()) == ["t", "", "0", "", "", ""]


def test_the_table_of_a_search_has_one_line_a_row_in_a_terminal_of_80_characters(monkeypatch):
    confirm = [row(f"c{s}", "confirm", "stage2", 60.0 + s, seed=s, test=61.0 + s) for s in (1, 9)]
    tuned = [
        row(f"a{s}", "confirm", "tuned", 61.0 + s, seed=s, params=A, test=5.0 * s) for s in (1, 9)
    ]
    rows, _ = search_summary.summary(
        [
            row("st", "stage1", "stage1", 60.0),
            row("base", "baseline", "baseline", 55.0),
            row("control", "baseline", "stage2", 62.0),
            row("a", "search", "tuned", 64.0, params=A),
            *confirm,
            *tuned,
            row("f", "final", "tuned", None, params=A, test=65.5),
            row("old", "final", "tuned", None, params=A, test=11.0, started="2026-01-01"),
        ],
        SEARCH,
    )
    terminal = Console(file=io.StringIO(), width=80, force_terminal=True, color_system=None)
    monkeypatch.setattr(table, "console", terminal)
    table.show_table(rows)
    lines = terminal.file.getvalue().splitlines()
    assert len(lines) == 2 + len(rows) == 9
    assert max(map(len, lines)) <= 80
