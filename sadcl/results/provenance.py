"""What made a row: versions, sources, machine. Nothing heavy is imported to find out."""

from __future__ import annotations

import functools
import hashlib
import platform
import subprocess
from importlib import metadata
from pathlib import Path

PACKAGES = ("sadcl", "torch", "torchvision", "timm", "ray", "optuna", "numpy", "pyarrow")


@functools.cache
def provenance() -> dict[str, str | None]:
    """Columns of the trials table that say where a row comes from."""
    return {
        "python": platform.python_version(),
        "host": platform.node(),
        "cpu": _cpu(),
        **{name: _version(name) for name in PACKAGES},
        "code": _sources(),
        "revision": _revision(),
    }


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def _cpu() -> str | None:
    """Model of the CPU, as Linux has it; elsewhere its architecture."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.machine() or None
    return next(
        (line.partition(":")[2].strip() for line in lines if line.startswith("model name")),
        platform.machine(),
    )


def _sources() -> str:
    """Hash of the package's own files, so that a changed checkout shows."""
    root = Path(__file__).parents[1]
    content = hashlib.sha256()
    for path in sorted(root.rglob("*.py")):
        content.update(str(path.relative_to(root)).encode() + b"\0" + path.read_bytes() + b"\0")
    return content.hexdigest()[:12]


def _revision() -> str | None:
    """Git revision of the checkout that the package lies in; a + says that files differ from it."""
    root = Path(__file__).parents[2]
    if not (root / ".git").exists():
        return None
    try:
        command = [
            "git",
            "-C",
            str(root),
            "describe",
            "--always",
            "--abbrev=12",
            "--dirty=+",
            "--exclude=*",
        ]
        return subprocess.run(
            command, capture_output=True, text=True, timeout=10, check=True
        ).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return None
