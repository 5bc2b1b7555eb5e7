"""What one machine has: runs on every node of a cluster and on the driver.

It takes a second, because it needs no torch.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from pyarrow import fs

from sadcl import storage
from sadcl.errors import UserError
from sadcl.ray_backend import environment
from sadcl.results.provenance import provenance
from sadcl.study.gpu_driver import GPUDriver, read_gpu_driver

COMPARED = {
    "code": "sadcl's sources",
    **{name: name for name in ("python", "torch", "torchvision", "timm", "ray", "optuna")},
}
"""What must be of the same version everywhere, and its name in messages."""


class EntryKind(enum.Enum):
    MISSING = "nothing"
    FOLDER = "a folder"
    FILE = "a file"
    UNREADABLE = "not readable"


class Entry(NamedTuple):
    """What exists under a name of the data.

    Attributes:
        size: Of a file, in bytes.
        error: Of what cannot be read, why.
    """

    kind: EntryKind
    size: int = 0
    error: str = ""

    def __str__(self) -> str:
        if self.kind is EntryKind.FILE:
            return f"{self.size:,} bytes"
        return f"{self.kind.value} ({self.error})" if self.error else self.kind.value


MISSING = Entry(EntryKind.MISSING)


class NodeReport(NamedTuple):
    """What one machine has.

    Attributes:
        versions: By the names of :data:`COMPARED`; None where it is missing.
        storage: What is wrong with the storage; empty where nothing is.
        data: What exists under each name below the data root, and under ``""`` the root itself.
        gpu: Its GPU's driver, and what PyTorch needs.
    """

    versions: Mapping[str, str | None]
    storage: str
    data: Mapping[str, Entry]
    gpu: GPUDriver = GPUDriver()


def node_report(root: str, marker: str, data_root: str | None, names: Sequence[str]) -> NodeReport:
    """Report what this machine has; runs on a node.

    Args:
        root: The root of the storage.
        marker: A file below it that the driver wrote, with its own name as the content.
        data_root: None where no data is needed.
        names: Of files below the data root.
    """
    return NodeReport(
        versions(),
        _storage_problem(root, marker),
        data_entries(data_root, names),
        read_gpu_driver(),
    )


def versions() -> dict[str, str | None]:
    """Return the versions to compare, without the hardware that a build is for.

    ``2.14.1+cpu`` on a head may serve ``2.14.1+cu130``.
    """
    return {
        name: version and version.partition("+")[0]
        for name, version in provenance().items()
        if name in COMPARED
    }


def _storage_problem(root: str, marker: str) -> str:
    """Find what is wrong; nothing is written to a storage that is not the driver's."""
    try:
        if storage.read(marker) != marker.encode():
            raise FileNotFoundError
        environment.check_storage(root)
        return ""
    except FileNotFoundError:
        remedy = "give --storage s3://..., gs://... or a folder on a disk that all nodes share"
        if "://" in root:
            remedy = (
                "give its environment the driver's endpoint and account "
                "(AWS_ENDPOINT_URL, AWS_PROFILE, ...)"
            )
        return f"does not see what the driver wrote in {root!r}: {remedy}"
    except (OSError, UserError) as error:
        return str(error).strip().splitlines()[0].rstrip(".")


def data_entries(root: str | None, names: Sequence[str]) -> dict[str, Entry]:
    """Look at the data root and each name below it.

    Args:
        root: None where no data is needed. On an object store only the root itself is looked at,
            because each name costs a request.
        names: Of files below the root.

    Returns:
        By name, with the root under ``""``; the root alone where it cannot be read.
    """
    if root is None:
        return {}
    try:
        if "://" in root:  # below the bucket a name may have signs that a URI would have to escape
            scheme, _, rest = root.partition("://")
            bucket, _, below = rest.partition("/")
            system, base = storage.resolve(f"{scheme}://{bucket}/")
            base, names = f"{base.rstrip('/')}/{below}".rstrip("/"), ()
        else:
            system, base = storage.resolve(root)
        infos = system.get_file_info([base, *(f"{base}/{name}" for name in names)])
    except (OSError, UserError) as error:
        reason = str(error).strip().splitlines()[0]
        return {"": Entry(EntryKind.UNREADABLE, error=reason)}
    return {name: _entry(info) for name, info in zip(["", *names], infos, strict=True)}


def _entry(info: fs.FileInfo) -> Entry:
    if info.type == fs.FileType.NotFound:
        return MISSING
    if info.type == fs.FileType.Directory:
        return Entry(EntryKind.FOLDER)
    return Entry(EntryKind.FILE, info.size or 0)
