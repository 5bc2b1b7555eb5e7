"""On a spot node: tells Ray when the cloud announces that it takes the node away; Ray's autoscaler does not ask.

``python -m sadcl.ray_backend.spot aws`` (or ``gcp``) asks the machine's metadata server, which gives two minutes on EC2 and
30 seconds on Compute Engine, and ends once the node is being drained. It needs neither torch nor Ray while it waits.
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
EVERY = 2.0
"""Seconds between two questions."""
SPARE = 5
"""Seconds before the node goes at which the run has to have left it."""


def notice(cloud: str, server: str) -> int | None:
    """Seconds until the machine is taken away; None where nothing is announced.

    Raises:
        OSError: where the metadata server does not answer.
    """
    if cloud == "gcp":
        said = _ask(
            f"{server}/computeMetadata/v1/instance/preempted", {"Metadata-Flavor": "Google"}
        )
        return 30 if said.strip().upper() == "TRUE" else None
    token = _ask(
        f"{server}/latest/api/token", {"X-aws-ec2-metadata-token-ttl-seconds": "60"}, "PUT"
    )
    try:
        said = _ask(
            f"{server}/latest/meta-data/spot/instance-action", {"X-aws-ec2-metadata-token": token}
        )
    except urllib.error.HTTPError as error:
        if error.code == 404:
            return None
        raise
    at = datetime.fromisoformat(json.loads(said)["time"])
    return max(int((at - datetime.now(UTC)).total_seconds()), 0)


def _ask(url: str, headers: dict[str, str], method: str = "GET") -> str:
    with urllib.request.urlopen(
        urllib.request.Request(url, headers=headers, method=method), timeout=5
    ) as answer:
        text: str = answer.read().decode()
        return text


def main() -> None:
    parser = argparse.ArgumentParser(
        description="Drain this node of a Ray cluster when its cloud takes it away."
    )
    parser.add_argument("cloud", choices=sorted(SERVERS))
    parser.add_argument("--server", help="default: the cloud's metadata server")
    options = parser.parse_args()
    said = ""
    while True:
        try:
            seconds = notice(options.cloud, options.server or SERVERS[options.cloud])
            if seconds is not None and _drained(max(seconds - SPARE, 1)):
                return
        except (OSError, ValueError, KeyError) as error:
            if str(error) != said:
                print(f"the metadata server cannot be asked: {error}", flush=True)
            said = str(error)
        time.sleep(EVERY)


def _drained(seconds: int) -> bool:
    """Whether Ray has taken notice; in it are trials that save their state and go on elsewhere."""
    print(f"this node is taken away in {seconds} s", flush=True)
    words = [
        "ray",
        "drain-node",
        "--reason",
        "DRAIN_NODE_REASON_PREEMPTION",
        "--reason-message",
        "the cloud takes it away",
    ]
    words += ["--deadline-remaining-seconds", str(seconds)]
    return not subprocess.run(words, check=False).returncode


if __name__ == "__main__":
    main()
