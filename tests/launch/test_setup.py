"""The plan that is printed before a study starts."""

from __future__ import annotations

import re

import pytest

from sadcl import main, results
from sadcl.study import record
from tests.launch.mistakes import SEARCH, refused


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


@pytest.mark.parametrize("file", ["afile", "afile/runs", "runs/tables", "runs/studies"])
def test_a_file_where_a_folder_is_to_be_is_refused_before_the_plan(capsys, tmp_path, file):
    (tmp_path / "runs").mkdir()
    place = tmp_path / file.removesuffix("/runs")
    place.touch()
    storage = file if file.startswith("afile") else "runs"
    for words in (["--dry-run"], []):
        with pytest.raises(SystemExit) as end:
            main(SEARCH, [*words, "--storage", storage])
        captured = capsys.readouterr()
        assert end.value.code == 2
        assert f"'{place}' is a file, not a folder. Give another --storage." in captured.err
        assert "What is wrong?" not in captured.out


def test_a_study_file_that_cannot_be_read(capsys, tmp_path):
    (tmp_path / "runs/studies/wrong-demo.json").mkdir(parents=True)
    text = refused(capsys, "--dry-run")
    assert "wrong-demo.json' cannot be read: " in text
    assert "is a directory. Move it away" in text


def test_a_second_start_is_refused_before_the_data_are_read(capsys, monkeypatch):
    with record.locked("runs", "wrong-demo"):
        main(SEARCH, ["--dry-run"])
        text = " ".join(capsys.readouterr().out.split())
        assert "note: Another process is at work on the study 'wrong-demo'" in text
        assert text.index("note: Another") < text.index("What is wrong?") < text.index("to run:")
        monkeypatch.setattr("sadcl.launch.datasets.read_data", None)
        assert "Another process is at work on the study 'wrong-demo'" in refused(capsys)
