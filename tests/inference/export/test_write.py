"""The file and its JSON: what they say, where they go, and when neither is written."""

from __future__ import annotations

import hashlib
import json
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import sadcl
from sadcl import UserError, inference, storage
from sadcl.inference.export import default_output, export_checkpoint
from sadcl.training import checkpoint
from tests.buckets import serving
from tests.inference.export.checkpoints import LABELS

PAGE = Path(__file__).parents[3] / "experiments" / "README.md"


def about(written):
    return json.loads(Path(written.json_file).read_text())


@pytest.mark.parametrize("kind", ["onnx", "safetensors", "torch-export"])
def test_the_json_says_how_to_read_the_file(uri, exported, kind):
    written = exported(kind)
    content = Path(written.file).read_bytes()
    facts = about(written)
    assert facts["format"] == kind
    assert facts["file"] == Path(written.file).name
    assert Path(written.json_file).name == "KEY.json"
    assert facts["bytes"] == len(content) == written.bytes
    assert facts["sha256"] == hashlib.sha256(content).hexdigest()
    (image,) = facts["inputs"]
    assert (image["name"], image["type"]) == ("images", "float32")
    assert image["shape"] == ["batch", 3, 64, 64]
    names = ["logits_BL"] if kind == "safetensors" else ["scores", "logits"]
    assert [output["name"] for output in facts["outputs"]] == names
    assert all(output["shape"] == ["batch", 7] for output in facts["outputs"])
    assert facts["labels"] == list(LABELS)
    assert facts["threshold"] == 0.25
    assert "64 x 64" in facts["preprocessing"][1]
    assert any("score > 0.25" in line for line in facts["postprocessing"])
    origin = facts["checkpoint"]
    assert origin["digest"] == checkpoint.digest(uri)
    assert origin["file"] == "KEY/best.pt"
    assert (origin["weights"], origin["dataset"], origin["epoch"]) == ("ema", "scenes", 3)
    assert origin["metrics"] == {"val_mAP": 51.25, "test_CF1": None}
    assert facts["versions"]["sadcl"] == sadcl.__version__
    assert facts["config"]["model"]["backbone"] == "test_byobnet"
    assert facts["check"]["largest_difference"]["scores"] <= 1e-5
    assert facts["check"]["images"] == written.check.images >= 4
    assert ("opset" in facts) == (kind == "onnx")


def test_the_preprocessing_that_is_described_gives_the_scores_of_predict(uri, exported, tmp_path):
    """The example of the page that documents it, word by word."""
    code = next(
        block
        for block in re.findall(r"```python\n(.*?)```", PAGE.read_text(), flags=re.DOTALL)
        if "onnxruntime" in block
    )
    assert len([line for line in code.splitlines() if line and "import" not in line]) <= 7
    noise = np.random.default_rng(0).integers(0, 256, (12, 20, 3), dtype=np.uint8)
    Image.fromarray(noise).resize((200, 120), Image.Resampling.BICUBIC).save(tmp_path / "photo.jpg")
    (tmp_path / "KEY.onnx").symlink_to(exported("onnx").file)
    names: dict = {}
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path)
        exec(compile(code, str(PAGE), "exec"), names)
        (predicted,) = inference.load(uri, device="cpu").predict("photo.jpg")
    found = dict(zip(LABELS, names["scores"][0].tolist(), strict=True))
    for label, score in predicted:
        assert found[label] == pytest.approx(score, abs=0.01)  # another decoder and resizer


@pytest.mark.parametrize(
    ("kind", "output", "options", "message"),
    [
        ("tflite", "x.tflite", {}, r"kind = 'tflite' is not possible: onnx, safetensors, torch-ex"),
        ("onnx", "x.onnx", {"threshold": 1.5}, r"threshold = 1.5 is not possible: 0 <= threshold"),
        ("onnx", "x.onnx", {"threshold": float("nan")}, r"threshold = nan is not possible"),
        ("onnx", "x.pt2", {}, r"'x.pt2', must have a name with .onnx"),
        ("onnx", ".onnx", {}, r"'.onnx', must have a name with .onnx"),
        ("onnx", "old.onnx", {}, r"'old.onnx', exists: give another with --output"),
        (
            "torch-export",
            "described.pt2",
            {},
            r"'described.json', exists: give another with --output",
        ),
        ("onnx", "folder.onnx", {}, r"'folder.onnx', is a folder"),
        ("onnx", "x.onnx", {"image_size": 31}, r"data.image_size = 31 is not possible"),
    ],
)
def test_mistakes_are_found_before_anything_is_exported(
    uri, tmp_path, monkeypatch, kind, output, options, message
):
    monkeypatch.chdir(tmp_path)
    Path("old.onnx").write_text("old")
    Path("described.json").write_text("old")
    Path("folder.onnx").mkdir()
    before = sorted(Path().iterdir())
    monkeypatch.setattr("torch.export.export", None)
    with pytest.raises(UserError, match=message):
        export_checkpoint(uri, kind, output, **options)
    assert sorted(Path().iterdir()) == before
    assert Path("old.onnx").read_text() == "old"


def test_a_json_that_cannot_be_written_leaves_no_file(uri, tmp_path, monkeypatch):
    write = storage.write

    def full(name, data):
        if name.endswith(".json"):
            raise OSError(28, "No space left on device")
        write(name, data)

    monkeypatch.setattr(storage, "write", full)
    with pytest.raises(OSError, match="No space left"):
        export_checkpoint(uri, "safetensors", str(tmp_path / "x.safetensors"))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("checkpoint_uri", "name"),
    [
        ("/runs/checkpoints/KEY/best.pt", "KEY.onnx"),
        ("s3://lab/runs/checkpoints/KEY/best.pt", "KEY.onnx"),
        ("/tmp/other.pt", "other.onnx"),
        ("/best.pt", "best.onnx"),
    ],
)
def test_the_name_of_a_trial_is_the_name_of_its_file(checkpoint_uri, name):
    assert default_output(checkpoint_uri, "onnx") == name


def test_a_checkpoint_of_the_folder_that_one_is_in(uri, monkeypatch):
    monkeypatch.chdir(Path(uri).parent)
    assert default_output("best.pt", "safetensors") == "KEY.safetensors"


def test_an_object_store_has_checkpoints_and_takes_files(uri, monkeypatch):
    with serving(monkeypatch, "lab") as bucket:
        storage.write(f"{bucket}/KEY/best.pt", Path(uri).read_bytes())
        output = f"{bucket}/exported/x.safetensors"
        written = export_checkpoint(f"{bucket}/KEY/best.pt", "safetensors", output)
        facts = json.loads(storage.read(written.json_file))
        content = storage.read(output)
        assert facts["sha256"] == hashlib.sha256(content).hexdigest()
        with pytest.raises(UserError, match=r"exists: give another with --output"):
            export_checkpoint(f"{bucket}/KEY/best.pt", "safetensors", output)
