"""Data sets before a start: wrong places, missing and damaged images, several of them."""

from __future__ import annotations

import dataclasses
import shutil

import pytest
from PIL import Image

from sadcl import Ablation, main, recipes
from sadcl.config import Config, Data
from sadcl.data import MultiLabelData, image_set, label_names
from sadcl.launch import datasets
from tests.launch.mistakes import DEMO, SEARCH, refused


def test_a_data_root_that_is_wrong(capsys, tmp_path, copy):
    demo = ("--scale", "demo", "--data-root")
    assert "nowhere' does not exist; give the folder" in refused(
        capsys, *demo, tmp_path / "nowhere"
    )
    assert "is not a copy of COCO: looked for annotations/" in refused(
        capsys, *demo, copy / "train2017"
    )
    shutil.rmtree(copy / "val2017")
    assert "but their folder" in refused(capsys, *demo, copy)


def test_an_image_that_is_missing_or_damaged_is_found_before_anything_starts(capsys, copy):
    words = ("--scale", "demo", "--data-root", copy)
    image = sorted((copy / "val2017").iterdir())[3]
    whole = image.read_bytes()
    image.write_bytes(whole[: len(whole) // 2])
    error = refused(capsys, *words)
    assert f"1 of 84 image files cannot be used. The first: The image '{image}'" in error
    assert "cut short" in error
    image.unlink()
    assert (
        f"1 of 24 images that instances_val2017.json lists are missing in '{copy / 'val2017'}'"
        in refused(capsys, *words)
    )


def test_images_that_were_left_out_are_counted(capsys, copy):
    for path in sorted((copy / "train2017").iterdir())[:2]:
        path.unlink()
    dropping = dataclasses.replace(SEARCH, demo=DEMO.override({"data.missing": "drop"}))
    main(dropping, ["--dry-run", "--scale", "demo", "--data-root", str(copy)])
    text = " ".join(capsys.readouterr().out.split())
    assert "20 labels; 2 listed images are not on disk and are left out)" in text


def test_the_demo_on_real_images_is_small():
    config = recipes.demo()
    assert config.data.limit_train <= 2000
    assert config.data.limit_test <= 600


@pytest.mark.parametrize(
    ("known", "given", "found"),
    [
        (["coco"], None, {}),
        (["coco"], "/data/coco", {"coco": "/data/coco"}),
        (["coco", "nuswide"], {"nuswide": "/n"}, {"nuswide": "/n"}),
    ],
)
def test_where_each_data_set_lies(known, given, found):
    assert datasets.roots_of(known, given) == found


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            ("--data-root", "/data"),
            r"This study has 2 data sets (coco, nuswide). Say which of them is in '/data'",
        ),
        (
            ("--data-root", "/a", "--data-root", "/b"),
            r"--data-root '/a' is not possible: with several data sets, give each of them once",
        ),
        (
            ("--data-root", "coco=/a", "--data-root", "coco=/b"),
            r"--data-root 'coco=/b' is not possible: with several",
        ),
        (("--data-root", "nuswid=/a"), r"names the data set 'nuswid'; did you mean 'nuswide'"),
        (("--data-root", "coco=/nowhere"), r"data root '/nowhere' does not exist"),
    ],
)
def test_places_of_several_data_sets_that_cannot_be(capsys, words, message):
    both = Ablation(
        name="wrong",
        base={"coco": recipes.coco14(), "nuswide": recipes.nuswide()},
        demo=DEMO,
        arms={"one": {}, "two": {"loss.tau": 0.4}},
        baseline="one",
    )
    assert message in refused(capsys, *words, search=both)


def test_weights_that_cannot_be_downloaded(capsys, monkeypatch, copy, tmp_path):
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    error = refused(capsys, "--data-root", copy, "--yes")
    assert (
        "The weights of resnet101.tv_in1k are not on this machine and cannot be downloaded" in error
    )
    assert "model.weights" in error


def test_a_backbone_that_does_not_exist_is_named_with_the_nearest(capsys):
    demo = DEMO.override({"model.backbone": "resnet1o1"})
    search = dataclasses.replace(SEARCH, demo=demo)
    assert "did you mean resnet101" in refused(capsys, search=search)


def test_odd_labels_are_known_before_anything_trains(tmp_path, capfd):
    """The warning is the check's, and comes once."""
    rows = ["file,labels,split"]
    for i, (labels, part) in enumerate(
        [("cat", "train"), ("cat|dog", "train"), ("Cat", "train"), ("dog", "train"), ("", "test")]
    ):
        Image.effect_noise((40, 40), 60 + i).save(tmp_path / f"{i}.png")
        rows.append(f"{i}.png,{labels},{part}")
    (tmp_path / "labels.csv").write_text("\n".join(rows) + "\n")
    config = Config(data=Data(name="folder", holdout=0.0))
    images = datasets.read_data(config, str(tmp_path))
    out, err = capfd.readouterr()
    said = " ".join((out + err).split())
    assert said.count("2 of 4 labels look wrong: ") == 1
    assert said.count("'cat|dog' has '|', which stands between names") == 1
    assert said.count("no test image has a label") == 1
    assert label_names.warning_of(images.labels) in said


def test_labels_that_no_training_image_shows_are_named_before_the_start(tmp_path):
    labels = ("cat", "dog", "cow")
    train = image_set(tmp_path, ["a.jpg"], [[1, 0, 0]], labels)
    test = image_set(tmp_path, ["b.jpg"], [[0, 1, 1]], labels)
    data = MultiLabelData("own", labels, train, train.subset([], "val"), test)
    config = Config(data=Data(name="folder"))
    warnings = list(datasets._warnings(config, data))
    assert warnings == [
        "2 of 3 labels ('dog', 'cow') are shown by no training image, and cannot be learned.",
        "1 of 3 labels ('cat') is shown by no test image: without an AP, mAP leaves it out.",
        "2 of 3 labels ('dog', 'cow') are shown by fewer than 5 test images each: single images "
        "decide their AP.",
    ]
    limited = config.override({"data.limit_train": 1, "data.limit_test": 1})
    assert not list(datasets._warnings(limited, data))
    val = image_set(tmp_path, ["c.jpg"], [[0, 0, 0]], labels)
    data = MultiLabelData("own", labels, train, val, test)
    assert next(datasets._warnings(limited, data)).startswith("no held-out image has a label, ")
