"""The plan that is printed before a study starts."""

from __future__ import annotations

import re

import pytest

from sadcl import main, results
from sadcl.launch.options import Options
from sadcl.launch.setup import given_flags
from tests.launch.mistakes import SEARCH


def test_a_dry_run_shows_the_plan_and_starts_nothing(capsys, copy, tmp_path):
    main(SEARCH, ["--dry-run", "--data-root", str(copy), "--scale", "demo", "--trials", "5"])
    text = capsys.readouterr().out
    assert (
        "study wrong-demo-coco17: coco17 (46 train, 14 held-out, 24 test images, 20 labels)" in text
    )
    assert "loss.tau: 0.05 to 0.5" in text
    assert "5 trials" in text
    assert "DEMO SCALE" not in text
    assert not (tmp_path / "runs").exists()


def test_what_is_tried_again_is_in_the_plan(capsys):
    main(SEARCH, ["--dry-run", "--trials", "1"])
    (before,) = re.findall(r"to run: (\d+) runs", capsys.readouterr().out)
    row = {"study": "wrong-demo", "phase": "search", "arm": "tuned", "params": "{}", "seed": 0}
    results.RunWriter("runs", "k", row).finish("failed", cause="?")
    main(SEARCH, ["--dry-run", "--trials", "1"])
    (without,) = re.findall(r"to run: (\d+) runs", capsys.readouterr().out)
    main(SEARCH, ["--dry-run", "--trials", "1", "--retry-failed"])
    (again,) = re.findall(r"to run: (\d+) runs", capsys.readouterr().out)
    assert (int(without), again) == (int(before) - 1, before)


@pytest.mark.parametrize(
    ("options", "words", "expected"),
    [
        ({"n_trials": 5}, [], []),  # the program passes it itself
        ({"n_trials": 5, "workers": 2}, ["--tri=5", "--workers", "2"], ["--trials", "5"]),
        ({"data_root": "/here"}, ["--data-root", "/here"], ["--data-root", "DIR"]),
        (
            {"data_root": {"coco14": "/here"}, "changes": {"loss.tau": 0.1, "seed": 3}},
            ["--set", "loss.tau=0.1", "--set", "seed=3", "--data-root", "coco=/here"],
            ["--data-root", "coco14=DIR", "--set", "loss.tau=0.1", "--set", "seed=3"],
        ),
    ],
)
def test_the_flags_that_a_study_depends_on_are_recorded(options, words, expected):
    assert given_flags(Options(**options), words) == expected
