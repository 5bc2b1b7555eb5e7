"""The command ``sadcl import``, and what the new checkpoint is good for."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

import sadcl
from sadcl import UserError, inference, recipes
from sadcl.cli.app import app
from sadcl.data.load import load
from sadcl.metrics import multilabel_metrics
from sadcl.training import fit
from tests.conftest import TINY
from tests.data.readers.layouts import table
from tests.published import PublishedNetwork, checkpoint_of

LABELS = ("ant", "bee", "cat", "dog", "eel")


def typed(*words, mistake=False):
    """What a command prints, or the message of the user's mistake."""
    done = CliRunner().invoke(app, list(map(str, words)))
    if mistake:
        assert isinstance(done.exception, UserError), done.output
        return str(done.exception)
    if done.exception is not None:
        raise done.exception
    return done.output


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Noise with labels, a published checkpoint, and what is made of it: a data root, and files."""
    root = tmp_path_factory.mktemp("published")
    rng = np.random.default_rng(0)
    rows = []
    for i in range(24):
        pixels = rng.integers(0, 256, (40, 50, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(root / f"{i}.png")
        part = "train" if i < 16 else "test"
        rows.append(f"{i}.png,{LABELS[i % 5]};{LABELS[(i * i + 1) % 5]},{part}")
    table(root / "labels.csv", ["file,labels,split", *rows])
    table(root / "labels.txt", LABELS)
    torch.save(checkpoint_of(PublishedNetwork(5)), root / "sadcl.pth.tar")
    text = typed(
        *("import", root / "sadcl.pth.tar", "-o", root / "new" / "best.pt"),
        *("--labels", root / "labels.txt"),
    )
    return root, text


def test_the_summary_is_readable(folder):
    root, text = folder
    lines = text.splitlines()
    assert max(map(len, lines[:-1])) <= 80
    said = " ".join(text.split())
    for words in (
        "network SADCL, epoch 11, raw weights",
        "backbone resnet18.tv_in1k",
        "images 64 px",
        "1 encoder and 2 decoder layers, hidden 16, feed-forward 24, 4 heads",
        "prototypes 5 of 5",
        "labels 5 of",
        "data set folder (your own images; another one: --dataset)",
        "ant, bee, cat",
        "recorded mAP 86.75",
        "dropped memorybank, arch, optimizer",
    ):
        assert words in said
    assert lines[-1].startswith(f"{root / 'new' / 'best.pt'}: ")
    assert "MB" in lines[-1]


def test_the_summary_says_what_it_assumes_and_what_is_not_recorded(folder, tmp_path):
    root, _ = folder
    state, source = PublishedNetwork(5).state_dict(), tmp_path / "checkpoint.pth.tar"
    assumed = "averaged weights (without the prefix 'module.', as the published code saves them)"
    chosen = "by which the published code chose this epoch on its test images"
    for content, options, weights, has_mAP in (
        ({"state_dict": state}, (), assumed, False),
        ({"state_dict": state, "best_mAP": 86.75}, (), assumed, True),
        ({"state_dict": state, "best_mAP": float("nan")}, ("--weights", "raw"), "raw", False),
        ({"state_dict": state, "state_dict_ema": state}, (), "averaged weights backbone", False),
    ):
        torch.save(content, source)
        output = tmp_path / "best.pt"
        text = typed("import", source, "-o", output, "--labels", root / "labels.txt", *options)
        said = " ".join(text.split())
        assert f"network SADCL, {weights}" in said
        assert (chosen in said) == has_mAP
        assert ("mAP 86.75, " in said) == has_mAP
        assert ("dropped memorybank, best_mAP" in said) == ("best_mAP" in content and not has_mAP)
        output.unlink()


def test_evaluate_checks_the_labels_and_says_so(folder, tmp_path):
    root, _ = folder
    best = root / "new" / "best.pt"
    text = typed("evaluate", "--checkpoint", best, "--data-root", root, "--device", "cpu")
    rows = dict(line.split("\t", 1) for line in text.splitlines() if "\t" in line)
    assert rows["test_mAP_published"] == "\t86.75"
    predictor = inference.load(str(best), device="cpu")
    scores = [dict(predictor.predict(root / f"{i}.png")[0]) for i in range(16, 24)]
    shown = [{i % 5, (i * i + 1) % 5} for i in range(16, 24)]
    expected = multilabel_metrics(
        np.array([[score[label] for label in LABELS] for score in scores]),
        np.array([[label in labels for label in range(5)] for labels in shown], dtype=np.int8),
    )
    assert float(rows["test_mAP"].split("\t")[0]) == pytest.approx(expected["mAP"], abs=0.005)
    assert "imported: of the data, only the names of the labels could be checked" in text
    missing = typed("evaluate", "--checkpoint", best, mistake=True)
    assert "was trained on folder: give its folder with --data-root" in missing
    held_out = ("evaluate", "--checkpoint", best, "--data-root", root, "--split", "val")
    assert "val split of folder has no images" in typed(*held_out, mistake=True)
    other = tmp_path / "other"
    other.mkdir()
    for file in root.glob("*.*"):
        (other / file.name).write_bytes(file.read_bytes())
    table(other / "labels.txt", [*LABELS[:3], "eel", "dog"])
    text = typed("evaluate", "--checkpoint", best, "--data-root", other, mistake=True)
    assert "labels of the data are not those of" in text
    assert "'dog' there is 'eel' here" in text


def test_predict_and_explain(folder, tmp_path):
    root, _ = folder
    best = root / "new" / "best.pt"
    text = typed("predict", root / "0.png", "--checkpoint", best, "--top", "5")
    shown = dict(part.rsplit(" ", 1) for part in text.strip().split(": ")[1].split(", "))
    expected = dict(sadcl.load(str(best)).predict(root / "0.png")[0])
    assert {label: float(score) for label, score in shown.items()} == pytest.approx(
        expected, abs=5e-4
    )
    drawn = tmp_path / "maps.png"
    text = typed(
        *("explain", root / "0.png", "--checkpoint", best, "-o", drawn, "--baseline", ""),
        *("--label", "cat", "--label", "eel"),
    )
    assert "cat " in text
    assert Image.open(drawn).width > 100


@pytest.mark.parametrize("projection", [12, None])
def test_training_starts_from_it(folder, tmp_path, projection):
    """Both stages, and stage 2 alone; a checkpoint of Query2Label has no prototypes yet."""
    root, _ = folder
    published, best = tmp_path / "checkpoint.pth.tar", tmp_path / "best.pt"
    torch.save(checkpoint_of(PublishedNetwork(5, projection=projection)), published)
    typed("import", published, "-o", best, "--labels", root / "labels.txt")
    network = inference.load(str(best)).config.flat()
    fields = ("hidden", "feedforward", "heads", "projection", "encoder_layers", "decoder_layers")
    config = recipes.demo().override(
        {
            **TINY,
            **{f"model.{name}": network[f"model.{name}"] for name in fields},
            "data.name": "folder",
            "model.backbone": "resnet18.tv_in1k",
            "model.feature": -1,
            "model.start": str(best),
            "model.freeze_batchnorm": True,
            "stage1.epochs": 0 if projection is None else 1,
            "stage2.epochs": 1,
        }
    )
    data = load(config.data, root)
    outcome = fit(config, data, str(tmp_path / "run"), device="cpu")
    assert outcome.stage == 2
    assert outcome.metrics["val_mAP"] > 0


def test_mistakes_are_one_paragraph(folder, tmp_path, command):
    root, _ = folder
    (tmp_path / "photo.jpg").write_bytes(b"\xff\xd8\xff\xe0")
    done = command("sadcl", "import", "photo.jpg", "-o", "new.pt", check=False)
    assert done.returncode == 2
    assert "is not a checkpoint, or it is damaged" in " ".join(done.stderr.split())
    assert "Traceback" not in done.stderr
    published, photo = root / "sadcl.pth.tar", tmp_path / "photo.jpg"
    assert "exists already" in typed("import", published, "-o", photo, mistake=True)
    text = typed("import", published, "-o", tmp_path / "new.pt", mistake=True)
    assert "has 5 labels, and no data set has that many (coco14 80, " in text
    assert not (tmp_path / "new.pt").exists()
