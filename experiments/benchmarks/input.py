"""Training input, images a second and core: ours beside the plain pipeline of Pillow and beside decoding alone.

python experiments/benchmarks/input.py --data-root /data/coco      # photographs of any data set, here COCO's
python experiments/benchmarks/input.py                             # drawn scenes: the path, not the figures

The reference is what most training code does: Resize to 448 x 448, RandAugment, ToTensor and Normalize of torchvision's first
transforms on Pillow images, and a batch stacked of them. It runs in a process of its own, because ours tells its process how
to keep memory, which the reference would gain from too (it is shown so as well). Everything reads the same files, in one
thread, in turn.

How to read it: times are of the processor, which others on the machine do not add to, as medians; a ratio is
reference / ours of one round, so more is better, with its range over the rounds. "share" is the speed beside decoding the
same JPEG files and doing nothing else, which no reader of whole files can pass. The loader's share is what the CPU has left
where a GPU augments: read, decode, resize, put into a batch of bytes. Prepared copies are read in its place where cores are
few (``sadcl data prepare``).
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
from typing import Any, NamedTuple

from rows import Row

SIZE, BATCH = 448, 32


def seconds(work: Callable[[], Any]) -> float:
    start = time.thread_time()
    work()
    return time.thread_time() - start


def plain(paths: list[str], images: int) -> float:
    """Seconds of the reference."""
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

    def batches() -> None:
        for start in range(0, images, BATCH):
            torch.stack(
                [pipeline(Image.open(path).convert("RGB")) for path in paths[start : start + BATCH]]
            )

    return seconds(batches)


class Way(NamedTuple):
    name: str
    goal: float | None
    run: Callable[[], float]


def drawn(scenes: Path) -> str:
    """Scenes in a photograph's size and with its noise, without which they would be decoded too easily."""
    from PIL import Image

    noise = Image.effect_noise((640, 480), 24).convert("RGB")
    for path in scenes.rglob("*.jpg"):
        Image.blend(Image.open(path).resize((640, 480)), noise, 0.3).save(path, quality=90)
    return str(scenes)


def ways(root: str | None, images: int, folder: Path) -> tuple[list[Way], list[str]]:
    """What is measured, and the files that it is measured on."""
    import numpy as np
    import torch

    from sadcl import data
    from sadcl.config import Augmentation, Data
    from sadcl.data.augment import apply, draw
    from sadcl.data.base import ImageSet
    from sadcl.data.loader import Loader
    from sadcl.data.prepare import prepare
    from sadcl.data.readers.scenes import ensure
    from sadcl.data.transforms import decode, read_image

    torch.set_num_threads(1)
    config = Data(name="coco", holdout=0, limit_train=images)
    if root is None:
        root = drawn(ensure(folder, seed=0, train=images, test=2))
    photographs = data.load(config, root).train
    prepare(config, root, folder / "copies", 512)
    copies = data.load(config.model_copy(update={"prepared": 512}), folder / "copies").train
    stage1 = Augmentation(randaugment=2, cutout=0.5)
    stage2 = Augmentation(resize=512, multiscale=(1.0, 0.875, 0.75, 0.66, 0.5), flip=True)
    paths = [photographs.path(i) for i in range(len(photographs))]
    files = [Path(path).read_bytes() for path in paths]
    resized = [read_image(path, SIZE) for path in paths]
    plans = [draw(stage1, SIZE, SIZE, np.random.default_rng(i)) for i in range(len(paths))]

    def share(images: ImageSet, spec: Augmentation) -> Callable[[], float]:
        loader = Loader(images, image_size=SIZE, augmentation=spec, batch_size=BATCH, batched=True)
        items = [
            (1, tuple(range(i, min(i + BATCH, len(images))))) for i in range(0, len(images), BATCH)
        ]
        return lambda: seconds(lambda: [loader._reader[item] for item in items])

    def whole(images: ImageSet, spec: Augmentation) -> Callable[[], float]:
        loader = Loader(images, image_size=SIZE, augmentation=spec, batch_size=BATCH)
        return lambda: seconds(lambda: [None for _ in loader.batches(1)])

    def augmented() -> None:
        for image, plan in zip(resized, plans, strict=True):
            apply(image[None], plan[None], stage1, SIZE)

    return [
        Way("plain, in this process", None, lambda: plain(paths, len(paths))),
        Way(
            "JPEG decoding alone",
            None,
            lambda: seconds(lambda: [decode(file, "") for file in files]),
        ),
        Way("loader's share, stage 1", 4, share(photographs, stage1)),
        Way("loader's share, stage 2", 4, share(photographs, stage2)),
        Way("all on the CPU, stage 1", 2.5, whole(photographs, stage1)),
        Way("all on the CPU, stage 2", 2.5, whole(photographs, stage2)),
        Way("augmentation apart, stage 1", None, lambda: seconds(augmented)),
        Way("loader's share, stage 1, prepared", None, share(copies, stage1)),
        Way("loader's share, stage 2, prepared", None, share(copies, stage2)),
        Way("all on the CPU, stage 2, prepared", None, whole(copies, stage2)),
    ], paths


