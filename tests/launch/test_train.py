"""Training one configuration in this process."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pytest
import torch

from sadcl import Run, UserError, recipes, results, train
from sadcl.cli.experiment import main_train
from sadcl.errors import TrialFailed
from tests.launch.mistakes import DEMO


def test_training_in_this_process(good, tmp_path):
    config = DEMO.override({"data.name": "coco"})
    row = train(config, data_root=str(good), name="alone", scale="demo")
    assert (row["status"], row["dataset"], row["workers"]) == ("complete", "coco17", 1)
    (kept,) = results.read("runs", "trials").to_pylist()
    assert kept["test_mAP"] == row["test_mAP"]
    assert kept["study"] == "alone"
    assert len(results.read("runs", "epochs")) == 5
    assert isinstance(row, Run)
    assert row.key == kept["key"]
    assert row.checkpoint == row.best_checkpoint == str(Path("runs", kept["checkpoint"]).absolute())
    assert row.metrics["test_mAP"] == kept["test_mAP"]
    epochs = row.table()
    assert isinstance(epochs, pa.Table)
    assert epochs["epoch"].to_pylist() == [1, 2, 1, 2, 3]
    again = train(config, data_root=str(good), name="alone", scale="demo")
    assert again["ended"] == kept["ended"]
    with pytest.raises(UserError, match="It holds coco17"):
        train(config.override({"data.name": "coco14"}), data_root=str(good))


def test_training_that_diverges_is_recorded_with_its_cause(good):
    with pytest.raises(TrialFailed, match="not finite in stage 1"):
        train(
            DEMO.override({"data.name": "coco", "stage1.lr": 1e30}),
            data_root=str(good),
            name="wild",
            scale="demo",
        )
    (row,) = results.read("runs", "trials").to_pylist()
    assert row["status"] == "failed"
    assert row["cause"].startswith("Diverged: The loss is not finite in stage 1, step ")


def test_an_image_that_breaks_while_training_is_recorded(copy, monkeypatch):
    monkeypatch.setattr("sadcl.data.image_check.check_files", lambda *a, **k: None)
    image = sorted((copy / "train2017").iterdir())[0]
    image.write_bytes(image.read_bytes()[:300])
    with pytest.raises(TrialFailed, match="cannot be decoded"):
        train(DEMO.override({"data.name": "coco"}), data_root=str(copy), name="bad", scale="demo")
    (row,) = results.read("runs", "trials").to_pylist()
    assert str(image) in row["cause"]


def test_a_gpu_that_fails_leaves_a_run_that_the_same_command_resumes(good, monkeypatch):
    def fails(*arguments, **options):
        raise torch.AcceleratorError("CUDA error: uncorrectable ECC error encountered\nmore")

    config = DEMO.override({"data.name": "coco"})
    options = {"data_root": str(good), "name": "ecc", "scale": "demo"}
    with monkeypatch.context() as patch:
        patch.setattr("sadcl.training.loop.train_step", fails)
        with pytest.raises(TrialFailed) as caught:
            train(config, **options)
    assert str(caught.value) == (
        "AcceleratorError: CUDA error: uncorrectable ECC error encountered. That may pass: the "
        "same command resumes from the last checkpoint."
    )
    (row,) = results.read("runs", "trials").to_pylist()
    assert row["status"] == "running"
    assert row["cause"].startswith("AcceleratorError: CUDA error: uncorrectable ECC")
    assert train(config, **options)["status"] == "complete"


def test_a_dry_run_says_what_training_takes_and_writes_nothing(capsys, good, tmp_path):
    words = ["--data-root", str(good), "--scale", "demo", "--dry-run"]
    main_train(recipes.coco14(), DEMO, "mine", words)
    text = " ".join(capsys.readouterr().out.split())
    assert "mine-demo-s0-" in text
    assert "coco17 (46 train, 14 held-out, 24 test images), 1 worker" in text
    assert "to run: 5 epochs, about 1 minute (estimated from the median of " in text
    assert not (tmp_path / "runs").exists()
