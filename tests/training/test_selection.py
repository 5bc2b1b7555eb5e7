"""Selection evaluates raw and averaged weights in one pass over the held-out images."""

from __future__ import annotations

import numpy as np
import torch

from sadcl import build, recipes
from sadcl.data.load import load
from sadcl.data.loader import Loader
from sadcl.metrics import multilabel_metrics
from sadcl.training import engine, selection
from sadcl.training.setup import prepare
from tests.conftest import TINY


def test_held_out_images_are_decoded_once_for_raw_and_averaged_weights(tmp_path, monkeypatch):
    config = recipes.demo().override(TINY)
    data, cpu = load(config.data, tmp_path / "scenes"), torch.device("cpu")
    training = prepare(1, config, data.labels, cpu, steps=9)
    with torch.no_grad():
        for parameter in training.network.parameters():
            parameter.mul_(1.1)  # away from their average
    sets = []
    batches = Loader.batches
    monkeypatch.setattr(
        Loader, "batches", lambda self, epoch: sets.append(self.images) or batches(self, epoch)
    )
    figures, best = selection.select(training, data, {}, 1, build.Worker())
    assert sets == [data.val]
    networks = {"raw": training.network, "ema": training.ema.module}
    for name, network in networks.items():
        scores, targets = engine.evaluate(network, build.loader(config, data.val), cpu)
        assert figures[f"val_mAP_{name}"] == multilabel_metrics(scores, targets)["mAP"]
        if name == best["weights"]:
            logits = selection.half_logits(scores)
            np.testing.assert_array_equal(best["logits"]["val"].numpy(), logits.numpy())
    assert figures["val_mAP_raw"] != figures["val_mAP_ema"]
    assert figures["val_mAP"] == max(figures["val_mAP_raw"], figures["val_mAP_ema"])
