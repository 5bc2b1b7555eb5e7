"""Scores of a split: each image once, on all workers.

Axes: N images of the split, B images of a batch, L labels, H, W height and width of a map.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import nullcontext

import numpy as np
import torch
from torch import Tensor

from sadcl import build, distributed
from sadcl.config import Config
from sadcl.data.loader import Loader
from sadcl.model import Network, with_maps
from sadcl.training.engine import to_float32


def evaluate(
    network: Network,
    loader: Loader,
    device: torch.device,
    on_maps: Callable[[Tensor, Tensor], None] | None = None,
    *,
    config: Config | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Compute the scores of a split, each image once, in the set's order.

    In a process group every worker computes its own batches and returns the whole.

    Args:
        network: it is evaluated in inference mode and then put back.
        loader: whole batches of the split.
        device: of the network.
        on_maps: called with the indices (B,) and the maps (B, L, H, W) of each batch of this
            worker; the scores are the same with it.
        config: whose precision to compute in; None is that of the network's weights.

    Returns:
        Scores (N, L) in float64, 0 to 1, and targets (N, L).
    """
    (scores_NL,) = evaluate_each([network], loader, device, on_maps, config=config)
    return scores_NL, loader.images.targets


@torch.no_grad()
def evaluate_each(
    networks: Sequence[Network],
    loader: Loader,
    device: torch.device,
    on_maps: Callable[[Tensor, Tensor], None] | None = None,
    *,
    config: Config | None = None,
) -> list[np.ndarray]:
    """Do as :func:`evaluate` for several networks, and decode each image only once.

    Returns:
        Scores (N, L) of each network. ``on_maps`` is called with the maps of all.
    """
    were_training = [network.training for network in networks]
    for network in networks:
        network.eval()
    num_labels = len(loader.images.labels)
    # An empty part each: a worker may have no batch at all.
    empty = [next(network.parameters()).new_zeros(0, num_labels) for network in networks]
    logits = [[to_float32(part)] for part in empty]
    index = [torch.zeros(0, dtype=torch.int64, device=device)]
    for batch in loader.batches(0):
        for network, parts in zip(networks, logits, strict=True):
            with build.autocast(config, device) if config is not None else nullcontext():
                if on_maps is None:
                    output = network(batch.inputs)
                else:
                    output, maps_BLHW = with_maps(network, batch.inputs)
                    on_maps(batch.index_B, maps_BLHW)
            parts.append(to_float32(output.logits_BL))
        index.append(batch.index_B)
    for network, was_training in zip(networks, were_training, strict=True):
        network.train(was_training)
    order_N = distributed.all_gather_rows(torch.cat(index)).argsort()
    return [_scores(distributed.all_gather_rows(torch.cat(parts))[order_N]) for parts in logits]


def _scores(logits_NL: Tensor) -> np.ndarray:
    return 1 / (1 + np.exp(-logits_NL.cpu().numpy().astype(np.float64)))
