"""What to compute, as one frozen and typed value; where to compute it is never in here.

A configuration is built by a recipe (:mod:`sadcl.recipes`) and changed field by field:

    base.override({"loss.tau": 0.1, "seed": 1})
"""

from __future__ import annotations

import difflib
import hashlib
import json
from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from sadcl.errors import UserError

Fraction = Annotated[float, Field(ge=0, le=1)]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
NotNegative = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Count = Annotated[int, Field(ge=1)]
Temperature = Annotated[float, Field(ge=0.005, le=100)]


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True, strict=False)

    def __init__(self, **fields: Any) -> None:
        try:
            super().__init__(**fields)
        except ValidationError as error:
            raise UserError("; ".join(_explain(item) for item in error.errors()) + ".") from None


class Data(_Frozen):
    """Which images, which labels, and which of them select."""

    name: Literal[
        "scenes", "coco", "coco14", "coco17", "voc2007", "voc2012", "nuswide", "vg500", "folder"
    ] = "coco"
    """``coco`` is whichever of coco14 and coco17 the data root holds (2014 first); ``folder`` is your own."""
    image_size: Annotated[int, Field(ge=32, le=2048)] = 448
    """Side of the square input in pixels, in training and in testing."""
    holdout: Annotated[float, Field(ge=0, le=0.5)] = 0.1
    """Share of the training images that selects; 0 trains on all of them and selects nothing."""
    split_seed: int = 0
    unlabelled: Literal["keep", "drop"] = "keep"
    """What becomes of images without any label; one with an ignored label stays."""
    missing: Literal["error", "drop"] = "error"
    """What becomes of listed images that are not on disk (many of NUS-WIDE can no longer be had)."""
    crowd: Literal["negative", "ignore", "positive"] = "positive"
    """COCO: what a label is where all its annotations in the image are of crowds."""
    difficult: Literal["negative", "ignore", "positive"] = "ignore"
    """PASCAL VOC: what a label is where all its objects in the image are marked difficult."""
    voc2012_test: Literal["val", "server"] = "val"
    """``val`` trains on VOC 2012's train and tests on its val; ``server`` trains on trainval, and the labels of its test
    images, which are not public, are all ignored."""
    nuswide_split: Literal["lists", "csv"] = "lists"
    """The publisher's train and test lists, or nus_wid_data.csv, which others have split."""
    prepared: Annotated[int, Field(ge=32, le=2048)] | None = None
    """Side in pixels of the resized copies in the data root (``sadcl data prepare``) that are trained, selected and tested
    on in place of the photographs; a root with such copies is read with this only, and this from such a root only."""
    limit_train: Count | None = None
    """Use only this many training images (the demo scale on real images); drawn by ``split_seed``."""
    limit_test: Count | None = None
    scene_train: Count = 1000
    scene_test: Count = 500
    scene_seed: int = 0


class Augmentation(_Frozen):
    """How a training image is changed; a function of (seed, epoch, image index) alone."""

    resize: Count | None = None
    """Resize to this square first (pixels); None is the input size."""
    multiscale: tuple[Annotated[float, Field(gt=0, le=1)], ...] = ()
    """Sides of the random crop as shares of the resized side; one is drawn for each image, resized to the input."""
    flip: bool = False
    randaugment: Annotated[int, Field(ge=0, le=8)] = 0
    """Operations of RandAugment (torchvision) for each image; 0 is none."""
    randaugment_magnitude: Annotated[int, Field(ge=0, le=30)] = 9
    cutout: Fraction = 0.0
    """Side of the one square hole as a share of the input side; 0 is none."""


class Model(_Frozen):
    """The network of Fig. 2."""

    arch: Literal["sadcl", "pooled"] = "sadcl"
    """``pooled`` is the paper's baseline: global average pooling and one linear layer."""
    backbone: str = "resnet101.tv_in1k"
    """Any timm model that offers ``features_only``."""
    feature: Annotated[int, Field(ge=-5, le=-1)] = -1
    """Which of the backbone's feature maps; -1 is its last and coarsest."""
    pretrained: bool = True
    weights: str | None = None
    """A local file of backbone weights (.safetensors or .pth) to use in place of a download."""
    start: str | None = None
    """A ``best.pt`` to start from, of whatever data set: what belongs to a label goes to the label of that name. With
    ``stage1.epochs = 0`` stage 2 starts from it."""
    frozen: tuple[str, ...] = ("conv1", "bn1", "layer1")
    """Top-level modules of the backbone that do not train."""
    freeze_batchnorm: bool = True
    hidden: Count | None = None
    """d; None is the backbone's own number of channels."""
    encoder_layers: Annotated[int, Field(ge=0, le=12)] = 1
    decoder_layers: Annotated[int, Field(ge=1, le=12)] = 2
    heads: Count = 4
    feedforward: Count = 8192
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.1
    projection: Count = 1024
    """p, the width of the embedding space of both contrasts."""
    checkpointing: bool = False
    """Compute the activations of backbone stages and transformer layers again in the backward pass and do not keep them:
    less memory and more time, and the same gradient. Not part of the digest."""


