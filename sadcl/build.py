"""The only bridge from a configuration to the objects that it describes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from sadcl import storage
from sadcl.config import EQ4, SARL, Augmentation, Config, component
from sadcl.data.base import ImageSet, MultiLabelData
from sadcl.data.feature_views import SplitFeatures
from sadcl.data.image_augmentation import OwnAugmentation
from sadcl.data.loader import Loader
from sadcl.data.sampler import Sampler, permute
from sadcl.data.transforms import Normalisation
from sadcl.errors import UserError
from sadcl.losses.classification import ClassLoss, class_loss
from sadcl.losses.contrast import Contrast
from sadcl.losses.criterion import Criterion
from sadcl.memory import MemoryBank
from sadcl.metrics import Metric
from sadcl.model import Backbone, Network, Task, backbone
from sadcl.model.check import check_size
from sadcl.model.prototypes import Prototypes

EVALUATION_BATCH = 32
"""Images of an evaluation batch; another number would change scores in their last digits."""
CPU = torch.device("cpu")
Precision = Literal["fp32", "bf16", "fp64"]


@dataclass(frozen=True)
class Worker:
    """One training process: its share of the work, its device, its loader processes."""

    rank: int = 0
    world_size: int = 1
    device: torch.device = CPU
    """Where it computes and wants its batches."""
    loader_workers: int = 0
    """Processes that decode images; 0 decodes in this one."""


def model(
    config: Config,
    num_labels: int,
    *,
    pretrained: bool = True,
    labels: Sequence[str] | None = None,
    co_occurrence_LL: Tensor | None = None,
) -> Network:
    """Build the network, initialised from ``config.seed`` and the same on every worker.

    Args:
        config: the configuration.
        num_labels: L.
        pretrained: False skips loading the backbone's weights, for a checkpoint with its own.
        labels: their names, for a head that reads them; None numbers them.
        co_occurrence_LL: :attr:`sadcl.model.Task.co_occurrence_LL`; None where a checkpoint's
            state follows.

    Raises:
        UserError: for a backbone or a head that is not available, or sizes and arguments that do
            not fit.
    """
    names = tuple(labels) if labels is not None else tuple(map(str, range(num_labels)))
    counts_LL = co_occurrence_LL
    if counts_LL is None:
        counts_LL = torch.zeros(num_labels, num_labels, dtype=torch.float64)
    create_head, maps = _head(config)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        body = _backbone(config, pretrained, maps)
        head = create_head(
            Task(body.map_channels, names, counts_LL, is_restored=co_occurrence_LL is None)
        )
        network = Network(
            body,
            head,
            num_labels=num_labels,
            projection=config.model.projection,
            prototypes=lambda dim: Prototypes(
                num_labels,
                dim,
                policy=config.prototypes.policy,
                momentum=config.prototypes.momentum,
            ),
            create_head=create_head,
            head_path=config.model.head,
            head_arguments=config.model.arguments,
            standardize=config.model.standardize,
        )
    return network.double() if config.optim.precision == "fp64" else network


def _head(config: Config) -> tuple[Callable[[Task], nn.Module], tuple[int, ...] | None]:
    """Return what builds a head for a task, and the indices of the feature maps that it names.

    Raises:
        UserError: for a head that cannot be imported, or arguments that it does not take.
    """
    path = config.model.head
    head = component.load(path, "model.head", config.sources)
    if not (isinstance(head, type) and issubclass(head, nn.Module)):
        raise UserError(f"model.head = {path!r} is no class of a torch.nn.Module.")
    field = "model.hidden, model.heads" if path == SARL else "model.head_arguments"
    arguments = component.bind(head, config.model.arguments, path, field)

    def create(task: Task) -> nn.Module:
        try:
            created: nn.Module = head(task, **arguments)
        except ValueError as error:
            raise UserError(f"{field}: {path} refuses its arguments: {error}.") from None
        except TypeError as error:
            raise UserError(
                f"model.head = {path!r} cannot be built: {error}. Its constructor must take the "
                "task and then keyword arguments: def __init__(self, task, *, ...)."
            ) from None
        return created

    return create, getattr(head, "feature_maps", None)


def _backbone(config: Config, pretrained: bool, maps: tuple[int, ...] | None) -> Backbone:
    spec = config.model
    weights = str(storage.local(spec.weights)) if pretrained and spec.weights is not None else None
    return Backbone(
        backbone_name(config),
        image_size=config.data.image_size,
        feature=spec.feature if maps is None else maps,
        pretrained=pretrained and spec.pretrained,
        weights=weights,
        frozen=spec.frozen,
        freeze_batchnorm=spec.freeze_batchnorm,
        checkpointing=spec.checkpointing,
    )


def backbone_name(config: Config) -> str:
    """Return timm's name of the backbone, after importing the module that registers it.

    Raises:
        UserError: where the module cannot be imported.
    """
    name = config.model.backbone
    if component.is_path(name):
        component.load(name, "model.backbone", config.sources)
    return name.rpartition(":")[2]


def check_batches(config: Config, data: MultiLabelData) -> None:
    """Check that the training images fill a batch where an incomplete one is left out.

    Raises:
        UserError: where they do not.
    """
    if config.optim.drop_last and len(data.train) < config.optim.batch_size:
        raise UserError(
            f"optim.drop_last leaves out all {len(data.train)} training images of {data.name}, "
            f"because they do not fill a batch: optim.batch_size = {config.optim.batch_size}. Set "
            "optim.drop_last to false, or choose a smaller batch."
        )


def check_model(
    config: Config,
    labels: Sequence[str] | None = None,
    co_occurrence_LL: Tensor | None = None,
) -> None:
    """Check, before anything is reserved, that the network can be built and its weights are there.

    Args:
        config: the configuration.
        labels: of the data; None takes two of any name.
        co_occurrence_LL: as for :func:`model`.

    Raises:
        UserError: where they are not, where the network cannot take images of this size, where its
            head does not keep to :class:`sadcl.model.Head`, or where a contrast has nothing to
            compare.
    """
    spec, count = config.model, 2 if labels is None else len(labels)
    if spec.pretrained and spec.weights is None and spec.start is None:
        name, side = backbone_name(config), config.data.image_size
        backbone.create(name, image_size=side, feature=spec.feature, pretrained=True)
    network = model(
        config,
        count,
        pretrained=spec.weights is not None,
        labels=labels,
        co_occurrence_LL=co_occurrence_LL,
    ).eval()
    check_size(network, spec.backbone, config.data.image_size)
    has_contrasts = config.stage2.epochs and config.loss.contrasts
    if has_contrasts and network.needs_targets:
        raise UserError(
            f"model.head = {spec.head!r} reads the targets in training (needs_targets), so that "
            "its features hold the answer that both contrasts ask for. Train it in one stage with "
            "stage2.epochs = 0, or turn the reading off (known = 0 of CTran)."
        )
    if has_contrasts and network.feature_size is None:
        raise UserError(
            f"model.head = {spec.head!r} has no label-level features (feature_size), which both "
            "contrasts need. Train it in one stage with stage2.epochs = 0, or set "
            "loss.sample_weight and loss.prototype_weight to 0."
        )


def sampler(config: Config) -> Sampler:
    """Return what orders the training images of an epoch.

    Raises:
        UserError: for a function that cannot be imported, or arguments that it does not take.
    """
    path = config.data.sampler
    if path is None:
        return permute
    arguments, field = config.data.sampler_arguments, "data.sampler"
    return component.bound(path, arguments, field, f"{field}_arguments", config.sources)


def own_augmentation(config: Config, spec: Augmentation | None) -> OwnAugmentation | None:
    """Return the augmentation of the user's in one of the stages; None where there is none."""
    if spec is None or spec.own is None:
        return None
    stage = "stage1" if spec == config.stage1.augmentation else "stage2"
    field = f"{stage}.augmentation.own"
    return OwnAugmentation(spec.own, spec.own_arguments, field, config.sources)


