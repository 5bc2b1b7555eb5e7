"""What can be known to fail before anything is reserved."""

from __future__ import annotations

import json
import os
import uuid
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from sadcl import storage
from sadcl.errors import UserError

if TYPE_CHECKING:  # nodes look without torch
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


def room(where: Where, node: Mapping[str, float], cpus: int = 1) -> int:
    """Workers of so many CPUs that a node takes, each whole; a part of a GPU is a part of one and the same."""
    fit = int(node.get("CPU", 0) // cpus)
    if not where.gpus:
        return fit
    gpus = int(node.get("GPU", 0))
    return min(fit, gpus * int(1 / where.gpus + 1e-9) if where.gpus < 1 else int(gpus // where.gpus))


JOINS = "SADCL_MAY_JOIN"
"""Variable of a head whose cluster grows: ``[{"nodes": 8, "CPU": 8, "GPU": 1}]``; Ray does not say it."""


def with_coming(nodes: Sequence[Mapping[str, float]], said: str | None) -> list[Mapping[str, float]]:
    """The nodes of a cluster, and those that it starts when a trial waits for them.

    Args:
        nodes: resources of each node that is there.
        said: content of the variable ``JOINS``.

    Raises:
        UserError: where that cannot be read.
    """
    try:
        kinds = [{name: float(count) for name, count in kind.items()} for kind in json.loads(said or "[]")]
        coming = [kind for kind in kinds for _ in range(int(kind.pop("nodes")))]
    except (ValueError, TypeError, AttributeError, KeyError):
        example = '[{"nodes": 8, "CPU": 8, "GPU": 1}]'
        raise UserError(f"{JOINS}={said!r} cannot be read: which nodes may join is said as in {example}.") from None
    for node in nodes:
        same = [kind for kind in coming if all(kind.get(name, 0) == node.get(name, 0) for name in ("CPU", "GPU"))]
        if same:
            coming.remove(same[0])
    return [*nodes, *coming]


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

    def trials(cpus: int) -> int:
        """At once; a trial may lie on several nodes, a worker may not."""
        return sum(room(where, node, cpus) for node in nodes) // where.workers

    most = trials(1)
    if not most:
        raise UserError(_never(where, nodes))
    enough = most if where.gpus else 1
    cpus = next(c for c in range(max(where.cpus, 1), 0, -1) if trials(c) >= enough)
    return replace(where, cpus=cpus), trials(cpus)


def _never(where: Where, nodes: Sequence[Mapping[str, float]]) -> str:
    kinds = Counter(f"{node.get('CPU', 0):g} CPUs and {node.get('GPU', 0):g} GPUs" for node in nodes).most_common()
    have = [f"{count} nodes of {kind}" if count > 1 else kind for kind, count in kinds]
    more = [f"{len(have) - 4} other kinds of node"] if len(have) > 4 else []
    gpus = f" and {where.gpus:g} GPUs" if where.gpus else ""
    whole = ", whole on one node" if len(nodes) > 1 else ""
    return (
        f"A trial needs {where.workers} workers with 1 CPU{gpus} each{whole}, but the cluster has room for "
        f"{sum(room(where, node) for node in nodes)} ({'; '.join(have[:4] + more)}). Lower --workers or --gpus-per-trial "
        "(0 trains on the CPU), or join a larger cluster with --address."
    )
