"""The commands ``sadcl evaluate``, ``predict`` and ``export`` as they are typed."""

from __future__ import annotations

import json

import pytest
import torch
from PIL import Image

from sadcl import results


def test_evaluate_reproduces_every_recorded_figure_to_the_last_digit(command, runs):
    root, row = runs
    for split in ("val", "test"):
        lines = command(
            "sadcl", "evaluate", "--checkpoint", row["key"], "--storage", root, "--split", split
        ).stdout.splitlines()
        figures = [line.split("\t") for line in lines[2:]]
        assert len(figures) > 15
        assert all(now == recorded != "" for _, now, recorded in figures)


def test_predict_names_labels_with_scores_of_several_photographs(command, runs, tmp_path):
    _root, row = runs
    for name in ("a.jpg", "b c.png"):
        Image.effect_noise((60, 30), 80).save(tmp_path / name)
    out = command(
        "sadcl", "predict", "a.jpg", "b c.png", "--checkpoint", row["checkpoint"], "--top", "3"
    ).stdout.splitlines()
    assert [line.split(": ")[0] for line in out] == ["a.jpg", "b c.png"]
    (tmp_path / "text.jpg").write_text("hello")
    mixed = command(
        "sadcl", "predict", "text.jpg", "b c.png", "--checkpoint", row["checkpoint"], check=False
    )
    assert mixed.returncode == 2
    assert mixed.stdout.startswith("b c.png: ")
    assert "'text.jpg' (5 bytes) cannot be decoded" in mixed.stderr
    folder = row["checkpoint"].removesuffix("/best.pt")
    assert (
        command(
            "sadcl", "predict", "a.jpg", "--checkpoint", folder, "--top", "3"
        ).stdout.splitlines()
        == out[:1]
    )
    scores = [float(part.split()[-1]) for part in out[0].split(": ")[1].split(", ")]
    assert len(scores) == 3
    assert scores == sorted(scores, reverse=True)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("evaluate", "--checkpoint", "nowhere.pt"), "no checkpoint at 'nowhere.pt'"),
        (
            ("evaluate", "--checkpoint", "clx-s0", "--storage", "{root}"),
            "There is no trial 'clx-s0'",
        ),
        (
            ("evaluate", "--checkpoint", "{key}", "--storage", "{root}", "--split", "train"),
            "split = 'train' is not possible",
        ),
        (("evaluate", "--checkpoint", "{last}"), "its best.pt is the one to load"),
        (
            ("evaluate", "--checkpoint", "{key}", "--storage", "{root}", "--device", "cuda:77"),
            "cuda:77",
        ),
        (
            ("predict", "none.jpg", "--checkpoint", "{best}"),
            "The image 'none.jpg' cannot be read: No such file",
        ),
        (
            ("predict", "text.jpg", "--checkpoint", "{best}"),
            "'text.jpg' (5 bytes) cannot be decoded",
        ),
        (
            ("predict", "text.jpg", "--checkpoint", "text.jpg"),
            "is not a checkpoint, or it is damaged",
        ),
        (("predict", "--checkpoint", "{best}"), "Give either image files, or --voc2012-submission"),
        (("export", "{best}"), "Give one of --onnx, --safetensors and --torch-export."),
        (("export", "{best}", "--onnx", "--safetensors"), "Give one of --onnx, --safetensors and"),
        (("export", "nowhere.pt", "--safetensors"), "no checkpoint at 'nowhere.pt'"),
        (("export", "{last}", "--safetensors"), "its best.pt is the one to load"),
        (
            ("export", "clx-s0", "--onnx", "--storage", "{root}"),
            "There is no trial 'clx-s0'",
        ),
        (
            ("export", "{best}", "--safetensors", "--output", "{last}"),
            "must have a name with .safetensors",
        ),
    ],
)
def test_mistakes_are_one_paragraph(command, runs, tmp_path, words, message):
    root, row = runs
    (tmp_path / "text.jpg").write_text("hello")
    torch.save({"format": 1, "step": 3, "model": {}}, tmp_path / "state.pt")
    names = {
        "root": root,
        "key": row["key"],
        "best": row["checkpoint"],
        "last": tmp_path / "state.pt",
    }
    done = command("sadcl", *(w.format(**names) for w in words), check=False)
    assert done.returncode == 2
    assert message in done.stderr
    assert "Traceback" not in done.stderr + done.stdout


def test_a_checkpoint_of_other_data_is_refused(command, runs, tmp_path):
    _root, row = runs
    content = torch.load(row["checkpoint"], weights_only=True)
    torch.save({**content, "data_digest": "0" * 12}, tmp_path / "other.pt")
    done = command("sadcl", "evaluate", "--checkpoint", "other.pt", check=False)
    assert done.returncode == 2
    assert "digest" in done.stderr
    assert row["data_digest"] in done.stderr


@pytest.mark.parametrize(
    ("status", "why"),
    [
        ("complete", "it was deleted to stay within the disk limit (--max-disk)"),
        ("failed", "the status of the trial is failed"),
    ],
)
def test_a_trial_without_a_checkpoint_says_why(command, tmp_path, status, why):
    results.RunWriter(str(tmp_path), "k", {"study": "s"}).finish(status)
    done = command("sadcl", "evaluate", "--checkpoint", "k", "--storage", tmp_path, check=False)
    assert done.returncode == 2
    assert f"The trial 'k' has no checkpoint: {why}" in done.stderr.replace("\n", " ")


def test_export_tells_its_steps_in_lines_of_a_terminal(command, runs, tmp_path):
    root, row = runs
    words = ("sadcl", "export", row["key"], "--safetensors", "--storage", root)
    done = command(*words, "--threshold", "0.3", "--image-size", "48")
    steps, check, difference, written = done.stdout.splitlines()
    assert done.stderr == ""
    assert all(len(line) <= 80 for line in (steps, check, difference))
    assert steps.startswith("exporting to safetensors: SADCL, test_byobnet, ")
    assert steps.endswith(" weights, 48 px, 20 labels")
    assert check.startswith("checking with torch ")
    assert difference.startswith("largest difference of a score: ")
    name = f"{row['key']}.safetensors"
    assert written.startswith(f"{name}: ")
    assert written.endswith(f"; {row['key']}.json says how to read it.")
    about = json.loads((tmp_path / f"{row['key']}.json").read_text())
    assert (about["threshold"], about["pixels"]["size"]) == (0.3, 48)
    assert about["checkpoint"]["metrics"]["val_mAP"] == row["val_mAP"]
    assert about["checkpoint"]["data_digest"] == row["data_digest"]
    again = command(*words, check=False)
    assert again.returncode == 2
    assert f"The file to be written, '{name}', exists: give another with --output." in again.stderr


@pytest.mark.soak
@pytest.mark.parametrize(("flag", "name"), [("--onnx", "a.onnx"), ("--torch-export", "a.pt2")])
def test_export_of_each_kind(command, runs, tmp_path, flag, name):
    _root, row = runs
    done = command("sadcl", "export", row["checkpoint"], flag, "-o", name)
    assert done.stderr == ""
    assert len(done.stdout.splitlines()) == 4
    assert json.loads((tmp_path / "a.json").read_text())["file"] == name
