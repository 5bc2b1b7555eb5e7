"""Results as Arrow tables that people query; needs neither torch nor Ray."""

from sadcl.results.query import sql
from sadcl.results.store import RunWriter, read

__all__ = ["RunWriter", "read", "sql"]
