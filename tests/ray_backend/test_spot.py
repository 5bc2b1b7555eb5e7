"""A cloud's notice that it takes a node away, from a server that answers like the clouds' own."""

import http.server
import json
import os
import subprocess
import sys
import threading
from datetime import UTC, datetime, timedelta

import pytest

from sadcl.ray_backend import spot


@pytest.fixture
def server():
    """Answers of a metadata server: by path, a text or None for 404."""
    answers = {}

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_PUT(self):
            valid = (
                self.path == "/latest/api/token"
                and "X-aws-ec2-metadata-token-ttl-seconds" in self.headers
            )
            self.answer("secret" if valid else None)

        def do_GET(self):
            token = (
                self.headers.get("X-aws-ec2-metadata-token"),
                self.headers.get("Metadata-Flavor"),
            )
            valid = token in (("secret", None), (None, "Google"))
            self.answer(answers.get(self.path) if valid else None)

        def answer(self, text):
            self.send_response(200 if text is not None else 404)
            self.end_headers()
            self.wfile.write((text or "").encode())

        def log_message(self, *_):
            return

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_address[1]}", answers
        server.shutdown()
        thread.join()


def leaves(seconds):
    at = datetime.now(UTC) + timedelta(seconds=seconds)
    return {
        "/latest/meta-data/spot/instance-action": json.dumps(
            {"action": "terminate", "time": f"{at:%Y-%m-%dT%H:%M:%SZ}"}
        )
    }


def test_what_each_cloud_announces(server):
    url, answers = server
    assert spot.notice("aws", url) is None
    answers["/computeMetadata/v1/instance/preempted"] = "FALSE"
    assert spot.notice("gcp", url) is None
    answers["/computeMetadata/v1/instance/preempted"] = "TRUE"
    assert spot.notice("gcp", url) == 30
    answers.update(leaves(110))
    assert 105 < spot.notice("aws", url) <= 110
    answers.update(leaves(-10))
    assert spot.notice("aws", url) == 0


def test_the_node_is_drained_with_the_time_that_is_left(server, tmp_path):
    url, answers = server
    ray, calls = tmp_path / "ray", tmp_path / "calls"
    ray.write_text(
        f'#!/bin/sh\necho "$@" >> {calls}\ntest "$(wc -l < {calls})" -gt 1\n'
    )  # refuses the first time
    ray.chmod(0o755)
    words = [sys.executable, "-m", "sadcl.ray_backend.spot", "aws", "--server", url]
    process = subprocess.Popen(
        words, env={**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}"}
    )
    try:
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(3)
        assert not calls.exists()
        answers.update(leaves(100))
        assert process.wait(30) == 0
    finally:
        process.kill()
    first, second = calls.read_text().splitlines()
    for line in (first, second):
        assert line.startswith("drain-node --reason DRAIN_NODE_REASON_PREEMPTION --reason-message")
        assert 80 < int(line.split()[-1]) <= 95
