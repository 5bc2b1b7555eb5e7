"""What a real run leaves in the tables: predictions that give its figures again, and where it comes from."""

import hashlib
import json
from pathlib import Path

import pytest
import torch

import sadcl
from sadcl import recipes, results
from sadcl.results import compact, predictions, schema, store, verify
from tests.conftest import TINY


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """The store of one run, and its row."""
    root = tmp_path_factory.mktemp("runs")
    config = recipes.demo().override(TINY | {"stage1.epochs": 1, "stage2.epochs": 1})
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        return root, sadcl.train(config, storage=str(root), workers=1, gpus_per_worker=0)


def test_its_predictions_give_the_recorded_figures(run):
    root, row = run
    for split, images in (("val", 14), ("test", 24)):
        again = predictions.metrics(str(root), row["key"], split)
        for name in (
            "CP",
            "CR",
            "CF1",
            "OP",
            "OR",
            "OF1",
            "CF1_macro",
            "undefined",
        ):  # logits keep their side of 0
            assert again[name] == row[f"{split}_{name}"]
        # of so few images two that tie now can move a label's AP by whole points
        for name in ("mAP", "mAP_step", "CF1_top3", "OF1_top3"):
            assert again[name] == pytest.approx(row[f"{split}_{name}"], abs=0.5)
        names, labels, scores_NL, _ = predictions.load_predictions(str(root), row["key"], split)
        assert len(set(names)) == images == len(scores_NL)
        recorded = [
            r["label"]
            for r in store.rows_of(str(root), "labels", row["key"])
            if r["split"] == split
        ]
        assert list(labels) == recorded
    checkpoint = torch.load(row["checkpoint"], weights_only=True)
    assert checkpoint["logits"]["val"].dtype == torch.float16


def test_its_row_says_where_it_comes_from_and_what_it_cost(run):
    root, row = run
    (read,) = results.read(root, "trials").to_pylist()
    for name in (
        "config",
        "config_digest",
        "data_digest",
        "weights_digest",
        "code",
        "sadcl",
        "torch",
        "pyarrow",
        "cpu",
        "host",
    ):
        assert read[name], name
    assert (
        read["weights_digest"]
        == hashlib.sha256(Path(row["checkpoint"]).read_bytes()).hexdigest()[:12]
    )
    assert (
        read["config_digest"]
        == hashlib.sha256(
            json.dumps(json.loads(read["config"]), sort_keys=True).encode()
        ).hexdigest()[:12]
    )
    assert (read["gpus"], read["gpu_hours"], read["device"], read["schema_version"]) == (
        0.0,
        0.0,
        "cpu",
        schema.VERSION,
    )
    assert read["seconds"] > 0
    assert read["images"] == 46 * 2
    assert not list(verify.verify(str(root), checkpoints=True))
    compact.compact(str(root))
    assert results.read(root, "trials").to_pylist() == [read]
    assert not list(verify.verify(str(root), checkpoints=True))
