"""Checkpoints in use: the archive of VOC 2012's server, other resolutions, and localisation."""

from __future__ import annotations

import io
import shutil
import tarfile

import numpy as np
import pyarrow.compute as pc
import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

import sadcl
from sadcl import UserError, build, inference, recipes, train
from sadcl.cli.app import app
from sadcl.data.load import load
from sadcl.data.readers import voc
from sadcl.data.transforms import IMAGENET, read_image, to_input
from sadcl.metrics import multilabel_metrics
from sadcl.training import checkpoint
from tests.conftest import TINY
from tests.data.readers.layouts import objects_xml, put, table

CONFIG = recipes.demo().override({**TINY, "data.name": "voc2012", "data.voc2012_test": "server"})


TESTED = [f"2008_{i:06}" for i in range(7)]


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    home = tmp_path_factory.mktemp("voc") / "VOCdevkit/VOC2012"
    names = [f"2007_{i:06}" for i in range(24)]
    table(home / "ImageSets/Main/trainval.txt", names)
    table(home / "ImageSets/Main/test.txt", TESTED)
    rng = np.random.default_rng(0)
    for i, name in enumerate(names + TESTED):
        Image.fromarray(rng.integers(0, 256, (40, 50, 3), dtype=np.uint8)).save(
            sink := io.BytesIO(), "JPEG"
        )
        put(home / f"JPEGImages/{name}.jpg", sink.getvalue())
        if name in names:
            put(home / f"Annotations/{name}.xml", objects_xml("VOC2012", [(voc.LABELS[i % 3], 0)]))
    return home.parents[1]


@pytest.fixture(scope="module")
def row(root, tmp_path_factory):
    """Of a run on it."""
    storage = str(tmp_path_factory.mktemp("runs"))
    return train(CONFIG, data_root=str(root), storage=storage, scale="demo", gpus_per_worker=0)


def typed(*words):
    done = CliRunner().invoke(app, list(map(str, words)))
    assert done.exception is None or isinstance(done.exception, (UserError, SystemExit)), (
        done.exception
    )
    return done.output if done.exception is None else str(done.exception)


def test_where_no_test_label_is_known_no_test_figure_is_made(row, root):
    assert row["status"] == "complete"
    assert row["val_mAP"] is not None
    assert not [name for name in row if name.startswith("test_") and row[name] is not None]
    with pytest.raises(
        UserError, match=r"No label of the 7 test images of voc2012 is known.*--voc2012-submission"
    ):
        inference.evaluate(row["checkpoint"], data_root=str(root), split="test", device="cpu")


def test_the_archive_read_back(row, root, tmp_path):
    """With the test archive alone unpacked."""
    alone = shutil.copytree(root, tmp_path / "test")
    shutil.rmtree(alone / "VOCdevkit/VOC2012/Annotations")
    (alone / "VOCdevkit/VOC2012/ImageSets/Main/trainval.txt").unlink()
    out = tmp_path / "new" / "results.tar.gz"
    said = typed(
        "predict",
        "--voc2012-submission",
        out,
        "--checkpoint",
        row["checkpoint"],
        "--data-root",
        alone,
    )
    assert said.startswith(f"{out}: {out.stat().st_size:,} bytes")
    assert "WARNING: it has 7 images; the server expects 10,991." in said
    predictor = inference.load(row["checkpoint"], device="cpu")
    (expected,) = (
        {TESTED[i]: dict(predictor.predict(path)[0]) for i, path in enumerate(paths(root))},
    )
    with tarfile.open(out) as archive:
        assert archive.getnames() == [
            f"results/VOC2012/Main/comp1_cls_test_{label}.txt" for label in voc.LABELS
        ]
        for label in voc.LABELS:
            text = (
                archive.extractfile(f"results/VOC2012/Main/comp1_cls_test_{label}.txt")
                .read()
                .decode()
            )
            rows = [line.split(" ") for line in text.splitlines()]
            assert [name for name, _ in rows] == TESTED
            assert text.endswith("\n")
            for name, score in rows:
                assert abs(float(score) - expected[name][label]) < 1e-6


def test_scores_do_not_depend_on_where_progress_is_told(row, root, monkeypatch):
    predictor, told = inference.load(row["checkpoint"], device="cpu"), []
    whole = scores(inference.voc2012_submission(predictor, str(root)))
    monkeypatch.setattr(inference.evaluation, "_PROGRESS_IMAGES", 3)
    parts = scores(
        inference.voc2012_submission(predictor, str(root), lambda done, of: told.append((done, of)))
    )
    assert told == [(3, 7), (6, 7), (7, 7)]
    assert whole.keys() == parts.keys()
    assert all(abs(whole[image] - parts[image]) < 1e-6 for image in whole)


def scores(archive):
    with tarfile.open(fileobj=io.BytesIO(archive)) as opened:
        text = opened.extractfile("results/VOC2012/Main/comp1_cls_test_cow.txt").read().decode()
    return {line.split()[0]: float(line.split()[1]) for line in text.splitlines()}


