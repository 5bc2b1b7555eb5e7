"""What Ray reads from this process, and what it changes in it.

Ray reads some variables when it is imported, so that this module is used before, and imports
nothing of Ray.
"""

from __future__ import annotations

import contextlib
import os
import resource
import secrets
import shutil
import signal
import sys
import tempfile
import threading
import uuid
from collections.abc import Iterator, Mapping

from sadcl import storage
from sadcl.errors import UserError
from sadcl.results import store
from sadcl.study import process

_REQUIRED = {
    "TUNE_DISABLE_SIGINT_HANDLER": "1",  # Ctrl-C ends the program, whose tables are always whole
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",  # the tables hold what these would write
    "RAY_CHDIR_TO_TRIAL_DIR": "0",  # sadcl.study.process sets the working folder
    "RAY_AIR_NEW_OUTPUT": "0",  # the live table shows what this would print
}
"""Variables that override the user's."""
_DEFAULTS = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_task_oom_retries": "5",  # as many as after any other loss; Ray's own default has no end
    "TUNE_WARN_INSUFFICENT_RESOURCE_THRESHOLD_S": "1000000",
}
"""Variables that hold where the user has set none."""
SOCKET_BYTES = 107 if sys.platform.startswith("linux") else 103
"""Largest length of the path of a socket."""
SESSION_BYTES = 66
"""What Ray adds to its folder: /session_DATE_TIME_PROCESS/sockets/plasma_store, and a number."""
LISTENER_BYTES = 34
"""What Python adds to ``TMPDIR`` for a socket: /pymp-XXXXXXXX/listener-XXXXXXXX."""
LEAST_OPEN_FILES = 256
"""Fewer files that a process may have open than these are too few for a private cluster."""
SESSION_ROOM = 100_000_000
"""Bytes that must be free for the logs of a private cluster."""
_previous: dict[str, str | None] = {}
"""The former values of what :func:`prepare` has changed."""


def in_ray_job() -> bool:
    """Tell whether this is the entrypoint of a submitted job, whose working folder dies with it."""
    return "RAY_JOB_CONFIG_JSON_ENV_VAR" in os.environ


def away_in_ray_job() -> contextlib.AbstractContextManager[None]:
    """Leave the start folder while the block runs, if this is a Ray job: Ray may unpack it anew.

    Elsewhere the process may be a notebook's, whose working folder is its user's.
    """
    return process.away_from_start_folder() if in_ray_job() else contextlib.nullcontext()


def cluster_address(address: str | None) -> str | None:
    """Return the address of the cluster to join, or None for a private one.

    Args:
        address: From the command line; None takes ``RAY_ADDRESS``.
    """
    return address or os.environ.get("RAY_ADDRESS") or None


def check_storage(root: str, *, write: bool = True) -> None:
    """Write, read and remove a file below the root.

    Args:
        root: The storage.
        write: False only looks whether files stand where its folders are to be.

    Raises:
        UserError: Where that is not possible, or where the results of a job would be lost.
    """
    if in_ray_job() and "://" not in root and not os.path.isabs(root):
        raise UserError(
            f"--storage {root!r} is relative, and this is a Ray job: its working directory is "
            "removed at the end together with the results. Give an absolute path on storage that "
            "all nodes share, or s3://... or gs://..."
        )
    storage.resolve(root)  # an unknown scheme is reported of the root, not of the probe below it
    store.check_folders(root)
    if not write:
        return
    probe = storage.join(root, f".probe-{uuid.uuid4().hex[:8]}")
    try:
        storage.write(probe, b"sadcl")
        if storage.read(probe) != b"sadcl":
            raise OSError("what was read is not what was written")
        storage.delete(probe)
    except OSError as error:
        raise UserError(
            f"The storage {root!r} cannot be written: {error}. Give another --storage."
        ) from None


def check_limits() -> None:
    """Look at the limits of this process within which Ray waits for itself without an end.

    Raises:
        UserError: For a limit on open files or on the size of a file that is too low.
    """
    for limit, least, what, letter in (
        (resource.RLIMIT_NOFILE, LEAST_OPEN_FILES, "open files", "n"),
        (resource.RLIMIT_FSIZE, SESSION_ROOM, "bytes in a file", "f"),
    ):
        current, highest = resource.getrlimit(limit)
        if current != resource.RLIM_INFINITY and current < least:
            more = "unlimited" if letter == "f" else "4096"
            fixed = highest != resource.RLIM_INFINITY and highest < least
            command = f"Raise it (ulimit -{letter} {more})"
            raised = "An administrator can raise it" if fixed else command
            raise UserError(
                f"Ray cannot start a cluster where a process is limited to {current:,} {what}: it "
                f"needs at least {least:,}. {raised}, and run the same command again."
            )


