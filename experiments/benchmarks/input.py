"""Training input in images a second and core, against a Pillow pipeline and JPEG decoding alone.

python experiments/benchmarks/input.py --data-root /data/coco    # photographs of COCO
python experiments/benchmarks/input.py                           # drawn scenes: only that it works
python experiments/benchmarks/input.py --quick                   # no figures to quote

The reference is what most training code does: Resize to 448 x 448, RandAugment, ToTensor and
Normalize of torchvision's first transforms on Pillow images, and a batch stacked from them. It runs
in a process of its own, because our code tells its process how to keep memory, from which the
reference would gain too (it is also measured in our process). All ways read the same files, in one
thread, in turn.

How to read it: times are processor times, to which other processes do not add, as medians. A ratio
is reference / ours of one round, so more is better, with its range over the rounds. "share" is the
speed relative to decoding the same JPEG files and nothing else, which no reader of whole files can
pass. The loader's share is the CPU's work if a GPU augments: read, decode, resize, and put into a
batch of bytes. Prepared copies (``sadcl data prepare``) replace the photographs where cores are
few.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import statistics
import tempfile
import time
import warnings
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from rows import Row

if TYPE_CHECKING:
    from sadcl.config import Augmentation
    from sadcl.data.base import ImageSet

SIZE, BATCH = 448, 32
QUICK = {"images": 4, "repeats": 1}
"""Arguments of :func:`measure` to see that it runs."""


def thread_seconds(work: Callable[[], Any]) -> float:
    """Measure the processor seconds of this thread during ``work``."""
    start = time.thread_time()
    work()
    return time.thread_time() - start


def pillow_seconds(paths: list[str], images: int) -> float:
    """Measure the seconds of the reference for the first ``images`` files."""
    import torch
    from PIL import Image
    from torchvision import transforms

    torch.set_num_threads(1)
    mean, std = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
    steps = [
        transforms.Resize((SIZE, SIZE)),
        transforms.RandAugment(),
        transforms.ToTensor(),
        transforms.Normalize(mean, std),
    ]
    pipeline = transforms.Compose(steps)

    def read_batches() -> None:
        for start in range(0, images, BATCH):
            torch.stack(
                [pipeline(Image.open(path).convert("RGB")) for path in paths[start : start + BATCH]]
            )

    return thread_seconds(read_batches)


class Way(NamedTuple):
    """One way to read the images.

    Attributes:
        name: for the table.
        goal: the ratio to reach; None if there is none.
        run: reads all images once and returns the seconds.
    """

    name: str
    goal: float | None
    run: Callable[[], float]


def make_photographs(scenes: Path) -> str:
    """Give drawn scenes the size and noise of photographs, without which they decode too fast."""
    from PIL import Image

    noise = Image.effect_noise((640, 480), 24).convert("RGB")
    for path in scenes.rglob("*.jpg"):
        Image.blend(Image.open(path).resize((640, 480)), noise, 0.3).save(path, quality=90)
    return str(scenes)


def load_images(root: str | None, images: int, folder: Path) -> tuple[ImageSet, ImageSet]:
    """Return photographs (or drawn scenes, if ``root`` is None) and their prepared copies.

    Args:
        root: a copy of COCO.
        images: how many of its training split.
        folder: for scenes and copies.
    """
    from sadcl import data
    from sadcl.config import Data
    from sadcl.data.prepare import prepare
    from sadcl.data.readers.scenes import ensure

    config = Data(name="coco", holdout=0, limit_train=images)
    if root is None:
        root = make_photographs(ensure(folder, seed=0, train=images, test=2))
    photographs = data.load(config, root).train
    prepare(config, root, folder / "copies", 512)
    copies = data.load(config.model_copy(update={"prepared": 512}), folder / "copies").train
    return photographs, copies


def loader_way(images: ImageSet, spec: Augmentation) -> Callable[[], float]:
    """Measure the loader's share: everything but augmentation."""
    from sadcl.data.loader import Loader

    loader = Loader(images, image_size=SIZE, augmentation=spec, batch_size=BATCH, batched=True)
    starts = range(0, len(images), BATCH)
    items = [
        tuple((0, 1, index, 0) for index in range(i, min(i + BATCH, len(images)))) for i in starts
    ]
    return lambda: thread_seconds(lambda: [loader._reader[item] for item in items])


def cpu_way(images: ImageSet, spec: Augmentation) -> Callable[[], float]:
    """Measure the loader with augmentation on the CPU."""
    from sadcl.data.loader import Loader

    loader = Loader(images, image_size=SIZE, augmentation=spec, batch_size=BATCH)
    return lambda: thread_seconds(lambda: [None for _ in loader.batches(1)])


def augmentation_way(paths: list[str], spec: Augmentation) -> Callable[[], float]:
    """Measure augmentation alone, on images that are decoded and resized before."""
    import numpy as np

    from sadcl.data.augment import apply, draw
    from sadcl.data.transforms import read_image

    resized = [read_image(path, SIZE) for path in paths]
    plans = [draw(spec, SIZE, SIZE, np.random.default_rng(i)) for i in range(len(paths))]

    def augment() -> None:
        for image, plan in zip(resized, plans, strict=True):
            apply(image[None], plan[None], spec, SIZE)

    return lambda: thread_seconds(augment)


