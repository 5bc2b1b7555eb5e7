"""The configuration of a run: what to compute, as one frozen and typed value.

Where to compute it (machines, folders, workers) is never part of it. A recipe
(:mod:`sadcl.recipes`) builds a configuration, and a study changes it field by field:

    base.override({"loss.tau": 0.1, "seed": 1})

The digest of a run is a hash over field names and values: renaming a field or changing a default
changes it.
"""

from __future__ import annotations

import difflib
import functools
import hashlib
import json
from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from sadcl.errors import UserError

# The type of a field shows its range.
Fraction = Annotated[float, Field(ge=0, le=1)]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
NotNegative = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Count = Annotated[int, Field(ge=1)]
Temperature = Annotated[float, Field(ge=0.005, le=100)]


class _Frozen(BaseModel):
    """A part of the configuration: immutable, and checked when it is made."""

    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True, strict=False)

    def __init__(self, **fields: Any) -> None:
        try:
            super().__init__(**fields)
        except ValidationError as error:
            raise UserError("; ".join(_explain(item) for item in error.errors()) + ".") from None


class Data(_Frozen):
    """The data set, its labels, and the held-out part of it that selects."""

    name: Literal[
        "scenes", "coco", "coco14", "coco17", "voc2007", "voc2012", "nuswide", "vg500", "folder"
    ] = "coco"
    """The data set. ``coco`` is whichever of coco14 and coco17 the data root holds, coco14 if it
    holds both; ``folder`` is a folder of your own images with a table; ``scenes`` are drawn and
    need no data root."""
    image_size: Annotated[int, Field(ge=32, le=2048)] = 448
    """Side of the square input in pixels, in training and in testing."""
    holdout: Annotated[float, Field(ge=0, le=0.5)] = 0.1
    """Share of the training images that is held out and selects; with 0 nothing selects."""
    split_seed: int = 0
    """Seed that draws the held-out part, ``limit_train`` and ``limit_test``, whatever ``seed``
    is."""
    unlabelled: Literal["keep", "drop"] = "keep"
    """Keep or drop images without any label. An image with an ignored label is always kept."""
    missing: Literal["error", "drop"] = "error"
    """Stop at listed images that are not on disk, or drop them (many of NUS-WIDE's are gone)."""
    crowd: Literal["negative", "ignore", "positive"] = "positive"
    """COCO: the target of a label if all its annotations in the image are crowds."""
    difficult: Literal["negative", "ignore", "positive"] = "ignore"
    """PASCAL VOC: the target of a label if all its objects in the image are marked difficult."""
    voc2012_test: Literal["val", "server"] = "val"
    """``val`` trains on VOC 2012's train list and tests on its val list. ``server`` trains on
    trainval; the labels of the test images are not public, so all test targets are ignored."""
    nuswide_split: Literal["lists", "csv"] = "lists"
    """``lists`` reads the publisher's train and test lists; ``csv`` reads nus_wid_data.csv, another
    split that was published with the asymmetric loss (ASL)."""
    prepared: Annotated[int, Field(ge=32, le=2048)] | None = None
    """Side in pixels of the resized copies that the data root holds (``sadcl data prepare``); None
    reads photographs. A root of copies is only read with it, and photographs only without it."""
    limit_train: Count | None = None
    """Use only so many training images; None uses all. The demo scale on real images sets it."""
    limit_test: Count | None = None
    """Use only so many test images; None uses all."""
    scene_train: Count = 1000
    """Number of training images that are drawn for ``scenes``."""
    scene_test: Count = 500
    """Number of test images that are drawn for ``scenes``."""
    scene_seed: int = 0
    """Seed of the embedded scenes; another seed draws other images."""


class Augmentation(_Frozen):
    """How a training image is changed; the result depends on (seed, epoch, image index) alone."""

    resize: Count | None = None
    """Side in pixels of the square that is cropped; None is the input size."""
    multiscale: tuple[Annotated[float, Field(gt=0, le=1)], ...] = ()
    """Sides of the random crop as shares of that square; one is drawn for each image. The crop is
    resized to the input size. Empty crops nothing."""
    flip: bool = False
    """Mirror half of the images horizontally."""
    randaugment: Annotated[int, Field(ge=0, le=8)] = 0
    """Number of RandAugment operations for each image (torchvision's; Cubuk et al., 2020)."""
    randaugment_magnitude: Annotated[int, Field(ge=0, le=30)] = 9
    """Strength of the RandAugment operations."""
    cutout: Fraction = 0.0
    """Side of the square hole as a share of the input side; 0 is no hole (Cutout, 2017)."""


