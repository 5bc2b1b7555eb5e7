"""Superclasses of labels: those of COCO, of PASCAL VOC, and of the drawn scenes."""

from __future__ import annotations

from collections.abc import Sequence

from sadcl.data.readers import scenes

_COCO = {
    "person": "person",
    "vehicle": "bicycle, car, motorcycle, airplane, bus, train, truck, boat",
    "outdoor": "traffic light, fire hydrant, stop sign, parking meter, bench",
    "animal": "bird, cat, dog, horse, sheep, cow, elephant, bear, zebra, giraffe",
    "accessory": "backpack, umbrella, handbag, tie, suitcase",
    "sports": "frisbee, skis, snowboard, sports ball, kite, baseball bat, baseball glove, "
    "skateboard, surfboard, tennis racket",
    "kitchen": "bottle, wine glass, cup, fork, knife, spoon, bowl",
    "food": "banana, apple, sandwich, orange, broccoli, carrot, hot dog, pizza, donut, cake",
    "furniture": "chair, couch, potted plant, bed, dining table, toilet",
    "electronic": "tv, laptop, mouse, remote, keyboard, cell phone",
    "appliance": "microwave, oven, toaster, sink, refrigerator",
    "indoor": "book, clock, vase, scissors, teddy bear, hair drier, toothbrush",
}
_VOC = {
    "person": "person",
    "animal": "bird, cat, cow, dog, horse, sheep",
    "vehicle": "aeroplane, bicycle, boat, bus, car, motorbike, train",
    "indoor": "bottle, chair, diningtable, pottedplant, sofa, tvmonitor",
}
COCO = tuple(label for labels in _COCO.values() for label in labels.split(", "))
"""The labels of COCO by category id, in which superclasses follow each other."""
_TABLES = (
    {label.name: label.group for label in scenes.LABELS},
    *(
        {label: group for group, labels in table.items() for label in labels.split(", ")}
        for table in (_COCO, _VOC)
    ),
)


def groups_of(labels: Sequence[str]) -> dict[str, str] | None:
    """Return the superclass of each label, or None if the labels are of none of the three.

    COCO and VOC publish superclasses; those of the drawn scenes are the groups that occur
    together. All labels must be of the same data set.
    """
    for table in _TABLES:
        if set(labels) <= table.keys():
            return {label: table[label] for label in labels}
    return None
