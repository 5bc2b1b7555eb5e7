"""Contract suites for parts of your own, each one line of a test.

    import sadcl.testing
    from my_lab.heads import Attention

    def test_attention():
        sadcl.testing.check_head(Attention, dim=16)

The parts that are built in pass the same suites.
"""

from sadcl.testing.data import check_augmentation, check_dataset, check_metric, check_sampler
from sadcl.testing.head_case import HeadCase
from sadcl.testing.heads import check_head
from sadcl.testing.losses import check_class_loss, check_contrast

__all__ = [
    "HeadCase",
    "check_augmentation",
    "check_class_loss",
    "check_contrast",
    "check_dataset",
    "check_head",
    "check_metric",
    "check_sampler",
]
