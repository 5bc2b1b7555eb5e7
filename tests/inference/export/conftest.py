"""One network in each kind of file."""

from __future__ import annotations

import os

import pytest

from sadcl.inference.export import KINDS, export_checkpoint
from tests.inference.export.checkpoints import photographs, write_checkpoint


@pytest.fixture(scope="session")
def uri(tmp_path_factory):
    """A checkpoint of SADCL."""
    return write_checkpoint(tmp_path_factory.mktemp("checkpoints"))


@pytest.fixture(scope="session")
def exported(uri, tmp_path_factory):
    """Exports the checkpoint once for each kind, into a folder of its own."""
    results = {}

    def export(kind):
        if kind not in results:
            folder = tmp_path_factory.mktemp(kind)
            output = os.path.join(folder, f"KEY{KINDS[kind].ending}")
            results[kind] = export_checkpoint(
                uri, kind, output, threshold=0.25, photos=photographs(3)
            )
        return results[kind]

    return export
