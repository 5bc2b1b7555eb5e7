"""What stored feature maps take is said, and checked, before a start."""

import pytest

from sadcl import Search, main, recipes
from sadcl.data.load import load
from sadcl.errors import UserError
from sadcl.launch import features
from sadcl.launch.features import (
    FeatureMaps,
    check_feature_disk,
    feature_maps,
    feature_text,
    shared_bytes,
)
from sadcl.search import Float
from sadcl.study.placement import Placement
from tests.launch.mistakes import DEMO

FROZEN = DEMO.override({"model.frozen": "all", "model.freeze_batchnorm": True})


def test_a_dry_run_says_both_costs_and_what_is_not_augmented(capsys):
    value = Search(
        name="cheap",
        question="?",
        base=recipes.coco14(),
        demo=FROZEN,
        space={"loss.tau": Float(0.05, 0.5)},
        confirm_with={"model.frozen": ()},
    )
    main(value, ["--dry-run", "--trials", "5"])
    text = capsys.readouterr().out
    assert "of checkpoints\n  feature maps: " in text
    text = " ".join(text.split())
    assert "computing them once takes about" in text
    assert "Without them (data.feature_views = 0) it would take about" in text
    assert "NO AUGMENTATION" in text
    assert "plain view of each image in fp16, without stage1.augmentation and stage2" in text


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    return load(FROZEN.data, tmp_path_factory.mktemp("scenes"))


def test_files_are_counted_once_each(images):
    views = FROZEN.override({"data.feature_views": 3})
    pool = len(images.train) + len(images.val)
    plain = feature_maps([FROZEN, FROZEN.override({"loss.tau": 0.3}), DEMO], images)
    assert plain.images == pool + len(images.test)
    assert 0 < plain.missing <= plain.whole
    more = feature_maps([views], images)
    assert more.images == 4 * pool + len(images.test)
    assert feature_maps([FROZEN, views], images).images == more.images
    random_weights = feature_maps([FROZEN, FROZEN.override({"seed": 1})], images)
    assert random_weights.images == 2 * plain.images
    assert feature_maps([DEMO], images).whole == 0


def test_the_disk_is_checked_on_this_machine(monkeypatch, tmp_path):
    monkeypatch.setattr(features, "cache_folder", lambda: tmp_path / "cache")
    monkeypatch.setattr("sadcl.storage.free_bytes", lambda place: 1000)
    maps = FeatureMaps(10, 960, 960)
    with pytest.raises(UserError, match="take 960 bytes more in .*, where 1 kB are free"):
        check_feature_disk(maps, Placement("/runs", None))
    check_feature_disk(maps, Placement("/runs", None, gpus=1))  # the nodes' disks are elsewhere
    check_feature_disk(maps._replace(missing=940), Placement("/runs", None))
    cpus, gpus = Placement("/runs", None), Placement("/runs", None, gpus=1)
    assert shared_bytes(maps, cpus, str(tmp_path), None) == 960
    assert shared_bytes(maps, cpus, "s3://bucket", None) == 0
    assert shared_bytes(maps, cpus, "s3://bucket", 1.0) == 960
    assert shared_bytes(maps, gpus, str(tmp_path), 1.0) == 0
    assert "of each node, which checks its own room" in feature_text(maps, gpus, None, 0.0, 1.0)
    assert "960 bytes (10 images) are missing" in feature_text(maps, cpus, None, 0.0, 1.0)