class Loss(_Frozen):
    """Eq. 9 and its parts."""

    class_loss: Literal["bce", "asymmetric"] = "bce"
    gamma_negative: NotNegative = 4.0
    gamma_positive: NotNegative = 0.0
    clip: Fraction = 0.05
    class_weight: NotNegative = 1.0
    class_reduction: Literal["image", "sum"] = "image"
    """Eq. 8 summed over labels and averaged over images, or summed over both."""
    sample_weight: NotNegative = 8.0
    prototype_weight: NotNegative = 4.0
    tau: Temperature = 0.2
    """Temperature of Eq. 4, and of Eq. 6 too unless ``prototype_tau`` is set."""
    prototype_tau: Temperature | None = None
    contrast_reduction: Literal["mean", "sum"] = "mean"
    """Over counted anchors (Eq. 4) and counted labels (Eq. 6)."""
    normalize: bool = True
    anchors: Literal["batch+bank", "batch"] = "batch+bank"
    anchor_mask: Literal["activated", "targets", "released"] = "activated"
    """Which activated rows are anchors of Eq. 4: all, or those that the mask of the released code shows. ``targets`` is that
    mask: rows of the batch, and of the bank where the image that is now at their slot has their label. ``released`` reads it
    in another order than the rows have, as that code does: a fault, kept to see what it costs beside ``targets``. A fifth or
    so of the anchors then add to the loss, and its mean is still over all of them."""

    @property
    def tau_of_prototypes(self) -> float:
        return self.tau if self.prototype_tau is None else self.prototype_tau

    @property
    def contrasts(self) -> bool:
        """True where a contrast takes part, so that the projection head trains."""
        return self.sample_weight > 0 or self.prototype_weight > 0


class Bank(_Frozen):
    """The memory bank of section 3.4."""

    policy: Literal["slot", "fifo", "none"] = "slot"
    size: Count = 16
    """Rows kept for each label by ``fifo``; ``slot`` has one for each position of the global batch."""
    scope: Literal["cluster", "worker"] = "cluster"
    epsilon: Fraction = 0.8
    """A row is admitted where y = 1 and its score is at least this."""


class PrototypeConfig(_Frozen):
    """The category prototypes of section 3.5."""

    policy: Literal["mean", "ema", "learned"] = "learned"
    momentum: Annotated[float, Field(ge=0, lt=1)] = 0.99
    epsilon: Fraction | None = None
    """Admission threshold of Eq. 5; None is the bank's."""


class Stage(_Frozen):
    """One of the two stages: SARL alone, then SARL with both contrasts."""

    epochs: Annotated[int, Field(ge=0)] = 20
    planned_epochs: Count | None = None
    """Length that OneCycle is planned for; None is ``epochs``. Stopping sooner is another curve than a shorter plan."""
    patience: Count | None = None
    """Stop after this many epochs without a better held-out mAP."""
    lr: Positive = 5e-5
    """Maximum of OneCycle."""
    augmentation: Augmentation = Augmentation()

    @model_validator(mode="after")
    def _planned(self) -> Stage:
        if self.planned_epochs is not None and self.planned_epochs < self.epochs:
            raise ValueError(
                f"planned_epochs >= epochs must hold, but got {self.planned_epochs} < {self.epochs}"
            )
        return self


class Optim(_Frozen):
    """AdamW, OneCycle, EMA, precision."""

    batch_size: Count = 64
    """Global: the number of workers does not change an experiment."""
    weight_decay: NotNegative = 5e-3
    pct_start: Annotated[float, Field(gt=0, lt=1)] = 0.2
    clip_norm: Positive | None = None
    ema_decay: Annotated[float, Field(ge=0, lt=1)] = 0.9998
    ema_warmup: bool = False
    """Start with min(decay, (1 + step) / (10 + step))."""
    report: Literal["best", "ema", "raw"] = "best"
    """Which weights the figures come from; ``best`` takes the better of the two on the held-out images."""
    precision: Literal["fp32", "bf16", "fp64"] = "fp32"
    """``fp64`` is for comparing runs: what differs then is not rounding."""
    compile: bool = False
    """Train through ``torch.compile``: faster on a GPU after minutes of compiling. Equal up to rounding with dropout 0;
    other dropout is drawn in another order. Not part of the digest."""

    @model_validator(mode="after")
    def _averaged(self) -> Optim:
        if self.report == "ema" and not self.ema_decay:
            raise ValueError("report = 'ema' needs ema_decay > 0")
        return self


