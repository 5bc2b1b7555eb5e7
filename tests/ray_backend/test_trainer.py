"""Training on two workers under Ray Train: which one has failed, and real runs of this machine."""

import re
import signal
import socket
import subprocess
import sys
import time

import pytest
from ray.train import ControllerError

from sadcl import recipes, results
from sadcl.errors import TrialFailed
from sadcl.ray_backend import trainer
from sadcl.ray_backend.trainer import Attempt, Ending
from sadcl.search.trial import Trial
from sadcl.study.failure import MAX_RESTARTS
from sadcl.study.placement import Placement
from sadcl.study.trial_event import TrialEnded, TrialRestarts, WaitingForRoom

TRAIN = """
from sadcl import recipes
from sadcl.cli.experiment import main_train
demo = recipes.demo().override({changes!r})
main_train(recipes.coco14(), demo, name="t")
"""


@pytest.fixture
def train_file(tmp_path):
    from tests.conftest import TINY

    def write(**changes):
        path = tmp_path / "train.py"
        path.write_text(TRAIN.format(changes=TINY | changes))
        return path

    return write


def losses(root):
    rows = results.sql(
        root,
        "select stage, epoch, loss, ifnull(anchors, 0), ifnull(admitted, 0) from epochs "
        "order by stage, epoch",
    ).to_pylist()
    return [tuple(row.values()) for row in rows]


EXACT = {"model.freeze_batchnorm": True, "optim.precision": "fp64"}
"""Live BatchNorm would see half of the batch; in float64 what differs is not rounding."""


def test_two_workers_train_what_one_trains(command, train_file, tmp_path):
    """The same losses, anchors and admitted rows; the row and the checkpoint of a run of two."""
    file = train_file(**EXACT)
    one = command("python", file, "--storage", "one")
    two = command("python", file, "--storage", "two", "--workers", "2")
    assert "2 workers" in two.stdout
    alone, together = losses(tmp_path / "one"), losses(tmp_path / "two")
    assert len(alone) == len(together) == 5
    for a, b in zip(alone, together, strict=True):
        assert b == pytest.approx(a, rel=1e-9)
    assert alone[-1][3] > 0
    (row,) = results.read(tmp_path / "two", "trials").to_pylist()
    assert (row["status"], row["workers"]) == ("complete", 2)
    assert f"test mAP {row['test_mAP']:.2f}" in one.stdout
    again = command("python", file, "--storage", "two", "--workers", "2")
    assert "complete already" in again.stdout
    best = f"two/{row['checkpoint']}"
    evaluated = command("sadcl", "evaluate", "--raw", "--checkpoint", best).stdout
    assert f"test_mAP\t{row['test_mAP']!r}\t{row['test_mAP']!r}" in evaluated


@pytest.mark.soak
def test_another_bank_and_other_prototypes_too(command, train_file, tmp_path):
    file = train_file(
        **EXACT, **{"bank.policy": "fifo", "loss.anchors": "batch", "prototypes.policy": "learned"}
    )
    command("python", file, "--storage", "one")
    command("python", file, "--storage", "two", "--workers", "2")
    for a, b in zip(losses(tmp_path / "one"), losses(tmp_path / "two"), strict=True):
        assert b == pytest.approx(a, rel=1e-9)


@pytest.mark.soak
def test_a_failure_on_two_workers_is_one_line_with_its_cause(command, train_file, tmp_path):
    failed = command("python", train_file(**{"stage1.lr": 1e30}), "--workers", "2", check=False)
    assert failed.returncode == 1
    assert "failed: Diverged: The loss is not finite in stage 1" in failed.stderr
    assert "Traceback" not in failed.stderr + failed.stdout
    (row,) = results.read(tmp_path / "runs", "trials").to_pylist()
    assert row["status"] == "failed"
    assert row["cause"].startswith("Diverged")


@pytest.mark.soak
def test_a_bad_image_on_one_of_two_workers_is_named(command, train_file, tmp_path, cache):
    from sadcl.data.readers import scenes

    root = scenes.ensure(tmp_path / "data", seed=0, train=60, test=24)
    for image in sorted((root / "train2017").iterdir())[::7]:
        data = image.read_bytes()
        # whole at both ends, so that only decoding finds it
        image.write_bytes(b"\xff\xd8" + b"\0" * 200 + data[-2:])
    failed = command(
        "python",
        train_file(),
        "--workers",
        "2",
        "--data-root",
        root,
        "--scale",
        "demo",
        check=False,
    )
    assert failed.returncode == 1
    assert re.search(
        rf"failed: The image '.*jpg' .* cannot be decoded.* "
        rf"\(rank [01] of 2 on {socket.gethostname()}\)",
        failed.stderr,
    )
    causes = re.findall(r"\] .*?: (.*) \(rank [01] of 2 on .*\)", failed.stdout)
    assert any("cannot be decoded" in cause for cause in causes), failed.stdout


