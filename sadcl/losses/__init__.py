"""The three losses that Eq. 9 adds up: Eq. 4, Eq. 6 and Eq. 8."""

from sadcl.losses.classification import ClassLoss, class_loss
from sadcl.losses.contrast import Contrast, ContrastSum, ContrastView
from sadcl.losses.prototype_to_sample import prototype_to_sample_loss
from sadcl.losses.sample_to_sample import sample_to_sample_loss

__all__ = [
    "ClassLoss",
    "Contrast",
    "ContrastSum",
    "ContrastView",
    "class_loss",
    "prototype_to_sample_loss",
    "sample_to_sample_loss",
]
