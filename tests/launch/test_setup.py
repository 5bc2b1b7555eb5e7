"""The plan that is printed before a study starts."""

from __future__ import annotations

import re

from sadcl import main, results
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
