"""Networks from configurations, and the ones that cannot be built."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
import timm
import torch
from PIL import Image

from sadcl import build, recipes
from sadcl.config import Config
from sadcl.data.base import ImageSet
from sadcl.errors import UserError
from tests.data.pictures import picture


def small(**changes) -> Config:
    return recipes.demo().override({"model.dropout": 0.0, **changes})


def test_same_seed_same_network():
    one, two = build.model(small(), 5), build.model(small(), 5)
    other = build.model(small(seed=1), 5)
    assert all(torch.equal(a, b) for a, b in zip(one.parameters(), two.parameters(), strict=True))
    assert not torch.equal(one.head.transformer.query_LD, other.head.transformer.query_LD)


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


@pytest.mark.parametrize(
    ("name", "mean", "std"),
    [
        ("resnet101.tv_in1k", (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
        ("vit_base_patch16_224", (0.5, 0.5, 0.5), (0.5, 0.5, 0.5)),
        ("vit_base_patch16_224.mae", (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
        ("tf_efficientnet_lite0", (0.5, 0.5, 0.5), (0.5, 0.5, 0.5)),
        (
            "resnet50_clip.openai",
            (0.48145466, 0.4578275, 0.40821073),
            (0.26862954, 0.26130258, 0.27577711),
        ),
    ],
)
def test_a_photograph_is_normalised_as_timm_does_for_the_weights(name, mean, std, tmp_path):
    """Weights of the same network may differ: those of a tag count, or of the default one."""
    side = 64
    picture(side, side).save(tmp_path / "photo.png")
    images = ImageSet("x", str(tmp_path), pa.array(["photo.png"]), np.ones((1, 1), np.int8), ("a",))
    config = small(**{"model.backbone": name, "data.image_size": side})
    (batch,) = build.loader(config, images).batches(0)
    options = timm.data.resolve_data_config(
        {"input_size": (3, side, side), "crop_pct": 1.0},
        pretrained_cfg=timm.get_pretrained_cfg(name).to_dict(),
    )
    assert (options["mean"], options["std"]) == build.normalisation(config) == (mean, std)
    expected = timm.data.create_transform(**options)(Image.open(tmp_path / "photo.png"))
    torch.testing.assert_close(batch.images_BCHW[0], expected, atol=1e-6, rtol=0)


def test_a_field_replaces_the_normalisation_of_the_weights():
    mean, std = (0.1, 0.2, 0.3), (1.0, 2.0, 3.0)
    vit = small(**{"model.backbone": "vit_base_patch16_224"})
    assert build.normalisation(vit.override({"data.mean": mean})) == (mean, (0.5, 0.5, 0.5))
    assert build.normalisation(vit.override({"data.std": std})) == ((0.5, 0.5, 0.5), std)
    both = vit.override({"data.mean": mean, "data.std": std, "model.backbone": "no_model"})
    assert build.normalisation(both) == (mean, std)
    for name in ("no_model", "resnet18.no_tag"):
        with pytest.raises(UserError, match=f"model.backbone = '{name}'"):
            build.normalisation(small(**{"model.backbone": name}))
    for wrong in ({"data.mean": (0.5, 0.5)}, {"data.mean": (0, 0, 255)}, {"data.std": (1, 1, 0)}):
        with pytest.raises(UserError, match=next(iter(wrong))):
            small(**wrong)


@pytest.fixture
def float32_flags():
    """Both flags for float32 on GPUs, as torch starts with them, and afterwards as they were."""
    matmul, cudnn = torch.backends.cuda.matmul, torch.backends.cudnn
    before = matmul.allow_tf32, cudnn.allow_tf32
    matmul.allow_tf32, cudnn.allow_tf32 = False, True
    yield lambda: (matmul.allow_tf32, cudnn.allow_tf32)
    matmul.allow_tf32, cudnn.allow_tf32 = before


@pytest.mark.parametrize(
    ("chosen", "device", "has_bf16", "computed"),
    [
        ("auto", "cpu", True, "fp32"),
        ("auto", "cuda", True, "bf16"),
        ("auto", "cuda:1", False, "fp32"),
        *((chosen, device, True, chosen) for chosen in ("fp32", "bf16", "fp64")
          for device in ("cpu", "cuda")),
    ],
)  # fmt: skip
def test_the_device_decides_what_auto_is(
    chosen, device, has_bf16, computed, float32_flags, monkeypatch
):
    """Float32 is multiplied in TF32 beside bfloat16 only, and the flags of a CPU stay."""

    def is_supported(*, including_emulation):
        assert not including_emulation
        return has_bf16

    monkeypatch.setattr(torch.cuda, "is_bf16_supported", is_supported)
    config, on = small(**{"optim.precision": chosen}), torch.device(device)
    assert build.precision(config, on) == computed
    build.set_float32_products(config, on)
    rounds = computed == "bf16"
    assert float32_flags() == ((False, True) if device == "cpu" else (rounds, rounds))
    if device == "cpu":
        with build.autocast(config, on):
            product = torch.ones(2, 2) @ torch.ones(2, 2)
        assert product.dtype == (torch.bfloat16 if computed == "bf16" else torch.float32)


def test_auto_is_the_precision_of_every_recipe():
    names = [name for name in recipes.DEMOS if name != "coco"]
    published = [recipes.coco14, *(getattr(recipes, name) for name in names)]
    configs = [recipe(variant) for recipe in published for variant in ("released", "paper")]
    for config in [*configs, recipes.demo(), Config()]:
        assert config.optim.precision == "auto"
        assert config.override({"optim.precision": "fp32"}).digest() != config.digest()
