"""The connection to a Ray cluster: one that runs, or a private one on this machine's loopback."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import signal
import socket
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import grpc
import ray

from sadcl import storage
from sadcl.config.sources import source_places
from sadcl.errors import UserError, first_line_of
from sadcl.ray_backend import environment
from sadcl.results.provenance import provenance
from sadcl.study import process

JOINING_VARIABLE = "SADCL_MAY_JOIN"
"""Nodes that a cluster may start, as JSON in the head's environment; Ray itself does not tell."""
JOINING_EXAMPLE = '[{"nodes": 8, "CPU": 8, "GPU": 1}]'
SETUP_HOOK = "sadcl.study.process.leave_start_folder"
"""What every process of a job runs first.

Its folder is a package that Ray has unpacked, and may unpack again.
"""
PATIENCE = 10
"""Seconds for an answer from where a cluster is to be."""
_LOGGERS = ("ray", "ray.tune", "ray.train", "ray.data")


def with_joining(
    nodes: Sequence[Mapping[str, float]], joining: str | None
) -> list[Mapping[str, float]]:
    """Add to the nodes of a cluster those that it starts when a trial waits for them.

    Args:
        nodes: The resources of each node of the cluster.
        joining: The content of the variable ``SADCL_MAY_JOIN``; each node of it that has joined
            already counts once.

    Raises:
        UserError: Where the variable cannot be read.
    """
    try:
        kinds = [
            {name: float(count) for name, count in kind.items()}
            for kind in json.loads(joining or "[]")
        ]
        coming = [kind for kind in kinds for _ in range(int(kind.pop("nodes")))]
    except (ValueError, TypeError, AttributeError, KeyError):
        raise UserError(
            f"{JOINING_VARIABLE}={joining!r} cannot be read. Give the nodes that may join as in "
            f"{JOINING_EXAMPLE}."
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


@contextlib.contextmanager
def connected(
    address: str | None, sources: Iterable[str] = ()
) -> Iterator[Sequence[Mapping[str, float]]]:
    """Connect to a cluster for as long as the block runs.

    Signal handlers, the levels of Ray's loggers and the variables that
    :func:`sadcl.ray_backend.environment.prepare` has set are afterwards what they were before.

    Args:
        address: From ``prepare``, which is called before Ray is imported. None starts a private
            cluster of this machine, and never joins one that happens to run.
        sources: Modules of the user's that the workers import; they are sent to each node.

    Yields:
        The resources of each node, those that may join among them.

    Raises:
        UserError: For an address that cannot be joined.
    """
    with (
        environment.restored_afterwards(),
        environment.signal_handlers_kept(),
        _log_levels_kept(),
    ):
        provenance()  # reads the package's sources before anything can replace them
        try:
            with _terminated_as_before():
                _connect(address, sources)
            for name in _LOGGERS[1:]:
                logging.getLogger(name).setLevel(logging.CRITICAL)
            nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
            yield (
                nodes if address is None else with_joining(nodes, os.environ.get(JOINING_VARIABLE))
            )
        finally:
            ray.shutdown()


def _places(sources: Iterable[str]) -> list[str]:
    """Return the folder or file of each of the user's modules that is not installed.

    A submitted job's working directory goes to all nodes, so that what lies below it is left out.
    """
    folder = Path(storage.start_folder or os.getcwd())
    places = {place for name in sources for place in source_places(name)}
    return sorted(
        str(place)
        for place in places
        if not (environment.in_ray_job() and place.is_relative_to(folder))
    )


@contextlib.contextmanager
def _terminated_as_before() -> Iterator[None]:
    """Let SIGTERM do what it did before, while Ray starts and afterwards.

    Ray sets handlers that end the process with :class:`SystemExit`, and leaves them.
    """
    on_terminate = signal.getsignal(signal.SIGTERM)
    if not callable(on_terminate) or threading.current_thread() is not threading.main_thread():
        yield
        return
    try:
        yield
    except SystemExit:
        on_terminate(signal.SIGTERM, None)
        raise
    finally:
        signal.signal(signal.SIGTERM, on_terminate)


def _connect(address: str | None, sources: Iterable[str]) -> None:
    quiet: dict[str, Any] = {
        "log_to_driver": False,
        "logging_level": logging.ERROR,
        "configure_logging": True,
    }
    if address is None:
        environment.check_limits()
        folder = environment.session_folder()
        try:
            # Ray gives its workers the path of the modules in the start folder
            with environment.short_temporary_folder(), process.back_in_start_folder():
                ray.init(
                    address="local",
                    include_dashboard=True,
                    dashboard_host="127.0.0.1",
                    _node_ip_address="127.0.0.1",
                    _temp_dir=folder,
                    **quiet,
                )
        except Exception as error:  # Ray raises the bare class too
            raise UserError(
                f"Ray cannot start a cluster on this machine: {_ends_of(error)} Its logs are in "
                f"{folder}/session_latest/logs. On a machine with much else to do, try again."
            ) from error
    else:
        runtime_env: dict[str, Any] = {}
        if environment.in_ray_job():
            runtime_env["worker_process_setup_hook"] = SETUP_HOOK
        if places := _places(sources):
            runtime_env["py_modules"] = places
        if runtime_env:
            quiet["runtime_env"] = runtime_env
        try:
            _check_listening(address)
            with process.back_in_start_folder():
                ray.init(address=address, **quiet)
        except Exception as error:  # Ray raises the bare class too
            reason = first_line_of(error)
            raise UserError(
                f"There is no Ray cluster at {address!r} that can be joined: {reason} Start one "
                "(ray start --head), or leave out --address and RAY_ADDRESS for a private one on "
                "this machine."
            ) from None


def _ends_of(error: Exception) -> str:
    """Return the first and the last line of an error: a log that Ray quotes ends with the cause."""
    lines = [first_line_of(error), *str(error).strip().splitlines()[-1:]]
    return " ... ".join(dict.fromkeys(line.strip() for line in lines))


def _check_listening(address: str) -> None:
    """Fail within seconds where no Ray listens; Ray would try for minutes and log each attempt."""
    host, _, port = address.rpartition(":")
    if not host or "/" in address or not port.isdecimal():
        return
    socket.create_connection((host, int(port)), timeout=PATIENCE).close()
    if os.environ.get("RAY_USE_TLS", "0") != "0":
        return
    # as Ray itself, which asks no proxy for its own nodes
    channel = grpc.insecure_channel(address, options=[("grpc.enable_http_proxy", 0)])
    try:
        grpc.channel_ready_future(channel).result(timeout=PATIENCE)
    except grpc.FutureTimeoutError:
        raise ConnectionError("what listens there is not Ray.") from None
    finally:
        channel.close()


@contextlib.contextmanager
def _log_levels_kept() -> Iterator[None]:
    levels = {name: logging.getLogger(name).level for name in _LOGGERS}
    try:
        yield
    finally:
        for name, level in levels.items():
            logging.getLogger(name).setLevel(level)
