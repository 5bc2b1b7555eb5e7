"""Parts of the user's through the same door as those that are built in."""

from __future__ import annotations

import os

import numpy as np
import pytest
import torch.multiprocessing as mp
from torch import distributed as dist

from sadcl import Search, UserError, data, sql, train
from sadcl.inference import evaluate
from sadcl.search import Float
from sadcl.training import Callbacks, fit
from tests.launch.mistakes import DEMO
from tests.own_parts import make_birds, write_module

OWN = {
    "data.name": "lab_parts:birds",
    "data.arguments": {"table": "birds.csv"},
    "data.sampler": "lab_parts:rare",
    "data.sampler_arguments.share": 0.25,
    "stage1.augmentation.own": "lab_parts:gray",
    "stage1.augmentation.own_arguments.share": 0.5,
    "stage2.augmentation.own": "lab_parts:gray",
    "stage1.class_loss.kind": "lab_parts:focal",
    "metrics": ("lab_parts:one_error",),
}


@pytest.fixture
def birds(tmp_path, monkeypatch):
    """The root of the photographs; the module is in the start folder."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.syspath_prepend(str(tmp_path))
    write_module(tmp_path, "lab_parts")
    return str(make_birds(tmp_path / "birds"))


def run(config, root, **options):
    return train(config, data_root=root, scale="demo", **options)


def test_a_run_with_all_of_them(birds):
    config = DEMO.override({**OWN, "model.dropout": 0.0})
    row = run(config, birds, name="own")
    assert (row["status"], row["dataset"]) == ("complete", "lab_parts:birds")
    assert 0 <= row["val_one_error"] <= 100
    assert row.metrics["test_one_error"] == row["test_one_error"]
    epochs = row.table().to_pylist()
    assert len(epochs) == 5
    assert all(0 <= epoch["val_one_error"] <= 100 for epoch in epochs)
    chosen = next(e for e in epochs if (e["stage"], e["epoch"]) == (2, row["epoch"]))
    assert chosen["val_one_error"] == row["val_one_error"]
    (count,) = sql("runs", "select count(*) as n from trials where test_one_error >= 0").to_pylist()
    assert count["n"] == 1
    again = evaluate(row.checkpoint, data_root=birds)
    assert again.metrics["one_error"] == again.recorded["one_error"] == row["test_one_error"]
    # each part changes the numbers
    losses = {"own": epochs[0]["loss"]}
    for name, changes in {
        "order": {"data.sampler": None},
        "looks": {"stage1.augmentation.own": None},
        "class": {"stage1.class_loss.kind": "bce"},
    }.items():
        other = config.override({**changes, "stage2.epochs": 1})
        losses[name] = run(other, birds, name=name).table()["loss"][0].as_py()
    assert len(set(losses.values())) == 4


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"data.arguments": {"tables": "x"}}, "data.arguments: lab_parts:birds has no argument"),
        (
            {"data.sampler": "lab_parts:far", "data.sampler_arguments": {}},
            "data.sampler = 'lab_parts:far' must return indices",
        ),
        ({"data.sampler_arguments": {"shares": 1}}, "data.sampler_arguments: .* 'shares'; it tak"),
        (
            {"stage2.augmentation.own": "lab_parts:floats"},
            "stage2.augmentation.own = 'lab_parts:floats' must return a uint8 tensor",
        ),
        ({"stage1.augmentation.own_arguments": {"x": 1}}, "stage1.augmentation.own_arguments: la"),
        ({"metrics": ("lab_parts:unknown",)}, r"metrics\[0\] = 'lab_parts:unknown' is NaN"),
        ({"metrics": ("lab_parts:mAP",)}, r"metrics\[0\] = 'lab_parts:mAP': .* built in"),
        ({"metrics": ("lab_parts:absent",)}, r"metrics\[0\] = .* lab_parts has no 'absent'"),
    ],
)
def test_mistakes_are_found_before_anything_is_reserved(birds, changes, message):
    with pytest.raises(UserError, match=message):
        run(DEMO.override({**OWN, **changes}), birds, name="wrong")
    assert not os.path.exists("runs/tables")


def test_a_search_can_have_a_metric_among_its_objectives(birds):
    search = {
        "name": "own",
        "question": "?",
        "base": DEMO.override(OWN),
        "demo": DEMO.override({"metrics": OWN["metrics"]}),
        "space": {"loss.tau": Float(0.05, 0.5)},
    }
    several = Search(**search, objectives=("val_mAP", "-val_one_error"))
    assert several.objectives[1] == "-val_one_error"
    with pytest.raises(UserError, match="memory_mb, val_one_error, each once"):
        Search(**search, objectives=("val_mAP", "val_one_eror"))
    with pytest.raises(UserError, match="each once"):
        Search(**search, objectives=("val_mAP", "val_one_error", "-val_one_error"))
    with pytest.raises(UserError, match="objectives must be"):
        Search(**search, objectives=("val_mAP", "-seconds"))
    with pytest.raises(UserError, match="objectives must be"):
        Search(**{**search, "demo": DEMO}, objectives=("val_mAP", "val_one_error"))


def worker(rank, folder, root, changes):
    if rank is not None:
        dist.init_process_group(
            "gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=2
        )
    config = DEMO.override(changes)
    images = data.load(config.data, root, sources=config.sources)
    epochs = []
    outcome = fit(
        config,
        images,
        f"{folder}/runs{1 if rank is None else 2}",
        device="cpu",
        loader_workers=int(rank is None),
        test=True,
        callbacks=Callbacks(report=epochs.append),
    )
    if not rank:
        losses = [epoch.metrics["loss"] for epoch in epochs]
        figures = [value for _, value in sorted(outcome.metrics.items())]
        np.save(f"{folder}/{rank}.npy", losses + figures)
    if rank is not None:
        dist.destroy_process_group()


@pytest.mark.soak
def test_two_workers_have_the_figures_of_one(birds, tmp_path):
    """In float64 and without dropout, equal up to the order of sums; one has a loader process."""
    exact = {"optim.precision": "fp64", "model.dropout": 0.0, "model.freeze_batchnorm": True}
    changes = {**OWN, **exact, "stage2.class_loss.kind": "lab_parts:focal"}
    worker(None, str(tmp_path), birds, changes)
    mp.spawn(worker, args=(str(tmp_path), birds, changes), nprocs=2)
    alone, first = np.load(tmp_path / "None.npy"), np.load(tmp_path / "0.npy")
    assert len(alone) > 20
    np.testing.assert_allclose(first, alone, rtol=1e-9)
