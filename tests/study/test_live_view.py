"""The lines of the live table: they fit, and the footer stays."""

import io

import pytest
from rich.console import Console

from sadcl.study.live_view import Footer, TrialLine, live_view

PARAMS = {"loss.tau": 0.1234, "bank.epsilon": 0.5, "loss.prototype_weight": 3.2}
ENDED = [
    TrialLine(f"search {i:04x}", PARAMS, "complete", 2, 7, 7, val_mAP=70.0 + i) for i in range(20)
]
RUNNING = [
    TrialLine(
        "stage 1 of both, anchors masked as released + 9 more s0",
        {}, "running", 1, 7, 14, 0.5, {"val_mAP": 55.2},
    ),
    TrialLine("search 1a2b", PARAMS, "running", 2, 3, 4, metrics={"val_mAP": 71.234}),
    TrialLine("search 77ff", {**PARAMS, "prototypes.epsilon": 0.625, "loss.lr": 1.75}, "running"),
]  # fmt: skip
FOOTER = Footer(73.111, "search 632a", PARAMS, 45, 120, 754.0)


def lines(width, height, rows=(*ENDED, *RUNNING)):
    out = io.StringIO()
    console = Console(file=out, force_terminal=True, color_system=None, width=width)
    console.print(live_view("study", rows, FOOTER, width, height))
    return out.getvalue().splitlines()


@pytest.mark.parametrize("width", [60, 80, 120])
@pytest.mark.parametrize("height", [8, 12, 24, 50])
def test_it_fits_the_terminal_with_its_footer(width, height):
    shown = lines(width, height)
    assert len(shown) < height
    assert max(map(len, shown)) <= width
    assert "45/120 epochs; about 13 min left" in shown[-1]
    assert shown[-2].startswith("best so far: held-out 73.11, search 632a  tau=0.123 ")
    assert any("search 77ff" in line for line in shown)


def test_a_running_trial_shows_its_state_its_epoch_and_its_settings():
    shown = lines(80, 24)
    first, second, settings = (
        next(i for i, line in enumerate(shown) if word in line)
        for word in ("stage 1 of", "1a2b", "tau=0.123")
    )
    assert shown[first].startswith("running   stage 1 of both, an")
    assert "s0  stage 1, epoch 7/14   ━━━━╌╌╌╌     55.20" in shown[first]
    assert "stage 2, epoch 4/4    ━━━━━━╌╌     71.23" in shown[second]
    assert settings == second + 1


def test_the_latest_trials_stay_and_the_others_are_counted():
    shown = lines(80, 16)
    assert any("search 0013" in line for line in shown)
    assert not any("search 0000" in line for line in shown)
    ended = sum("complete" in line for line in shown)
    assert shown[0] == f"study ({20 - ended} more)"


def test_a_long_title_is_cut_before_its_seed():
    title = "stage 1 of no contrast, sample contrast and 2 more s1"
    for name in (title, f"{title}{'0' * 40}"):  # and where the last word is too long itself
        line = next(line for line in lines(80, 24, [TrialLine(name)]) if "stage 1 of" in line)
        shown = line.strip()
        assert len(shown) <= 80 - 8 - 20 - 8 - 8 - 8  # what is left beside the other columns
        assert shown.endswith("…" + (" s1" if name == title else "0" * 14))