def measure(
    data_root: str | None = None, images: int = 128, repeats: int = 5
) -> list[dict[str, Any]]:
    """A row for each thing measured, the reference first."""
    if repeats < 1 or images < 1:
        raise ValueError(f"repeats >= 1 and images >= 1 must hold, but got {repeats} and {images}")
    warnings.filterwarnings("ignore", "The image decoding and encoding", DeprecationWarning)
    bare = ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn"))
    bare.submit(os.getpid).result()  # started before anything of ours is set
    with tempfile.TemporaryDirectory() as folder, bare:
        measured, paths = ways(data_root, images, Path(folder))
        count = len(paths)
        every = [
            Way(
                "plain pipeline of Pillow", None, lambda: bare.submit(plain, paths, count).result()
            ),
            *measured,
        ]
        rounds = [[row.run() for row in every] for _ in range(repeats + 1)][
            1:
        ]  # the first one warms up
        found = []
        for at, row in enumerate(every):
            ratios, shares = [r[0] / r[at] for r in rounds], [r[2] / r[at] for r in rounds]
            speed = count / statistics.median(r[at] for r in rounds)
            found.append(
                {"what": row.name, "goal": row.goal, "images_per_second": speed, "ms": 1e3 / speed}
            )
            found[-1] |= {
                "ratio": statistics.median(ratios),
                "ratio_min": min(ratios),
                "ratio_max": max(ratios),
            }
            found[-1] |= {"share": statistics.median(shares)}
        return found


def benchmark(quick: bool = False, data_root: str | None = None) -> list[Row]:
    """A row for each of our ways, in images a second and core; no more than what decodes the same files bounds it."""
    reference, _, decoding, *found = measure(
        data_root, **({"images": 4, "repeats": 1} if quick else {})
    )
    rows = []
    for each in found:
        decodes = "prepared" not in each["what"] and "apart" not in each["what"]
        rows.append(
            Row(
                f"{each['what']}, {'drawn scenes' if data_root is None else 'photographs'}",
                each["images_per_second"],
                "images/s",
                reference["images_per_second"],
                each["ratio"],
                each["ratio_min"],
                each["ratio_max"],
                decoding["images_per_second"] if decodes else None,
                each["share"] if decodes else None,
                each["goal"],
            )
        )
    return rows


def show(found: list[dict[str, Any]]) -> None:
    from rich import box
    from rich.table import Table

    from sadcl.console import console

    table = Table(
        "what",
        "images/s a core",
        "ms",
        "ratio (median, min..max)",
        "goal",
        "share",
        box=box.SIMPLE_HEAD,
    )
    for each in found:
        goal = "" if each["goal"] is None else f"{each['goal']:g}x"
        ratio = "{ratio:.2f}x ({ratio_min:.2f}..{ratio_max:.2f})"
        cells = ("{what}", "{images_per_second:,.0f}", "{ms:.2f}", ratio, goal, "{share:.0%}")
        table.add_row(*(cell.format(**each) for cell in cells))
    console.print(table)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data-root", help="a copy of COCO; default: drawn scenes")
    parser.add_argument(
        "--images", type=int, default=128, help="of the training split (default 128)"
    )
    parser.add_argument("--repeats", type=int, default=5, help="timed rounds (default 5)")
    show(measure(**vars(parser.parse_args())))