class Model(_Frozen):
    """The network of Fig. 2."""

    arch: Literal["sadcl", "pooled"] = "sadcl"
    """``pooled`` is the paper's baseline: global average pooling and one linear layer."""
    backbone: str = "resnet101.tv_in1k"
    """Name of any timm model that supports ``features_only``."""
    feature: Annotated[int, Field(ge=-5, le=-1)] = -1
    """Which of the backbone's feature maps is used, -5 to -1; -1 is the last and coarsest."""
    pretrained: bool = True
    """Start the backbone from timm's weights, which are downloaded at their first use."""
    weights: str | None = None
    """A local file of backbone weights (.safetensors or .pth) that replaces the download."""
    start: str | None = None
    """A ``best.pt`` of any data set to start from; labels are matched by name. With
    ``stage1.epochs = 0`` stage 2 starts from it."""
    frozen: tuple[str, ...] = ("conv1", "bn1", "layer1")
    """Top-level modules of the backbone that do not train."""
    freeze_batchnorm: bool = True
    """Keep statistics and parameters of the backbone's BatchNorm as they were loaded."""
    hidden: Count | None = None
    """d, the width of the transformer; None is the backbone's own number of channels."""
    encoder_layers: Annotated[int, Field(ge=0, le=12)] = 1
    """Number of transformer encoder layers, 0 to 12."""
    decoder_layers: Annotated[int, Field(ge=1, le=12)] = 2
    """Number of transformer decoder layers, 1 to 12."""
    heads: Count = 4
    """Number of attention heads; it must divide ``hidden``."""
    feedforward: Count = 8192
    """Width of the transformer's feed-forward layers."""
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.1
    """Dropout probability in the transformer."""
    projection: Count = 1024
    """p, the width of the embedding space of both contrasts."""
    checkpointing: bool = False
    """Recompute activations in the backward pass: less memory, more time. Not in the digest."""


class Loss(_Frozen):
    """Eq. 9 and its parts: the classification loss (Eq. 8) and two contrasts (Eq. 4 and 6)."""

    class_loss: Literal["bce", "asymmetric"] = "bce"
    """Binary cross-entropy (Eq. 8), or the asymmetric loss (ASL)."""
    gamma_negative: NotNegative = 4.0
    """Focusing exponent of negative labels in the asymmetric loss."""
    gamma_positive: NotNegative = 0.0
    """Focusing exponent of positive labels in the asymmetric loss."""
    clip: Fraction = 0.05
    """Margin by which the asymmetric loss lowers the probability of negative labels."""
    class_weight: NotNegative = 1.0
    """Weight of the classification loss in Eq. 9."""
    class_reduction: Literal["image", "sum"] = "image"
    """``image`` sums Eq. 8 over labels and averages it over images; ``sum`` sums over both."""
    sample_weight: NotNegative = 8.0
    """Weight of the sample-to-sample contrast (Eq. 4) in Eq. 9."""
    prototype_weight: NotNegative = 4.0
    """Weight of the prototype-to-sample contrast (Eq. 6) in Eq. 9."""
    tau: Temperature = 0.2
    """Temperature of Eq. 4, and of Eq. 6 too unless ``prototype_tau`` is set; 0.005 to 100."""
    prototype_tau: Temperature | None = None
    """Temperature of Eq. 6, 0.005 to 100; None is ``tau``."""
    contrast_reduction: Literal["mean", "sum"] = "mean"
    """Whether Eq. 4 is divided by its counted anchors, and Eq. 6 by its counted labels."""
    normalize: bool = True
    """Scale embeddings and prototypes to length 1 before they are compared."""
    anchors: Literal["batch+bank", "batch"] = "batch+bank"
    """Rows that are anchors of Eq. 4: of the batch and the memory bank, or of the batch alone."""
    anchor_mask: Literal["activated", "targets", "released"] = "activated"
    """Which activated rows are anchors of Eq. 4. ``activated`` takes all of them. ``targets`` takes
    those that the released code's mask means: rows of the batch, and rows of the bank if the image
    that is now at their slot has their label. ``released`` reads that mask in another order than
    the rows have, as the released code does: a fault, kept to measure its cost. With these two
    about a fifth of the anchors add to the loss, and its mean is still over all of them."""

    @property
    def tau_of_prototypes(self) -> float:
        """Temperature of Eq. 6."""
        return self.tau if self.prototype_tau is None else self.prototype_tau

    @property
    def contrasts(self) -> bool:
        """True if a contrast has a weight, so that the projection head trains."""
        return self.sample_weight > 0 or self.prototype_weight > 0