def metrics(config: Config) -> dict[str, Metric]:
    """Return the metrics of the user's by their import paths.

    Raises:
        UserError: for a function that cannot be imported.
    """
    return {
        path: component.load(path, f"metrics[{i}]", config.sources)
        for i, path in enumerate(config.metrics)
    }


def normalisation(config: Config) -> Normalisation:
    """Return the mean and standard deviation that images are normalised with.

    Those of the configuration, and where it has none, timm's for the backbone's weights.

    Raises:
        UserError: for a backbone that does not exist.
    """
    mean, std = config.data.mean, config.data.std
    if mean is None or std is None:
        own = Normalisation(*backbone.normalisation(backbone_name(config)))
        mean, std = mean or own.mean, std or own.std
    return Normalisation(mean, std)


def precision(config: Config, device: torch.device) -> Precision:
    """Return the floating-point precision in which a device computes a configuration."""
    chosen = config.optim.precision
    if chosen != "auto":
        return chosen
    has_bf16 = device.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False)
    return "bf16" if has_bf16 else "fp32"


def autocast(config: Config, device: torch.device) -> torch.autocast:
    """Return the context of a forward pass: mixed precision where the configuration has it."""
    mixed = precision(config, device) == "bf16"
    return torch.autocast(device.type, dtype=torch.bfloat16, enabled=mixed)


