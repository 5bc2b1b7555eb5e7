"""What people see while trials run: plain lines without a terminal, a table with one."""

import io
import re
import time

import pytest
from rich.console import Console

from sadcl.study import live_table
from sadcl.study.live_table import LiveTable
from sadcl.study.trial_event import (
    EpochEnded,
    HangEnded,
    TrialEnded,
    TrialStarted,
    WorkerBeat,
    WorkerFailed,
)

EVENTS = [
    TrialStarted("k1", "search", "search 1a2b", {"loss.tau": 0.1}),
    EpochEnded("k1", 2, 1, 4, {"val_mAP": 41.234, "admitted": 12.4, "anchors": 9.0}),
    TrialStarted("k2", "baseline", "baseline s0"),
    EpochEnded("k2", 1, 1, 2, {"val_mAP": 99.0}),
    EpochEnded("k1", 2, 2, 4, {"val_mAP": 39.0, "admitted": 0.0, "anchors": 0.0}),
    TrialEnded("k1", "complete", val_mAP=41.234),
    TrialEnded("k2", "failed", "Diverged: stage 1, step 3"),
    TrialEnded("k3", "complete", test_mAP=55.5),
]


def watch(monkeypatch, terminal, events=EVENTS, epochs=10, width=120):
    out = io.StringIO()
    monkeypatch.setattr(
        live_table,
        "console",
        Console(file=out, force_terminal=terminal, soft_wrap=not terminal, width=width, height=30),
    )
    waiting = list(events)
    with LiveTable(
        "study x", lambda: [waiting.pop(0) for _ in range(len(waiting))], epochs
    ) as table:
        time.sleep(0.7)
    return table, out.getvalue()


def test_the_most_that_there_may_be_is_not_called_about(monkeypatch):
    monkeypatch.setattr(
        live_table, "console", Console(file=io.StringIO(), force_terminal=False, width=120)
    )
    table = LiveTable("study x", list, 10, is_limit=True)
    for event in EVENTS[:2]:
        table._add(event)
    monkeypatch.setattr(table, "seconds_left", lambda: 60.0)
    assert table._state_text().endswith("at most 1 min left")


def test_plain_lines_give_trial_settings_epoch_figure_best_and_time_left(monkeypatch):
    table, text = watch(monkeypatch, terminal=False)
    lines = [line.split("] ", 1)[1] for line in text.splitlines()]
    assert lines[0] == "search 1a2b: started with tau=0.1"
    start = (
        "search 1a2b: stage 2 epoch 1/4, held-out mAP 41.23, 12 rows per label admitted; "
        "best of search 41.23, "
    )
    assert lines[1] == start + "time left not known yet"
    assert lines[2] == "baseline s0: started"
    assert lines[4].split("; ")[-1].startswith("best of search 41.23, ")
    assert "best of search 41.23" in lines[3]  # the baseline's 99 is no trial of the search
    assert "0.0 rows per label admitted (THE BANK ADMITS NOTHING: lower bank.epsilon; " in lines[4]
    assert "THE SAMPLE CONTRAST SEES NOTHING" in lines[4]
    assert "best of search 41.23" in lines[4]
    assert lines[5:] == [
        "search 1a2b: complete, held-out mAP 41.23",
        "baseline s0: FAILED: Diverged: stage 1, step 3",
        "k3: complete, test mAP 55.50",
    ]
    assert table.epochs_done == 3


def test_a_contrast_that_is_switched_on_but_hardly_pulls_is_warned_of(monkeypatch):
    def epoch(number, sample):
        figures = {"gradient_class": 2.0, "gradient_sample": sample, "gradient_prototype": 0.2}
        return EpochEnded("k1", 2, number, 4, {"admitted": 12.4, "anchors": 9.0, **figures})

    events = [TrialStarted("k1", "search", "search 1a2b"), epoch(1, 0.02), epoch(2, 1.0)]
    _, text = watch(monkeypatch, terminal=False, events=events)
    _, idle, strong = text.splitlines()
    assert (
        "THE SAMPLE CONTRAST HARDLY PULLS, with 1.0 % of the classification loss's gradient: "
        "raise loss.sample_weight, or look at its divisor (loss.sample_reduction)"
    ) in idle
    assert "PROTOTYPE" not in idle
    assert "PULLS" not in strong


def test_a_terminal_shows_a_table(monkeypatch):
    _, text = watch(monkeypatch, terminal=True)
    text = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", text)
    for word in (
        "complete  search 1a2b",
        "failed    baseline s0",
        "baseline s0: FAILED: Diverged: stage 1, step 3",
        "best so far: held-out 41.23, search 1a2b  tau=0.1",
        "3/7 epochs; ended after 0:0",
        "study x",
    ):
        assert word in text


def beat(**more):
    return WorkerBeat("k", 0, 1, "host", 1, stage=1, epoch=1, **more)


def test_a_long_epoch_reports_its_progress(monkeypatch):
    monkeypatch.setattr(live_table, "PLAIN_SECONDS", 0)
    events = [TrialStarted("k", "stage1", "stage 1 s0"), beat(progress=0.25), beat()]
    table, text = watch(monkeypatch, terminal=False, events=events)
    assert "stage 1 s0: stage 1 epoch 1, 25% of it; time left not known yet" in text
    view = render(table)
    assert "running   stage 1 s0    stage 1, epoch 1/?" in view


def test_a_trial_that_is_stopped_early_shortens_the_plan(monkeypatch):
    events = [*EVENTS[:2], TrialEnded("k1", "pruned", "stopped after epoch 1", val_mAP=41.234)]
    table, text = watch(monkeypatch, terminal=False, events=events)
    assert table.epochs == 10 - 3
    assert "search 1a2b: stopped after epoch 1\n" in text


def render(table, width=80):
    out = io.StringIO()
    Console(file=out, force_terminal=True, color_system=None, width=width).print(table._view())
    return out.getvalue()


def test_epochs_that_a_stage_does_not_need_shorten_the_plan(monkeypatch):
    events = [EVENTS[0], EpochEnded("k1", 1, 2, 6, {}), EpochEnded("k1", 2, 1, 4, {})]
    table, _ = watch(monkeypatch, terminal=False, events=events, epochs=10)
    assert table.epochs == 10 - 4


def test_an_interruption_names_what_is_stopped(monkeypatch):
    table, _ = watch(monkeypatch, terminal=False, events=EVENTS[:3])
    assert table._stopping_text().startswith("Stopping study x: search 1a2b, baseline s0. ")


@pytest.mark.parametrize("terminal", [False, True])
def test_news_of_a_worker_appear_above_a_table_too(monkeypatch, terminal):
    news = [HangEnded("k1", 130.0), WorkerFailed("k1", 1, "RuntimeError: gone (rank 1 of 2 on a)")]
    _, text = watch(monkeypatch, terminal=terminal, events=EVENTS[:1] + news)
    assert "search 1a2b: continues after 130 s" in text
    assert "search 1a2b: RuntimeError: gone (rank 1 of 2 on a)" in text


def test_a_source_that_fails_does_not_end_the_block():
    def broken():
        raise ConnectionError

    with LiveTable("x", broken, 1) as table:
        time.sleep(0.7)
    assert table.rows == {}
