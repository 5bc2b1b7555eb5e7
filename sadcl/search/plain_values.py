"""Values of NumPy as Python's, which configurations and records of studies can hold."""

from __future__ import annotations

from typing import Any

import numpy as np


def without_numpy(value: Any) -> Any:
    """Return a value with NumPy's numbers, truth values, texts and arrays as Python's.

    ``np.linspace`` and the like give them; neither a configuration nor a study's record can hold
    them.
    """
    if isinstance(value, np.generic) or (isinstance(value, np.ndarray) and not value.ndim):
        return value.item()
    if isinstance(value, np.ndarray):
        return tuple(map(without_numpy, value))
    if isinstance(value, tuple | list):
        return type(value)(map(without_numpy, value))
    return value
