"""A local server of object storage, which environment variables announce as they do any other."""

import contextlib
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request

from pyarrow import fs


@contextlib.contextmanager
def serving(patch, bucket):
    """Start a server with an empty bucket, announce it through ``patch``, and give the URI."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    words = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
    server = subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    names = {
        "ENDPOINT_URL": f"http://127.0.0.1:{port}",
        "ACCESS_KEY_ID": "x",
        "SECRET_ACCESS_KEY": "y",
    }
    for name, value in (names | {"REGION": "us-east-1", "EC2_METADATA_DISABLED": "true"}).items():
        patch.setenv(f"AWS_{name}", value)
    try:
        for _ in range(1200):
            try:
                urllib.request.urlopen(f"http://127.0.0.1:{port}/moto-api/").close()
                break
            except urllib.error.URLError:
                assert server.poll() is None
                time.sleep(0.05)
        options = {"allow_bucket_creation": True, "allow_bucket_deletion": True}
        fs.S3FileSystem(endpoint_override=f"127.0.0.1:{port}", scheme="http", **options).create_dir(
            bucket
        )
        yield f"s3://{bucket}"
    finally:
        server.terminate()
        server.wait()
