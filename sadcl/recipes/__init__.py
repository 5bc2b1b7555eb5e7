"""Recipes: the configuration that a study starts from, one function for each data set.

The variant ``released`` is the published run of the released code without its two faults, and with
contrasts over the whole batch; ``paper`` follows the text of the paper. Both are plain values that
a search or an ablation changes field by field.

``released`` for COCO, field by field. Sources: P the paper, section 4.1; C the released code, read
and run; L its training log. What is not the same has a note.

field                              published                          here            source
model.backbone                     ResNet-101, ImageNet-1k V1         resnet101.tv_in1k  P C
model.frozen, freeze_batchnorm     stem, layer1; all BatchNorm        the same           C
model.hidden, feedforward, heads   2048, 8192, 4                      the same           C
model.encoder, decoder layers      1, 2 (without self-attention)      the same           P C
model.dropout, projection          0.1, 1024                          the same           C
model.position                     sine, interleaved (DETR)           the same           C
stageN.class_loss.kind             asymmetric, then gamma- 0 (BCE)    asymmetric, bce    C L
  .gamma_negative, positive, clip  4, 0, 0 in stage 1                 the same           C L
  .focus_gradient, floor           none, 1e-5                         the same           C
data.image_size                    448                                the same           P C
loss.class_reduction               sum times 1000 / (B L)             mean over images   C
loss.sample_weight                 100 beside that sum                L / 10             C
loss.prototype_weight              50 beside that sum                 L / 20             C
loss.tau, prototype_tau            0.2, 0.07                          the same           C
loss.normalize                     cosine                             the same           C
loss.candidates                    the slots of the batch's labels    matched            C
images that are contrasted         32 on each of 2 workers            the whole batch 1  L
loss.anchors                       batch and bank                     the same           C
loss.sample_reduction              mean over anchors                  the same           C
loss.anchor_mask                   released: misread, a fault         activated 2        C
loss.prototype_reduction           number of positives                the same           C
loss.absent_labels                 push: a fault                      skip 2             C
bank.policy, epsilon               slot, y = 1 and score > 0.8        the same           C
bank.scope                         worker                             cluster 1          C
bank.start                         the prototypes                     the same           C
prototypes.policy, epsilon         learned, score > 0.85              the same           C
prototypes.decay                   yes                                no 3               C L
optim.precision                    fp16 with a loss scaler            fp32               C
stageN.lr, optim.pct_start         5e-5, 0.2                          the same           P C
stageN.epochs, planned_epochs      80, stopped by patience            80                 C L
stageN.patience, patience_counts   more than 8, raw or averaged       9, any             C
optim.batch_size, weight_decay     64, 5e-3                           the same           P C
optim.drop_last                    yes                                the same           C
optim.ema_decay, ema_start         0.9998 from the initial weights    the same           C
optim.report                       the better of raw and averaged     the same           C
stage1.augmentation                448, Cutout 224, RandAugment       the same           P C
stage2.augmentation                512, multi-scale crop, flip        the same           C
data.holdout                       none: the test images selected     0.1 4              C
data.difficult (VOC)               negative                           the same           C

1. Every number of workers trains the same model here. Against two workers with 32 images each, on
   labels of frequency 1 / rank, the gradient of the sample contrast has 0.89 to 0.97 of the length
   and a cosine of 0.89 to 0.92, that of the prototype contrast 0.78 to 0.81 and 0.89 to 0.92.
2. Both faults are values of the fields, so that an ablation can show what they cost.
3. Prototypes are points in feature space; the decay is 2.5e-7 of their length a step.
4. Test images choose nothing here.

Stage 2 starts from the selected weights of stage 1, with a new average, as published. VOC also
starts from a COCO checkpoint, NUS-WIDE drops images without a label, and the hole of Cutout is 224
pixels wide at 576 pixels too: see the functions.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Literal

from sadcl.config import (
    Augmentation,
    Bank,
    ClassLoss,
    Config,
    Data,
    Loss,
    Model,
    Optim,
    PrototypeConfig,
    Stage,
)
from sadcl.errors import UserError, did_you_mean
from sadcl.recipes import methods

__all__ = [
    "DEMOS",
    "EVERYTHING",
    "FEW",
    "coco14",
    "code",
    "demo",
    "methods",
    "nuswide",
    "photographs",
    "vg500",
    "voc2007",
    "voc2012",
]


def coco14(variant: str = "released") -> Config:
    """Return the recipe for MS-COCO at 448 px with ResNet-101.

    The data set is COCO 2014, or COCO 2017 if the data root holds only that.

    Args:
        variant: ``released`` has two temperatures, means over anchors, and the weights 8 and 4 in
            the units of Eq. 8 averaged over images. ``paper`` sums Eq. 8 and both contrasts, with
            weights 1 and one temperature. All rows of a bank that starts empty are candidates, a
            prototype is a mean (Eq. 5), and both stages have Eq. 8. The paper prints neither tau
            nor epsilon: 0.2 and 0.8 are our choice. Data, augmentation and optimiser are the same.

    Raises:
        UserError: for another variant.
    """
    return _recipe(variant, "coco", labels=80)


def voc2007(variant: str = "released") -> Config:
    """Return the recipe for PASCAL VOC 2007 at 448 px, with the weights 2 and 1.

    Arguments and errors are those of :func:`coco14`. The published run started from its COCO model:
    ``.override({"model.start": "... best.pt"})``.
    """
    return _recipe(variant, "voc2007", labels=20).override({"data.difficult": "negative"})


def voc2012(variant: str = "released") -> Config:
    """Return the recipe for PASCAL VOC 2012 at 448 px, with the weights 2 and 1.

    Arguments, errors and start are those of :func:`voc2007`.
    """
    return _recipe(variant, "voc2012", labels=20).override({"data.difficult": "negative"})


def nuswide(variant: str = "released") -> Config:
    """Return the recipe for NUS-WIDE at 448 px, with the weights 8.1 and 4.05.

    Images without a label are dropped. Arguments and errors are those of :func:`coco14`.
    """
    return _recipe(variant, "nuswide", labels=81).override({"data.unlabelled": "drop"})


def vg500(variant: str = "released") -> Config:
    """Return the recipe for the 500 most frequent categories of Visual Genome at 576 px.

    The weights are 50 and 25. Stage 2 resizes to 640 px, as published. Arguments and errors are
    those of :func:`coco14`.
    """
    return _recipe(variant, "vg500", labels=500, size=576, resize=640)


def _recipe(
    variant: str,
    name: Literal["coco", "voc2007", "voc2012", "nuswide", "vg500"],
    *,
    labels: int,
    **sizes: int,
) -> Config:
    """Return the recipe of a data set.

    The published run multiplies the sum of Eq. 8 by 1000 / (B L) and weighs the contrasts 100 and
    50. Relative to Eq. 8 averaged over images, these weights are L / 10 and L / 20.
    """
    if variant not in ("released", "paper"):
        raise UserError(f"variant must be 'released' or 'paper', but got {variant!r}")
    size, resize = sizes.get("size", 448), sizes.get("resize", 512)
    crops = Augmentation(
        resize=resize,
        multiscale=(1.0, 0.875, 0.75, 0.66, 0.5),
        multiscale_kind="distorted",
        flip=True,
    )
    # OneCycle is planned over all 80 epochs; the published stages ended after 29 and 21 of them.
    length: dict[str, Any] = {"epochs": 80, "patience": 9, "patience_counts": "any", "lr": 5e-5}
    released = Config(
        data=Data(name=name, image_size=size),
        model=Model(backbone="resnet101.tv_in1k", hidden=2048),
        loss=Loss(
            tau=0.2,
            prototype_tau=0.07,
            sample_weight=labels / 10,
            prototype_weight=labels / 20,
            candidates="matched",
            sample_reduction="mean",
            prototype_reduction="positives",
        ),
        bank=Bank(policy="slot", start="prototypes", epsilon=0.8),
        prototypes=PrototypeConfig(policy="learned", epsilon=0.85),
        stage1=Stage(
            class_loss=ClassLoss(
                kind="asymmetric", gamma_negative=4, clip=0, focus_gradient=False, floor=1e-5
            ),
            augmentation=Augmentation(
                randaugment=2, randaugment_kind="published", cutout=224 / size
            ),
            **length,
        ),
        stage2=Stage(class_loss=ClassLoss(kind="bce", floor=1e-5), augmentation=crops, **length),
        optim=Optim(
            batch_size=64,
            drop_last=True,
            weight_decay=5e-3,
            pct_start=0.2,
            ema_decay=0.9998,
            ema_start="initial",
            report="best",
        ),
    )
    if variant == "released":
        return released
    return released.override(
        {
            "loss.class_reduction": "sum",
            "loss.candidates": "all",
            "loss.anchors": "batch+bank",
            "loss.sample_reduction": "sum",
            "loss.prototype_reduction": "sum",
            "bank.start": "empty",
            **_CLASS_LOSS_OF_PAPER,
            "loss.sample_weight": 1.0,
            "loss.prototype_weight": 1.0,
            "loss.prototype_tau": None,
            "prototypes.epsilon": None,
            "prototypes.policy": "mean",
        }
    )


def photographs(variant: str = "features") -> Config:
    """Return the recipe for some thousands of photographs of your own, on a laptop.

    The data set is a folder with a table of labels. The head is a small SARL on a small backbone
    with weights from ImageNet, which timm downloads, or ``model.weights`` names a file of them.
    For some hundreds of photographs add ``.override(recipes.FEW)``.

    Both stages have the asymmetric loss: after a stage 2 with Eq. 8 the mAP was 7 points lower on
    260 labels, most of which are rare. Its gradient is small, and with the weights 1 and 0.5 those
    of the contrasts at the label features are about as large.

    Args:
        variant: ``features`` freezes the backbone: its feature maps are computed once and shared by
            all runs. ``everything`` trains the backbone too, with augmentation: first the head
            alone, then all layers, the early ones at lower rates.

    Raises:
        UserError: for another variant.

    Source: the held-out images of Corel5k and of 286 photographs of COCO; of 20 other settings of
    ``experiments/tune_photographs.py`` none was better over fresh seeds on the latter.
    """
    if variant not in ("features", "everything"):
        raise UserError(f"variant must be 'features' or 'everything', but got {variant!r}")
    asymmetric = ClassLoss(kind="asymmetric")
    features = Config(
        data=Data(name="folder", image_size=224),
        model=Model(
            backbone="tf_efficientnet_lite0",
            frozen="all",
            standardize=True,
            hidden=128,
            encoder_layers=0,
            decoder_layers=1,
            heads=4,
            feedforward=64,
            dropout=0.2,
            projection=64,
        ),
        loss=Loss(
            tau=0.2,
            prototype_tau=0.07,
            sample_weight=1.0,
            prototype_weight=0.5,
            prototype_reduction="positives",
        ),
        bank=Bank(policy="slot", start="prototypes", epsilon=0.5),
        prototypes=PrototypeConfig(policy="learned"),
        stage1=Stage(epochs=10, lr=3e-3, class_loss=asymmetric),
        stage2=Stage(epochs=4, lr=1e-3, class_loss=asymmetric),
        optim=Optim(
            batch_size=64, weight_decay=0.3, pct_start=0.2, ema_decay=0.99, ema_warmup=True
        ),
    )
    return features if variant == "features" else features.override(EVERYTHING)


FEW = {
    "model.hidden": None,
    "model.dropout": 0.5,
    "stage1.epochs": 20,
    "stage1.lr": 2e-3,
    "stage2.epochs": 6,
    "stage2.lr": 5e-4,
    "optim.batch_size": 32,
    "optim.weight_decay": 3.0,
}
"""What ``photographs`` changes for some hundreds of images, which a head soon knows by heart."""
EVERYTHING = {
    "model.frozen": (),
    "optim.backbone_lr": 0.1,
    "optim.layer_decay": 0.75,
    "stage1.head_epochs": 3,
    **{
        f"stage{i}.augmentation.{name}": value
        for i in (1, 2)
        for name, value in {
            "resize": 256,
            "multiscale": (1.0, 0.875, 0.75),
            "multiscale_kind": "distorted",
            "flip": True,
        }.items()
    },
}
"""What ``photographs`` changes to train the backbone too. A search takes it as ``confirm_with``."""

_CLASS_LOSS_OF_PAPER = {
    f"stage{stage}.class_loss.{name}": value
    for stage in (1, 2)
    for name, value in ClassLoss(kind="bce").model_dump().items()
}

DEMOS = ("coco", "voc2007", "voc2012", "nuswide", "vg500")
"""Data sets that have a demo on drawn scenes; each gets scenes of its own."""


def demo(stands_for: str = "coco") -> Config:
    """Return a recipe that runs in minutes on two CPU cores: the same method at small sizes.

    As in ``released``, candidates are matched, both divisors are the published ones, and the
    weights are L / 10 and L / 20 for the L = 20 labels of the scenes. Thresholds are lower, one
    temperature serves both contrasts, and prototypes are means.
    It needs no backbone weights: all of a small backbone trains from random weights, and its
    BatchNorm is not frozen.

    Args:
        stands_for: the data set that the demo replaces, one of ``DEMOS``; each has other scenes.

    Raises:
        UserError: for another data set.
    """
    if stands_for not in DEMOS:
        raise UserError(f"stands_for must be one of {', '.join(DEMOS)}, but got {stands_for!r}")
    light = Augmentation(flip=True)
    return Config(
        data=Data(
            name="scenes",
            image_size=64,
            scene_train=2000,
            scene_test=600,
            scene_seed=DEMOS.index(stands_for),
            limit_train=2000,
            limit_test=600,
        ),
        model=Model(
            backbone="test_byobnet",
            feature=-2,
            pretrained=False,
            frozen=(),
            freeze_batchnorm=False,
            hidden=64,
            encoder_layers=0,
            decoder_layers=1,
            heads=4,
            feedforward=128,
            dropout=0.0,
            projection=64,
        ),
        loss=Loss(
            tau=0.2, sample_weight=2.0, prototype_weight=1.0, prototype_reduction="positives"
        ),
        bank=Bank(policy="slot", start="prototypes", epsilon=0.5),
        prototypes=PrototypeConfig(policy="mean"),
        stage1=Stage(epochs=10, lr=4e-3, augmentation=light),
        stage2=Stage(epochs=4, lr=1.5e-3, augmentation=light),
        optim=Optim(
            batch_size=32, weight_decay=5e-3, pct_start=0.2, ema_decay=0.99, ema_warmup=True
        ),
    )


ABSENT = object()
"""The value of an argument that a recipe does not have."""


def by_name(name: str) -> Config:
    """Return a recipe by the name that a command has for it.

    Args:
        name: such as ``coco14``, ``coco14:paper``, ``demo`` or ``demo:voc2007``.

    Raises:
        UserError: for another name.
    """
    known = (coco14, voc2007, voc2012, nuswide, vg500, photographs, demo)
    functions = {f.__name__: f for f in known}
    function, _, variant = name.partition(":")
    if function not in functions:
        raise UserError(f"There is no recipe {function!r}{did_you_mean(function, functions)}")
    return functions[function](*[variant] * bool(variant))


def code(config: Config) -> str:
    """Return Python code that builds a configuration.

    It names the recipe with the fewest fields that differ, and overrides these fields.
    """
    flat = config.flat()

    def changes(recipe: Config) -> dict[str, object]:
        base = recipe.flat()
        return {name: value for name, value in flat.items() if value != base.get(name, ABSENT)}

    call, fields = min(
        ((call, changes(recipe)) for call, recipe in _all()), key=lambda pair: len(pair[1])
    )
    lines = ["import sadcl", "", f"config = sadcl.recipes.{call}"]
    if fields:
        lines[-1] += ".override("
        lines += [
            "    {",
            *(f"        {name!r}: {value!r}," for name, value in fields.items()),
            "    }",
            ")",
        ]
    return "\n".join([*lines, f"assert config.digest() == {config.digest()!r}"]) + "\n"


def _all() -> Iterator[tuple[str, Config]]:
    """Yield every recipe with the call that returns it."""
    for recipe in (coco14, voc2007, voc2012, nuswide, vg500):
        for variant in ("released", "paper"):
            yield f'{recipe.__name__}("{variant}")', recipe(variant)
    for variant in ("features", "everything"):
        yield f'photographs("{variant}")', photographs(variant)
    for name in DEMOS:
        yield f'demo("{name}")', demo(name)
