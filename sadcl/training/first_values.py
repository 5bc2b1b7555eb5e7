"""What a stage begins with: measured once, over the plain training images.

Axes: L labels, D size of a label-level feature, C channels of a feature map.
"""

from __future__ import annotations

from typing import cast

import torch

from sadcl import build, distributed
from sadcl.data.base import MultiLabelData
from sadcl.data.loader import Loader
from sadcl.model.standardization import Standardization
from sadcl.training.engine import Training, activated_rows_of, autocast
from sadcl.training.features import FeatureStore, split_of


def measure(
    training: Training, data: MultiLabelData, worker: build.Worker, store: FeatureStore | None
) -> None:
    """Measure what a stage needs before its first step. This is a collective call.

    Args:
        training: at the beginning of the stage.
        data: the data set.
        worker: this process.
        store: of the backbone's feature maps; None where it computes every step.
    """
    bank, config = training.bank, training.config
    fills_bank = bank is not None and bank.policy != "none" and config.bank.start == "prototypes"
    needs_prototypes = fills_bank or (bank is not None and config.loss.prototype_weight > 0)
    needs_scale = training.network.must_be_measured
    if needs_scale or needs_prototypes:
        maps = split_of(store, "train")
        loader = build.loader(config, data.train, worker, features=maps)
        if needs_scale:
            measure_channels(training, loader)
        if needs_prototypes:
            first_prototypes(training, loader)


@torch.no_grad()
def measure_channels(training: Training, loader: Loader) -> None:
    """Measure the standardisation of the feature maps. This is a collective call.

    The moving average takes it too.

    Args:
        training: at the beginning of a stage.
        loader: whole batches of the training split, without augmentation.
    """
    network = training.network
    network.eval()
    modules = [cast(Standardization, module) for module in network.standardizations]
    totals = [
        module.mean_C.new_zeros(3, len(module.mean_C), dtype=torch.float64) for module in modules
    ]
    for batch in loader.batches(0):
        with autocast(training):
            maps = network.maps(batch.inputs)
        for total_3C, map_BCHW in zip(totals, maps, strict=True):
            rows_CN = map_BCHW[batch.weight_B > 0].transpose(0, 1).flatten(1).double()
            total_3C += torch.stack(
                [torch.ones_like(rows_CN).sum(1), rows_CN.sum(1), rows_CN.square().sum(1)]
            )
    for module, total_3C in zip(modules, totals, strict=True):
        module.set_from(distributed.global_sum(total_3C))
    network.train()
    if training.ema is not None:
        training.ema.module.load_state_dict(network.state_dict())


@torch.no_grad()
def first_prototypes(training: Training, loader: Loader) -> None:
    """Compute Eq. 5 over the whole training set with the network of stage 1, without augmentation.

    The moving average takes them too, and with ``bank.start = "prototypes"`` the bank.

    Args:
        training: of stage 2, at its beginning.
        loader: whole batches of the training split.
    """
    network = training.network
    assert network.prototypes is not None
    network.eval()
    for batch in loader.batches(0):
        with autocast(training):
            output = network(batch.inputs)
        rows = activated_rows_of(output, batch, batch.first_position)
        network.prototypes.accumulate(rows, training.config.prototype_epsilon)
    for total in (network.prototypes.sum_LD, network.prototypes.count_L):
        total.copy_(distributed.global_sum(total))
    network.prototypes.start_from_accumulated()
    network.train()
    if training.ema is not None:
        training.ema.module.load_state_dict(network.state_dict())
    if training.config.bank.start == "prototypes":
        start_bank(training)


def start_bank(training: Training) -> None:
    """Fill each slot of the bank with its label's prototype."""
    assert training.network.prototypes is not None
    if training.bank is not None:
        training.bank.fill(*training.network.prototypes.read())
