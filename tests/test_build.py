"""Networks from configurations, and the ones that cannot be built."""

from __future__ import annotations

import pytest
import torch

from sadcl import build, recipes
from sadcl.config import Config
from sadcl.errors import UserError


def small(**changes) -> Config:
    return recipes.demo().override({"model.dropout": 0.0, **changes})


def test_same_seed_same_network():
    one, two = build.model(small(), 5), build.model(small(), 5)
    other = build.model(small(seed=1), 5)
    assert all(torch.equal(a, b) for a, b in zip(one.parameters(), two.parameters(), strict=True))
    assert not torch.equal(one.transformer.query_LD, other.transformer.query_LD)


def test_a_backbone_that_cannot_take_the_images_is_named():
    with pytest.raises(
        UserError, match=r"model.backbone = 'test_vit' .*data.image_size = 33 pixels"
    ):
        build.check_model(
            small(**{"model.backbone": "test_vit", "model.feature": -1, "data.image_size": 33})
        )


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"model.backbone": "resnet1o1"}, "did you mean resnet101"),
        ({"model.frozen": ("layer9",)}, "layer9"),
        ({"model.hidden": 30}, "multiple of 4"),
        ({"model.hidden": 64, "model.heads": 3}, "heads"),
        ({"model.weights": "nowhere.safetensors"}, "nowhere.safetensors"),
    ],
)
def test_bad_models_are_named_before_training(changes, words):
    with pytest.raises(UserError, match=words):
        build.check_model(small(**changes))
