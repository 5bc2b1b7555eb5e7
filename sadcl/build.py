"""The only bridge from a configuration to the objects that it describes."""

from __future__ import annotations

import torch

from sadcl import storage
from sadcl.config import Augmentation, Config
from sadcl.data.base import ImageSet
from sadcl.data.loader import Loader
from sadcl.errors import UserError
from sadcl.losses.criterion import Criterion
from sadcl.memory import MemoryBank
from sadcl.model import SADCL, Backbone, Pooled
from sadcl.model.backbone import create
from sadcl.model.prototypes import Prototypes

EVALUATION_BATCH = 32
"""Images that a worker evaluates at once; a smaller or larger batch would change scores in their last digits."""


def model(config: Config, labels: int, *, pretrained: bool = True) -> SADCL | Pooled:
    """The network, initialised from ``config.seed``; the same on every worker.

    Args:
        pretrained: False skips loading backbone weights, for a checkpoint that brings its own.

    Raises:
        UserError: for a backbone that cannot be had, or sizes that do not fit each other.
    """
    network = _network(config, labels, pretrained)
    return network.double() if config.optim.precision == "fp64" else network


def _network(config: Config, labels: int, pretrained: bool) -> SADCL | Pooled:
    spec = config.model
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        backbone = Backbone(
            spec.backbone,
            image_size=config.data.image_size,
            feature=spec.feature,
            pretrained=pretrained and spec.pretrained,
            weights=str(storage.local(spec.weights))
            if pretrained and spec.weights is not None
            else None,
            frozen=spec.frozen,
            freeze_batchnorm=spec.freeze_batchnorm,
            checkpointing=spec.checkpointing,
        )
        if spec.arch == "pooled":
            return Pooled(backbone, labels=labels)
        hidden = spec.hidden or backbone.channels
        try:
            return SADCL(
                backbone,
                labels=labels,
                hidden=hidden,
                projection=spec.projection,
                prototypes=Prototypes(
                    labels,
                    hidden,
                    policy=config.prototypes.policy,
                    momentum=config.prototypes.momentum,
                ),
                encoder_layers=spec.encoder_layers,
                decoder_layers=spec.decoder_layers,
                heads=spec.heads,
                feedforward=spec.feedforward,
                dropout=spec.dropout,
                checkpointing=spec.checkpointing,
            )
        except ValueError as error:
            raise UserError(f"model.hidden, model.heads: {error}.") from None


def check_model(config: Config) -> None:
    """Find out before anything is reserved whether the network can be built and its backbone's weights can be had."""
    spec = config.model
    if spec.pretrained and spec.weights is None and spec.start is None:
        create(
            spec.backbone, image_size=config.data.image_size, feature=spec.feature, pretrained=True
        )
    network = model(config, 2, pretrained=spec.weights is not None).eval()
    check_size(network, spec.backbone, config.data.image_size)


def check_size(network: SADCL | Pooled, backbone: str, side: int) -> None:
    """Find out by one black image whether a network takes images of this side in pixels.

    Raises:
        UserError: where its backbone is of one fixed size, or the images are too small.
    """
    weight = next(network.parameters())
    try:
        with torch.no_grad():
            network(torch.zeros(1, 3, side, side, device=weight.device))
    except (AssertionError, LookupError, RuntimeError, ValueError) as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise UserError(
            f"model.backbone = {backbone!r} cannot take images of data.image_size = {side} pixels: {reason}"
        ) from None


def bank(config: Config, labels: int, dim: int, world: int) -> MemoryBank:
    """The memory bank; with ``scope="worker"`` a worker's bank has the rows of its own share of the batch.

    Where the contrast that reads it has no weight, it keeps nothing.
    """
    policy, size = config.bank.policy if config.loss.sample_weight > 0 else "none", config.bank.size
    if policy == "slot":
        share = (
            config.optim.batch_size
            if config.bank.scope == "cluster"
            else -(-config.optim.batch_size // world)
        )
        size = share
    kept = MemoryBank(labels, dim, policy=policy, size=size)
    return kept.double() if config.optim.precision == "fp64" else kept


def criterion(config: Config, *, contrast: bool) -> Criterion:
    """Eq. 9; without ``contrast`` the class loss alone (stage 1, the baseline, the control)."""
    loss = config.loss
    return Criterion(
        class_loss=loss.class_loss,
        gamma_negative=loss.gamma_negative,
        gamma_positive=loss.gamma_positive,
        clip=loss.clip,
        class_weight=loss.class_weight,
        class_reduction=loss.class_reduction,
        sample_weight=loss.sample_weight if contrast else 0.0,
        prototype_weight=loss.prototype_weight if contrast else 0.0,
        tau=loss.tau,
        prototype_tau=loss.tau_of_prototypes,
        contrast_reduction=loss.contrast_reduction,
        normalize=loss.normalize,
        anchors=loss.anchors,
        anchor_mask=loss.anchor_mask,
        bank_scope=config.bank.scope,
    )


def loader(
    config: Config,
    images: ImageSet,
    *,
    augmentation: Augmentation | None = None,
    training: bool = False,
    rank: int = 0,
    world: int = 1,
    workers: int = 0,
    device: torch.device | None = None,
) -> Loader:
    """Batches of the global batch size, shuffled, this worker's share of each; or whole ones in order, to evaluate."""
    return Loader(
        images,
        image_size=config.data.image_size,
        augmentation=augmentation,
        seed=config.seed,
        batch_size=config.optim.batch_size if training else EVALUATION_BATCH,
        rank=rank,
        world_size=world,
        workers=workers,
        shuffle=training,
        whole=not training,
        device=device,
    )
