"""What every node of a cluster that was joined must have; found out on each of them before a trial is placed."""

from __future__ import annotations

import uuid
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import ray
from ray.exceptions import GetTimeoutError, RayError, RayTaskError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from sadcl import storage
from sadcl.errors import UserError
from sadcl.ray_backend import node_report
from sadcl.ray_backend.node_report import COMPARED, NodeReport
from sadcl.study.placement import workers_on

if TYPE_CHECKING:  # nodes answer in a second because they need no torch for it
    from sadcl.study.placement import Placement


DEADLINE_SECONDS = 180.0
"""Seconds; a job that brings its own environment has it made on each node first."""
MOST_NAMED = 6
"""Nodes, and problems, that a message names."""


def check_nodes(
    placement: Placement, names: Sequence[str], deadline: float = DEADLINE_SECONDS
) -> None:
    """Ask every node of the cluster at once; nodes that are added later are not asked.

    Args:
        names: of files below the data root that are to be the same everywhere (:func:`sadcl.data.witness_files`); without
            any, nodes need no data.
        deadline: seconds until a node counts as one that does not answer.

    Raises:
        UserError: with all that is wrong, by node.
    """
    nodes = sorted(
        (n for n in ray.nodes() if n["Alive"]), key=lambda n: (n["NodeManagerAddress"], n["NodeID"])
    )
    root = placement.data_root if names else None
    marker = storage.join(placement.storage, f".probe-{uuid.uuid4().hex[:8]}")
    storage.write(marker, marker.encode())
    try:
        answers = _ask(nodes, deadline, placement.storage, marker, root, names)
    finally:
        storage.delete(marker)
    here = NodeReport(node_report.versions(), "", node_report.data_sizes(root, names))
    addresses = Counter(node["NodeManagerAddress"] for node in nodes)
    found: dict[str, list[str]] = {}
    for node, answer in zip(nodes, answers, strict=True):
        name = node["NodeManagerAddress"]
        if addresses[name] > 1:
            name += f" ({node['NodeID'][:6]})"
        trains = workers_on(placement, node["Resources"]) > 0
        found[name] = (
            problems(answer, here, placement, trains)
            if isinstance(answer, NodeReport)
            else [answer]
        )
    if any(found.values()):
        raise UserError(refusal(found))


def problems(there: NodeReport, here: NodeReport, placement: Placement, trains: bool) -> list[str]:
    """What is wrong on a node, in words.

    Args:
        there, here: what the node and what the driver finds.
        trains: whether the node may be given a worker; one that only serves needs no data.
    """
    found = [there.storage] if there.storage else []
    versions = [
        f"{said} {there.versions.get(name) or 'missing'}, here {here.versions.get(name) or 'missing'}"
        for name, said in COMPARED.items()
        if there.versions.get(name) != here.versions.get(name)
    ]
    if versions:
        found.append(f"{'; '.join(versions)}: install the same on all nodes")
    other = (
        [name for name in here.data if there.data.get(name) != here.data[name]] if trains else []
    )
    if other:
        name = other[0]
        place = storage.join(str(placement.data_root), name).rstrip("/")
        at = there.data.get(name, "nothing")
        differs = (
            "is not there" if at == "nothing" else f"is {at} there, and {here.data[name]} here"
        )
        more = f" (and {len(other) - 1} more)" if name and len(other) > 1 else ""
        found.append(
            f"{place!r} {differs}{more}: give a --data-root that all nodes share, or the same copy to each of them"
        )
    return found


def refusal(found: Mapping[str, Sequence[str]]) -> str:
    """One paragraph of the problems of all nodes; nodes with the same problem are named together."""
    nodes_of: dict[str, list[str]] = {}
    for node, words in found.items():
        for problem in words:
            nodes_of.setdefault(problem, []).append(node)
    parts = [f"{_name_nodes(nodes)}: {problem}." for problem, nodes in nodes_of.items()]
    more = [f"And {len(parts) - MOST_NAMED} more problems."] if len(parts) > MOST_NAMED else []
    bad = sum(map(bool, found.values()))
    return " ".join(
        [
            f"{bad} of the {len(found)} nodes of the cluster cannot take trials.",
            *parts[:MOST_NAMED],
            *more,
        ]
    )


def _ask(
    nodes: Sequence[Mapping[str, Any]], deadline: float, *arguments: Any
) -> list[NodeReport | str]:
    """The report of each node, or why there is none."""
    task: Any = ray.remote(num_cpus=0, max_retries=0)(node_report.node_report)
    pins = [NodeAffinitySchedulingStrategy(node["NodeID"], soft=False) for node in nodes]
    asked = [task.options(scheduling_strategy=pin).remote(*arguments) for pin in pins]
    ray.wait(asked, num_returns=len(asked), timeout=deadline)
    return [_answer(reference, deadline) for reference in asked]


def _answer(reference: Any, deadline: float) -> NodeReport | str:
    try:
        report: NodeReport = ray.get(reference, timeout=0)
        return report
    except GetTimeoutError:
        return f"no answer within {deadline:g} s (a disk that hangs, or an environment that is still being made)"
    except RayTaskError as error:
        last = str(error).strip().splitlines()[-1].strip()
        return f"cannot run sadcl ({last}): install the same on all nodes"
    except RayError as error:
        return f"was lost during the check ({type(error).__name__}): start the command again once it is back or gone"


def _name_nodes(nodes: Sequence[str]) -> str:
    more = f" and {len(nodes) - MOST_NAMED} more" if len(nodes) > MOST_NAMED else ""
    return f"{'Node' if len(nodes) == 1 else 'Nodes'} {', '.join(nodes[:MOST_NAMED])}{more}"
