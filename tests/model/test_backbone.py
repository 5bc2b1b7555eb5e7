"""Backbones: sizes, frozen parts, weights from elsewhere."""

from __future__ import annotations

from pathlib import Path

import pytest
import timm
import torch
from PIL import Image

import sadcl
from sadcl import build, recipes
from sadcl.config import Config
from sadcl.data.transforms import IMAGENET, read_image, to_input
from sadcl.errors import UserError
from sadcl.model import Backbone
from tests.data.pictures import picture

LITE = Path(sadcl.__file__).parents[2] / "shared" / "weights" / "tf_efficientnet_lite0.safetensors"


def small(**changes) -> Config:
    return recipes.demo().override({"model.dropout": 0.0, **changes})


@pytest.mark.parametrize(
    "name", ["swin_tiny_patch4_window7_224", "vit_tiny_patch16_224", "resnet18", "convnext_atto"]
)
def test_any_backbone_gives_channels_first_at_the_size_asked_for(name):
    """timm's Swin gives its channels last, and it and ViT are built for one size of image."""
    backbone = Backbone(name, image_size=96, freeze_batchnorm=False).eval()
    assert backbone(torch.randn(1, 3, 96, 96)).shape[1] == backbone.channels
    build.check_model(small(**{"model.backbone": name, "model.feature": -1, "data.image_size": 96}))


def test_frozen_parts_do_not_move():
    changes = {"model.frozen": ("stem", "stages_0"), "model.freeze_batchnorm": True}
    network = build.model(small(**changes), 4)
    network.projection.requires_grad_(False)
    before = {n: t.clone() for n, t in network.state_dict().items()}
    optimizer = torch.optim.SGD([p for p in network.parameters() if p.requires_grad], lr=0.1)
    network.train()
    network(torch.randn(4, 3, 64, 64)).logits_BL.square().sum().backward()
    optimizer.step()
    moved = {n for n, t in network.state_dict().items() if not torch.equal(t, before[n])}
    assert moved
    still = ("backbone.body.stem", "backbone.body.stages_0", "projection")
    assert not [n for n in moved if n.startswith(still) or "running" in n or ".bn" in n]
    assert not network.backbone.body.get_submodule("stages_0").training


def test_weights_from_a_local_file(tmp_path):
    from safetensors.torch import save_file

    source = Backbone("test_resnet", freeze_batchnorm=False)
    path = tmp_path / "backbone.safetensors"
    save_file(source.body.state_dict(), path)
    loaded = Backbone("test_resnet", weights=str(path), pretrained=True, freeze_batchnorm=False)
    assert all(
        torch.equal(a, b) for a, b in zip(source.parameters(), loaded.parameters(), strict=True)
    )
    path.write_bytes(b"not weights")
    with pytest.raises(UserError, match="cannot be read as weights"):
        Backbone("test_resnet", weights=str(path))
    save_file({"x": torch.zeros(1)}, path)
    with pytest.raises(UserError, match="does not fit"):
        Backbone("test_resnet", weights=str(path))


@pytest.mark.skipif(not LITE.is_file(), reason="there are no weights beside the repository")
def test_local_weights_see_an_image_as_timm_shows_it_to_them(tmp_path):
    """EfficientNet-lite was trained with a mean and a standard deviation of 0.5."""
    side, name = 96, "tf_efficientnet_lite0"
    picture(side, side).save(tmp_path / "photo.png")
    config = small(**{"model.backbone": name, "model.weights": str(LITE), "model.feature": -1})
    backbone = Backbone(name, weights=str(LITE)).eval()
    reference = timm.create_model(name, checkpoint_path=str(LITE)).eval()
    options = timm.data.resolve_data_config(
        {"input_size": (3, side, side), "crop_pct": 1.0}, model=reference
    )
    shown = timm.data.create_transform(**options)(Image.open(tmp_path / "photo.png"))
    ours = to_input(read_image(tmp_path / "photo.png", side), build.normalisation(config))
    with torch.inference_mode():
        expected = reference.forward_intermediates(shown[None], intermediates_only=True)[-1]
        found = backbone(ours[None])
        other = backbone(to_input(read_image(tmp_path / "photo.png", side), IMAGENET)[None])
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)
    assert (other - expected).norm() > 0.1 * expected.norm()  # what the wrong values would cost


def test_weights_that_cannot_be_downloaded(monkeypatch, tmp_path):
    """Without a network and without a cached copy the error says what to do."""
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(UserError, match="cannot be downloaded.*model.weights") as error:
        build.check_model(recipes.coco14())
    assert "resnet101" in str(error.value)
