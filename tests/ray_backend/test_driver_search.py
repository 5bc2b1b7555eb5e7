"""A whole search on a real Ray cluster of this machine: run, killed, resumed and queried."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time

import psutil
import pytest
from PIL import Image

from sadcl import results
from sadcl.results import verify

PHASES = {"stage1": 3, "baseline": 2, "search": 3, "confirm": 2, "final": 1}
"""Rows of the tiny study by phase; a stage 1 for the search, the fresh seed and the final run."""


def rows(root):
    try:
        return results.read(root, "trials").to_pylist()
    except results.store.UserError:  # nothing is written yet
        return []


def count(rows):
    phases = [row["phase"] for row in rows]
    return {phase: phases.count(phase) for phase in PHASES}


def test_a_study_from_one_command_to_its_answers(command, study_file, tmp_path):
    file = study_file()
    plan = command("python", file, "--dry-run").stdout
    assert "DEMO SCALE" in plan
    assert "3 trials, the best again over seeds 7" in plan
    assert not (tmp_path / "runs" / "tables").exists()

    first = command("python", file)
    found = rows(tmp_path / "runs")
    assert count(found) == PHASES
    assert {row["status"] for row in found} == {"complete"}
    assert len({row["key"] for row in found}) == len(found)
    assert re.search(
        r"search \w{6}: stage 2 epoch 3/3, held-out mAP [\d.]+, "
        r"[\d.]+ rows per label admitted; best of search",
        first.stdout,
    )
    assert "NOTHING" not in first.stdout
    assert "Traceback" not in first.stdout + first.stderr
    final = next(row for row in found if row["phase"] == "final")
    assert final["test_mAP"] is not None
    assert final["val_mAP"] is None
    assert {row["phase"] for row in found if row["test_mAP"] is not None} == {"confirm", "final"}
    assert f"Test mAP of the final run: {final['test_mAP']:.2f}" in first.stdout
    best = max((row for row in found if row["phase"] == "search"), key=lambda row: row["val_mAP"])
    assert json.loads(final["params"]) == json.loads(best["params"])
    # all trials of the search start from the one stage 1
    assert len({row["stage1_key"] for row in found if row["phase"] == "search"}) == 1
    admitted = results.sql(
        tmp_path / "runs",
        "select min(admitted) as least from epochs join trials using (key, study) "
        "where phase = 'search' and stage = 2",
    ).to_pylist()
    assert admitted[0]["least"] > 0

    again = command("python", file)
    assert "Resuming: 11 runs are complete." in again.stdout
    assert rows(tmp_path / "runs") == found

    assert list(verify.verify(str(tmp_path / "runs"), checkpoints=True)) == []

    # a storage that was moved resumes, and finds its stage 1 and its checkpoints
    moved = ("--storage", "moved")
    os.rename(tmp_path / "runs", tmp_path / "moved")
    more = command("python", file, "--trials", 4, *moved)
    grown = {row["key"]: row for row in rows(tmp_path / "moved")}
    assert count(grown.values())["search"] == 4
    assert [grown[row["key"]] for row in found] == found
    assert "Result" in more.stdout

    top = command(
        "sadcl", "results", "top", "--study", "tiny-demo", "-n", "1", *moved
    ).stdout.splitlines()
    assert len(top) == 2
    evaluated = command("sadcl", "evaluate", "--raw", "--checkpoint", final["key"], *moved).stdout
    line = next(line for line in evaluated.splitlines() if line.startswith("test_mAP\t"))
    assert line == f"test_mAP\t{final['test_mAP']!r}\t{final['test_mAP']!r}"
    named = f"moved/{best['checkpoint']}"
    held = command("sadcl", "evaluate", "--raw", "--checkpoint", named).stdout
    assert f"val_mAP\t{best['val_mAP']!r}\t{best['val_mAP']!r}" in held
    Image.new("RGB", (50, 40), "red").save(tmp_path / "photo.jpg")
    named = command(
        "sadcl",
        "predict",
        "photo.jpg",
        "--checkpoint",
        f"moved/{final['checkpoint']}",
        "--top",
        "2",
    ).stdout
    assert re.fullmatch(r"photo\.jpg: \w+ \d\.\d{3}, \w+ \d\.\d{3}\n", named)

    changed = study_file(trials=3, **{"bank.epsilon": 0.03})
    other = command("python", changed, *moved, check=False)
    assert other.returncode == 2
    assert "is another one (bank.epsilon: 0.02 before, 0.03 now). To keep" in other.stderr
    anew = command("python", changed, "--fresh", *moved, check=False)
    assert anew.returncode == 2
    assert "--fresh removes" in anew.stderr
    assert "--yes" in anew.stderr


def start(command, file, tmp_path, *flags):
    with open(tmp_path / "log", "a") as log:
        return subprocess.Popen(
            [sys.executable, str(file), *flags],
            cwd=tmp_path,
            env=command.environment,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )


def wait_for(condition, process, seconds=300):
    deadline = time.monotonic() + seconds
    while not condition():
        assert process.poll() is None, "it ended before"
        assert time.monotonic() < deadline, "it did not come to that"
        time.sleep(0.1)


def family(process):
    return psutil.Process(process.pid).children(recursive=True)


def in_the_middle(root):
    """Whether a trial of the search is complete and another has trained an epoch."""
    found = [row for row in rows(root) if row["phase"] == "search"]
    under_way = {row["key"] for row in found if row["status"] == "running"}
    epochs = results.read(root, "epochs").to_pylist() if under_way else []
    return any(e["key"] in under_way for e in epochs) and any(
        row["status"] == "complete" for row in found
    )


@pytest.mark.soak
def test_killed_again_and_again_nothing_is_lost_and_nothing_doubled(command, study_file, tmp_path):
    """Ctrl-C during the search, kill -9 during the final runs, then to the end.

    No process is left behind.
    """
    file, root = study_file(**{"stage2.epochs": 40}), tmp_path / "runs"
    moments = (
        (signal.SIGINT, in_the_middle),
        (signal.SIGKILL, lambda root: any(r["phase"] == "final" for r in rows(root))),
    )
    for how, moment in moments:
        process = start(command, file, tmp_path)
        wait_for(lambda moment=moment: moment(root), process)
        # Ray's own agents take a minute to notice; what trains must go at once
        descendants = [p for p in family(process) if "Agent" not in p.name()]
        os.kill(process.pid, how)
        process.wait(60)
        _, alive = psutil.wait_procs(descendants, timeout=30)
        assert not alive, f"left running: {alive}"
        text = (tmp_path / "log").read_text()
        assert process.returncode == (130 if how == signal.SIGINT else -9), text[-5000:]
        assert "Nothing is lost; run the same command to resume" in text
        assert "Traceback" not in text
        before = {row["key"]: row for row in rows(root)}
        losses = {
            (e["key"], e["stage"], e["epoch"]): e["loss"]
            for e in results.read(root, "epochs").to_pylist()
        }
        assert any(row["status"] == "running" for row in before.values())

    done = command("python", file)
    interrupted = sum(row["status"] == "running" for row in before.values())
    assert re.search(rf"{interrupted} (was|were) interrupted", done.stdout)
    after = {row["key"]: row for row in rows(root)}
    assert count(after.values()) == PHASES
    assert {row["status"] for row in after.values()} == {"complete"}
    assert before.keys() <= after.keys()
    for (
        key,
        row,
    ) in before.items():  # the table has more columns by now, so row by row what was there
        assert row["status"] == "running" or {name: after[key][name] for name in row} == row
    epochs = results.read(root, "epochs").to_pylist()
    now = {(e["key"], e["stage"], e["epoch"]): e["loss"] for e in epochs}
    assert len(now) == len(epochs)
    assert {at: now[at] for at in losses} == losses  # also of epochs that were trained again


@pytest.mark.soak
def test_a_search_that_is_killed_tries_what_one_that_is_not_tries(command, study_file, tmp_path):
    """One trial at a time; killed in the middle of one, before and after the random ones end."""

    def settings(root):
        tried = sorted(
            (r for r in rows(root) if r["phase"] == "search"), key=lambda r: r["started"]
        )
        return [row["params"] for row in tried]

    file, one = study_file(trials=8, **{"stage2.epochs": 12}), ("--max-concurrent", "1")
    command("python", file, "--storage", "whole", *one)
    for count in (2, 6):
        process = start(command, file, tmp_path, "--storage", "killed", *one)
        wait_for(lambda count=count: len(settings(tmp_path / "killed")) > count, process)
        os.kill(process.pid, signal.SIGKILL)
        process.wait(60)
    command("python", file, "--storage", "killed", *one)
    assert len(settings(tmp_path / "whole")) == 8
    assert settings(tmp_path / "killed") == settings(tmp_path / "whole")


@pytest.mark.soak
def test_two_drivers_of_one_study_do_not_meet(command, study_file, tmp_path):
    file = study_file()
    process = start(command, file, tmp_path)
    wait_for(lambda: rows(tmp_path / "runs"), process)
    other = command("python", file, check=False)
    os.kill(process.pid, signal.SIGTERM)
    assert process.wait(60) == 130
    assert other.returncode == 2
    assert "Another process is at work on the study 'tiny-demo'" in other.stderr


@pytest.mark.soak
def test_trials_that_fail_are_recorded_and_the_study_goes_on(command, study_file, tmp_path):
    """One arm of three diverges, one search trial's process is killed."""
    file = study_file(**{"stage2.epochs": 30})
    text = file.read_text().replace(
        "    n_trials=3,",
        '    n_trials=3, baselines={"wild": {"stage1.lr": 1e30, "stage2.epochs": 0}},',
    )
    file.write_text(text)
    process = start(command, file, tmp_path)
    wait_for(
        lambda: any(
            r["phase"] == "search" and r["status"] == "running" for r in rows(tmp_path / "runs")
        ),
        process,
    )
    workers = [
        p
        for p in family(process)
        if "ImplicitFunc" in " ".join(p.cmdline()) or "objective" in " ".join(p.cmdline())
    ]
    assert workers
    workers[0].kill()
    assert process.wait(240) == 0
    found = rows(tmp_path / "runs")
    wild = next(row for row in found if row["arm"] == "wild")
    assert wild["status"] == "failed"
    assert re.search(r"Diverged: The loss is not finite in stage 1, step \d+", wild["cause"])
    # the trial whose process was lost went on, in another
    assert [row["status"] for row in found if row["phase"] == "search"] == ["complete"] * 3
    assert {row["epochs_done"] for row in found if row["phase"] == "search"} == {30}
    assert next(row for row in found if row["phase"] == "final")["status"] == "complete"
    assert "1 run failed:" in (tmp_path / "log").read_text()

    kept = command("python", file)
    assert "1 failed and will not run again without --retry-failed" in kept.stdout
    assert rows(tmp_path / "runs") == found
    again = command("python", file, "--retry-failed")
    assert "1 failed and will run again" in again.stdout
    now = {row["key"]: row for row in rows(tmp_path / "runs")}
    assert now.keys() == {row["key"] for row in found}
    assert now[wild["key"]]["status"] == "failed"
    assert now[wild["key"]]["ended"] > wild["ended"]
