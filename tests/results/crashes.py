"""A process that dies after any of its writes and removals."""

from __future__ import annotations

import contextlib

from sadcl import storage


@contextlib.contextmanager
def dies_after(monkeypatch, steps):
    """While the block runs, so many writes and removals are done, and the next one raises."""
    left = steps

    def step(do):
        def counted(*args):
            nonlocal left
            if left == 0:
                raise KeyboardInterrupt
            left -= 1
            return do(*args)

        return counted

    with monkeypatch.context() as patch:
        patch.setattr(storage, "write", step(storage.write))
        patch.setattr(storage, "delete", step(storage.delete))
        yield