def session_folder() -> str:
    """Return a folder for the sockets and logs of a private cluster.

    It is Ray's own choice, in ``RAY_TMPDIR``, ``TMPDIR`` or /tmp. If that cannot be used, a folder
    of this user's takes its place, in /tmp, in /var/tmp, in ``XDG_RUNTIME_DIR`` or in /dev/shm.

    Raises:
        UserError: Where none of them can be used, with the reasons.
    """
    linux = sys.platform.startswith("linux")
    chosen = os.environ.get("RAY_TMPDIR") or (linux and os.environ.get("TMPDIR")) or "/tmp"
    folder = os.path.join(chosen, "ray")
    if not (problem := _problem(folder)):
        return folder
    problems = [problem]
    runtime = os.environ.get("XDG_RUNTIME_DIR", "")
    for place in ("/tmp", "/var/tmp", runtime, "/dev/shm"):
        if os.path.isdir(place):
            folder = os.path.join(place, f"ray-{os.getuid()}")
            if not (problem := _problem(folder)):
                return folder
            problems.append(problem)
    raise UserError(
        f"Ray has no folder for its sockets and logs: {'; '.join(problems)}. Make room, or set "
        "RAY_TMPDIR to a short path on a disk with room."
    )


def short_temporary_folder() -> contextlib.AbstractContextManager[None]:
    """Give processes that start while the block runs a short ``TMPDIR``, if theirs is too long.

    Python's own processes, of Ray's dashboard for example, have sockets there.
    """
    folder = os.environ.get("TMPDIR", "")
    too_long = len(os.fsencode(os.path.abspath(folder))) > SOCKET_BYTES - LISTENER_BYTES
    return variables({"TMPDIR": "/tmp"}) if folder and too_long else contextlib.nullcontext()


def _problem(folder: str) -> str:
    """Say why Ray cannot keep sockets and logs in a folder; empty if it can."""
    if (size := len(os.fsencode(os.path.abspath(folder)))) > SOCKET_BYTES - SESSION_BYTES:
        return (
            f"{folder!r} has {size} bytes, {SOCKET_BYTES - SESSION_BYTES} are possible in the path "
            "of a socket"
        )
    try:
        os.makedirs(folder, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder) as file:
            file.write(b"sadcl")
        free = shutil.disk_usage(folder).free
    except OSError as error:
        return f"{folder!r} cannot be written ({error.strerror or error})"
    return "" if free >= SESSION_ROOM else f"{folder!r} has {free / 1e6:,.0f} MB free"


def prepare(address: str | None) -> str | None:
    """Set the variables that Ray reads; call it before Ray is imported.

    A private cluster gets a token of its own, so that no other user of the machine can run code on
    it. Where the caller has imported Ray already it is too late for that, and Ray's own default
    holds. The other variables get their former values back when the connection ends
    (:func:`restored_afterwards`); the token stays, because Ray has read it for the whole process.

    Args:
        address: From the command line; None takes ``RAY_ADDRESS``.

    Returns:
        The address of the cluster to join; None for a private one.
    """
    address = cluster_address(address)
    defaults = {name: value for name, value in _DEFAULTS.items() if name not in os.environ}
    for name, value in (_REQUIRED | defaults).items():
        _previous.setdefault(name, os.environ.get(name))
        os.environ[name] = value
    if address is None and "RAY_AUTH_MODE" not in os.environ and "ray" not in sys.modules:
        os.environ["RAY_AUTH_MODE"] = "token"
        os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(32))
    return address


@contextlib.contextmanager
def restored_afterwards() -> Iterator[None]:
    """Undo :func:`prepare` when the block ends, except for the token."""
    try:
        yield
    finally:
        _set(_previous)
        _previous.clear()


@contextlib.contextmanager
def variables(values: Mapping[str, str]) -> Iterator[None]:
    """Set environment variables for as long as the block runs."""
    before = {name: os.environ.get(name) for name in values}
    _set(values)
    try:
        yield
    finally:
        _set(before)


def _set(values: Mapping[str, str | None]) -> None:
    for name, value in values.items():
        if value is None:
            os.environ.pop(name, None)
        else:
            os.environ[name] = value


@contextlib.contextmanager
def signal_handlers_kept() -> Iterator[None]:
    """Put back signal handlers when the block ends; Ray installs its own and leaves them."""
    numbers = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)
    before = {number: signal.getsignal(number) for number in numbers}
    try:
        yield
    finally:
        if threading.current_thread() is threading.main_thread():  # others may not set handlers
            for number, handler in before.items():
                if handler is not None:  # None is one that was not installed from Python
                    signal.signal(number, handler)
