"""Heads, one published method in each module."""

from sadcl.model.heads.head import Head, HeadOutput, Task
from sadcl.model.heads.pooled import Pooled
from sadcl.model.heads.sarl import SARL

__all__ = ["SARL", "Head", "HeadOutput", "Pooled", "Task"]