def make_ways(root: str | None, images: int, folder: Path) -> tuple[list[Way], list[str]]:
    """Return the ways to measure in this process, and the files that they read."""
    import torch

    from sadcl import recipes
    from sadcl.data.transforms import decode

    torch.set_num_threads(1)
    photographs, copies = load_images(root, images, folder)
    base = recipes.coco14()
    stage1, stage2 = base.stage1.augmentation, base.stage2.augmentation
    paths = [photographs.path(i) for i in range(len(photographs))]
    files = [Path(path).read_bytes() for path in paths]

    return [
        Way("plain, in this process", None, lambda: pillow_seconds(paths, len(paths))),
        Way(
            "JPEG decoding alone",
            None,
            lambda: thread_seconds(lambda: [decode(file, "") for file in files]),
        ),
        Way("loader's share, stage 1", 4, loader_way(photographs, stage1)),
        Way("loader's share, stage 2", 4, loader_way(photographs, stage2)),
        Way("all on the CPU, stage 1", 2.5, cpu_way(photographs, stage1)),
        Way("all on the CPU, stage 2", 2.5, cpu_way(photographs, stage2)),
        Way("augmentation apart, stage 1", None, augmentation_way(paths, stage1)),
        Way("loader's share, stage 1, prepared", None, loader_way(copies, stage1)),
        Way("loader's share, stage 2, prepared", None, loader_way(copies, stage2)),
        Way("all on the CPU, stage 2, prepared", None, cpu_way(copies, stage2)),
    ], paths


def measure(
    data_root: str | None = None, images: int = 128, repeats: int = 5
) -> list[dict[str, Any]]:
    """Measure every way, the reference first.

    Args:
        data_root: a copy of COCO; None is drawn scenes.
        images: of the training split.
        repeats: timed rounds, after one that warms up.

    Raises:
        ValueError: for fewer than one round or image.
    """
    if repeats < 1 or images < 1:
        raise ValueError(f"repeats >= 1 and images >= 1 must hold, but got {repeats} and {images}")
    warnings.filterwarnings("ignore", "The image decoding and encoding", DeprecationWarning)
    plain = ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn"))
    plain.submit(os.getpid).result()  # started before our code changes anything
    with tempfile.TemporaryDirectory() as folder, plain:
        ways, paths = make_ways(data_root, images, Path(folder))
        count = len(paths)
        reference = Way(
            "plain pipeline of Pillow",
            None,
            lambda: plain.submit(pillow_seconds, paths, count).result(),
        )
        ways = [reference, *ways]
        rounds = [[way.run() for way in ways] for _ in range(repeats + 1)]
        rounds = rounds[1:]  # the first one warms up
    measurements = []
    for index, way in enumerate(ways):
        ratios = [times[0] / times[index] for times in rounds]
        shares = [times[2] / times[index] for times in rounds]
        speed = count / statistics.median(times[index] for times in rounds)
        measurements.append(
            {
                "what": way.name,
                "goal": way.goal,
                "images_per_second": speed,
                "ms": 1e3 / speed,
                "ratio": statistics.median(ratios),
                "ratio_min": min(ratios),
                "ratio_max": max(ratios),
                "share": statistics.median(shares),
            }
        )
    return measurements


def benchmark(quick: bool = False, data_root: str | None = None) -> list[Row]:
    """Return a row for each of our ways, in images a second and core.

    The limit is the speed of decoding the same files.
    """
    reference, _, decoding, *ways = measure(data_root, **(QUICK if quick else {}))
    rows = []
    for way in ways:
        decodes = "prepared" not in way["what"] and "apart" not in way["what"]
        rows.append(
            Row(
                f"{way['what']}, {'drawn scenes' if data_root is None else 'photographs'}",
                way["images_per_second"],
                "images/s",
                reference["images_per_second"],
                way["ratio"],
                way["ratio_min"],
                way["ratio_max"],
                decoding["images_per_second"] if decodes else None,
                way["share"] if decodes else None,
                way["goal"],
            )
        )
    return rows


def print_measurements(measurements: list[dict[str, Any]]) -> None:
    """Print what :func:`measure` returns."""
    from rich import box
    from rich.table import Table

    from sadcl.console import console

    columns = ("what", "images/s a core", "ms", "ratio (median, min..max)", "goal", "share")
    table = Table(*columns, box=box.SIMPLE_HEAD)
    for each in measurements:
        goal = "" if each["goal"] is None else f"{each['goal']:g}x"
        ratio = "{ratio:.2f}x ({ratio_min:.2f}..{ratio_max:.2f})"
        cells = ("{what}", "{images_per_second:,.0f}", "{ms:.2f}", ratio, goal, "{share:.0%}")
        table.add_row(*(cell.format(**each) for cell in cells))
    console.print(table)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data-root", help="a copy of COCO (default: drawn scenes)")
    parser.add_argument("--images", type=int, default=128, help="training images (default: 128)")
    parser.add_argument("--repeats", type=int, default=5, help="timed rounds (default: 5)")
    parser.add_argument("--quick", action="store_true", help="4 images, to see that it runs")
    arguments = vars(parser.parse_args())
    print_measurements(measure(**arguments | (QUICK if arguments.pop("quick") else {})))
