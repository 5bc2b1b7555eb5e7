"""Recipes: the configuration that a study starts from, one function for each data set.

The variant ``released`` is what the published run of the released code used; ``paper`` follows the
text of the paper. Both are plain values that a search or an ablation changes field by field.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

from sadcl.config import (
    Augmentation,
    Bank,
    Config,
    Data,
    Loss,
    Model,
    Optim,
    PrototypeConfig,
    Stage,
)
from sadcl.errors import UserError


def coco14(variant: str = "released") -> Config:
    """Return the recipe for MS-COCO at 448 px with ResNet-101.

    The data set is COCO 2014, or COCO 2017 if the data root holds only that.

    Args:
        variant: ``released`` has two temperatures, means over anchors, and the weights 8 and 4 in
            the units of Eq. 8 averaged over images. ``paper`` sums Eq. 8 and both contrasts and has
            weights 1 and one temperature; the paper prints neither tau nor epsilon, so 0.2 and 0.8
            are our choice.

    Raises:
        UserError: for another variant.
    """
    return _recipe(variant, "coco", labels=80)


def voc2007(variant: str = "released") -> Config:
    """Return the recipe for PASCAL VOC 2007 at 448 px, with the weights 2 and 1.

    Arguments and errors are those of :func:`coco14`. The published run started from its COCO model:
    ``.override({"model.start": "... best.pt"})``.
    """
    return _recipe(variant, "voc2007", labels=20)


def voc2012(variant: str = "released") -> Config:
    """Return the recipe for PASCAL VOC 2012 at 448 px, with the weights 2 and 1.

    Arguments, errors and start are those of :func:`voc2007`.
    """
    return _recipe(variant, "voc2012", labels=20)


def nuswide(variant: str = "released") -> Config:
    """Return the recipe for NUS-WIDE at 448 px, with the weights 8.1 and 4.05.

    Images without a label are dropped. Arguments and errors are those of :func:`coco14`.
    """
    return _recipe(variant, "nuswide", labels=81).override({"data.unlabelled": "drop"})


def vg500(variant: str = "released") -> Config:
    """Return the recipe for the 500 most frequent categories of Visual Genome at 576 px.

    The weights are 50 and 25. How stage 2 resizes at 576 px is not published; 640 is our choice and
    keeps the crops close to those at 448 px. Arguments and errors are those of :func:`coco14`.
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
    crops = Augmentation(resize=resize, multiscale=(1.0, 0.875, 0.75, 0.66, 0.5), flip=True)
    released = Config(
        data=Data(name=name, image_size=size),
        model=Model(backbone="resnet101.tv_in1k", hidden=2048),
        loss=Loss(
            tau=0.2, prototype_tau=0.07, sample_weight=labels / 10, prototype_weight=labels / 20
        ),
        bank=Bank(policy="slot", epsilon=0.8),
        prototypes=PrototypeConfig(policy="learned", epsilon=0.85),
        stage1=Stage(
            epochs=20,
            planned_epochs=80,
            patience=8,
            lr=5e-5,
            augmentation=Augmentation(randaugment=2, cutout=0.5),
        ),
        stage2=Stage(epochs=20, planned_epochs=80, patience=8, lr=5e-5, augmentation=crops),
        optim=Optim(
            batch_size=64, weight_decay=5e-3, pct_start=0.2, ema_decay=0.9998, report="best"
        ),
    )
    if variant == "released":
        return released
    return released.override(
        {
            "loss.class_reduction": "sum",
            "loss.contrast_reduction": "sum",
            "loss.sample_weight": 1.0,
            "loss.prototype_weight": 1.0,
            "loss.prototype_tau": None,
            "prototypes.epsilon": None,
            "prototypes.policy": "mean",
        }
    )


DEMOS = ("coco", "voc2007", "voc2012", "nuswide", "vg500")
"""Data sets that have a demo on embedded scenes; each gets scenes of its own."""


def demo(stands_for: str = "coco") -> Config:
    """Return a recipe that runs in minutes on two CPU cores: the same method at small sizes.

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
        loss=Loss(tau=0.2, sample_weight=0.3, prototype_weight=0.3),
        bank=Bank(policy="slot", epsilon=0.5),
        prototypes=PrototypeConfig(policy="mean"),
        stage1=Stage(epochs=10, lr=4e-3, augmentation=light),
        stage2=Stage(epochs=4, lr=1.5e-3, augmentation=light),
        optim=Optim(
            batch_size=32, weight_decay=5e-3, pct_start=0.2, ema_decay=0.99, ema_warmup=True
        ),
    )


def code(config: Config) -> str:
    """Return Python code that builds a configuration.

    It names the recipe with the fewest fields that differ, and overrides these fields.
    """
    flat = config.flat()

    def changes(recipe: Config) -> dict[str, object]:
        base = recipe.flat()
        return {name: value for name, value in flat.items() if value != base[name]}

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
    for name in DEMOS:
        yield f'demo("{name}")', demo(name)
