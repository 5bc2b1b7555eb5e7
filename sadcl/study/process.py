"""What a run sets in its process, and puts back at its end."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator

LARGE_PAGES = "THP_MEM_ALLOC_ENABLE"
"""Environment variable by which PyTorch asks the kernel for huge pages."""


@contextlib.contextmanager
def large_pages() -> Iterator[None]:
    """Let PyTorch allocate large CPU tensors on huge pages.

    The page faults of a batch of floats then cost a third. PyTorch reads the variable once in a
    process, at its first CPU tensor. A program that has made one before decides for itself, as does
    one that sets the variable. Processes that start inside the block inherit it.
    """
    if LARGE_PAGES in os.environ:
        yield
        return
    os.environ[LARGE_PAGES] = "1"
    try:
        yield
    finally:
        os.environ.pop(LARGE_PAGES, None)
