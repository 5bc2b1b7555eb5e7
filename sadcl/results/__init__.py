"""Results as Arrow and Parquet tables that are queried with SQL; needs neither torch nor Ray.

Definition
    ``schema``: the tables, their columns, types and meanings.
    ``provenance``: the columns that say which code and machine made a row.
    ``published``: the paper's own figures as a table.
    ``errors``: the errors that reading raises.
Storage, from one file to a whole table
    ``table_file``: read and write one Parquet file.
    ``files``: which files hold a table now, and which of their rows count.
    ``cache``: a table as few local files, for quick queries.
    ``store``: read tables and rows; change, reopen and delete the rows of a trial.
    ``run_writer``: write the rows of one trial while it runs.
    ``benchmarks``: write and read the benchmarks table.
    ``compact``: merge many small files into few large ones.
Answers
    ``query``: SQL, the best trials, one trial, an overview of the studies.
    ``predictions``: metrics at another threshold, from stored logits.
    ``checkpoints``: find the checkpoint of a trial, or the best trial of a study.
    ``export``: a table or an answer as CSV, Arrow, Parquet or LaTeX.
    ``verify``: find damaged files, missing rows and contradictions.
"""

from sadcl.results.query import sql
from sadcl.results.run_writer import RunWriter
from sadcl.results.store import read

__all__ = ["RunWriter", "read", "sql"]
