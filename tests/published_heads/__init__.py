"""What the heads of published multi-label classifiers compute where a golden file has it.

There is one module for each head, ``tests/published_heads/<head>.py``. Its function
``outputs(spec, tensors)`` takes the JSON and the tensors of a golden file, builds our head with the
published state, and returns in float64 what the file holds, under the file's names. It may return
more than a file has.
"""

from __future__ import annotations

import importlib
import json
from pathlib import Path

from safetensors.torch import load_file
from torch import Tensor


def names() -> list[str]:
    """The heads that have a module here."""
    files = Path(__file__).parent.glob("*.py")
    return sorted(file.stem for file in files if not file.stem.startswith(("_", "test_")))


def outputs(stem: str | Path) -> dict[str, Tensor]:
    """Compute in float64 what a golden file of a head holds.

    Args:
        stem: path of the golden file without its ending.

    Returns:
        By the names of the file: its inputs as they are, and ours of all its outputs.

    Raises:
        ValueError: for a head that has no module here.
    """
    spec = json.loads(Path(f"{stem}.json").read_text())
    if spec["head"] not in names():
        raise ValueError(f"head must be one of {', '.join(names())}, but got {spec['head']!r}")
    tensors = load_file(f"{stem}.safetensors")
    module = importlib.import_module(f"tests.published_heads.{spec['head']}")
    computed = module.outputs(spec, tensors)
    given = {name: tensors[name] for name in spec["inputs"]}
    return given | {name: computed[name] for name in spec["outputs"]}
