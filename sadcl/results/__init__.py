"""Results as Arrow and Parquet tables that are queried with SQL; needs neither torch nor Ray.

Definition
    ``status``: how a run stands.
    ``trial_columns``: columns that follow from the configuration and the metrics.
    ``schema``: the tables, their columns, types and meanings.
    ``provenance``: the columns that say which code and machine made a row.
    ``published``: the paper's own figures as a table.
    ``errors``: the errors that reading raises.
Storage, from one file to a whole table
    ``table_file``: read and write one file.
    ``files``: which files hold a table now, and which of their rows count.
    ``cache``: a table as few local files, for quick queries.
    ``store``: read tables and rows; change, reopen and delete the rows of a trial.
    ``run_writer``: write the rows of one trial while it runs.
    ``benchmarks``: write and read the benchmarks table.
    ``compact``: merge many small files into few large ones.
    ``published_tables``: copies for other programs.
Answers
    ``query``: SQL, the best trials, one trial, an overview of the studies.
    ``predictions``: metrics at another threshold, from stored logits.
    ``checkpoints``: find the checkpoint of a trial, or the best trial of a study.
    ``export``: a table or an answer as CSV, Arrow, Parquet or LaTeX.
    ``verify``: find damaged files, missing rows and contradictions.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sadcl.results.query import sql
    from sadcl.results.run_writer import RunWriter
    from sadcl.results.store import read

__all__ = ["RunWriter", "read", "sql"]

_HOMES = {"RunWriter": "run_writer", "read": "store", "sql": "query"}


def __getattr__(name: str) -> Any:
    """Import a public name when it is first used, so that ``results.status`` needs no Arrow."""
    if name in _HOMES:
        return getattr(importlib.import_module(f"sadcl.results.{_HOMES[name]}"), name)
    raise AttributeError(f"module 'sadcl.results' has no attribute {name!r}")
