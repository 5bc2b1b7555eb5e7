"""Embedded scenes: the same bytes for a seed, COCO's layout, neither too easy nor too hard."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import average_precision_score
from sklearn.multiclass import OneVsRestClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from sadcl import recipes
from sadcl.config import Config, Data
from sadcl.data.load import load
from sadcl.data.readers import scenes
from sadcl.errors import UserError


def contents(folder):
    return {
        p.relative_to(folder).as_posix(): p.read_bytes()
        for p in sorted(folder.rglob("*"))
        if p.is_file()
    }


def test_the_same_seed_gives_the_same_bytes_and_another_does_not(tmp_path):
    for name, seed in (("a", 3), ("b", 3), ("c", 4)):
        scenes.write(tmp_path / name, seed=seed, train=12, test=5)
    a, b, c = (contents(tmp_path / name) for name in "abc")
    assert len(a) == 12 + 5 + 2
    assert a == b
    assert all(a[name] != c[name] for name in a)


def test_an_image_does_not_depend_on_how_many_there_are(tmp_path):
    scenes.write(tmp_path / "few", seed=0, train=3, test=2)
    scenes.write(tmp_path / "many", seed=0, train=6, test=4)
    few, many = contents(tmp_path / "few"), contents(tmp_path / "many")
    images = [name for name in few if name.endswith(".jpg")]
    assert len(images) == 5
    assert all(few[name] == many[name] for name in images)


def test_the_coco_reader_finds_what_was_drawn(small_scenes):
    assert small_scenes.labels == tuple(label.name for label in scenes.LABELS)
    for split, part in ((0, small_scenes.train), (0, small_scenes.val), (1, small_scenes.test)):
        for i in range(len(part)):
            number = int(part.files[i].as_py().removesuffix(".jpg")) - 1 - split * 500_000
            drawn = {thing.label for thing in scenes.draw(0, split, number)[1]}
            assert set(np.flatnonzero(part.targets[i])) == drawn
    with Image.open(small_scenes.test.path(0)) as image:
        assert (image.format, image.size, image.mode) == ("JPEG", (scenes.SIDE, scenes.SIDE), "RGB")


def test_boxes_lie_in_the_image_and_have_the_size_of_their_label(small_scenes):
    path = Path(small_scenes.train.folder).parent / "annotations" / "instances_train2017.json"
    annotations = json.loads(path.read_text())["annotations"]
    assert len(annotations) > 100
    for annotation in annotations:
        x, y, width, height = annotation["bbox"]
        assert x >= 0
        assert y >= 0
        assert x + width <= scenes.SIDE + 0.02
        assert y + height <= scenes.SIDE + 0.02
        largest = 2 * 1.15 * scenes.LABELS[annotation["category_id"] - 1].radius[1] * np.sqrt(2)
        assert 2 < width < largest
        assert 2 < height < largest


def test_a_box_bounds_its_object():
    """The box is where the object's two inks are in the image at twice the size."""
    rng = np.random.default_rng(0)
    for label in scenes.LABELS:
        parts, (left, top, right, bottom) = scenes._place(label, [], None, rng)
        points = np.concatenate([points for points, _ in parts])
        inside = points.clip(0, scenes.SIDE)
        np.testing.assert_allclose(inside.min(axis=0), [left, top])
        np.testing.assert_allclose(inside.max(axis=0), [right, bottom])


@pytest.fixture(scope="module")
def default_scenes():
    """Pixels and labels of both splits in the default numbers."""

    def split(number, count):
        drawn = [scenes.draw(0, number, i) for i in range(count)]
        targets = np.zeros((count, len(scenes.LABELS)), int)
        for row, (_, objects) in enumerate(drawn):
            targets[row, [thing.label for thing in objects]] = 1
        return (
            np.stack([np.asarray(image) for image, _ in drawn]),
            targets,
            [objects for _, objects in drawn],
        )

    return split(0, Data().scene_train), split(1, Data().scene_test)


def test_cardinality_long_tail_company_and_occlusion(default_scenes):
    (_, targets, objects), (_, tested, _) = default_scenes
    assert 2.7 < targets.sum(axis=1).mean() < 3.3
    count = targets.sum(axis=0)
    assert count.max() > 4 * count.min()
    assert count.min() >= 40
    assert tested.sum(axis=0).min() >= 20
    together = (targets.T @ targets) / len(targets)
    lift = together / np.outer(targets.mean(axis=0), targets.mean(axis=0))
    group = np.array([label.group for label in scenes.LABELS])
    same = (group[:, None] == group) & ~np.eye(len(group), dtype=bool)
    assert lift[same].mean() > 1.5 * lift[group[:, None] != group].mean()
    overlapping = [
        any(scenes._overlap(a.box, b.box) > 0.1 for a in o for b in o if a is not b)
        for o in objects
    ]
    assert 0.3 < np.mean(overlapping) < 0.9


