"""Which code and which machine made a row; nothing heavy is imported to find out."""

from __future__ import annotations

import functools
import hashlib
import platform
import subprocess
import sys
from importlib import metadata
from pathlib import Path

from sadcl import storage

PACKAGES = ("sadcl", "torch", "torchvision", "timm", "ray", "optuna", "numpy", "pyarrow")
"""Packages whose versions are recorded."""


@functools.cache
def provenance() -> dict[str, str | None]:
    """Return the columns of the trials table that say where a row comes from."""
    return {
        "python": platform.python_version(),
        "host": platform.node(),
        "cpu": _cpu_model(),
        **{name: _package_version(name) for name in PACKAGES},
        "code": _source_hash(),
        "revision": _git_revision(),
    }


def experiment_file() -> str | None:
    """Return the Python file that this process runs, for the record of a study.

    It is relative to its git checkout, or its name alone outside of one. None where no file runs,
    as in a notebook, a test or a command of this package.
    """
    path = storage.local(sys.argv[0]).resolve()
    if path.suffix != ".py" or not path.is_file() or path.is_relative_to(sys.prefix):
        return None
    checkout = next((folder for folder in path.parents if (folder / ".git").exists()), path.parent)
    return path.relative_to(checkout).as_posix()


def experiment_command() -> list[str]:
    """Return the words that run the file of :func:`experiment_file` again, without its flags.

    A file that only defines a study is run by ``sadcl run``. Empty where no file runs.
    """
    file = experiment_file()
    if file is None:
        return []
    main = getattr(sys.modules["__main__"], "__file__", None)
    runs_itself = main is not None and storage.local(main) == storage.local(sys.argv[0])
    return ["python", file] if runs_itself else ["sadcl", "run", file]


def _package_version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def _cpu_model() -> str | None:
    """Return the CPU's model on Linux, elsewhere its architecture."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.machine() or None
    return next(
        (line.partition(":")[2].strip() for line in lines if line.startswith("model name")),
        platform.machine(),
    )


def _source_hash() -> str:
    """Return twelve hexadecimal digits that change with any Python file of this package."""
    root = Path(__file__).parents[1]
    content = hashlib.sha256()
    for path in sorted(root.rglob("*.py")):
        content.update(str(path.relative_to(root)).encode() + b"\0" + path.read_bytes() + b"\0")
    return content.hexdigest()[:12]


def _git_revision() -> str | None:
    """Return the git revision of the package's checkout, with + for uncommitted changes.

    None outside a checkout.
    """
    root = Path(__file__).parents[2]
    if not (root / ".git").exists():
        return None
    command = ["git", "-C", str(root), "describe"]
    command += ["--always", "--abbrev=12", "--dirty=+", "--exclude=*"]
    try:
        result = subprocess.run(command, capture_output=True, text=True, timeout=10, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return result.stdout.strip()
