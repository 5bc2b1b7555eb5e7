"""Write and read the benchmarks table.

Each run of a benchmark has a file of its own, which is never changed.
"""

from __future__ import annotations

import uuid
from typing import Any

import pyarrow as pa

from sadcl import storage
from sadcl.results import files, schema, table_file


def write_benchmarks(root: str, rows: list[dict[str, Any]]) -> None:
    """Add the rows of one benchmark."""
    file = f"{rows[0]['benchmark']}-{uuid.uuid4().hex}.parquet"
    storage.write(
        storage.join(files.table_folder(root, "benchmarks"), file),
        table_file.encode_parquet(schema.to_table("benchmarks", rows)),
    )


def read_benchmarks(root: str) -> pa.Table:
    """Read all measurements, the oldest first; no rows if nothing was measured.

    Raises:
        BadFile: for a file that does not belong to the table.
    """
    folder = files.table_folder(root, "benchmarks")
    parts = [
        table_file.read_file(storage.join(folder, file))
        for file in storage.listing(folder, ".parquet")
    ]
    table = table_file.concatenate([schema.to_table("benchmarks", []), *parts])
    return table.sort_by([("measured", "ascending"), ("benchmark", "ascending")])
