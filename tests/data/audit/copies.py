"""Pictures and findings for the tests of the audit."""

from __future__ import annotations

import io

import numpy as np
from PIL import Image

from sadcl.data.load import load
from tests.data.readers.layouts import BY_NAME, TEST, TRAIN


def picture(seed, format="JPEG", size=(40, 30), mode="RGB", **options):
    """Return the bytes of a random image."""
    noise = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    Image.fromarray(noise).convert(mode).save(sink := io.BytesIO(), format, **options)
    return sink.getvalue()


def found(result, *kinds):
    """Return split, file, label and detail of the findings of these kinds."""
    rows = [row for row in result.findings if row.kind in kinds]
    return [(row.split, row.file.rsplit("/", 1)[-1], row.label, row.detail) for row in rows]


def kinds(result):
    """Return the kinds of the findings."""
    return {row.kind for row in result.findings}


def write_copy(root, name, train=TRAIN, test=TEST):
    """Write a layout's copy with another picture in each file.

    Returns its configuration, its root, and the paths of both splits.
    """
    layout = BY_NAME[name]
    layout.write(root, train, test)
    data = load(layout.config.model_copy(update={"holdout": 0}), root)
    paths = [[images.path(i) for i in range(len(images))] for images in (data.train, data.test)]
    for i, path in enumerate(paths[0] + paths[1]):
        (root / path).write_bytes(picture(i))
    return layout.config, root, paths