def histograms(images, bins):
    level = images.astype(int) * bins // 256
    cell = (level[..., 0] * bins + level[..., 1]) * bins + level[..., 2]
    return np.sqrt([np.bincount(row.ravel(), minlength=bins**3) / row.size for row in cell])


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
@pytest.mark.parametrize(("bins", "strength"), [(4, 0.01), (4, 0.1), (6, 0.01)])
def test_colours_alone_do_not_give_the_labels_away(default_scenes, bins, strength):
    (train, targets, _), (test, truth, _) = default_scenes
    probe = make_pipeline(
        StandardScaler(), OneVsRestClassifier(LogisticRegression(C=strength, max_iter=300))
    ).fit(histograms(train, bins), targets)
    scores = probe.predict_proba(histograms(test, bins))
    figure = 100 * np.mean(
        [average_precision_score(truth[:, i], scores[:, i]) for i in range(truth.shape[1])]
    )
    assert 100 * truth.mean() < figure < 35  # better than chance, so the probe works


@pytest.mark.soak
def test_the_small_network_ends_between_60_and_85(tmp_path):
    from sadcl.training import fit

    config = recipes.demo()
    outcome = fit(
        config, load(config.data, tmp_path), str(tmp_path / "run"), device="cpu", test=True
    )
    assert 60 < outcome.metrics["test_mAP"] < 85


def test_made_once_and_made_again_when_not_complete(tmp_path):
    seen = []
    folder = scenes.ensure(
        tmp_path, seed=0, train=4, test=2, progress=lambda done, of: seen.append((done, of))
    )
    assert seen == [(i, 6) for i in range(1, 7)]
    assert (
        scenes.ensure(
            tmp_path, seed=0, train=4, test=2, progress=lambda *_: pytest.fail("made again")
        )
        == folder
    )
    before = contents(folder)
    (folder / "complete").unlink()
    (folder / "train2017" / "000000000001.jpg").unlink()
    scenes.ensure(tmp_path, seed=0, train=4, test=2)
    assert contents(folder) == before
    assert [p.name for p in tmp_path.iterdir()] == [folder.name]  # nothing half-made is left


def test_several_processes_may_ask_at_once(tmp_path):
    code = "import pathlib, sys; from sadcl.data.readers import scenes; "
    code += "scenes.ensure(pathlib.Path(sys.argv[1]), seed=0, train=80, test=20)"
    running = [subprocess.Popen([sys.executable, "-c", code, str(tmp_path)]) for _ in range(3)]
    assert [process.wait() for process in running] == [0, 0, 0]
    (folder,) = tmp_path.iterdir()
    assert len(contents(folder)) == 103


def test_the_cache_folder_is_used_without_a_root(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    data = load(Data(name="scenes", scene_train=12, scene_test=3))
    assert data.test.folder == str(
        tmp_path / "sadcl" / f"scenes-v{scenes.VERSION}-0-12-3" / "val2017"
    )


def test_a_folder_that_cannot_be_written_is_an_error(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="cannot be written.*XDG_CACHE_HOME"):
        scenes.ensure(tmp_path / "file" / "below", seed=0, train=1, test=1)


def test_damaged_scenes_say_what_to_delete(tmp_path):
    config = Data(name="scenes", scene_train=8, scene_test=3)
    data = load(config, tmp_path)
    (tmp_path / f"scenes-v{scenes.VERSION}-0-8-3" / "val2017" / data.test.files[1].as_py()).unlink()
    with pytest.raises(UserError, match=r"1 of 3 images.*missing.*Delete '.*scenes-v"):
        load(config, tmp_path)


def test_scenes_can_be_as_uneven_as_photographs():
    drawn = [scenes.draw(0, 0, i, "photographs")[1] for i in range(400)]
    targets = np.zeros((len(drawn), len(scenes.LABELS)), int)
    for row, objects in enumerate(drawn):
        targets[row, [thing.label for thing in objects]] = 1
    count = targets.sum(axis=0)
    assert 0.33 < count.max() / len(drawn) < 0.47
    assert count.max() > 15 * count.min()
    boxes = np.array([thing.box for objects in drawn for thing in objects])
    areas = (boxes[:, 2:] - boxes[:, :2]).prod(axis=1)
    smallest, largest = np.quantile(areas, [0.05, 0.95])
    assert largest > 15 * smallest
    partner = (targets.T @ targets) * ~np.eye(len(count), dtype=bool) / np.maximum(count, 1)
    assert partner.max(axis=0).mean() > 0.5


def test_each_kind_of_scenes_is_a_data_set_of_its_own(tmp_path):
    config = Data(name="scenes", scene_train=20, scene_test=5, holdout=0.25)
    uneven = config.model_copy(update={"scene_kind": "photographs"})
    assert Config(data=config).digest() != Config(data=uneven).digest()
    one, other = load(config, tmp_path), load(uneven, tmp_path)
    assert (one.name, other.name) == ("scenes", "scenes-photographs-0")
    assert one.digest != other.digest
    assert one.labels == other.labels


def test_the_digest_knows_the_generator_and_not_the_place(tmp_path, monkeypatch):
    config = Data(name="scenes", scene_train=40, scene_test=5, holdout=0.25)
    one, other = load(config, tmp_path / "a"), load(config, tmp_path / "b")
    assert one.digest == other.digest
    assert len(one.digest) == 12
    assert load(config.model_copy(update={"split_seed": 1}), tmp_path / "a").digest != one.digest
    assert load(config.model_copy(update={"scene_seed": 1}), tmp_path / "a").digest != one.digest
    monkeypatch.setattr(
        scenes, "VERSION", 99
    )  # the labels differ too, because the version seeds the drawing
    assert load(config, tmp_path / "a").digest != one.digest
