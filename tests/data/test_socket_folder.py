"""Loader processes start wherever temporary files are."""

import os
import subprocess
import sys

import pytest

from sadcl.data import socket_folder

START = """
import multiprocessing, runpy, sys, tempfile
before = tempfile.gettempdir()
runpy.run_path(sys.argv[1])["make_socket_folder"]()
assert tempfile.gettempdir() == before
process = multiprocessing.get_context("forkserver").Process(target=print, args=("started",))
process.start()
process.join()
"""


@pytest.mark.skipif(sys.platform != "linux", reason="Python has forkservers of other kinds there")
def test_processes_start_with_a_long_path_of_temporary_files(tmp_path):
    folder = tmp_path / ("x" * 90)
    folder.mkdir()
    done = subprocess.run(
        [sys.executable, "-c", START, socket_folder.__file__],
        env=os.environ | {"TMPDIR": str(folder)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout == "started\n", done.stderr
