"""Ray's environment; Ray reads it when it is imported, so this comes first and imports nothing of it."""

from __future__ import annotations

import os
import uuid
from typing import TYPE_CHECKING

from sadcl import storage
from sadcl.errors import UserError

if TYPE_CHECKING:  # nodes look without torch
    pass
import secrets
import sys


def in_ray_job() -> bool:
    """Whether this is the entrypoint of a submitted job, whose working directory dies with it."""
    return "RAY_JOB_CONFIG_JSON_ENV_VAR" in os.environ


def check_storage(root: str) -> None:
    """Write, read and remove a file below the root.

    Raises:
        UserError: where that is not possible, or where a job's results would be lost.
    """
    if in_ray_job() and "://" not in root and not os.path.isabs(root):
        raise UserError(
            f"--storage {root!r} is relative, and this is a Ray job: its working directory is removed at the end, "
            "results and all. Give an absolute path on storage that all nodes share, or s3://... or gs://..."
        )
    storage.resolve(root)  # names the root where its scheme is unknown, and not the probe below it
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


def prepare(address: str | None) -> str | None:
    """Set what Ray is to read, and give the address of the cluster to join; None for a private one.

    A private cluster gets a token of its own, so that no other user of the machine can run code on it. Where the caller has
    imported Ray already that comes too late, and Ray's own default holds.
    """
    address = address or os.environ.get("RAY_ADDRESS") or None
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ["TUNE_DISABLE_SIGINT_HANDLER"] = (
        "1"  # Ctrl-C ends the program, whose tables are whole at any time
    )
    os.environ["TUNE_DISABLE_AUTO_CALLBACK_LOGGERS"] = "1"  # the tables are ours
    os.environ["RAY_CHDIR_TO_TRIAL_DIR"] = (
        "0"  # where a process stands is settled by sadcl.storage.leave_start_folder
    )
    os.environ["RAY_AIR_NEW_OUTPUT"] = "0"  # and what people see is ours
    os.environ.setdefault(
        "RAY_task_oom_retries", "4"
    )  # as often as what is lost otherwise; Ray's own default is for ever
    os.environ.setdefault("TUNE_WARN_INSUFFICENT_RESOURCE_THRESHOLD_S", "1000000")
    if address is None and "RAY_AUTH_MODE" not in os.environ and "ray" not in sys.modules:
        os.environ["RAY_AUTH_MODE"] = "token"
        os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(32))
    return address
