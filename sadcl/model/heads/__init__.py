"""Heads, one published method in each module."""

from sadcl.model.heads.add_gcn import ADDGCN
from sadcl.model.heads.c_tran import CTran
from sadcl.model.heads.csra import CSRA
from sadcl.model.heads.head import Head, HeadOutput, Task
from sadcl.model.heads.ml_decoder import MLDecoder, ZeroShotMLDecoder
from sadcl.model.heads.ml_gcn import MLGCN
from sadcl.model.heads.mulcon import MulCon
from sadcl.model.heads.pooled import Pooled
from sadcl.model.heads.query2label import Query2Label
from sadcl.model.heads.sarl import SARL
from sadcl.model.heads.ssgrl import SSGRL
from sadcl.model.heads.tdrg import TDRG

__all__ = [
    "ADDGCN",
    "CSRA",
    "MLGCN",
    "SARL",
    "SSGRL",
    "TDRG",
    "CTran",
    "Head",
    "HeadOutput",
    "MLDecoder",
    "MulCon",
    "Pooled",
    "Query2Label",
    "Task",
    "ZeroShotMLDecoder",
]
