"""The benchmarks table: a file of each benchmark and time that it was run, never changed."""

from __future__ import annotations

import uuid
from typing import Any

import pyarrow as pa

from sadcl import storage
from sadcl.results import files, schema


def write_benchmarks(root: str, rows: list[dict[str, Any]]) -> None:
    """Add what one benchmark has measured."""
    file = f"{rows[0]['benchmark']}-{uuid.uuid4().hex}.parquet"
    storage.write(
        storage.join(files.folder(root, "benchmarks"), file),
        files.encode(schema.table("benchmarks", rows)),
    )


def read_benchmarks(root: str) -> pa.Table:
    """All that was measured, in the order of time; no row in a store that has none."""
    folder = files.folder(root, "benchmarks")
    parts = [files.read(storage.join(folder, file)) for file in storage.listing(folder, ".parquet")]
    whole = files.together([schema.table("benchmarks", []), *parts])
    return whole.sort_by([("measured", "ascending"), ("benchmark", "ascending")])
