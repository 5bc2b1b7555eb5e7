"""What can be known to fail before anything is reserved."""

from __future__ import annotations

import os
import uuid

from sadcl import storage
from sadcl.errors import UserError


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
        raise UserError(f"The storage {root!r} cannot be written: {error}. Give another --storage.") from None


def check_resources(available: dict[str, float], *, workers: int, cpus: int, gpus: float) -> int:
    """How many trials of this size the cluster can run at once.

    Raises:
        UserError: where not even one can ever be placed, with the arithmetic.
    """
    have_cpus, have_gpus = available.get("CPU", 0), available.get("GPU", 0)
    if gpus and workers * gpus > have_gpus:
        raise UserError(
            f"A trial needs {workers} x {gpus:g} = {workers * gpus:g} GPUs, but the cluster has {have_gpus:g}. "
            "Lower --workers or --gpus-per-trial (0 trains on the CPU), or join a larger cluster with --address."
        )
    if workers * cpus > have_cpus:
        raise UserError(
            f"A trial needs {workers} x {cpus} = {workers * cpus} CPUs, but the cluster has {have_cpus:g}. "
            "Lower --workers, or join a larger cluster with --address."
        )
    by_cpu = int(have_cpus // (workers * cpus))
    return min(by_cpu, int(have_gpus // (workers * gpus))) if gpus else by_cpu
