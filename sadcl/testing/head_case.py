"""What a head is tried on.

Axes: C channels, H, W height and width of a feature map, L labels.
"""

from __future__ import annotations

from typing import NamedTuple


class HeadCase(NamedTuple):
    """What a head is tried on, and in what it differs on purpose."""

    channels: int = 8
    """C of each feature map."""
    num_labels: int = 4
    side: int = 4
    """H and W of the last feature map; one before it has twice as many."""
    without_gradient: tuple[str, ...] = ()
    """Ends of the names of parameters on which no result depends, such as the bias of a key, which
    adds the same to all scores of a softmax."""
    of_batch: bool = False
    """An image's result depends on the others. Metrics then depend on the order of the images."""
    one_graph: bool = True
    """The compiler need not fall back to Python in the middle."""
    exported: bool = True
    """``torch.export`` can write it, so that ``sadcl export`` can."""