def paths(root):
    return [root / f"VOCdevkit/VOC2012/JPEGImages/{name}.jpg" for name in TESTED]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            ("{image}", "--voc2012-submission", "x.tar.gz", "--data-root", "{root}"),
            "Give either image files, or --voc2012-submission",
        ),
        (("--voc2012-submission", "x.tar.gz"), "Give either image files, or --voc2012-submission"),
        (("--data-root", "{root}"), "Give either image files, or --voc2012-submission"),
        (
            ("--voc2012-submission", "{root}", "--data-root", "{root}"),
            "is a folder: give another place",
        ),
        (
            (
                "--voc2012-submission",
                "x.tar.gz",
                "--data-root",
                "{root}/VOCdevkit/VOC2012/JPEGImages",
            ),
            "not a copy of voc2012",
        ),
        (
            ("{image}", "--image-size", "31"),
            "data.image_size = 31 is not possible: it must be greater than or equal to 32",
        ),
    ],
)
def test_mistakes(row, root, words, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    words = [word.format(root=root, image=paths(root)[0]) for word in words]
    assert message in typed("predict", "--checkpoint", row["checkpoint"], *words)
    assert not (tmp_path / "x.tar.gz").exists()


def test_an_archive_needs_all_classes_and_all_images(row, root, tmp_path):
    content = checkpoint.load_checkpoint(row["checkpoint"])
    other = {**content, "labels": [*content["labels"][:-2], "tractor", "lorry"]}
    checkpoint.save_checkpoint(str(tmp_path / "other.pt"), other)
    with pytest.raises(
        UserError, match=r"knows no 'train': VOC's 20 classes are needed, and 2 of them"
    ):
        inference.voc2012_submission(inference.load(str(tmp_path / "other.pt")), str(root))
    part = shutil.copytree(root, tmp_path / "part")
    paths(part)[3].unlink()
    with pytest.raises(
        UserError, match=r"1 of 7 images that test.txt lists are missing .* first '2008_000003.jpg'"
    ):
        inference.voc2012_submission(inference.load(row["checkpoint"]), str(part))


def test_another_resolution_than_in_training(row, root):
    """The same weights, on images of another size: with the position encoding of the larger map."""
    uri = row["checkpoint"]
    found = inference.evaluate(uri, data_root=str(root), split="val", device="cpu", image_size=80)
    assert (found.image_size, found.training_size) == (80, 32)
    network = inference.load(uri, device="cpu").network  # as in training
    val = load(CONFIG.data, root).val
    images = torch.stack([read_image(val.path(i), 80) for i in range(len(val))])
    with torch.inference_mode():
        scores = network(to_input(images, IMAGENET)).logits_BL.double().sigmoid().numpy()
    expected = multilabel_metrics(scores, val.targets)
    assert found.metrics["mAP"] == pytest.approx(expected["mAP"], abs=1e-9)
    assert found.metrics["CF1"] == pytest.approx(expected["CF1"], abs=1e-9)
    same = inference.evaluate(uri, data_root=str(root), split="val", device="cpu", image_size=32)
    assert same.metrics["mAP"] == row["val_mAP"]
    said = typed(
        "evaluate", "--checkpoint", uri, "--data-root", root, "--image-size", 80, "--split", "val"
    )
    assert "80 px (trained and recorded at 32 px)" in said
    label, score = inference.load(uri, device="cpu", image_size=80).predict(val.path(0))[0][0]
    assert score == pytest.approx(scores[0, val.labels.index(label)], abs=1e-6)


@pytest.mark.parametrize(
    ("backbone", "fixed"), [("test_vit_relpos", True), ("test_coatnet", True), ("test_vit", False)]
)
def test_a_backbone_of_one_fixed_size_says_so(tmp_path, backbone, fixed):
    """A plain ViT interpolates its position encoding."""
    config = CONFIG.override(
        {"model.backbone": backbone, "model.feature": -1, "data.image_size": 64}
    )
    labels = [f"label{i}" for i in range(4)]
    content = {
        "labels": labels,
        "config": config.json_text(),
        "model": build.model(config, 4).state_dict(),
    }
    uri = str(tmp_path / "best.pt")
    checkpoint.save_checkpoint(uri, content)
    assert inference.load(uri, image_size=64).labels == tuple(labels)
    if fixed:
        with pytest.raises(
            UserError,
            match=rf"'{backbone}' cannot take images of data.image_size = 96 pixels: .*match",
        ):
            inference.load(uri, image_size=96)
    else:
        assert inference.load(uri, image_size=96).config.data.image_size == 96


def test_the_tested_split_is_localised_and_others_are_not(two_runs):
    root, *rows = two_runs
    labels = sadcl.read(root, "labels")
    tested, held = (labels.filter(pc.equal(labels["split"], split)) for split in ("test", "val"))
    for name in ("pointing", "box_energy", "box_area"):
        assert held[name].null_count == len(held)
        values = np.array(tested[name].to_pylist(), dtype=float)
        assert (
            np.isnan(values) == (np.array(tested["support"]) == 0)
        ).all()  # each object of a scene has its box
        assert 0 <= np.nanmin(values) <= np.nanmax(values) <= 100
        for row in rows:
            own = np.array(
                tested.filter(pc.equal(tested["key"], row["key"]))[name].to_pylist(), dtype=float
            )
            assert row[f"test_{name}"] == pytest.approx(np.nanmean(own))
            assert f"val_{name}" not in row


@pytest.mark.parametrize("which", [1, 2])
def test_localising_again_gives_what_the_run_has_recorded(two_runs, work_folder, which):
    root, row = two_runs[0], two_runs[which]
    opened = inference.open_with_data(row["checkpoint"])
    found = inference.localise(opened.predictor, opened.data)
    recorded = sadcl.sql(
        root, f"select * from labels where key = '{row['key']}' and split = 'test'"
    ).to_pylist()
    for name, values in found.items():
        np.testing.assert_array_equal(
            values, [np.nan if r[name] is None else r[name] for r in recorded]
        )
