"""What can be known to fail before anything is reserved."""

from __future__ import annotations

import os
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import replace

from sadcl import storage
from sadcl.errors import UserError
from sadcl.runner import Where


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


def place(where: Where, nodes: Sequence[Mapping[str, float]]) -> tuple[Where, int]:
    """Fit the size of a trial to the cluster: beside a GPU it takes as many CPUs as cost no other trial its place.

    Args:
        where: with the CPUs that are wished for.
        nodes: resources of each node.

    Returns:
        The same with the CPUs of each worker, and how many trials fit at once.

    Raises:
        UserError: where not even one can ever be placed, with the arithmetic.
    """

    def workers(cpus: int) -> int:
        """That can be placed, each whole on a node."""
        count = 0
        for node in nodes:
            fit = int(node.get("CPU", 0) // cpus)
            count += min(fit, int(node.get("GPU", 0) / where.gpus + 1e-9)) if where.gpus else fit
        return count

    most = workers(1)
    enough = most if where.gpus else where.workers
    cpus = next((c for c in range(where.cpus, 0, -1) if workers(c) >= enough), 1)
    if most < where.workers:
        have = [f"{node.get('CPU', 0):g} CPUs and {node.get('GPU', 0):g} GPUs" for node in nodes]
        gpus = f" and {where.gpus:g} GPUs" if where.gpus else ""
        raise UserError(
            f"A trial needs {where.workers} workers with 1 CPU{gpus} each, but the cluster has room for {most} "
            f"({'; '.join(have[:4])}). Lower --workers or --gpus-per-trial (0 trains on the CPU), or join a larger cluster "
            "with --address."
        )
    return replace(where, cpus=cpus), max(workers(cpus) // where.workers, 1)
