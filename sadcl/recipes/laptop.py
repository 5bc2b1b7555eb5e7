"""The recipe for photographs of one's own on a machine without a GPU."""

from __future__ import annotations

from sadcl.config import (
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
from sadcl.errors import UserError

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

    Source: the held-out images of Corel5k, and of 286 photographs of COCO for ``FEW``. The search
    of ``experiments/tune_photographs.py`` then found no setting that is better over fresh seeds, of
    20 on each.
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
            dropout=0.0,
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
        stage1=Stage(epochs=10, lr=1e-2, class_loss=asymmetric),
        stage2=Stage(epochs=4, lr=1e-3, class_loss=asymmetric),
        optim=Optim(
            batch_size=64, weight_decay=0.3, pct_start=0.2, ema_decay=0.99, ema_warmup=True
        ),
    )
    return features if variant == "features" else features.override(EVERYTHING)
