"""Studies as plain values: what to search, what to compare, how often. No Ray here."""

from sadcl.search.plan import Plan, Search, Trial
from sadcl.search.space import Choice, Float, Int

__all__ = ["Choice", "Float", "Int", "Plan", "Search", "Trial"]
