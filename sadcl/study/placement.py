"""The resources that a trial runs on, and whether a cluster has room for it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from sadcl.errors import UserError


@dataclass(frozen=True)
class Placement:
    """Where a trial runs and on how much. None of it changes its figures.

    Attributes:
        storage: the root of tables and checkpoints.
        data_root: the folder of the data; None for the drawn scenes.
        scale: ``demo`` or ``full``.
        workers: the number of training processes.
        cpus: the CPUs of each worker.
        gpus: the GPUs of each worker; a fraction is a part of one GPU.
        up_to: the number of workers up to which the trial grows while the cluster has room; 0 keeps
            ``workers`` fixed.
        timeout: the seconds that a worker may keep the others waiting before the run is started
            again without it.
    """

    storage: str
    data_root: str | None
    scale: str = "full"
    workers: int = 1
    cpus: int = 1
    gpus: float = 0
    up_to: int = 0
    timeout: int = 600

    def loader_workers(self, stores_features: bool) -> int:
        """Return how many processes of each worker decode images.

        Next to a GPU one CPU trains and the others decode. On CPUs one decodes. At demo scale none
        does, because images stay decoded in memory.

        Args:
            stores_features: whether the run reads stored feature maps, so that on CPUs none does.
        """
        if self.scale != "full":
            return 0
        return self.cpus - 1 if self.gpus else min(int(not stores_features), self.cpus - 1)

    def threads(self, stores_features: bool) -> int:
        """Return how many threads of each worker compute on CPUs.

        Args:
            stores_features: as for :meth:`loader_workers`.
        """
        return max(1, self.cpus - self.loader_workers(stores_features))


def workers_on(placement: Placement, node: Mapping[str, float], cpus: int = 1) -> int:
    """Return the number of workers that fit on a node, each of them whole.

    A fraction of a GPU is a part of one GPU, never of two.

    Args:
        placement: the GPUs of each worker.
        node: the node's resources, ``CPU`` and ``GPU``.
        cpus: the CPUs of each worker.
    """
    by_cpu = int(node.get("CPU", 0) // cpus)
    if not placement.gpus:
        return by_cpu
    gpus = int(node.get("GPU", 0))
    if placement.gpus < 1:
        return min(by_cpu, gpus * int(1 / placement.gpus + 1e-9))
    return min(by_cpu, int(gpus // placement.gpus))


def fit_to_cluster(
    placement: Placement, nodes: Sequence[Mapping[str, float]]
) -> tuple[Placement, int]:
    """Fit the size of a trial to a cluster.

    On GPUs a worker gets as many CPUs as cost no other trial its place.

    Args:
        placement: the placement, with the CPUs that are asked for.
        nodes: the resources of each node.

    Returns:
        The placement with the CPUs of each worker, and the number of trials that fit at once.

    Raises:
        UserError: if not even one trial can ever be placed, with the arithmetic.
    """

    def trials(cpus: int) -> int:
        """Return the trials that fit at once; a trial may span several nodes, a worker may not."""
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
    parts = [f"{count} nodes of {kind}" if count > 1 else kind for kind, count in kinds]
    if len(parts) > 4:
        parts = [*parts[:4], f"{len(parts) - 4} other kinds of node"]
    gpus = f" and {placement.gpus:g} GPUs" if placement.gpus else ""
    whole = ", whole on one node" if len(nodes) > 1 else ""
    return (
        f"A trial needs {placement.workers} workers with 1 CPU{gpus} each{whole}, but the cluster "
        f"has room for {sum(workers_on(placement, node) for node in nodes)} ({'; '.join(parts)}). "
        "Lower --workers or --gpus-per-worker (0 trains on the CPU), or join a larger cluster with "
        "--address."
    )
