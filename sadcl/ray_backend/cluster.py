"""Starting or joining a Ray cluster, quietly and on this machine's loopback."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from sadcl import storage
from sadcl.errors import UserError

if TYPE_CHECKING:  # nodes look without torch
    pass
import contextlib
import logging
import signal
import socket
import threading
from collections.abc import Iterator
from typing import Any

import ray

from sadcl.ray_backend import environment
from sadcl.results.provenance import provenance

JOINS = "SADCL_MAY_JOIN"
"""Variable of a head whose cluster grows: ``[{"nodes": 8, "CPU": 8, "GPU": 1}]``; Ray does not say it."""


def with_joining(
    nodes: Sequence[Mapping[str, float]], said: str | None
) -> list[Mapping[str, float]]:
    """The nodes of a cluster, and those that it starts when a trial waits for them.

    Args:
        nodes: resources of each node that is there.
        said: content of the variable ``JOINS``.

    Raises:
        UserError: where that cannot be read.
    """
    try:
        kinds = [
            {name: float(count) for name, count in kind.items()}
            for kind in json.loads(said or "[]")
        ]
        coming = [kind for kind in kinds for _ in range(int(kind.pop("nodes")))]
    except (ValueError, TypeError, AttributeError, KeyError):
        example = '[{"nodes": 8, "CPU": 8, "GPU": 1}]'
        raise UserError(
            f"{JOINS}={said!r} cannot be read: which nodes may join is said as in {example}."
        ) from None
    for node in nodes:
        same = [
            kind
            for kind in coming
            if all(kind.get(name, 0) == node.get(name, 0) for name in ("CPU", "GPU"))
        ]
        if same:
            coming.remove(same[0])
    return [*nodes, *coming]


LEAVE = "sadcl.storage.leave_start_folder"
"""What every process of a job begins with: its folder is a package that Ray has unpacked, and may unpack anew."""


@contextlib.contextmanager
def connected(address: str | None) -> Iterator[Sequence[Mapping[str, float]]]:
    """A connection for as long as the block runs; gives the resources of each node, those that may join among them.

    Without an address it is a private cluster of this machine, never one that happens to run. The address comes from
    :func:`sadcl.ray_backend.environment.prepare`, which has to be called before Ray is imported.

    Raises:
        UserError: for an address that cannot be joined.
    """
    on_terminate = signal.getsignal(signal.SIGTERM)
    quiet: dict[str, Any] = {
        "log_to_driver": False,
        "logging_level": logging.ERROR,
        "configure_logging": True,
    }
    provenance()  # reads the package's sources, before anything can replace them
    try:
        if address is None:
            with (
                storage.back_in_start_folder()
            ):  # Ray gives its workers the path of modules that lie there
                ray.init(
                    address="local",
                    include_dashboard=True,
                    dashboard_host="127.0.0.1",
                    _node_ip_address="127.0.0.1",
                    **quiet,
                )
        else:
            hook: dict[str, Any] = (
                {"runtime_env": {"worker_process_setup_hook": LEAVE}}
                if environment.in_ray_job()
                else {}
            )
            try:
                _knock(address)
                with storage.back_in_start_folder():
                    ray.init(address=address, **quiet, **hook)
            except (ConnectionError, RuntimeError, ValueError, OSError) as error:
                reason = str(error).strip().splitlines()[0]
                raise UserError(
                    f"There is no Ray cluster at {address!r} that can be joined: {reason} Start one (ray start --head), or "
                    "leave --address and RAY_ADDRESS out for a private one on this machine."
                ) from None
        if callable(on_terminate) and threading.current_thread() is threading.main_thread():
            signal.signal(
                signal.SIGTERM, on_terminate
            )  # Ray has put its own in its place, which aborts
        for name in ("ray.tune", "ray.train", "ray.data"):
            logging.getLogger(name).setLevel(logging.CRITICAL)
        there = [node["Resources"] for node in ray.nodes() if node["Alive"]]
        yield there if address is None else with_joining(there, os.environ.get(JOINS))
    finally:
        ray.shutdown()


def _knock(address: str) -> None:
    """Find out in seconds whether anybody listens; Ray would try for minutes, and say so in lines of its own."""
    host, _, port = address.rpartition(":")
    if host and "/" not in address and port.isdecimal():
        socket.create_connection((host, int(port)), timeout=10).close()
