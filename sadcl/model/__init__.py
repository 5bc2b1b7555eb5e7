"""The network: backbone, label transformer, classifier, projection head; and the pooled baseline."""

from sadcl.model.backbone import Backbone
from sadcl.model.maps import with_maps
from sadcl.model.sadcl import SADCL, Output, Pooled

__all__ = ["SADCL", "Backbone", "Output", "Pooled", "with_maps"]
