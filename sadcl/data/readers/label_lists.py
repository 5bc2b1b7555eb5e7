"""The labels of the public data sets in the order in which published checkpoints have them.

It is the order in which the readers find them in the publisher's files: COCO's by category id,
VOC's as in its devkit, NUS-WIDE's as in ``Concepts81.txt``, which is alphabetical. The published
index of VG-500 has numbers only, and so have these labels, as ``vg500.py`` calls them.
"""

from __future__ import annotations

from sadcl.data.readers import vg500, voc
from sadcl.data.readers.label_groups import COCO

NUSWIDE = (
    *("airport", "animal", "beach", "bear", "birds", "boats", "book", "bridge", "buildings"),
    *("cars", "castle", "cat", "cityscape", "clouds", "computer", "coral", "cow", "dancing"),
    *("dog", "earthquake", "elk", "fire", "fish", "flags", "flowers", "food", "fox", "frost"),
    *("garden", "glacier", "grass", "harbor", "horses", "house", "lake", "leaf", "map"),
    *("military", "moon", "mountain", "nighttime", "ocean", "person", "plane", "plants"),
    *("police", "protest", "railroad", "rainbow", "reflection", "road", "rocks", "running"),
    *("sand", "sign", "sky", "snow", "soccer", "sports", "statue", "street", "sun", "sunset"),
    *("surf", "swimmers", "tattoo", "temple", "tiger", "tower", "town", "toy", "train", "tree"),
    *("valley", "vehicle", "water", "waterfall", "wedding", "whales", "window", "zebra"),
)
"""The 81 concepts of NUS-WIDE."""
LABELS: dict[str, tuple[str, ...]] = {
    "coco14": COCO,
    "voc2007": voc.LABELS,
    "voc2012": voc.LABELS,
    "nuswide": NUSWIDE,
    "vg500": vg500.numbers_as_labels(),
}
"""The labels of each data set that published checkpoints are trained on."""
