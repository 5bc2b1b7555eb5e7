"""Memory that a process has freed is kept for the next image."""

from __future__ import annotations

import ctypes
import sys


def keep_freed_memory(worker: int = 0) -> None:
    """Let this process keep memory that it has freed, up to 256 MB, for the next image.

    By default glibc returns the memory of each image to the system and takes it again page by page,
    which costs half of the time of decoding. The setting lasts until the process ends: glibc can
    neither report nor restore the thresholds that it adapts by itself. Numbers do not depend on it.
    Elsewhere than on Linux, or with another C library, nothing happens.

    Args:
        worker: number of a loader process, which ``DataLoader`` passes; unused.
    """
    if sys.platform == "linux":
        for option, size in ((_M_MMAP_THRESHOLD, 2**25), (_M_TRIM_THRESHOLD, 2**28)):
            getattr(ctypes.CDLL(None), "mallopt", lambda *_: None)(option, size)


_M_MMAP_THRESHOLD, _M_TRIM_THRESHOLD = -3, -1  # of glibc's malloc.h
