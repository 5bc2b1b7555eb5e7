"""What Ray reads from this process is set before, and is put back afterwards."""

import os
import resource
import shutil
import signal
import subprocess
import sys

import pytest

from sadcl.errors import UserError
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
import resource
import shutil
from sadcl.errors import UserError
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


def test_ray_keeps_its_own_folder_where_that_can_be_used(monkeypatch):
    monkeypatch.delenv("RAY_TMPDIR", raising=False)
    monkeypatch.delenv("TMPDIR", raising=False)
    assert environment.session_folder() == "/tmp/ray"


@pytest.mark.parametrize("name", ["RAY_TMPDIR", "TMPDIR"])
def test_a_folder_that_is_too_long_for_sockets_is_replaced_by_a_shorter(
    monkeypatch, tmp_path, name
):
    monkeypatch.setattr("sys.platform", "linux")
    monkeypatch.delenv("RAY_TMPDIR", raising=False)
    monkeypatch.setenv(name, str(tmp_path / ("x" * 90)))
    folder = environment.session_folder()
    assert folder == f"/tmp/ray-{os.getuid()}"
    assert os.path.isdir(folder)
    longest = f"{folder}/session_2026-11-30_12-00-00_123456_4194304/sockets/plasma_store.1"
    assert len(longest) <= 107


def test_a_machine_without_any_folder_says_why(monkeypatch):
    """Full disks, and one that cannot be written."""
    room = shutil.disk_usage("/")._replace(free=3_000_000)
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: room)
    monkeypatch.setenv("RAY_TMPDIR", "/proc/none")
    with pytest.raises(UserError) as refused:
        environment.session_folder()
    message = str(refused.value)
    assert message.startswith("Ray has no folder for its sockets and logs: '/proc/none/ray' cannot")
    assert f"'/tmp/ray-{os.getuid()}' has 3 MB free" in message
    assert message.endswith("set RAY_TMPDIR to a short path on a disk with room.")


def test_processes_get_a_short_temporary_folder_while_a_cluster_starts(monkeypatch):
    for folder, given in (("/tmp/" + "x" * 90, "/tmp"), ("/var/tmp", "/var/tmp")):
        monkeypatch.setenv("TMPDIR", folder)
        with environment.short_temporary_folder():
            assert os.environ["TMPDIR"] == given
        assert os.environ["TMPDIR"] == folder


@pytest.mark.parametrize(
    ("limit", "value", "words"),
    [
        (resource.RLIMIT_NOFILE, 64, "limited to 64 open files: it needs at least 256. Raise it ("),
        (resource.RLIMIT_FSIZE, 16_384, "limited to 16,384 bytes in a file: "),
    ],
)
def test_limits_within_which_ray_never_starts_are_refused(limit, value, words):
    """With either, Ray waits minutes for itself."""
    environment.check_limits()
    before = resource.getrlimit(limit)
    resource.setrlimit(limit, (value, before[1]))
    try:
        with pytest.raises(UserError) as refused:
            environment.check_limits()
    finally:
        resource.setrlimit(limit, before)
    assert words in str(refused.value)
