"""Processes that start without the user's script."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from typing import Any


@contextlib.contextmanager
def without_main_module() -> Iterator[None]:
    """Let processes that ``multiprocessing`` starts in the block not import ``__main__``.

    They would run an experiment's file again that calls :func:`sadcl.train` without
    ``if __name__ == "__main__":``. Nothing that this package sends them is of that module.
    """
    names: dict[str, Any] = vars(sys.modules["__main__"])
    hidden = {name: value for name, value in names.items() if name in ("__file__", "__spec__")}
    names.pop("__file__", None)
    names["__spec__"] = None
    try:
        yield
    finally:
        names.update(hidden)
