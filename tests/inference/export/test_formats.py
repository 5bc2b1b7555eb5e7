"""Exported files as those who use them see them: without this package, on batches of any size."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import safetensors.torch
import torch
from safetensors import safe_open

from sadcl import Config, UserError, build, inference
from sadcl.data.transforms import IMAGENET, read_image, to_input
from sadcl.inference.export import export_checkpoint, formats
from sadcl.inference.export.description import describe
from sadcl.model import Backbone
from sadcl.training import checkpoint
from tests.inference.export.checkpoints import LABELS, PHOTOS, photographs, write_checkpoint

READ_PT2 = """
import json, sys
sys.modules["sadcl"] = None
import torch
extra = {"description.json": ""}
module = torch.export.load("KEY.pt2", extra_files=extra).module()
images = torch.load("images.pt")
about = json.loads(extra["description.json"])
with torch.inference_mode():
    scores = torch.cat([module(part)["scores"] for part in images.split([1, 4])])
torch.save((about["labels"], scores), "answer.pt")
"""


def noise(count, side=64):
    generator = torch.Generator().manual_seed(1)
    images = torch.randint(0, 256, (count, 3, side, side), generator=generator, dtype=torch.uint8)
    return to_input(images, IMAGENET)


@torch.inference_mode()
def expected(uri, images):
    network = inference.load(uri, device="cpu").network
    return network(images).logits_BL.double().sigmoid().numpy()


def facts_of(metadata):
    return {name: json.loads(text) for name, text in metadata.items()}


def check_facts(facts):
    assert facts["labels"] == list(LABELS)
    assert facts["image_size"] == 64
    assert (facts["channels"], facts["pixel_range"]) == ("RGB", [0, 1])
    assert (facts["mean"], facts["std"]) == (list(IMAGENET.mean), list(IMAGENET.std))
    assert facts["resize"] == {
        "interpolation": "bilinear",
        "antialias": True,
        "keep_proportions": False,
    }
    assert facts["threshold"] == 0.25
    assert facts["description"]["checkpoint"]["weights"] == "ema"


def test_the_description_has_the_normalisation_of_the_checkpoint(tmp_path):
    uri = write_checkpoint(tmp_path, data__mean=(0.1, 0.2, 0.3), data__std=(0.5, 0.6, 0.7))
    content = checkpoint.load_checkpoint(uri)
    found = describe(inference.load(uri, device="cpu"), content, uri, "onnx", 0.5)
    assert (found["pixels"]["mean"], found["pixels"]["std"]) == ([0.1, 0.2, 0.3], [0.5, 0.6, 0.7])
    sentence = "Subtract [0.1, 0.2, 0.3] from red, green and blue, and divide by [0.5, 0.6, 0.7]."
    assert sentence in found["preprocessing"]


def test_onnx_has_any_batch_and_says_what_it_is(uri, exported):
    session = onnxruntime.InferenceSession(exported("onnx").file)
    check_facts(facts_of(session.get_modelmeta().custom_metadata_map))
    (images,) = session.get_inputs()
    assert (images.name, images.type, images.shape) == (
        "images",
        "tensor(float)",
        ["batch", 3, 64, 64],
    )
    assert [(o.name, o.type, o.shape) for o in session.get_outputs()] == [
        (name, "tensor(float)", ["batch", 7]) for name in ("scores", "logits")
    ]
    inputs = noise(6)
    scores = expected(uri, inputs)
    assert scores.min() < 0.2
    assert scores.max() > 0.8
    for part in (slice(0, 1), slice(1, 6)):
        found, logits = session.run(None, {"images": inputs[part].numpy()})
        np.testing.assert_allclose(found, scores[part], rtol=0, atol=1e-5)
        np.testing.assert_allclose(1 / (1 + np.exp(-logits)), found, rtol=0, atol=1e-6)


def test_no_file_names_a_place_of_this_machine(exported):
    for kind in ("onnx", "torch-export", "safetensors"):
        content = Path(exported(kind).file).read_bytes()
        for word in (b"site-packages", b"sadcl/model/", b".py\\"):
            assert word not in content, (kind, word)


def test_torch_export_runs_in_a_process_without_this_package(uri, exported, tmp_path):
    inputs = noise(5)
    torch.save(inputs, tmp_path / "images.pt")
    (tmp_path / "KEY.pt2").symlink_to(exported("torch-export").file)
    done = subprocess.run(
        [sys.executable, "-I", "-c", READ_PT2],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    labels, scores = torch.load(tmp_path / "answer.pt")
    assert labels == list(LABELS)
    np.testing.assert_allclose(scores, expected(uri, inputs), rtol=0, atol=1e-5)


def test_safetensors_has_every_tensor_under_our_names(uri, exported):
    file = exported("safetensors").file
    with safe_open(file, "pt") as opened:
        facts = facts_of(opened.metadata())
    check_facts(facts)
    tensors = safetensors.torch.load_file(file)
    network = inference.load(uri, device="cpu").network
    state = network.state_dict()
    assert tensors.keys() == state.keys()
    for name, tensor in tensors.items():
        assert tensor.dtype in (torch.float32, torch.int64, torch.bool)
        assert torch.equal(tensor, state[name].to(tensor.dtype)), name
    config = Config.parse(facts["config"])
    assert config == inference.load(uri, device="cpu").config
    again = build.model(config, len(facts["labels"]), pretrained=False)
    again.load_state_dict(tensors)


def test_the_code_that_rebuilds_a_network_runs(uri, exported):
    written = exported("safetensors")
    code = json.loads(Path(written.json_file).read_text())["rebuild"]
    inputs = noise(2)
    names = {"FILE": written.file, "images": inputs}
    exec("\n".join(code), names)
    scores = names["logits_BL"].detach().sigmoid()
    np.testing.assert_allclose(scores, expected(uri, inputs), rtol=0, atol=1e-6)


@pytest.mark.parametrize("kind", ["safetensors", "onnx"])
def test_a_pooled_network_of_float64_becomes_float32(kind, tmp_path):
    uri = write_checkpoint(
        tmp_path, model__arch="pooled", model__backbone="test_resnet", optim__precision="fp64"
    )
    lines, output = [], str(tmp_path / f"x{formats.KINDS[kind].ending}")
    written = export_checkpoint(uri, kind, output, tell=lines.append)
    assert "the weights are rounded from float64 to float32" in lines
    assert 0 < written.check.differences["scores"] < 1e-5
    if kind == "onnx":
        session = onnxruntime.InferenceSession(written.file)
        inputs = noise(2)
        (scores,) = session.run(["scores"], {"images": inputs.numpy()})
        assert scores.dtype == np.float32
        np.testing.assert_allclose(scores, expected(uri, inputs), rtol=0, atol=1e-5)


@torch.library.custom_op("sadcl_test::unknown", mutates_args=())
def unknown(images: torch.Tensor) -> torch.Tensor:
    return images + 1


@unknown.register_fake
def _(images):
    return torch.empty_like(images)


@torch.library.custom_op("sadcl_test::untraceable", mutates_args=())
def untraceable(images: torch.Tensor) -> torch.Tensor:
    return images + 1


def branch(images):
    return images * 2 if images.sum() > 0 else images


@pytest.mark.parametrize(
    ("kind", "operation", "message"),
    [
        (
            "onnx",
            unknown,
            "to ONNX: the operator sadcl_test.unknown.default cannot be translated (",
        ),
        (
            "torch-export",
            untraceable,
            "by torch.export: the operator sadcl_test.untraceable.default cannot be translated (",
        ),
        ("torch-export", branch, "by torch.export: Could not guard on data-dependent expression"),
    ],
)
def test_an_operator_that_cannot_be_exported_is_named_in_one_paragraph(
    uri, tmp_path, monkeypatch, capfd, kind, operation, message
):
    maps = Backbone.maps
    monkeypatch.setattr(
        Backbone, "maps", lambda self, images: tuple(map(operation, maps(self, images)))
    )
    with pytest.raises(UserError) as caught:
        export_checkpoint(uri, kind, str(tmp_path / f"x{formats.KINDS[kind].ending}"))
    start = "The network with model.backbone = 'test_byobnet' cannot be exported "
    assert str(caught.value).startswith(start + message)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 500
    assert capfd.readouterr() == ("", "")
    assert not list(tmp_path.iterdir())


@pytest.mark.soak
def test_a_backbone_that_cannot_be_exported(tmp_path):
    """Its convolutions have as many groups as the batch has images."""
    uri = write_checkpoint(tmp_path, model__backbone="tf_efficientnet_cc_b0_4e", model__feature=-1)
    with pytest.raises(
        UserError,
        match=r"'tf_efficientnet_cc_b0_4e' cannot be exported to ONNX: the operator aten.conv2d",
    ):
        export_checkpoint(uri, "onnx", str(tmp_path / "x.onnx"))
    assert not (tmp_path / "x.onnx").exists()


def test_an_onnx_file_has_at_most_two_gigabytes(uri, tmp_path, monkeypatch):
    monkeypatch.setattr(formats, "MAX_ONNX_BYTES", 100_000)
    with pytest.raises(UserError, match=r"an ONNX file holds at most .* --torch-export or --safet"):
        export_checkpoint(uri, "onnx", str(tmp_path / "x.onnx"))


@pytest.mark.parametrize("package", ["onnx", "onnxscript", "onnxruntime"])
def test_a_missing_package_is_named_with_what_to_install(uri, tmp_path, monkeypatch, package):
    monkeypatch.setitem(sys.modules, package, None)
    assert importlib.util.find_spec(package) is None
    with pytest.raises(
        UserError,
        match=rf'ONNX needs {package}, which is not installed: pip install "sadcl\[export\]"',
    ):
        export_checkpoint(uri, "onnx", str(tmp_path / "x.onnx"))
    export_checkpoint(uri, "safetensors", str(tmp_path / "x.safetensors"))


@pytest.mark.soak
@pytest.mark.parametrize("kind", ["onnx", "torch-export"])
@pytest.mark.parametrize(
    "fields",
    [
        {"model__encoder_layers": 2, "model__decoder_layers": 2},
        {"model__encoder_layers": 1, "optim__precision": "fp64"},
        {"model__backbone": "test_resnet", "model__feature": -1, "model__freeze_batchnorm": True},
        {"model__arch": "pooled"},
        {"model__backbone": "test_vit", "model__feature": -1},
        {"model__backbone": "test_convnext", "model__feature": -1},
        {"model__backbone": "test_maxvit", "model__feature": -1, "model__arch": "pooled"},
    ],
    ids=str,
)
def test_networks_of_all_kinds(kind, fields, tmp_path):
    uri = write_checkpoint(tmp_path, **fields)
    output = str(tmp_path / f"x{formats.KINDS[kind].ending}")
    written = export_checkpoint(uri, kind, output, photos=photographs(5))
    assert written.check.differences["scores"] < 1e-5


@pytest.mark.soak
@pytest.mark.parametrize("backbone", ["test_byobnet", "test_vit"])
def test_another_size_of_images_than_in_training(backbone, tmp_path):
    """A ViT's own position encoding is as large as in training, and is interpolated."""
    uri = write_checkpoint(tmp_path, model__backbone=backbone, model__feature=-1)
    for kind, form in formats.KINDS.items():
        written = export_checkpoint(uri, kind, str(tmp_path / f"x{form.ending}"), image_size=96)
        about = json.loads(Path(written.json_file).read_text())
        assert about["inputs"][0]["shape"] == ["batch", 3, 96, 96]
        assert about["checkpoint"]["image_size"] == 64
        (tmp_path / "x.json").unlink()
    session = onnxruntime.InferenceSession(str(tmp_path / "x.onnx"))
    inputs = noise(5, side=96)
    (scores,) = session.run(["scores"], {"images": inputs.numpy()})
    np.testing.assert_allclose(scores, expected(uri, inputs), rtol=0, atol=1e-5)


@pytest.mark.soak
@pytest.mark.skipif(not PHOTOS.is_dir(), reason="needs photographs of COCO")
def test_the_network_of_the_recipe_on_photographs(tmp_path):
    """ResNet-101 with frozen BatchNorm and d = 2048 at 448 px, from random weights."""
    from sadcl import recipes

    fields = {name: v for name, v in recipes.coco14().flat().items() if name.startswith("model.")}
    fields |= {"model.pretrained": False, "data.image_size": 448}
    uri = write_checkpoint(tmp_path, **fields)
    photos = photographs(6)
    written = export_checkpoint(uri, "onnx", str(tmp_path / "x.onnx"), photos=photos)
    assert written.check.differences["scores"] < 1e-4
    session = onnxruntime.InferenceSession(written.file)
    inputs = torch.stack([to_input(read_image(photo, 448), IMAGENET) for photo in photos[:4]])
    (scores,) = session.run(["scores"], {"images": inputs.numpy()})
    np.testing.assert_allclose(scores, expected(uri, inputs), rtol=0, atol=1e-4)
