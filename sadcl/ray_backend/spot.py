"""On a spot node: tells Ray when the cloud announces that it takes the node away.

Ray's autoscaler does not ask the cloud. ``python -m sadcl.ray_backend.spot aws`` (or ``gcp``) asks
the machine's metadata server, which announces it two minutes before on EC2 and 30 seconds before
on Compute Engine, and ends once Ray drains the node. It imports neither torch nor Ray.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import time
import urllib.error
import urllib.request
from datetime import UTC, datetime

SERVERS = {"aws": "http://169.254.169.254", "gcp": "http://metadata.google.internal"}
POLL_SECONDS = 2.0
SPARE_SECONDS = 5
"""The run has to have left the node so long before the node goes."""


def notice(cloud: str, server: str) -> int | None:
    """Return the seconds until the machine is taken away; None where nothing is announced.

    Args:
        cloud: ``aws`` or ``gcp``.
        server: The URL of the metadata server.

    Raises:
        OSError: Where the metadata server does not answer.
    """
    if cloud == "gcp":
        preempted = _request(
            f"{server}/computeMetadata/v1/instance/preempted", {"Metadata-Flavor": "Google"}
        )
        return 30 if preempted.strip().upper() == "TRUE" else None
    token = _request(
        f"{server}/latest/api/token", {"X-aws-ec2-metadata-token-ttl-seconds": "60"}, "PUT"
    )
    try:
        action = _request(
            f"{server}/latest/meta-data/spot/instance-action", {"X-aws-ec2-metadata-token": token}
        )
    except urllib.error.HTTPError as error:
        if error.code == 404:
            return None
        raise
    at = datetime.fromisoformat(json.loads(action)["time"])
    return max(int((at - datetime.now(UTC)).total_seconds()), 0)


def _request(url: str, headers: dict[str, str], method: str = "GET") -> str:
    with urllib.request.urlopen(
        urllib.request.Request(url, headers=headers, method=method), timeout=5
    ) as response:
        text: str = response.read().decode()
        return text


def main() -> None:
    """Poll until the node is taken away and Ray drains it."""
    parser = argparse.ArgumentParser(
        description="Drain this node of a Ray cluster when its cloud takes it away."
    )
    parser.add_argument("cloud", choices=sorted(SERVERS))
    parser.add_argument("--server", help="URL (default: the cloud's metadata server)")
    options = parser.parse_args()
    reported = ""
    while True:
        try:
            seconds = notice(options.cloud, options.server or SERVERS[options.cloud])
            if seconds is not None and _drain(max(seconds - SPARE_SECONDS, 1)):
                return
        except (OSError, ValueError, KeyError) as error:
            if str(error) != reported:  # once, and not every two seconds
                print(f"the metadata server does not answer: {error}", flush=True)
            reported = str(error)
        time.sleep(POLL_SECONDS)


def _drain(seconds: int) -> bool:
    """Tell Ray that the node goes, so that its trials save their state and resume elsewhere.

    Returns:
        Whether Ray has accepted it.
    """
    print(f"this node is taken away in {seconds} s", flush=True)
    command = [
        "ray",
        "drain-node",
        "--reason",
        "DRAIN_NODE_REASON_PREEMPTION",
        "--reason-message",
        "the cloud takes it away",
        "--deadline-remaining-seconds",
        str(seconds),
    ]
    return not subprocess.run(command, check=False).returncode


if __name__ == "__main__":
    main()
