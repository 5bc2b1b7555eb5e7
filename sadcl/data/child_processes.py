"""Processes that start without the user's script."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator


@contextlib.contextmanager
def without_main_module() -> Iterator[None]:
    """Let processes that ``multiprocessing`` starts in the block not import ``__main__``.

    They would run an experiment's file again that calls :func:`sadcl.train` without
    ``if __name__ == "__main__":``. Nothing that this package sends them is of that module.
    """
    main = sys.modules["__main__"]
    names: tuple[str, ...] = ("__file__", "__spec__")
    hidden = {name: vars(main)[name] for name in names if name in vars(main)}
    vars(main).pop("__file__", None)
    main.__spec__ = None
    try:
        yield
    finally:
        vars(main).update(hidden)
