"""The networks: SADCL (backbone, label transformer, classifier, projection) and the baseline."""

from sadcl.model.attention_maps import with_maps
from sadcl.model.backbone import Backbone
from sadcl.model.heads.pooled import Pooled
from sadcl.model.heads.sadcl import SADCL, Output

__all__ = ["SADCL", "Backbone", "Output", "Pooled", "with_maps"]
