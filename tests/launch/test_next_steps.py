"""The commands that are printed after a run can be pasted into a shell."""

from __future__ import annotations

import shlex
from types import SimpleNamespace

import numpy as np
from PIL import Image

from sadcl.config import Config
from sadcl.launch.next_steps import _picture, print_run_steps, print_study_steps
from sadcl.results import store
from sadcl.study import execute
from tests.results.runs import run


def commands(text):
    return [shlex.split(line) for line in text.splitlines() if line.startswith("    sadcl")]


def test_after_a_single_run_its_picture_can_be_predicted(capsys, two_runs, command):
    root, row, _ = two_runs
    print_run_steps(row, root, None)
    show, predict = commands(capsys.readouterr().out)
    assert show == ["sadcl", "results", "show", row["key"], "--storage", root]
    picture = predict[2]
    Image.open(picture)
    done = command("sadcl", "predict", picture, *predict[3:], check=True)
    assert done.stdout.startswith(picture)


def test_after_a_study_the_best_trial_is_named(capsys, tmp_path):
    root = str(tmp_path / "my runs")
    for key, phase, value in (
        ("a", "search", 50.0),
        ("b", "search", 60.0),
        ("c", "baseline", 90.0),
    ):
        run(root, key, study="it's one", phase=phase)
        store.amend(root, key, val_mAP=value)
    print_study_steps("it's one", root, None)
    report, show, *_ = commands(capsys.readouterr().out)
    assert report[:4] == ["sadcl", "results", "report", "it's one"]
    assert report[-2:] == ["--storage", root]
    assert show[3] == "b"


def test_a_study_without_a_complete_trial_has_a_report_only(capsys, tmp_path):
    root = str(tmp_path)
    run(root, "a", study="s", phase="baseline")
    print_study_steps("s", root, None)
    assert len(commands(capsys.readouterr().out)) == 1


def test_the_picture_to_predict_shows_a_label_if_one_does(monkeypatch, tmp_path):
    paths = [str(tmp_path / f"{i}.png") for i in range(3)]
    for path in paths:
        Image.new("RGB", (4, 4)).save(path)
    row = {"config": Config().model_dump_json()}
    for last, picture in (([0, 1], paths[2]), ([0, 0], paths[0])):
        targets = np.array([[0, 0], [-1, 0], last])
        images = SimpleNamespace(test=SimpleNamespace(targets=targets, path=paths.__getitem__))
        monkeypatch.setattr(execute, "cached_data", lambda *_, images=images: images)
        assert _picture(row, None) == picture
