"""A command line in this process, and a run that was really trained."""

from __future__ import annotations

import pytest
from typer.testing import CliRunner

import sadcl as package
from sadcl import recipes
from sadcl.cli.app import app
from tests.conftest import TINY


@pytest.fixture
def sadcl(tmp_path):
    """Runs a command of `sadcl results` in this process: checks its exit code, gives its output."""

    def command(*words, code=0):
        done = CliRunner().invoke(app, ["results", *map(str, words), "--storage", str(tmp_path)])
        if done.exception is not None and not isinstance(done.exception, SystemExit):
            raise done.exception
        assert done.exit_code == code
        return done.stdout

    return command


@pytest.fixture(scope="package")
def trained(tmp_path_factory):
    """The store of one run that was trained, and its row."""
    root = tmp_path_factory.mktemp("runs")
    config = recipes.demo().override(TINY | {"stage1.epochs": 1, "stage2.epochs": 1})
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        return root, package.train(config, storage=str(root), workers=1, gpus_per_worker=0)