class Bank(_Frozen):
    """The memory bank of section 3.4."""

    policy: Literal["slot", "fifo", "none"] = "slot"
    """``slot`` keeps a row for each label and position of the global batch, ``fifo`` the last
    ``size`` rows of each label, ``none`` nothing."""
    size: Count = 16
    """Rows that ``fifo`` keeps for each label."""
    scope: Literal["cluster", "worker"] = "cluster"
    """One bank that all workers share, or one for each worker."""
    epsilon: Fraction = 0.8
    """Admission threshold: a row is admitted if y = 1 and its score is at least this."""


class PrototypeConfig(_Frozen):
    """The category prototypes of section 3.5."""

    policy: Literal["mean", "ema", "learned"] = "learned"
    """A prototype is the mean of its label's admitted rows (Eq. 5), their exponential moving
    average, or a parameter that starts as their mean and is learned."""
    momentum: Annotated[float, Field(ge=0, lt=1)] = 0.99
    """Share of the old prototype that ``ema`` keeps at each update."""
    epsilon: Fraction | None = None
    """Admission threshold of Eq. 5; None is the bank's."""


class Stage(_Frozen):
    """One of the two stages: SARL alone, then SARL with both contrasts."""

    epochs: Annotated[int, Field(ge=0)] = 20
    """Number of epochs."""
    planned_epochs: Count | None = None
    """Length of the OneCycle schedule in epochs, at least ``epochs``; None is ``epochs``. Stopping
    a longer schedule early follows another learning-rate curve than a shorter schedule."""
    patience: Count | None = None
    """Stop after this many epochs without a better held-out mAP; None never stops early."""
    lr: Positive = 5e-5
    """Maximum learning rate of OneCycle."""
    augmentation: Augmentation = Augmentation()
    """How training images are changed in this stage."""

    @model_validator(mode="after")
    def _planned(self) -> Stage:
        if self.planned_epochs is not None and self.planned_epochs < self.epochs:
            raise ValueError(
                f"planned_epochs >= epochs must hold, but got {self.planned_epochs} < {self.epochs}"
            )
        return self


class Optim(_Frozen):
    """AdamW, OneCycle, the moving average of weights (EMA), and precision."""

    batch_size: Count = 64
    """Global batch size; it does not depend on the number of workers."""
    weight_decay: NotNegative = 5e-3
    """Weight decay of AdamW."""
    pct_start: Annotated[float, Field(gt=0, lt=1)] = 0.2
    """Share of OneCycle in which the learning rate rises, above 0 and below 1."""
    clip_norm: Positive | None = None
    """Largest norm of the gradient; None does not clip."""
    ema_decay: Annotated[float, Field(ge=0, lt=1)] = 0.9998
    """Decay of the EMA of the weights; 0 keeps no EMA."""
    ema_warmup: bool = False
    """Limit the decay to (1 + step) / (10 + step), so that the EMA is faster at the start."""
    report: Literal["best", "ema", "raw"] = "best"
    """Weights that the metrics come from; ``best`` is the better one on the held-out images."""
    precision: Literal["fp32", "bf16", "fp64"] = "fp32"
    """Floating-point precision. With ``fp64`` a difference between runs is no rounding."""
    compile: bool = False
    """Train through ``torch.compile``, which is faster on a GPU after minutes of compilation. With
    dropout 0 the result is equal up to rounding; other dropout is drawn in another order. It is not
    part of the digest."""

    @model_validator(mode="after")
    def _averaged(self) -> Optim:
        if self.report == "ema" and not self.ema_decay:
            raise ValueError("report = 'ema' needs ema_decay > 0")
        return self


_NOT_IN_DIGEST: dict[str, Any] = {"model": {"checkpointing"}, "optim": {"compile"}}
"""Fields that change how the numbers are computed but not which: a run may be resumed with other
values of them."""


