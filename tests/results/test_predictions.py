"""Stored logits give a run's figures again."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from sadcl import metrics, results
from sadcl.errors import UserError
from sadcl.results import RunWriter, compact, predictions, store


def test_metrics_are_had_again_from_predictions(tmp_path):
    rng = np.random.default_rng(0)
    targets_NL = (rng.random((500, 20)) < 0.2).astype(np.int8)
    targets_NL[3, 4] = -1
    logits_NL = rng.normal(-2, 2, (500, 20)) + 3 * targets_NL
    logits_NL[0, 0], logits_NL[1, 0] = 1e-4, -1e-4  # scores that would round to 0.5
    labels = [f"label {i}" for i in range(20)]
    recorded = metrics.multilabel_metrics(1 / (1 + np.exp(-logits_NL)), targets_NL)
    images = [f"dir/{i}.jpg" for i in range(500)]
    for key in ("a", "b"):
        writer = RunWriter(str(tmp_path), key, {"study": "s"})
        said = [
            predictions.predictions_table(s, images, labels, logits_NL, targets_NL)
            for s in ("val", "test")
        ]
        writer.finish("complete", predictions=said)
    for merged in (False, True):
        if merged:
            compact.compact(str(tmp_path))
        again = predictions.metrics(str(tmp_path), "a", "test")
        for name in ("CP", "CR", "CF1", "OP", "OR", "OF1", "CF1_macro"):
            assert again[name] == recorded[name]
        for name in ("mAP", "CF1_top3", "OF1_top3"):
            assert again[name] == pytest.approx(recorded[name], abs=0.05)
        higher = predictions.metrics(str(tmp_path), "a", "test", threshold=0.8)
        wanted = metrics.multilabel_metrics(1 / (1 + np.exp(-logits_NL)), targets_NL, threshold=0.8)
        assert higher["OF1"] == pytest.approx(wanted["OF1"], abs=0.1)
        assert higher["OF1"] != again["OF1"]
        ask = """select label, avg(case when (logit > 0) = (target = 1) then 1 else 0 end) as right
                 from (
                   select unnest(labels) as label, unnest(logits) as logit,
                          unnest(targets) as target
                   from predictions
                   where key = 'b' and split = 'val'
                 ) group by label order by label"""
        right = results.sql(tmp_path, ask).to_pydict()
        assert right["right"][0] == pytest.approx(
            ((logits_NL[:, 0] > 0) == (targets_NL[:, 0] == 1)).mean()
        )
        names, found, scores_NL, read_NL = predictions.load_predictions(str(tmp_path), "b", "val")
        assert (names, found) == (images, tuple(labels))
        assert np.array_equal(read_NL, targets_NL)
        assert np.abs(scores_NL - 1 / (1 + np.exp(-logits_NL))).max() < 5e-4
    size = sum(p.stat().st_size for p in tmp_path.rglob("tables/_runs/predictions/*.parquet"))
    assert (
        size < 2.6 * logits_NL.size * 4
    )  # bytes for four matrices of float16, names and targets in the rest
    with pytest.raises(UserError, match="no predictions of the split 'train'; there are val, test"):
        predictions.metrics(str(tmp_path), "a", "train")
    with pytest.raises(UserError, match="There is no trial 'c'"):
        predictions.metrics(str(tmp_path), "c", "val")


def test_its_predictions_give_the_recorded_figures(trained):
    root, row = trained
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