_HOW: dict[str, Any] = {"model": {"checkpointing"}, "optim": {"compile"}}
"""Fields that say how the numbers come about and decide none: a run may go on with others."""


class Config(_Frozen):
    """Everything that decides the numbers of a run, and a little of how they come about."""

    seed: Annotated[int, Field(ge=0, lt=2**31)] = 0
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
        needed = max(
            [
                self.data.image_size,
                *(stage.augmentation.resize or 0 for stage in (self.stage1, self.stage2)),
            ]
        )
        if self.data.prepared is not None and self.data.prepared < needed:
            raise ValueError(
                f"data.prepared >= data.image_size and augmentation.resize must hold, but got {self.data.prepared} < "
                f"{needed}: prepare larger copies"
            )
        if not self.stage1.epochs and (self.model.start is None or not self.stage2.epochs):
            raise ValueError(
                "stage1.epochs >= 1 must hold, because stage 2 starts from what stage 1 has learned; or give it a "
                "checkpoint to start from with model.start"
            )
        return self

    @model_validator(mode="after")
    def _masked(self) -> Config:
        found = (self.bank.policy, self.bank.scope, self.loss.anchors)
        if self.loss.anchor_mask != "activated" and found != ("slot", "cluster", "batch+bank"):
            raise ValueError(
                f"loss.anchor_mask = {self.loss.anchor_mask!r} needs bank.policy = 'slot', bank.scope = 'cluster' and "
                f"loss.anchors = 'batch+bank', but got {found[0]!r}, {found[1]!r} and {found[2]!r}"
            )
        return self

    @property
    def prototype_epsilon(self) -> float:
        return self.bank.epsilon if self.prototypes.epsilon is None else self.prototypes.epsilon

    def override(self, changes: Mapping[str, Any]) -> Config:
        """A new configuration with the dotted fields replaced.

        Raises:
            UserError: for an unknown field (with the nearest) or a value out of range (with field, value and range).
        """
        tree = self.model_dump()
        known = self.flat()
        for name, value in changes.items():
            if name not in known:
                near = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
                hint = (
                    f" Did you mean {near[0]!r}?"
                    if near
                    else f" The fields are: {', '.join(known)}."
                )
                raise UserError(f"There is no configuration field {name!r}.{hint}")
            *path, leaf = name.split(".")
            node = tree
            for part in path:
                node = node[part]
            node[leaf] = value
        return Config.parse(tree)

    @classmethod
    def parse(cls, tree: Mapping[str, Any]) -> Config:
        """A configuration from nested plain values (what :meth:`model_dump` gives), or UserError."""
        return cls(**tree)

    def flat(self) -> dict[str, Any]:
        """Dotted field name -> plain value."""
        return _flatten(self.model_dump(mode="json"))

    def json_text(self) -> str:
        """What the digest is of."""
        return json.dumps(self.model_dump(mode="json", exclude=_HOW), sort_keys=True)

    def digest(self) -> str:
        """Twelve hexadecimal digits that two equal configurations share."""
        return _digest(self.model_dump(mode="json", exclude=_HOW))

    def stage1_digest(self) -> str:
        """The same for what stage 1 depends on, so that many settings of stage 2 share one stage 1."""
        tree = self.model_dump(mode="json", exclude=_HOW)
        loss = {
            k: tree["loss"][k]
            for k in ("class_loss", "gamma_negative", "gamma_positive", "clip", "class_weight")
        }
        loss["class_reduction"] = tree["loss"]["class_reduction"]
        keep = {k: tree[k] for k in ("seed", "data", "model", "stage1", "optim")}
        del keep["model"]["projection"]  # the head first trains in stage 2
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
    name = ".".join(map(str, item["loc"])) or "configuration"
    inner = item.get("ctx", {}).get("error")
    if isinstance(inner, UserError):  # of a part, which has said it
        return f"{name}.{inner}".removesuffix(".")
    message = item["msg"][0].lower() + item["msg"][1:]
    if item["type"] == "extra_forbidden":
        return f"there is no configuration field {name!r}"
    if isinstance(
        item["input"], dict
    ):  # a rule over several fields: it names them and their values
        return f"{name} is not possible: {message.removeprefix('value error, ')}"
    return f"{name} = {item['input']!r} is not possible: {message}"
