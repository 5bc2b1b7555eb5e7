"""Put the objects of one stage together."""

from __future__ import annotations

import resource
import sys
from typing import cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from sadcl import build, distributed
from sadcl.config import Config
from sadcl.errors import UserError
from sadcl.memory import MemoryBank
from sadcl.model import Network
from sadcl.training import checkpoint, ddp
from sadcl.training.compiled_share import compiled_share
from sadcl.training.engine import Training
from sadcl.training.optim import create_average, create_optimizer, create_schedule


def pick_device(name: str | None, *, training: bool = True) -> torch.device:
    """Return the named device, or a GPU where there is one and the CPU otherwise.

    Args:
        name: ``cpu``, ``cuda``, ``cuda:1`` or ``mps`` (the GPU of a Mac); None or ``auto`` picks.
        training: whether the device is to train, which sums in float64; ``mps`` cannot.

    Raises:
        UserError: for a name that is not a device, or a GPU that does not exist or cannot be used.
    """
    has_mps = torch.backends.mps.is_available()
    if name is None or name == "auto":
        other = "mps" if has_mps and not training else "cpu"
        name = "cuda" if torch.cuda.is_available() else other
    try:
        device = torch.device(name)
    except RuntimeError:
        raise UserError(
            f"device = {name!r} is not a device; use cpu, cuda, cuda:1 or mps."
        ) from None
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise UserError(
            f"device = {name!r} is not available: {torch.cuda.device_count()} GPUs are visible to "
            "this process. Leave the device out to train on the CPU, or check the driver and "
            "CUDA_VISIBLE_DEVICES."
        )
    if device.type == "mps" and training:
        raise UserError(
            "device = 'mps' is not possible for training, which sums in float64: Apple's GPUs have "
            "no float64. Leave the device out to train on the CPU; predicting works on mps."
        )
    if device.type == "mps" and not has_mps:
        raise UserError(
            "device = 'mps' is not available: this machine or this build of PyTorch has no Apple "
            "GPU. Leave the device out to compute on the CPU."
        )
    return device


def with_normalisation(config: Config) -> Config:
    """Fill in how images are normalised where that is left to the weights.

    A checkpoint that a run saves then says it, whatever a later timm has for the backbone.

    Raises:
        UserError: for a backbone that does not exist, or where ``model.start`` is no checkpoint.
    """
    source, data = config, config.data
    if config.model.start is not None and (data.mean is None or data.std is None):
        source = Config.stored(checkpoint.load_cached(config.model.start)["config"])
    mean, std = build.normalisation(source)
    filled = data.model_copy(update={"mean": data.mean or mean, "std": data.std or std})
    # No override, which would take over the sources that the modules have by now.
    return config.model_copy(update={"data": filled})


def peak_memory_mb(device: torch.device) -> float:
    """Peak memory in MiB: of the GPU, or of this process where the device is the CPU.

    The system counts in KiB on Linux and in bytes on a Mac.
    """
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**20
    unit = 1 if sys.platform == "darwin" else 2**10
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**20


def co_occurrence(targets_NL: NDArray[np.int8]) -> torch.Tensor:
    """Count the images that have both of two labels, (L, L) float64; an ignored target is none."""
    positive_NL = (targets_NL == 1).astype(np.float64)
    return torch.from_numpy(positive_NL.T @ positive_NL)


def prepare(
    number: int,
    config: Config,
    labels: tuple[str, ...],
    device: torch.device,
    steps: int,
    *,
    start: str | None = None,
    resume: bool = False,
    co_occurrence_LL: torch.Tensor | None = None,
) -> Training:
    """Build the objects of one stage as they are at its beginning.

    Args:
        number: 1 or 2.
        config: the configuration.
        labels: names of the labels.
        device: where to train.
        steps: steps of an epoch.
        start: URI of the checkpoint that the stage starts from; None starts from initial weights.
        resume: skip loading what a saved state will replace.
        co_occurrence_LL: of the training images, from :func:`co_occurrence`.

    Raises:
        UserError: for a network that cannot be built, or a checkpoint that does not fit.
    """
    build.set_float32_products(config, device)
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    network = build.model(
        config,
        len(labels),
        pretrained=start is None and not resume,
        labels=labels,
        co_occurrence_LL=co_occurrence_LL,
    )
    if start is not None and not resume:
        content = checkpoint.load_cached(start)
        checkpoint.load_network(network, content, start, labels, whole=number == 2)
    contrast = number == 2 and config.loss.contrasts
    bank = _choose_trainable(network, config, len(labels), contrast)
    if bank is not None:
        bank.to(device)
    network.to(device)
    if device.type == "cuda":
        network.to(memory_format=torch.channels_last)
    model, share = ddp.wrap(network, device, config.optim.gradient_compression), None
    if config.optim.compile:
        share = compiled_share(network, config.optim.batch_size)
        model = cast(nn.Module, torch.compile(model))
    stage = config.stage1 if number == 1 else config.stage2
    optimizer = create_optimizer(
        network, stage, config.optim, decay_prototypes=config.prototypes.decay
    )
    return Training(
        config=config,
        stage=number,
        network=network,
        model=model,
        criterion=build.criterion(config, number, contrast=contrast),
        optimizer=optimizer,
        schedule=create_schedule(optimizer, stage, config.optim, steps),
        ema=create_average(network, config.optim),
        bank=bank,
        device=device,
        share=share,
        steps_per_epoch=steps,
    )


def _choose_trainable(
    network: Network, config: Config, num_labels: int, contrast: bool
) -> MemoryBank | None:
    """Freeze what no loss of the stage trains, and build the bank where a contrast takes part."""
    if network.projection is None or network.prototypes is None:
        return None
    network.projection.requires_grad_(contrast)
    network.prototypes.requires_grad_(contrast and config.loss.prototype_weight > 0)
    if not contrast:
        return None
    assert network.feature_size is not None
    return build.bank(config, num_labels, network.feature_size, distributed.world_size())
