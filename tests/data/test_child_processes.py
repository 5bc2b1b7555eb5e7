"""Processes that start without the user's script."""

from __future__ import annotations

import sys
from multiprocessing import spawn

from sadcl.data.child_processes import without_main_module

IMPORTED = {"init_main_from_name", "init_main_from_path"}


def test_a_process_that_starts_does_not_import_the_script(monkeypatch):
    main = sys.modules["__main__"]
    monkeypatch.setattr(main, "__file__", __file__, raising=False)
    monkeypatch.setattr(main, "__spec__", None)
    assert IMPORTED & spawn.get_preparation_data("x").keys()
    with without_main_module():
        assert not IMPORTED & spawn.get_preparation_data("x").keys()
    assert (main.__file__, main.__spec__) == (__file__, None)
