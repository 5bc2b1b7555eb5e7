"""The published methods: their networks, and how each paper trains its own.

Each function returns overrides of a recipe, for a search, an ablation or a single run:

    recipes.coco14().override(recipes.methods.own("ML-GCN"))

The settings of :func:`own` for MS-COCO. ``code`` is the released training script, read; ``report``
is what others report of it. What the configuration cannot express stands at the end of a line.

method       source  what is not the same here
ResNet-101   none    the paper names no settings: those of SARL's stage, with BCE or ASL
ML-GCN       code    crops are of the image as it is there, here of 512 px; GloVe vectors are given
                     with model.head_arguments.word_vectors, and are random without them
ADD-GCN      code    trained at 448 px, its published figure is of a test at 576 px
SSGRL        code    no centre crop of 576 px from 640 px in testing; GloVe vectors as for ML-GCN
C-Tran       code    the rate falls by 0.1 at epochs 60 and 80 instead of where the test loss stays
                     (the epochs are a guess); no centre crop in testing
TDRG         code    32 images on each of two GPUs attend to each other there, here a worker's
CSRA         code    no warm-up over 2 epochs; square crops of area 0.7, 0.8, 0.9 and 1, where its
                     crops have any area between and other aspects
MulCon       code    the first of two stages only: the second contrasts two views of each image.
                     OneCycle for its linear warm-up and cosine; square crops as for CSRA
ML-Decoder   code    weights of a pre-training with this head; the colour of the hole
Query2Label  report  the share of the rise in OneCycle (0.2) is SADCL's, which took over its code
SARL, SADCL  code    as in the recipe ``released``; SARL is stage 1 alone

Losses that a paper averages over labels too have the weight 1 / L, because the rate of SGD and the
limit of the gradient depend on it; Adam's steps do not. The held-out images select the epoch here,
the test images there.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sadcl.config import POOLED, Augmentation, Config
from sadcl.errors import UserError

Overrides = dict[str, Any]
"""Values by field."""


def _asymmetric(gamma: float, clip: float = 0.0) -> Overrides:
    """Return the asymmetric loss of a stage 1, with constant focusing weights."""
    loss = {"kind": "asymmetric", "gamma_negative": gamma, "gamma_positive": 0.0, "clip": clip}
    return {f"stage1.class_loss.{k}": v for k, v in {**loss, "focus_gradient": False}.items()}


def _head(name: str, **arguments: Any) -> Overrides:
    named = {f"model.head_arguments.{k}": v for k, v in arguments.items()}
    return {"model.head": f"sadcl.model.heads:{name}", **named}


_BCE = {"stage1.class_loss.kind": "bce"}
_MULCON = {  # Eq. 4 of the batch alone; its weight is 0.5 beside the mean over labels
    "loss.prototype_weight": 0.0,
    "loss.tau": 0.2,
    "bank.policy": "none",
    "bank.start": "empty",
    "loss.anchors": "batch",
}
_NETWORKS: dict[str, Overrides] = {
    "SADCL": {},
    "SARL": {},
    "pooled, BCE": {"model.head": POOLED, **_BCE},
    "pooled, ASL": {"model.head": POOLED, **_asymmetric(4.0, 0.05)},
    "ML-GCN": _head("MLGCN", threshold=0.4, neighbours=0.25) | _BCE,
    "SSGRL": _head("SSGRL", steps=3) | _BCE,
    "ADD-GCN": _head("ADDGCN", hidden=1024) | _BCE,
    "C-Tran": _head("CTran", dropout=0.1, known=0.75) | _BCE,
    "TDRG": _head("TDRG", peaks=0.05, transformer_weight=0.7) | _BCE,
    "CSRA": _head("CSRA", heads=6, lam=0.5) | _BCE,
    "Query2Label": _head("Query2Label", dropout=0.1) | _asymmetric(2.0),
    "MulCon": _head("MulCon") | _BCE | _MULCON | {"loss.sample_weight": 40.0},
    "ML-Decoder": _head("MLDecoder", dropout=0.1) | _asymmetric(4.0, 0.05),
}
NAMES = tuple(_NETWORKS)
"""The methods."""
_SMALL: dict[str, Overrides] = {
    "ML-GCN": {"hidden": 64, "word_dim": 32},
    "SSGRL": {"joint": 64, "hidden": 64, "word_dim": 32},
    "ADD-GCN": {"hidden": 64},
    "C-Tran": {"layers": 1, "heads": 4, "feedforward": 128, "dropout": 0.0},
    "TDRG": {"dim": 32, "layers": 1, "heads": 4, "feedforward": 64},
    "CSRA": {"heads": 1, "lam": 0.1},
    "Query2Label": {
        "hidden": 64,
        "encoder_layers": 0,
        "decoder_layers": 1,
        "feedforward": 128,
        "dropout": 0.0,
    },
    "MulCon": {"dim": 64},
    "ML-Decoder": {"dim": 64, "heads": 4, "feedforward": 128, "dropout": 0.0},
}
"""Arguments of the heads at demo scale."""
TWO_STAGES = ("SADCL", "MulCon")
"""Methods whose second stage adds a contrast; the others train in one stage."""
FEATURES = ("SSGRL", "ADD-GCN", "C-Tran", "TDRG", "MulCon", "ML-Decoder")
"""Methods other than SADCL that have label-level features, which both contrasts can use."""
PUBLISHED = {
    "SADCL": {"coco14": 85.6},
    "SARL": {"coco14": 85.0},
    "pooled, BCE": {"coco14": 81.5},
    "ML-GCN": {"coco14": 83.0},
    "SSGRL": {"coco14": 83.8},
    "ADD-GCN": {"coco14": 85.2},
    "C-Tran": {"coco14": 85.1},
    "TDRG": {"coco14": 84.6},
    "CSRA": {"coco14": 83.5},
    "Query2Label": {"coco14": 84.9},
    "MulCon": {"coco14": 84.9},
}
"""mAP on MS-COCO with ResNet-101, from Table 1 of SADCL's paper, that of SARL from its Table 7, and
that of CSRA from its own paper. SSGRL and C-Tran are of 576 px, ADD-GCN is tested at 576 px. No
figure of ML-Decoder is of ResNet-101 at 448 px with weights of ImageNet alone."""


def _check(name: str) -> None:
    if name not in NAMES:
        raise UserError(f"The methods are {', '.join(NAMES)}, but got {name!r}.")


def network(name: str, *, small: bool = False) -> Overrides:
    """Return what a method is: its head with the published sizes, its losses.

    Args:
        name: one of ``NAMES``.
        small: the sizes of the demo scale instead.

    Raises:
        UserError: for another name.
    """
    _check(name)
    changes = dict(_NETWORKS[name])
    if small:
        changes |= {f"model.head_arguments.{k}": v for k, v in _SMALL.get(name, {}).items()}
        if name == "MulCon":
            changes["loss.sample_weight"] = 10.0  # 0.5 of the mean over 20 labels
    return changes


def head(name: str, *, small: bool = False) -> Overrides:
    """Return the head of a method alone, with its sizes; arguments and errors as for
    :func:`network`."""
    return {k: v for k, v in network(name, small=small).items() if k.startswith("model.head")}


def shared(name: str, base: Config, *, small: bool = False) -> Overrides:
    """Return a method under the protocol of a recipe, with as many epochs for each method.

    A method of one stage trains it for as long as both stages of the recipe.

    Arguments and errors are those of :func:`network`; ``base`` is the recipe.
    """
    changes = network(name, small=small)
    return changes if name in TWO_STAGES else changes | one_stage(base)


def one_stage(base: Config) -> Overrides:
    """Return one stage that is as long as both stages of a recipe together."""
    one, two = base.stage1, base.stage2
    planned = (one.planned_epochs or one.epochs) + (two.planned_epochs or two.epochs)
    return {
        "stage1.epochs": one.epochs + two.epochs,
        "stage1.planned_epochs": planned,
        "stage2.epochs": 0,
        "stage2.planned_epochs": None,
    }


def _augmentation(stage: str, **changes: Any) -> Overrides:
    """Return the augmentation of a stage: nothing but the changes."""
    values = Augmentation().model_dump() | changes
    return {f"{stage}.augmentation.{k}": v for k, v in values.items()}


_CROPS = {"multiscale": (1.0, 0.875, 0.75, 0.66, 0.5), "multiscale_kind": "distorted"}
ONE_PROTOCOL: Overrides = {
    **_augmentation("stage1", resize=512, flip=True, **_CROPS),
    **_augmentation("stage2", resize=512, flip=True, **_CROPS),
    "stage1.epochs": 30,
    "stage1.patience": None,
    "stage2.epochs": 20,
    "stage2.patience": None,
}
"""Changes of the recipe ``coco14`` for a protocol that all methods share: the crops of ML-GCN,
ADD-GCN, TDRG and SADCL's stage 2, and the 50 epochs that both stages of SADCL took when published.
Backbone, resolution, optimiser and averaging are the recipe's."""

