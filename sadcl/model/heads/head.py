"""What a head is: the part of a network between the backbone's feature maps and the logits.

A head is any ``torch.nn.Module`` class that is built as ``Head(task, **arguments)`` and called with
feature maps. It needs no base class. The one that this page asks for is complete::

    class Linear(nn.Module):
        def __init__(self, task: Task, *, dropout: float = 0.0) -> None:
            super().__init__()
            self.dropout = nn.Dropout(dropout)
            self.classifier = nn.Linear(task.channels[-1], len(task.labels))

        def forward(self, map_BCHW: Tensor) -> HeadOutput:
            return HeadOutput(self.classifier(self.dropout(map_BCHW.mean((2, 3)))))

Arguments are keywords with a type and a default. A configuration sets them, a search draws them and
an ablation changes them, each by its name.

Axes: B images of this worker, C channels, H, W height and width of a feature map, L labels, D size
of a label-level feature.
"""

from __future__ import annotations

from typing import NamedTuple, Protocol

from torch import Tensor


class Task(NamedTuple):
    """What a head is built for."""

    channels: tuple[int, ...]
    """Channels of each feature map that the head is called with, in that order."""
    labels: tuple[str, ...]
    """Names of the labels, in the order of the logits."""
    co_occurrence_LL: Tensor
    """float64: number of training images that have both labels; the diagonal has the number of
    images with each label. Only images that the run trains on are counted."""
    is_restored: bool = False
    """Whether a checkpoint's state replaces the head's at once. All counts are zero then, and files
    that only give initial values need not be there; what comes from either belongs in a buffer or a
    parameter."""


class HeadOutput(NamedTuple):
    """What a head returns."""

    logits_BL: Tensor
    """Scores before the sigmoid, which are evaluated."""
    features_BLD: Tensor | None = None
    """A feature for each image and label, which both contrasts, the bank and the prototypes can
    use; None for a head that has none."""
    auxiliary_BL: tuple[Tensor, ...] = ()
    """Further logits in training. The class loss of each is added to that of ``logits_BL``."""


class Head(Protocol):
    """The calls that a head answers, and what else it may have.

    ``feature_maps``: indices of the backbone's maps that it is called with, such as ``(-2, -1)``
    for the last two. Without it, that is the one of ``model.feature``.

    ``feature_size``: D, where it returns label-level features.

    ``classify(features_BLD) -> Tensor``: (B, L) logits from label-level features. With it, a run
    also measures how strongly the class loss pulls at them.

    ``label_wise``: False where labels share parameters in an order of their own, so that a
    checkpoint of other labels can only give its backbone.

    ``needs_targets``: True where its call in training takes the keyword ``targets_BL``, (B, L) of
    1, 0 or -1 (ignored).

    ``attention_maps(*maps_BCHW) -> Tensor``: (B, L, H, W), where it finds each label, which ``sadcl
    explain`` shows.
    """

    def __call__(self, *maps_BCHW: Tensor, **targets: Tensor) -> HeadOutput: ...
