"""Starting or joining a Ray cluster, quietly and on this machine's loopback."""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import socket
import threading
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import ray

from sadcl import storage
from sadcl.errors import UserError
from sadcl.ray_backend import preflight
from sadcl.results.provenance import provenance

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
    quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR, "configure_logging": True}
    provenance()  # reads the package's sources, before anything can replace them
    try:
        if address is None:
            with storage.back_in_start_folder():  # Ray gives its workers the path of modules that lie there
                ray.init(
                    address="local", include_dashboard=True, dashboard_host="127.0.0.1", _node_ip_address="127.0.0.1", **quiet
                )
        else:
            hook: dict[str, Any] = {"runtime_env": {"worker_process_setup_hook": LEAVE}} if preflight.in_ray_job() else {}
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
            signal.signal(signal.SIGTERM, on_terminate)  # Ray has put its own in its place, which aborts
        for name in ("ray.tune", "ray.train", "ray.data"):
            logging.getLogger(name).setLevel(logging.CRITICAL)
        there = [node["Resources"] for node in ray.nodes() if node["Alive"]]
        yield there if address is None else preflight.with_coming(there, os.environ.get(preflight.JOINS))
    finally:
        ray.shutdown()


def _knock(address: str) -> None:
    """Find out in seconds whether anybody listens; Ray would try for minutes, and say so in lines of its own."""
    host, _, port = address.rpartition(":")
    if host and "/" not in address and port.isdecimal():
        socket.create_connection((host, int(port)), timeout=10).close()
