"""What `ray job submit --working-dir .` sends, packed by Ray's own function from a checkout."""

import os
import shutil
import subprocess
import zipfile

import pytest

from tests.conftest import ROOT

MUCH = (
    "runs/checkpoints/key",
    ".git/objects",
    ".venv/lib",
    "venv/lib",
    "env/lib",
    ".mypy_cache/3.11",
    "data/coco/train2014",
    "x",
)


@pytest.fixture(scope="module")
def sent(tmp_path_factory):
    """Names and sizes in the package."""
    from ray._private.ray_constants import get_runtime_env_default_excludes
    from ray._private.runtime_env.packaging import create_package, get_uri_for_directory

    checkout, target = (
        tmp_path_factory.mktemp("checkout"),
        tmp_path_factory.mktemp("package") / "package.zip",
    )
    for name in ("sadcl", "experiments", "tests", "cluster"):
        shutil.copytree(ROOT / name, checkout / name)
    for path in ROOT.iterdir():
        if path.is_file() and path.name != ".git":
            shutil.copy(path, checkout)
    for folder in (*MUCH, "sadcl/__pycache__", "experiments/benchmarks/__pycache__"):
        (checkout / folder).mkdir(parents=True, exist_ok=True)
        (checkout / folder / "large.bin").write_bytes(os.urandom(2_000_000))
    (checkout / "coco.zip").write_bytes(os.urandom(2_000_000))
    (checkout / "my_study.py").write_text("mine = True")
    excludes = get_runtime_env_default_excludes()
    create_package(str(checkout), target, include_gitignore=True, excludes=excludes)
    # the name is made from the content: a wrong .rayignore shows in the name of an empty package
    uri = get_uri_for_directory(str(checkout), include_gitignore=True, excludes=excludes)
    assert not uri.endswith("_ray_pkg_3030303030303030.zip")
    with zipfile.ZipFile(target) as package:
        return {
            info.filename: info.file_size for info in package.infolist() if not info.is_dir()
        }, target.stat().st_size


def test_it_is_small(sent):
    files, size = sent
    assert size < 5_000_000
    assert not [name for name in files if name.endswith((".bin", ".zip", ".pyc"))]


def test_it_is_the_sources_all_of_them_and_the_users_own_file(sent):
    files, _ = sent
    assert files["my_study.py"] == len("mine = True")
    listed = subprocess.run(
        ["git", "ls-files", "sadcl", "experiments"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    if listed.returncode:
        pytest.skip("this is no checkout")
    assert set(listed.stdout.split()) <= set(files)
    assert {name.split("/")[0] for name in files if "/" in name} == {"sadcl", "experiments"}
