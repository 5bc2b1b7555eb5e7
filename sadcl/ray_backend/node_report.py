"""What one machine finds: runs on every node of a cluster and on the driver, in a second, because it needs no torch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from pyarrow import fs

from sadcl import storage
from sadcl.errors import UserError
from sadcl.ray_backend import environment
from sadcl.results.provenance import provenance

COMPARED = {
    "code": "sadcl's sources",
    **{name: name for name in ("python", "torch", "torchvision", "timm", "ray", "optuna")},
}
"""What has to be of the same version everywhere, with its name in messages."""


class NodeReport(NamedTuple):
    """What one machine finds."""

    versions: Mapping[str, str | None]
    storage: str
    """What is wrong with it; empty where nothing is."""
    data: Mapping[str, str]
    """What lies under each name below the data root, and under "" the root itself."""


def node_report(root: str, marker: str, data_root: str | None, names: Sequence[str]) -> NodeReport:
    """What this machine finds; runs on a node.

    Args:
        root: of the storage.
        marker: a file below it that the driver wrote, with its own name as the content.
        data_root: None where no data is needed.
        names: of files below it.
    """
    return NodeReport(versions(), _storage(root, marker), data_sizes(data_root, names))


def versions() -> dict[str, str | None]:
    """Without what says which hardware a build is for: ``2.14.1+cpu`` on a head may serve ``2.14.1+cu130``."""
    return {
        name: version and version.partition("+")[0]
        for name, version in provenance().items()
        if name in COMPARED
    }


def _storage(root: str, marker: str) -> str:
    """What is wrong; nothing is written to a storage that is not the driver's."""
    try:
        if storage.read(marker) != marker.encode():
            raise FileNotFoundError
        environment.check_storage(root)
        return ""
    except FileNotFoundError:
        way = "give --storage s3://..., gs://... or a folder on a disk that all nodes share"
        if "://" in root:
            way = "give its environment the driver's endpoint and account (AWS_ENDPOINT_URL, AWS_PROFILE, ...)"
        return f"does not see what the driver wrote in {root!r}: {way}"
    except (OSError, UserError) as error:
        return str(error).strip().splitlines()[0].rstrip(".")


def data_sizes(root: str | None, names: Sequence[str]) -> dict[str, str]:
    """A folder or so many bytes, of the root and each name; of a root elsewhere only itself, for each is a request."""
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
        return {"": f"not readable ({str(error).strip().splitlines()[0]})"}
    kinds = {fs.FileType.NotFound: "nothing", fs.FileType.Directory: "a folder"}
    return {
        name: kinds.get(i.type, f"{i.size or 0:,} bytes")
        for name, i in zip(["", *names], infos, strict=True)
    }
