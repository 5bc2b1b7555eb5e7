"""What Ray reads from this process is set before, and is put back afterwards."""

import os
import signal
import subprocess
import sys

import pytest

from sadcl.ray_backend import environment

RAY = ("RAY_", "TUNE_")


def settings():
    return {name: value for name, value in os.environ.items() if name.startswith(RAY)}


@pytest.fixture(autouse=True)
def clean(monkeypatch):
    for name in settings():
        monkeypatch.delenv(name)
    yield
    for name in settings():
        del os.environ[name]


def test_what_prepare_sets_is_put_back_when_the_connection_ends(monkeypatch):
    monkeypatch.setenv("RAY_AIR_NEW_OUTPUT", "1")
    monkeypatch.setenv("RAY_task_oom_retries", "9")
    monkeypatch.setitem(sys.modules, "ray", None)
    before = settings()
    with environment.restored_afterwards():
        assert environment.prepare("10.0.0.1:6379") == "10.0.0.1:6379"
        environment.prepare("10.0.0.1:6379")  # once more, as in a second call
        during = settings()
        assert during["RAY_AIR_NEW_OUTPUT"] == "0"
        assert during["RAY_task_oom_retries"] == "9"
        assert during["RAY_USAGE_STATS_ENABLED"] == "0"
        assert "RAY_AUTH_TOKEN" not in during
    assert settings() == before


def test_the_address_comes_from_the_environment_where_none_is_given(monkeypatch):
    monkeypatch.setenv("RAY_ADDRESS", "10.0.0.1:6379")
    with environment.restored_afterwards():
        assert environment.prepare(None) == "10.0.0.1:6379"
        assert environment.prepare("10.0.0.2:6379") == "10.0.0.2:6379"


def test_the_token_of_a_private_cluster_outlives_the_connection():
    """Ray has read it for the whole process, and a second private cluster needs it too."""
    code = """
import os
from sadcl.ray_backend import environment
with environment.restored_afterwards():
    environment.prepare(None)
    token = os.environ["RAY_AUTH_TOKEN"]
environment.prepare(None)
assert os.environ["RAY_AUTH_MODE"] == "token" and os.environ["RAY_AUTH_TOKEN"] == token
assert len(token) == 64
"""
    subprocess.run([sys.executable, "-c", code], check=True)


def test_variables_hold_for_a_block(monkeypatch):
    monkeypatch.setenv("RAY_A", "1")
    with environment.variables({"RAY_A": "2", "RAY_B": "3"}):
        assert settings() == {"RAY_A": "2", "RAY_B": "3"}
    assert settings() == {"RAY_A": "1"}


def test_signal_handlers_are_put_back():
    def handler(*_):
        return

    def fail():
        with environment.signal_handlers_kept():
            for number in before:
                signal.signal(number, signal.SIG_IGN)
            _ = 1 / 0

    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        signal.signal(signal.SIGTERM, handler)
        with pytest.raises(ZeroDivisionError):
            fail()
        assert signal.getsignal(signal.SIGTERM) is handler
        assert signal.getsignal(signal.SIGINT) is before[signal.SIGINT]
    finally:
        for number, previous in before.items():
            signal.signal(number, previous)
