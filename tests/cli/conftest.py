"""A storage with one trained run, and the command in this process."""

from __future__ import annotations

import os
import re
import subprocess

import pytest
from typer.testing import CliRunner

from sadcl import recipes, train
from sadcl.cli.app import app
from tests.conftest import TINY


@pytest.fixture(scope="module")
def runs(tmp_path_factory, cache):
    """A storage with one trained run."""
    root = tmp_path_factory.mktemp("storage") / "runs"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(cache))
        row = train(recipes.demo().override(TINY), storage=str(root), name="cli")
    return root, row


@pytest.fixture
def sadcl(tmp_path):
    """Runs a command in this process; a mistake is raised."""

    def run(*words):
        done = CliRunner().invoke(app, [*map(str, words), "--storage", str(tmp_path)])
        if done.exception is not None:
            raise done.exception
        return done.stdout

    return run


@pytest.fixture
def terminal_output(command):
    """Runs a command on a terminal of 80 columns; returns what it shows, without colours."""

    def run(*words):
        ours, theirs = os.openpty()
        process = subprocess.Popen(
            [str(word) for word in words],
            stdin=theirs,
            stdout=theirs,
            env={**command.environment, "COLUMNS": "80", "TERM": "xterm"},
        )
        os.close(theirs)
        parts = []
        while True:
            try:
                parts.append(os.read(ours, 65536))
            except OSError:  # the process has ended
                break
        os.close(ours)
        assert process.wait(60) == 0
        return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", b"".join(parts).decode()).replace("\r", "")

    return run
