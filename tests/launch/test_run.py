"""Mistakes of a start: one paragraph, exit code 2, no traceback, and nothing is started."""

from __future__ import annotations

import dataclasses
import pathlib

import pytest

from sadcl import main, recipes, results
from sadcl.errors import TrialFailed
from tests.launch.mistakes import DEMO, SEARCH, refused


@pytest.mark.parametrize("how", ["flag", "environment"])
def test_a_cluster_that_is_not_there(command, study_file, how):
    more = {"RAY_ADDRESS": "127.0.0.1:1"} if how == "environment" else {}
    words = ["--address", "127.0.0.1:1"] if how == "flag" else []
    done = command("python", study_file(), *words, check=False, timeout=90, **more)
    assert done.returncode == 2
    cause = "that can be joined: [Errno 111] Connection refused"
    assert f"There is no Ray cluster at '127.0.0.1:1' {cause}" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--scale", "full"), "--scale full needs --data-root"),
        (("--workers", "0"), "--workers 0 is not possible: it must be at least 1"),
        (
            ("--workers", "999", "--dry-run"),
            "A trial needs 999 workers with 1 CPU each, but the cluster has room for",
        ),
        (("--storage", ""), "The storage is an empty text"),
        (("--trials", "0"), "--trials 0 is not possible: it must be at least 1"),
        (("--max-concurrent", "0"), "--max-concurrent 0 is not possible: it must be at least 1"),
        (("--scale", "hug"), "argument --scale: invalid choice: 'hug' (choose from "),
        (("--data_root", "x"), "No such option: --data_root (Possible options: --data-root)"),
        (("/data/coco",), "Got unexpected extra argument: /data/coco"),
        (("--storage", "/proc/nothing"), "storage '/proc/nothing' cannot be written"),
        (("--storage", "s4://bucket/x"), "storage 's4://bucket/x' cannot be opened"),
    ],
)
def test_flags_that_cannot_be(capsys, words, message):
    assert message in refused(capsys, *words)


def test_a_job_may_not_keep_its_results_in_its_working_directory(capsys, monkeypatch):
    monkeypatch.setenv("RAY_JOB_CONFIG_JSON_ENV_VAR", "{}")
    assert "its working directory is removed at the end" in refused(capsys)


def test_several_searches_are_looked_at_before_the_first_starts(capsys, copy):
    other = dataclasses.replace(SEARCH, name="other", base=recipes.voc2007())
    with pytest.raises(SystemExit) as end:
        main(
            [SEARCH, other],
            ["--scale", "demo", "--data-root", f"coco={copy}", "--data-root", f"voc2007={copy}"],
        )
    assert end.value.code == 2
    captured = capsys.readouterr()
    assert "study wrong-demo: scenes" not in captured.out
    assert "is not a copy of voc2007" in captured.err.replace("\n", " ")
    assert not (pathlib.Path("runs") / "studies").exists()


def test_a_trial_whose_own_stage_1_fails_says_so_in_its_row(tmp_path):
    from sadcl.ray_backend import tasks
    from sadcl.search.trial import DataContext
    from sadcl.study.placement import Placement

    base = DEMO.override({"stage1.lr": 1e30})
    trial = DataContext("s", base, "d").trial("search", "tuned", base, {"stage1.lr": 1e30})
    (tmp_path / "runs" / "studies").mkdir(parents=True)  # as a driver leaves it
    with pytest.raises(TrialFailed, match="The stage 1 that it starts from"):
        tasks.run_trial(trial, Placement(str(tmp_path / "runs"), None, "demo"), "", None)
    rows = {row["phase"]: row for row in results.read(str(tmp_path / "runs"), "trials").to_pylist()}
    assert {row["status"] for row in rows.values()} == {"failed"}
    cause = f"({trial.stage1.key}) has failed: {rows['stage1']['cause']}"
    assert rows["search"]["cause"] == f"The stage 1 that it starts from {cause}"


def test_another_name_keeps_a_study_apart(capsys):
    main(SEARCH, ["--name", "other", "--dry-run"])
    assert "study other-demo: scenes" in capsys.readouterr().out
    with pytest.raises(SystemExit):
        main([SEARCH], ["--name", "other", "--dry-run"])
    assert "--name is not possible: each of the searches has its own" in capsys.readouterr().err
