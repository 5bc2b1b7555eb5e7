"""Studies as plain values: what to search, what to compare, how often. No Ray here."""

from sadcl.search.ablation import Ablation, AblationPlan
from sadcl.search.plan import Plan, Search
from sadcl.search.space import Choice, Float, Int, When, contrasts
from sadcl.search.stopping import ASHA, Median
from sadcl.search.trial import Trial

__all__ = [
    "ASHA",
    "Ablation",
    "AblationPlan",
    "Choice",
    "Float",
    "Int",
    "Median",
    "Plan",
    "Search",
    "Trial",
    "When",
    "contrasts",
]
