"""An experiment beside the clone imports the package, not the clone's folder of the same name."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import zipfile
from importlib import metadata
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
BUILD = "import sys; import setuptools.build_meta as b; b.build_editable(sys.argv[1])"
RUN = """
import runpy, site, sys
sys.path.insert(0, ".")  # as Python does for a file
site.addsitedir(sys.argv[1])  # as Python does for what is installed
runpy.run_path("study.py")
"""


def test_an_experiment_beside_the_clone(tmp_path):
    # Its version is read, not its module: that may not be loaded where distutils is.
    if int(metadata.version("setuptools").split(".")[0]) < 77:
        pytest.skip("setuptools of pyproject.toml is not installed")
    clone, wheel = tmp_path / "sadcl", tmp_path / "wheel"
    (clone / "sadcl").mkdir(parents=True)
    for file in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / file, clone)
    (clone / "sadcl" / "__init__.py").write_text("__version__ = 'of the clone'\n")
    wheel.mkdir()
    build = [sys.executable, "-c", BUILD, str(wheel)]
    clean = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}
    done = subprocess.run(build, cwd=clone, env=clean, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    with zipfile.ZipFile(next(wheel.glob("*.whl"))) as archive:
        archive.extractall(tmp_path / "site")
    (tmp_path / "study.py").write_text("import sadcl; print(sadcl.__version__)\n")
    # -S leaves out what is really installed here
    run = [sys.executable, "-S", "-c", RUN, str(tmp_path / "site")]
    done = subprocess.run(run, cwd=tmp_path, env={}, capture_output=True, text=True, check=False)
    assert done.stdout == "of the clone\n", done.stderr
