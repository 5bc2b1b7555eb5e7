"""What a run asks of the machine, and the limits that the environment sets."""

from __future__ import annotations

import pytest

from sadcl.errors import UserError
from sadcl.launch import resources


@pytest.mark.parametrize(
    ("text", "seconds"), [(None, 600), ("45", 45), ("0", None), ("1.5", None), ("soon", None)]
)
def test_the_time_that_a_worker_may_keep_the_others_waiting(monkeypatch, tmp_path, text, seconds):
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.delenv(resources.TIMEOUT, raising=False)
    if text is not None:
        monkeypatch.setenv(resources.TIMEOUT, text)
    arguments = (str(tmp_path), None, "demo", 1, 0, None)
    if seconds is None:
        with pytest.raises(UserError, match=f"SADCL_TIMEOUT_SECONDS = '{text}' is not possible"):
            resources.make_placement(*arguments)
    else:
        assert resources.make_placement(*arguments).timeout == seconds