_ALONE: Overrides = {
    "stage1.patience": None,
    "stage1.class_loss.floor": 0.0,
    "stage2.epochs": 0,
    "optim.ema_decay": 0.0,
    "optim.drop_last": False,
    "model.frozen": (),
    "model.freeze_batchnorm": False,
}


def _sgd(lr: float, epochs: int, steps: tuple[int, ...], **optim: Any) -> Overrides:
    """Return SGD whose backbone has a tenth of the rate, for losses that are means over labels."""
    values = {"kind": "sgd", "backbone_lr": 0.1, "weight_decay": 1e-4, "batch_size": 16, **optim}
    return _train(lr, epochs, **values, **_steps(steps)) | {"loss.class_weight": 1 / 80}


def _steps(steps: tuple[int, ...]) -> Overrides:
    return {"schedule": "step", "step_epochs": steps} if steps else {"schedule": "constant"}


def _train(lr: float, epochs: int, **optim: Any) -> Overrides:
    fields = {f"optim.{k}": v for k, v in optim.items()}
    return {**_ALONE, "stage1.lr": lr, "stage1.epochs": epochs, **fields}


_COCO_CROPS = _augmentation("stage1", resize=512, flip=True, **_CROPS)
_LARGE = {"resize": 640, "multiscale": (1.0, 0.9, 0.8, 0.6, 0.5)}
_UNIT = {"data.mean": (0.0, 0.0, 0.0), "data.std": (1.0, 1.0, 1.0)}
_CUTOUT = _augmentation("stage1", randaugment=2, randaugment_kind="published", cutout=0.5)
_OWN: dict[str, Overrides] = {
    "SADCL": {},
    "SARL": {"stage2.epochs": 0},
    "pooled, BCE": {"stage2.epochs": 0},
    "pooled, ASL": {"stage2.epochs": 0},
    "ML-GCN": _sgd(0.1, 20, (), clip_norm=10.0) | _COCO_CROPS,
    "SSGRL": {
        **_train(1e-5, 200, kind="adam", weight_decay=0.0, batch_size=4, schedule="constant"),
        **_augmentation("stage1", **_LARGE),
        "model.frozen": ("conv1", "bn1", "layer1", "layer2", "layer3"),
        "data.image_size": 576,
    },
    "ADD-GCN": _sgd(0.05, 50, (31, 41), clip_norm=10.0) | _COCO_CROPS,
    "C-Tran": {
        **_train(1e-5, 100, kind="adam", weight_decay=0.0, batch_size=16, **_steps((60, 80))),
        **_augmentation("stage1", flip=True, **_LARGE),
        "data.image_size": 576,
    },
    "TDRG": {
        **_sgd(0.03, 50, (41,), clip_norm=10.0, batch_size=64),
        **_COCO_CROPS,
        "model.head_arguments.attention": "batch",
    },
    "CSRA": {
        **_sgd(0.1, 30, (5, 10, 15, 20, 25)),
        **_augmentation("stage1", flip=True, multiscale=(1.0, 0.95, 0.89, 0.84)),
        **_UNIT,
    },
    "Query2Label": {
        **_train(1e-4, 80, weight_decay=1e-2, batch_size=128, ema_decay=0.9997),
        **_CUTOUT,
        "model.frozen": ("conv1", "bn1", "layer1"),
        "model.freeze_batchnorm": True,
    },
    "MulCon": {
        **_train(2e-4, 25, weight_decay=1e-4, batch_size=32, backbone_lr=0.1, ema_decay=0.9997),
        **_augmentation("stage1", flip=True, randaugment=2, multiscale=(1.0, 0.97, 0.94)),
    },
    "ML-Decoder": {
        **_train(1e-4, 40, kind="adam", weight_decay=1e-4, batch_size=56, ema_decay=0.9997),
        **_CUTOUT,
        **_UNIT,
        "optim.decay_biases": False,
    },
}


