"""Training on two workers under Ray Train, on a real cluster of this machine."""

import re
import socket

import pytest

from sadcl import results

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
        "select stage, epoch, loss, ifnull(anchors, 0), ifnull(admitted, 0) from epochs order by stage, epoch",
    ).to_pylist()
    return [tuple(row.values()) for row in rows]


EXACT = {"model.freeze_batchnorm": True, "optim.precision": "fp64"}
"""Live BatchNorm would see half of the batch; in float64 what differs is not rounding."""


def test_two_workers_train_what_one_trains(command, train_file, tmp_path):
    """The same losses, anchors and admitted rows; and the row, the table and the checkpoint of a run of two."""
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
    evaluated = command("sadcl", "evaluate", "--checkpoint", row["checkpoint"]).stdout
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
        rf"failed: The image '.*jpg' .* cannot be decoded.* \(rank [01] of 2 on {socket.gethostname()}\)",
        failed.stderr,
    )
    told = re.findall(r"\] .*?: (.*) \(rank [01] of 2 on .*\)", failed.stdout)
    assert any("cannot be decoded" in words for words in told), failed.stdout


@pytest.mark.soak
def test_a_search_whose_trials_have_two_workers(command, study_file, tmp_path):
    command("python", study_file(trials=2), "--workers", "2", timeout=580)
    found = results.read(tmp_path / "runs", "trials").to_pylist()
    assert {row["status"] for row in found} == {"complete"}
    assert {row["workers"] for row in found} == {2}
    assert sum(row["phase"] == "search" for row in found) == 2
