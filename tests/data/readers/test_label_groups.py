"""Superclasses of labels."""

from sadcl.data.readers import scenes
from sadcl.data.readers.label_groups import groups_of


def test_superclasses():
    scene = [label.name for label in scenes.LABELS]
    assert groups_of(scene) == {label.name: label.group for label in scenes.LABELS}
    assert groups_of(["car", "boat"]) == {"car": "street", "boat": "sea"}  # scenes have both
    assert groups_of(["car", "boat", "bicycle"]) == {
        "car": "vehicle",
        "boat": "vehicle",
        "bicycle": "vehicle",
    }
    assert groups_of(["aeroplane", "sofa"]) == {"aeroplane": "vehicle", "sofa": "indoor"}
    assert groups_of(["car", "my label"]) is None
