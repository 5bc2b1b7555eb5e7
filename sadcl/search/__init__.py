"""Studies as plain values: what is searched, what is compared, and how often. Nothing here needs
Ray.
"""

import warnings
from typing import Any

from sadcl.search.ablation import Ablation, AblationPlan
from sadcl.search.comparison import Comparison
from sadcl.search.plan import Plan
from sadcl.search.pruning_rules import ASHA, Median
from sadcl.search.search import Search
from sadcl.search.space import Choice, Float, Int, When, contrast_space
from sadcl.search.trial import Phase, Trial
from sadcl.search.until import Until

__all__ = [
    "ASHA",
    "Ablation",
    "AblationPlan",
    "Choice",
    "Comparison",
    "Float",
    "Int",
    "Median",
    "Phase",
    "Plan",
    "Search",
    "Trial",
    "Until",
    "When",
    "contrast_space",
    "contrasts",
]


def contrasts(*args: Any, **options: Any) -> Any:
    """Return :func:`contrast_space`, of which this is the name of the version before."""
    warnings.warn(
        "sadcl.search.contrasts(base) is now contrast_space(base)", DeprecationWarning, stacklevel=2
    )
    return contrast_space(*args, **options)