class Config(_Frozen):
    """Everything that decides the numbers of a run, and the few fields of ``_NOT_IN_DIGEST``."""

    seed: Annotated[int, Field(ge=0, lt=2**31)] = 0
    """Seed of weights, order, augmentation and dropout, 0 to 2^31 - 1."""
    data: Data = Data()
    model: Model = Model()
    loss: Loss = Loss()
    bank: Bank = Bank()
    prototypes: PrototypeConfig = PrototypeConfig()
    stage1: Stage = Stage()
    stage2: Stage = Stage()
    optim: Optim = Optim()

    @model_validator(mode="after")
    def _stages(self) -> Config:
        resized = [stage.augmentation.resize or 0 for stage in (self.stage1, self.stage2)]
        needed = max([self.data.image_size, *resized])
        if self.data.prepared is not None and self.data.prepared < needed:
            raise ValueError(
                "data.prepared >= data.image_size and augmentation.resize must hold, but got "
                f"{self.data.prepared} < {needed}: prepare larger copies"
            )
        if not self.stage1.epochs and (self.model.start is None or not self.stage2.epochs):
            raise ValueError(
                "stage1.epochs >= 1 must hold, because stage 2 starts from what stage 1 has "
                "learned; or set model.start to a checkpoint that stage 2 starts from"
            )
        return self

    @model_validator(mode="after")
    def _masked(self) -> Config:
        values = (self.bank.policy, self.bank.scope, self.loss.anchors)
        if self.loss.anchor_mask != "activated" and values != ("slot", "cluster", "batch+bank"):
            raise ValueError(
                f"loss.anchor_mask = {self.loss.anchor_mask!r} needs bank.policy = 'slot', "
                "bank.scope = 'cluster' and loss.anchors = 'batch+bank', but got "
                f"{values[0]!r}, {values[1]!r} and {values[2]!r}"
            )
        return self

    @property
    def prototype_epsilon(self) -> float:
        """Admission threshold of Eq. 5."""
        return self.bank.epsilon if self.prototypes.epsilon is None else self.prototypes.epsilon

    def override(self, changes: Mapping[str, Any]) -> Config:
        """Return a new configuration with some fields replaced.

        Args:
            changes: new values by dotted field name, such as ``loss.tau``.

        Raises:
            UserError: for an unknown field (with the nearest name) or a value out of range (with
                field, value and range).
        """
        tree = self.model_dump()
        fields = self.flat()
        for name, value in changes.items():
            if name not in fields:
                near = difflib.get_close_matches(name, fields, n=1, cutoff=0.5)
                hint = f"Did you mean {near[0]!r}?" if near else f"Fields: {', '.join(fields)}."
                raise UserError(f"There is no configuration field {name!r}. {hint}")
            *path, leaf = name.split(".")
            node = functools.reduce(dict.__getitem__, path, tree)
            node[leaf] = value
        return Config.parse(tree)

    @classmethod
    def parse(cls, tree: Mapping[str, Any]) -> Config:
        """Build a configuration from nested plain values; raises as :meth:`override` does."""
        return cls(**tree)

    def flat(self) -> dict[str, Any]:
        """Return the plain value of each field by its dotted name."""
        return _flatten(self.model_dump(mode="json"))

    def json_text(self) -> str:
        """Return the fields of the digest as JSON with sorted keys."""
        return json.dumps(self.model_dump(mode="json", exclude=_NOT_IN_DIGEST), sort_keys=True)

    def digest(self) -> str:
        """Return twelve hexadecimal digits that are the same for equal configurations."""
        return _digest(self.model_dump(mode="json", exclude=_NOT_IN_DIGEST))

    def stage1_digest(self) -> str:
        """Return a digest of what stage 1 depends on; settings with the same one can share it."""
        tree = self.model_dump(mode="json", exclude=_NOT_IN_DIGEST)
        names = ("class_loss", "gamma_negative", "gamma_positive", "clip", "class_weight")
        loss = {name: tree["loss"][name] for name in (*names, "class_reduction")}
        keep = {k: tree[k] for k in ("seed", "data", "model", "stage1", "optim")}
        del keep["model"]["projection"]  # the projection head only trains in stage 2
        return _digest({**keep, "loss": loss})


def _digest(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:12]


def _flatten(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in tree.items():
        if isinstance(value, dict):
            flat.update(_flatten(value, f"{prefix}{name}."))
        else:
            flat[prefix + name] = value
    return flat


def _explain(item: Any) -> str:
    """Turn one of pydantic's errors into a phrase with the field, its value and what is
    possible."""
    name = ".".join(map(str, item["loc"])) or "configuration"
    inner = item.get("ctx", {}).get("error")
    if isinstance(inner, UserError):  # of a nested part, whose message is complete
        return f"{name}.{inner}".removesuffix(".")
    message = item["msg"][0].lower() + item["msg"][1:]
    if item["type"] == "extra_forbidden":
        return f"there is no configuration field {name!r}"
    if isinstance(item["input"], dict):  # a rule over several fields names them and their values
        return f"{name} is not possible: {message.removeprefix('value error, ')}"
    return f"{name} = {item['input']!r} is not possible: {message}"