@pytest.mark.soak
def test_ctrl_c_ends_two_workers_with_130_and_the_same_command_resumes(
    command, train_file, tmp_path
):
    """Ray Train has a handler of its own, which would end the process with exit code 0."""
    file = train_file(**{"stage2.epochs": 40})
    words = [sys.executable, str(file), "--workers", "2"]
    with open(tmp_path / "out", "w") as out:
        process = subprocess.Popen(
            words, cwd=tmp_path, env=command.environment, stdout=out, stderr=out
        )
    deadline = time.monotonic() + 240
    while "stage 2 epoch 2/40" not in (tmp_path / "out").read_text():
        assert process.poll() is None, (tmp_path / "out").read_text()[-3000:]
        assert time.monotonic() < deadline
        time.sleep(0.2)
    process.send_signal(signal.SIGINT)
    assert process.wait(120) == 130, (tmp_path / "out").read_text()[-3000:]
    assert "Nothing is lost; run the same command to resume." in (tmp_path / "out").read_text()
    assert "Traceback" not in (tmp_path / "out").read_text()
    assert "mAP" in command("python", file, "--workers", "2", timeout=580).stdout


@pytest.mark.soak
def test_a_search_whose_trials_have_two_workers(command, study_file, tmp_path):
    command("python", study_file(trials=2), "--workers", "2", timeout=580)
    rows = results.read(tmp_path / "runs", "trials").to_pylist()
    assert {row["status"] for row in rows} == {"complete"}
    assert {row["workers"] for row in rows} == {2}
    assert sum(row["phase"] == "search" for row in rows) == 2


def test_a_startup_that_times_out_is_recognised():
    from ray.train.v2._internal.exceptions import WorkerGroupStartupTimeoutError

    timeout = ControllerError(WorkerGroupStartupTimeoutError(2))
    assert trainer._is_startup_timeout(timeout)
    assert not trainer._is_startup_timeout(ControllerError(ValueError("x")))
    assert not trainer._is_startup_timeout(None)


@pytest.fixture
def attempts(monkeypatch, tmp_path):
    """Run ``train`` with attempts that end as listed; give its row or error, and its events."""

    def run(*endings, saves=()):
        trial = Trial("s", "train", "one", recipes.demo())
        placement, events = Placement(str(tmp_path), None, "demo", workers=2), []
        endings, saved, rows = list(endings), iter(saves), []

        def attempt(*_):
            current = endings.pop(0)
            if current.ending is Ending.FINISHED:
                rows.append({"status": "complete"})
            return current

        monkeypatch.setattr(trainer, "_attempt", attempt)
        monkeypatch.setattr(trainer, "_saved_states", lambda *_: next(saved, None))
        monkeypatch.setattr(trainer, "emit", lambda channel, event: events.append(event))
        monkeypatch.setattr(trainer.execute, "ended_row", lambda *_: rows[0] if rows else None)
        try:
            result = trainer.train(trial, placement, "scratch")
        except TrialFailed as error:
            result = str(error)
        assert not endings
        return result, [(type(event), getattr(event, "reason", "")) for event in events]

    return run


LOST = Attempt(Ending.FAILED, "a node was lost")
DONE = Attempt(Ending.FINISHED)


def test_a_run_that_loses_its_workers_restarts_and_one_that_leaves_resumes(attempts):
    left = Attempt(Ending.LEFT, "a node is to be taken away")
    assert attempts(LOST, left, DONE) == (
        {"status": "complete"},
        [(TrialRestarts, LOST.reason), (TrialRestarts, left.reason)],
    )


def test_waiting_for_room_is_reported_once_and_is_no_failure(attempts):
    waits = [Attempt(Ending.NO_ROOM)] * (MAX_RESTARTS + 3)
    result, events = attempts(*waits, LOST, waits[0], DONE)
    assert result == {"status": "complete"}
    assert [kind for kind, _ in events] == [WaitingForRoom, TrialRestarts, WaitingForRoom]


def test_losses_without_a_new_checkpoint_have_an_end(attempts, monkeypatch):
    monkeypatch.setattr(trainer, "_record_failure", lambda *_: None)
    result, events = attempts(*[LOST] * (MAX_RESTARTS + 1))
    assert result == "a node was lost"
    assert [kind for kind, _ in events] == [TrialRestarts] * MAX_RESTARTS + [TrialEnded]
    result, _ = attempts(*[LOST] * 20, DONE, saves=range(99))  # each has saved a checkpoint
    assert result == {"status": "complete"}


def test_a_failure_that_would_repeat_is_final(attempts, monkeypatch):
    causes = []
    monkeypatch.setattr(trainer, "_record_failure", lambda trial, placement, c: causes.append(c))
    final = Attempt(Ending.FAILED, "Diverged", final=True)
    assert attempts(final) == ("Diverged", [(TrialEnded, "")])
    assert causes == ["Diverged"]
