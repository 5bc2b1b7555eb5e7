"""What every node of a joined cluster must have, checked on each before a trial is placed."""

from __future__ import annotations

import uuid
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import ray
from ray.exceptions import GetTimeoutError, RayError, RayTaskError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from sadcl import storage
from sadcl.errors import UserError
from sadcl.ray_backend import node_report
from sadcl.ray_backend.node_report import COMPARED, MISSING, NodeReport
from sadcl.study.placement import Placement, workers_on

DEADLINE_SECONDS = 180.0
"""A node has so long to answer; a job's own environment is first made on each node."""
MOST_NAMED = 6
"""A message names at most so many nodes, and so many problems."""


def check_nodes(
    placement: Placement, names: Sequence[str], deadline: float = DEADLINE_SECONDS
) -> None:
    """Ask every node of the cluster at once; nodes that join later are not asked.

    Args:
        placement: The storage and the data root to check, and what a worker takes.
        names: Files below the data root that must be the same everywhere
            (:func:`sadcl.data.witness_files`); without any, nodes need no data.
        deadline: Seconds after which a node counts as one that does not answer.

    Raises:
        UserError: With all problems, by node.
    """
    nodes = sorted(
        (n for n in ray.nodes() if n["Alive"]), key=lambda n: (n["NodeManagerAddress"], n["NodeID"])
    )
    root = placement.data_root if names else None
    marker = storage.join(placement.storage, f".probe-{uuid.uuid4().hex[:8]}")
    storage.write(marker, marker.encode())
    try:
        answers = _node_reports(nodes, deadline, placement.storage, marker, root, names)
    finally:
        storage.delete(marker)
    driver = NodeReport(node_report.versions(), "", node_report.data_entries(root, names))
    addresses = Counter(node["NodeManagerAddress"] for node in nodes)
    problems_of: dict[str, list[str]] = {}
    for node, answer in zip(nodes, answers, strict=True):
        name = node["NodeManagerAddress"]
        if addresses[name] > 1:
            name += f" ({node['NodeID'][:6]})"
        trains = workers_on(placement, node["Resources"]) > 0
        problems_of[name] = (
            problems(answer, driver, placement, trains)
            if isinstance(answer, NodeReport)
            else [answer]
        )
    if any(problems_of.values()):
        raise UserError(refusal(problems_of))


def problems(node: NodeReport, driver: NodeReport, placement: Placement, trains: bool) -> list[str]:
    """Describe what is wrong on a node.

    Args:
        node, driver: What the node and what the driver has.
        placement: The data root, and whether a worker gets a GPU.
        trains: Whether the node may get a worker; one that only serves needs no data.
    """
    texts = [node.storage] if node.storage else []
    versions = [
        f"{label} {node.versions.get(name) or 'missing'}, "
        f"on the driver {driver.versions.get(name) or 'missing'}"
        for name, label in COMPARED.items()
        if node.versions.get(name) != driver.versions.get(name)
    ]
    if versions:
        texts.append(f"{'; '.join(versions)}: install the same on all nodes")
    if trains and placement.gpus and (gpu_problem := node.gpu.problem()):
        texts.append(gpu_problem)
    different = (
        [name for name, entry in driver.data.items() if node.data.get(name) != entry]
        if trains
        else []
    )
    if different:
        name = different[0]
        path = storage.join(str(placement.data_root), name).rstrip("/")
        entry = node.data.get(name, MISSING)
        state = (
            "does not exist there"
            if entry == MISSING
            else f"is {entry} there, but {driver.data[name]} on the driver"
        )
        more = f" (and {len(different) - 1} more)" if name and len(different) > 1 else ""
        texts.append(
            f"{path!r} {state}{more}: give a --data-root that all nodes share, or copy the same "
            "data to each of them"
        )
    return texts


def refusal(problems_of: Mapping[str, Sequence[str]]) -> str:
    """Put the problems of all nodes into one paragraph, and name nodes with the same ones together.

    Args:
        problems_of: By node; empty for a node that can take trials.
    """
    nodes_of: dict[str, list[str]] = {}
    for node, texts in problems_of.items():
        for text in texts:
            nodes_of.setdefault(text, []).append(node)
    parts = [f"{_name_nodes(nodes)}: {text}." for text, nodes in nodes_of.items()]
    more = [f"And {len(parts) - MOST_NAMED} more problems."] if len(parts) > MOST_NAMED else []
    bad = sum(map(bool, problems_of.values()))
    return " ".join(
        [
            f"{bad} of the {len(problems_of)} nodes of the cluster cannot take trials.",
            *parts[:MOST_NAMED],
            *more,
        ]
    )


def _node_reports(
    nodes: Sequence[Mapping[str, Any]], deadline: float, *arguments: Any
) -> list[NodeReport | str]:
    """Fetch the report of each node, or why there is none."""
    task: Any = ray.remote(num_cpus=0, max_retries=0)(node_report.node_report)
    pins = [NodeAffinitySchedulingStrategy(node["NodeID"], soft=False) for node in nodes]
    references = [task.options(scheduling_strategy=pin).remote(*arguments) for pin in pins]
    ray.wait(references, num_returns=len(references), timeout=deadline)
    return [_node_report(reference, deadline) for reference in references]


def _node_report(reference: Any, deadline: float) -> NodeReport | str:
    try:
        report: NodeReport = ray.get(reference, timeout=0)
        return report
    except GetTimeoutError:
        return (
            f"no answer within {deadline:g} s (a disk that hangs, or an environment that is still "
            "being made)"
        )
    except RayTaskError as error:
        last = str(error).strip().splitlines()[-1].strip()
        return f"cannot run sadcl ({last}): install the same on all nodes"
    except RayError as error:
        return (
            f"was lost during the check ({type(error).__name__}): give the same command again once "
            "the node is back or gone"
        )


def _name_nodes(nodes: Sequence[str]) -> str:
    more = f" and {len(nodes) - MOST_NAMED} more" if len(nodes) > MOST_NAMED else ""
    return f"{'Node' if len(nodes) == 1 else 'Nodes'} {', '.join(nodes[:MOST_NAMED])}{more}"
