"""A trial from stored feature maps of a frozen backbone, against one that computes the backbone.

python experiments/benchmarks/features.py --data-root DIR --weights FILE   # your own folder
python experiments/benchmarks/features.py                                  # drawn scenes

Both trials are the same call of ``fit``: ``recipes.photographs()`` with SARL or the pooled head, on
the same images without augmentation, with the held-out images after each epoch. The reference sends
each image through the backbone in each epoch (``data.feature_views = 0``), forward only. Ours reads
float16 maps that were computed once before (``data.feature_views = 1``). Computing them is a row of
its own, because all trials and seeds share it.

How to read it: times are processor times of the process, in one thread, to which other processes do
not add; the two trials run in turn. A ratio is reference / ours of one round, so more is better,
with its range over the rounds. A trial has costs that do not depend on its length (the network,
two checkpoints), so that short trials, or few images, have a smaller ratio.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rows import Row, compare, print_rows

if TYPE_CHECKING:
    from sadcl.config import Config
    from sadcl.data.base import MultiLabelData
    from sadcl.training import Outcome

HEADS = ("SARL", "pooled")
GOAL = 20.0


def configuration(
    data_root: str | None, weights: str | None, images: int | None, epochs: int, size: int
) -> Config:
    """Return what both trials train, with SARL.

    Args:
        data_root: a folder of images with a table; None draws scenes.
        weights: of the backbone; None takes random ones, which cost the same.
        images: of the training set; None takes all, of scenes 1,000.
        epochs: of a trial.
        size: of the images, in pixels.
    """
    from sadcl import recipes

    return recipes.photographs().override(
        {
            "data.name": "scenes" if data_root is None else "folder",
            "data.image_size": size,
            "data.limit_train": images,
            "data.limit_test": None if images is None else max(images // 4, 8),
            "data.scene_train": images or 1000,
            "model.weights": weights,
            "model.pretrained": weights is not None,
            "stage1.epochs": epochs,
            "stage2.epochs": 0,
        }
    )


def train(config: Config, data: MultiLabelData) -> tuple[float, Outcome]:
    """Train in a folder of its own; return the processor seconds and the outcome."""
    from sadcl.training import fit

    with tempfile.TemporaryDirectory() as folder:
        start = time.process_time()
        outcome = fit(config, data, folder, device="cpu")
        return time.process_time() - start, outcome


def fill_store(config: Config, data: MultiLabelData) -> tuple[float, int, int]:
    """Compute the maps of training and held-out images.

    Returns:
        Processor seconds, images, and bytes.
    """
    from sadcl import build
    from sadcl.training.features import FeatureStore

    network = build.model(config, len(data.labels), labels=data.labels).eval()
    store = FeatureStore(config, network, data, build.Worker())
    start = time.process_time()
    store.split("train")
    seconds = time.process_time() - start
    layouts = [file.layout for file in store.files("train").values()]
    return seconds, layouts[0].rows, sum(layout.total_bytes for layout in layouts)


def measure(
    data_root: str | None = None,
    weights: str | None = None,
    *,
    images: int | None = None,
    epochs: int = 5,
    size: int = 224,
    repeats: int = 3,
    heads: Sequence[str] = HEADS,
) -> list[Row]:
    """Measure the store, and trials of each head in turn.

    Args:
        data_root: see :func:`configuration`.
        weights: see :func:`configuration`.
        images: see :func:`configuration`.
        epochs: see :func:`configuration`.
        size: see :func:`configuration`.
        repeats: rounds of each head.
        heads: those of :data:`HEADS` to measure.
    """
    with tempfile.TemporaryDirectory() as folder:
        before = os.environ.get("XDG_CACHE_HOME")
        os.environ["XDG_CACHE_HOME"] = folder
        try:
            config = configuration(data_root, weights, images, epochs, size)
            return _measure(config, data_root or f"{folder}/scenes", repeats, heads)
        finally:
            os.environ.pop("XDG_CACHE_HOME")
            if before is not None:
                os.environ["XDG_CACHE_HOME"] = before


def _measure(config: Config, root: str, repeats: int, heads: Sequence[str]) -> list[Row]:
    import torch

    from sadcl.config import POOLED
    from sadcl.data.load import load

    torch.set_num_threads(1)
    data = load(config.data, Path(root))
    seconds, count, size = fill_store(config, data)
    rows = [
        Row(f"storing feature maps at {config.data.image_size} px", count / seconds, "images/s"),
        Row("their size", size / count / 1e3, "kB/image"),
    ]
    length = f"{config.stage1.epochs} epochs of {len(data.train):,} images"
    outcomes: dict[str, Outcome] = {}

    def trial(chosen: Config) -> Callable[[], float]:
        def run() -> float:
            spent, outcomes[chosen.digest()] = train(chosen, data)
            return spent

        return run

    for head in heads:
        stored = config.override({"model.head": POOLED}) if head == "pooled" else config
        computed = stored.override({"data.feature_views": 0})
        pair = [(trial(stored)(), trial(computed)()) for _ in range(repeats)]
        ours, reference = ([times[i] for times in pair] for i in (0, 1))
        name = f"a trial, {head} head, {length}"
        rows.append(compare(name, "s", ours, reference, goal=GOAL))
        figures = [outcomes[each.digest()].metrics["val_mAP"] for each in (stored, computed)]
        rows.append(Row(f"held-out mAP, {head} head, float16 maps", figures[0], "mAP", figures[1]))
    return rows


def benchmark(quick: bool = False, data_root: str | None = None) -> list[Row]:
    """Return rows of the store and of trials; ``quick`` takes few drawn scenes."""
    if quick:
        return measure(images=64, epochs=1, size=64, repeats=1)
    return measure(data_root)


def main() -> None:
    """Measure as the command line says, and print the rows."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data-root", help="your own folder of images (default: drawn scenes)")
    parser.add_argument("--weights", help="file of the backbone's weights (default: random ones)")
    parser.add_argument("--images", type=int, help="training images (default: all)")
    parser.add_argument("--epochs", type=int, default=5, help="of a trial (default: 5)")
    parser.add_argument("--size", type=int, default=224, help="of images in pixels (default: 224)")
    parser.add_argument("--repeats", type=int, default=3, help="rounds (default: 3)")
    parser.add_argument(
        "--heads", type=lambda text: text.split(","), default=HEADS, help="default: SARL,pooled"
    )
    options: dict[str, Any] = vars(parser.parse_args())
    print_rows(measure(**options), title="features")


if __name__ == "__main__":
    main()