def own(name: str, *, small: bool = False) -> Overrides:
    """Return a method as its own paper trains it on MS-COCO, as overrides of ``coco14``.

    Args:
        name: one of ``NAMES``.
        small: the same at demo scale, as overrides of ``demo``: see :func:`_at_demo_scale`.

    Raises:
        UserError: for another name.
    """
    changes = network(name, small=small) | _OWN[name]
    return _at_demo_scale(changes) if small else changes


DEMO_EPOCHS = 14


def _at_demo_scale(changes: Mapping[str, Any]) -> Overrides:
    """Scale a protocol to the demo, whose small backbone starts from random weights.

    Kinds of optimiser, schedule, augmentation, loss and preprocessing stay, and so do the rates of
    SGD. The length is 14 epochs and steps of the rate keep their share of it. Resolutions and
    batches are as many times those of ``demo`` (64 px, 32 images) as they are of 448 px and 64
    images, batches between 16 and 64. Adam's rates are 80 times as high, as that of SADCL, between
    1e-3 and 4e-3. The whole network trains, all of it at one rate.
    """
    scaled = {k: v for k, v in changes.items() if k not in ("model.frozen", "optim.backbone_lr")}
    if "stage1.lr" not in changes:  # the recipe's own
        return scaled | (
            {"stage1.epochs": DEMO_EPOCHS} if changes.get("stage2.epochs") == 0 else {}
        )
    scaled |= {"stage1.epochs": DEMO_EPOCHS, "model.freeze_batchnorm": False}
    scaled["optim.batch_size"] = min(max(changes["optim.batch_size"] // 2, 16), 64)
    scaled["data.image_size"] = 80 if changes.get("data.image_size") == 576 else 64
    if changes.get("stage1.augmentation.resize"):
        scaled["stage1.augmentation.resize"] = round(changes["stage1.augmentation.resize"] / 7)
    if "optim.step_epochs" in changes:
        share = DEMO_EPOCHS / changes["stage1.epochs"]
        ends = (max(round(epoch * share), 1) for epoch in changes["optim.step_epochs"])
        scaled["optim.step_epochs"] = tuple(dict.fromkeys(ends))
    if changes.get("optim.ema_decay"):
        scaled["optim.ema_decay"] = 0.99
    if changes.get("optim.kind") == "sgd":
        scaled["loss.class_weight"] = 1 / 20
    else:
        scaled["stage1.lr"] = min(max(80 * changes["stage1.lr"], 1e-3), 4e-3)
    return scaled
