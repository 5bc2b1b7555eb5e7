"""The three losses of Eq. 9: Eq. 8 (class loss), Eq. 4 (sample to sample), Eq. 6 (prototype to
sample).
"""

from sadcl.losses.classification import class_loss
from sadcl.losses.prototype_to_sample import prototype_to_sample_loss
from sadcl.losses.sample_to_sample import sample_to_sample_loss

__all__ = ["class_loss", "prototype_to_sample_loss", "sample_to_sample_loss"]
