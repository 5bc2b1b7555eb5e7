"""Parts as a user writes them: the examples of the documentation, in a module of its own.

Tests put the module into a folder and name its parts in configurations.
"""

from __future__ import annotations

import inspect
import sys
import textwrap
from pathlib import Path

import numpy as np
from PIL import Image

LABELS = ("finch", "heron", "owl")
HEADER = """
from __future__ import annotations
import csv
from pathlib import Path
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F
from sadcl.data import ImageSet, image_set
"""
BROKEN = """
def nothing(root):
    return None

def late(root):
    return open(root / "not there.csv")

def short(targets_NL, epoch, rng, *, count: int = 3):
    return np.arange(count)

def far(targets_NL, epoch, rng):
    return np.arange(len(targets_NL)) + 1

def halves(targets_NL, epoch, rng):
    return np.arange(len(targets_NL)) / 2

_calls = []

def moody(targets_NL, epoch, rng):
    _calls.append(epoch)
    return (np.arange(len(targets_NL)) + len(_calls)) % len(targets_NL)

def writes(targets_NL, epoch, rng):
    targets_NL[0] = 1

def floats(image_CHW, rng):
    return image_CHW / 255

def noise(image_CHW, rng):
    return torch.randint(0, 256, image_CHW.shape, dtype=torch.uint8)

def picky(image_CHW, rng, *, side: int = 8):
    raise ValueError(f"side must be even, but got {side}")

def unknown(scores_NL, targets_NL):
    return float("nan")

def text(scores_NL, targets_NL):
    return "12"

def crash(scores_NL, targets_NL):
    return scores_NL[10**6]

def mAP(scores_NL, targets_NL):
    return 1.0
"""


def example(documented) -> str:
    """Return the code that a docstring shows."""
    lines = textwrap.dedent(inspect.getdoc(documented)).splitlines()
    start = next(k for k, line in enumerate(lines) if line.startswith(("    def ", "    class ")))
    rest = lines[start:]
    end = next((k for k, line in enumerate(rest) if line and not line.startswith("    ")), None)
    return textwrap.dedent("\n".join(rest[:end])).rstrip() + "\n"


def write_module(folder: Path, name: str) -> Path:
    """Write a module with the examples, and with parts that are wrong."""
    from sadcl.data import dataset, image_augmentation, sampler
    from sadcl.losses import classification
    from sadcl.metrics import Metric

    parts = (dataset, sampler, image_augmentation, Metric, classification.ClassLoss)
    path = folder / f"{name}.py"
    path.write_text(HEADER + "\n\n".join(map(example, parts)) + BROKEN)
    sys.modules.pop(name, None)
    return path


def make_birds(root: Path, images: int = 48, side: int = 40) -> Path:
    """Draw photographs of three species, a colour each, and the table of the example."""
    rng = np.random.default_rng(4)
    (root / "photos").mkdir(parents=True)
    rows = ["photo,species,split"]
    for i in range(images):
        present = [j for j in range(3) if (i >> j) & 1 or i % 3 == j]
        pixels = rng.integers(0, 80, (side, side, 3), dtype=np.uint8)
        for j in present:
            pixels[j * side // 3 : (j + 1) * side // 3, :, j] += 170
        Image.fromarray(pixels).save(root / "photos" / f"{i:03}.png")
        species = " ".join(LABELS[j] for j in present)
        rows.append(f"{i:03}.png,{species},{'test' if i % 4 == 0 else 'train'}")
    (root / "birds.csv").write_text("\n".join(rows) + "\n")
    return root