def set_float32_products(config: Config, device: torch.device) -> None:
    """Let a GPU multiply float32 in TF32 beside bfloat16, and exactly beside no lower precision.

    TF32 keeps 10 bits of a factor and bfloat16 7, so that it is never the coarser one; sums are in
    float32. torch has one setting for all GPUs of a process, which this changes; its default rounds
    in convolutions only.
    """
    if device.type == "cuda":
        rounded = precision(config, device) == "bf16"
        torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = rounded


def bank(config: Config, num_labels: int, dim: int, world_size: int) -> MemoryBank:
    """Build the memory bank.

    With ``scope="worker"`` a worker's bank has the slots of its own share of the batch. Where the
    contrast that reads the bank has no weight, the bank keeps nothing.
    """
    policy, size = config.bank.policy if config.loss.sample_weight > 0 else "none", config.bank.size
    if policy == "slot":
        size = config.optim.batch_size
        if config.bank.scope == "worker":
            size = -(-size // world_size)
    memory_bank = MemoryBank(num_labels, dim, policy=policy, size=size)
    return memory_bank.double() if config.optim.precision == "fp64" else memory_bank


def criterion(config: Config, stage: int, *, contrast: bool) -> Criterion:
    """Build Eq. 9 of stage 1 or 2; without ``contrast`` the class loss alone (stage 1, control)."""
    loss = config.loss
    class_loss, options = _class_loss(config, stage)
    return Criterion(
        class_loss=options,
        class_loss_function=class_loss,
        sample_contrast=_sample_contrast(config),
        class_weight=loss.class_weight,
        class_reduction=loss.class_reduction,
        sample_weight=loss.sample_weight if contrast else 0.0,
        prototype_weight=loss.prototype_weight if contrast else 0.0,
        tau=loss.tau,
        prototype_tau=loss.tau_of_prototypes,
        sample_reduction=loss.sample_reduction,
        prototype_reduction=loss.prototype_reduction,
        absent_labels=loss.absent_labels,
        normalize=loss.normalize,
        anchors=loss.anchors_of_eq4,
        anchor_mask=loss.anchor_mask,
        bank_scope=config.bank.scope,
    )


def _class_loss(config: Config, stage: int) -> tuple[ClassLoss, dict[str, Any]]:
    """Return the class loss of a stage, and its options.

    Raises:
        UserError: for a function that cannot be imported, or arguments that it does not take.
    """
    spec = (config.stage1 if stage == 1 else config.stage2).class_loss
    if not component.is_path(spec.kind):
        return class_loss, spec.model_dump(exclude={"arguments"})
    field, arguments_field = (f"stage{stage}.class_loss.{part}" for part in ("kind", "arguments"))
    bound = component.bound(spec.kind, spec.arguments, field, arguments_field, config.sources)
    return bound, {}


def _sample_contrast(config: Config) -> Contrast | None:
    """Return the sample contrast with its own arguments; None for Eq. 4.

    Raises:
        UserError: for a function that cannot be imported, or arguments that it does not take.
    """
    path = config.loss.contrast
    if path == EQ4:
        return None
    arguments, field = config.loss.contrast_arguments, "loss.contrast"
    given = ["temperature"]
    return component.bound(path, arguments, field, f"{field}_arguments", config.sources, given)


def loader(
    config: Config,
    images: ImageSet,
    worker: Worker | None = None,
    *,
    augmentation: Augmentation | None = None,
    training: bool = False,
    features: SplitFeatures | None = None,
) -> Loader:
    """Build the batches of an image set.

    Args:
        config: the configuration.
        images: the split.
        worker: whose share to load; None is a single worker on the CPU.
        augmentation: what is done to a training image; None only resizes.
        training: True gives this worker's share of each shuffled global batch; False gives it
            whole batches of :data:`EVALUATION_BATCH` images, in order.
        features: stored feature maps of the images, in their place.
    """
    worker = worker or Worker()
    return Loader(
        images,
        image_size=config.data.image_size,
        normalisation=normalisation(config),
        augmentation=augmentation,
        own_augmentation=own_augmentation(config, augmentation),
        sampler=sampler(config) if training else permute,
        sampler_name=config.data.sampler or "permute",
        seed=config.seed,
        batch_size=config.optim.batch_size if training else EVALUATION_BATCH,
        drop_last=training and config.optim.drop_last,
        rank=worker.rank,
        world_size=worker.world_size,
        workers=worker.loader_workers,
        shuffle=training,
        whole=not training,
        device=worker.device,
        features=features,
    )
