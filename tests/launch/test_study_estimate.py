"""What a study takes: hours and bytes of checkpoints, and where they do not fit."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest

from sadcl import Ablation, Search, main, recipes, results
from sadcl.errors import UserError
from sadcl.launch.features import FeatureMaps
from sadcl.launch.options import Options
from sadcl.launch.study_estimate import checkpoint_limit, confirm_without_gpu
from sadcl.search import Float
from sadcl.study.placement import Placement
from tests.launch.mistakes import DEMO, SEARCH, refused


def test_half_an_hour_on_cpus_is_asked_about():
    confirm_without_gpu(0.49, "a step", yes=False)
    with pytest.raises(UserError, match="There is no GPU. This would take about 30 minutes"):
        confirm_without_gpu(0.5, "a step", yes=False)


def test_full_scale_without_a_gpu_says_the_hours_and_asks(capsys, copy, monkeypatch):
    monkeypatch.setattr("sadcl.launch.study_estimate.LEAST_HOURS_TO_ASK", 0)
    monkeypatch.setattr("torch.cuda.device_count", lambda: 0)
    search = Search(name="slow", question="?", base=DEMO.override({"data.name": "coco"}), demo=DEMO,
                    space={"loss.tau": Float(0.05, 0.5)})  # fmt: skip
    error = refused(capsys, "--data-root", copy, search=search)
    assert "There is no GPU. This would take about" in error
    assert re.search(r"\(estimated from (one step|the median of \d+ steps) of 16 images", error)
    assert "Pass --yes to continue without being asked." in error


def test_what_has_no_room_is_refused_with_the_arithmetic(capsys, monkeypatch):
    monkeypatch.setattr("sadcl.storage.free_bytes", lambda root: 1000)
    text = refused(capsys)
    assert "There is room for 950 bytes of checkpoints in" in text
    assert "raise --max-disk" in text.replace("\n", " ")


def test_checkpoints_leave_room_for_the_maps_that_are_missing(tmp_path):
    maps, cpus = FeatureMaps(1, 10**6, 10**6), Placement(str(tmp_path), None)
    options = Options(storage=str(tmp_path), max_disk=0.003)
    assert checkpoint_limit(maps, cpus, options) == 2 * 10**6
    assert checkpoint_limit(maps, replace(cpus, gpus=1), options) == 3 * 10**6


def test_a_dry_run_says_what_it_takes(capsys, copy):
    main(
        SEARCH,
        [
            "--dry-run",
            "--data-root",
            str(copy),
            "--scale",
            "demo",
            "--trials",
            "5",
            "--max-hours",
            "3",
        ],
    )
    text = capsys.readouterr().out.replace("\n", " ")
    assert "at most 3 hours of training" in text
    assert re.search(
        r"to run: \d+ runs, \d+ epochs on CPUs; about [\d.]+ (minutes?|hours) with \d+ at once",
        text,
    )
    assert re.search(r"up to [\d.]+ (kB|MB) of checkpoints", text)


def test_an_ablation_that_does_not_fit_is_refused_because_it_gives_nothing_up(capsys):
    value = Ablation(
        name="a",
        question="?",
        base=recipes.coco14(),
        demo=DEMO,
        baseline="x",
        arms={"x": {}, "y": {"loss.tau": 0.3}},
    )
    text = refused(capsys, "--max-disk", "0.0002", search=value).replace("\n", " ")
    assert re.search(
        r"There is room for 200 kB of checkpoints in .*, but [\d.]+ [kM]B are needed: .* "
        r"and each of \d+ runs leaves",
        text,
    )
    assert "give up" not in text
    # A search of as many runs removes those of its worst trials.
    main(SEARCH, ["--dry-run", "--max-disk", "0.02"])
    assert (
        "of a search's worst trials are removed along the way"
        in capsys.readouterr().out.replace("\n", " ")
    )


def test_what_fresh_removes_makes_room(capsys, tmp_path):
    from sadcl import storage

    row = {"study": "wrong-demo", "phase": "search", "arm": "tuned", "params": "{}", "seed": 0}
    results.RunWriter("runs", "k", row).finish("complete", metrics={"val_mAP": 1.0})
    storage.write("runs/checkpoints/k/best.pt", b"x" * 10_000_000)
    assert "room for 10 MB" in refused(capsys, "--dry-run", "--max-disk", "0.02")
    main(SEARCH, ["--dry-run", "--max-disk", "0.02", "--fresh"])
