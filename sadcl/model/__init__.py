"""The networks: a backbone with any head, and what both contrasts compare."""

from sadcl.model.attention_maps import has_maps, with_maps
from sadcl.model.backbone import Backbone
from sadcl.model.heads import SARL, Head, HeadOutput, Pooled, Task
from sadcl.model.network import Network, Output

__all__ = [
    "SARL",
    "Backbone",
    "Head",
    "HeadOutput",
    "Network",
    "Output",
    "Pooled",
    "Task",
    "has_maps",
    "with_maps",
]
