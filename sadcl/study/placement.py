"""Where and on how much a trial runs, and whether a cluster has room for it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from sadcl.errors import UserError


@dataclass(frozen=True)
class Placement:
    """Where and on how much a trial runs; nothing of it changes the figures.

    Attributes:
        storage: root of tables and checkpoints.
        data_root: where the data lies; None for the embedded scenes.
        scale: demo or full.
        workers: training processes.
        cpus, gpus: of each worker.
        up_to: workers that it grows to where the cluster has room for more than ``workers``; 0 is a fixed number.
        timeout: seconds that a worker may keep the others waiting before the run is started again without it.
    """

    storage: str
    data_root: str | None
    scale: str = "full"
    workers: int = 1
    cpus: int = 1
    gpus: float = 0
    up_to: int = 0
    timeout: int = 600

    @property
    def loader_workers(self) -> int:
        """Beside a GPU one CPU trains and the others decode; on CPUs one decodes. At demo scale images are kept decoded."""
        if self.scale != "full":
            return 0
        return self.cpus - 1 if self.gpus else min(1, self.cpus - 1)

    @property
    def threads(self) -> int:
        """That compute on CPUs."""
        return max(1, self.cpus - self.loader_workers)


def workers_on(placement: Placement, node: Mapping[str, float], cpus: int = 1) -> int:
    """Workers of so many CPUs that a node takes, each whole; a part of a GPU is a part of one and the same."""
    fit = int(node.get("CPU", 0) // cpus)
    if not placement.gpus:
        return fit
    gpus = int(node.get("GPU", 0))
    return min(
        fit,
        gpus * int(1 / placement.gpus + 1e-9)
        if placement.gpus < 1
        else int(gpus // placement.gpus),
    )


def fit_to_cluster(
    placement: Placement, nodes: Sequence[Mapping[str, float]]
) -> tuple[Placement, int]:
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
        return sum(workers_on(placement, node, cpus) for node in nodes) // placement.workers

    most = trials(1)
    if not most:
        raise UserError(_no_room(placement, nodes))
    enough = most if placement.gpus else 1
    cpus = next(c for c in range(max(placement.cpus, 1), 0, -1) if trials(c) >= enough)
    return replace(placement, cpus=cpus), trials(cpus)


def _no_room(placement: Placement, nodes: Sequence[Mapping[str, float]]) -> str:
    kinds = Counter(
        f"{node.get('CPU', 0):g} CPUs and {node.get('GPU', 0):g} GPUs" for node in nodes
    ).most_common()
    have = [f"{count} nodes of {kind}" if count > 1 else kind for kind, count in kinds]
    more = [f"{len(have) - 4} other kinds of node"] if len(have) > 4 else []
    gpus = f" and {placement.gpus:g} GPUs" if placement.gpus else ""
    whole = ", whole on one node" if len(nodes) > 1 else ""
    return (
        f"A trial needs {placement.workers} workers with 1 CPU{gpus} each{whole}, but the cluster has room for "
        f"{sum(workers_on(placement, node) for node in nodes)} ({'; '.join(have[:4] + more)}). Lower --workers or --gpus-per-trial "
        "(0 trains on the CPU), or join a larger cluster with --address."
    )
