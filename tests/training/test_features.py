"""Training from stored feature maps: the same as through the backbone, computed once, shared."""

import multiprocessing
from dataclasses import replace

import pyarrow as pa
import pytest
import torch

from sadcl import build, inference, recipes
from sadcl.config import Augmentation
from sadcl.data.load import load
from sadcl.data.loader import Loader
from sadcl.errors import UserError
from sadcl.model import Backbone
from sadcl.training import Callbacks, checkpoint, features, fit
from sadcl.training.features import FeatureStore
from tests.training.test_loop import TINY, same

FROZEN = {
    "model.frozen": "all",
    "model.freeze_batchnorm": True,
    "data.feature_dtype": "fp32",
    "stage1.epochs": 1,
    "stage2.epochs": 2,
    "stage1.augmentation.flip": False,
    "stage2.augmentation.flip": False,
}


@pytest.fixture(scope="module")
def config():
    return recipes.demo().override(TINY | FROZEN)


@pytest.fixture(scope="module")
def data(config, tmp_path_factory):
    return load(config.data, tmp_path_factory.mktemp("scenes"))


@pytest.fixture
def fresh(tmp_path, monkeypatch):
    """A cache folder without maps."""
    monkeypatch.setattr(features, "cache_folder", lambda: tmp_path / "features")
    return tmp_path / "features"


def store_for(config, data, report=None):
    network = build.model(config, len(data.labels)).eval()
    return FeatureStore(config, network, data, build.Worker(), report)


def test_training_equals_training_through_the_backbone_to_the_bit(config, data, fresh, tmp_path):
    """Both stages with contrasts, shuffled batches of another size, an incomplete one, the test."""
    runs = []
    for views in (1, 0):
        folder = str(tmp_path / str(views))
        changed = config.override({"data.feature_views": views})
        outcome = fit(changed, data, folder, test=True, device="cpu")
        runs.append((outcome, checkpoint.load_checkpoint(f"{folder}/best.pt")["model"]))
        assert bool(list(fresh.glob("*/maps.safetensors")))
    (stored, weights), (computed, others) = runs
    assert stored.metrics == pytest.approx(computed.metrics, rel=0, abs=0, nan_ok=True)
    assert same(stored.logits, computed.logits)
    assert same(weights, others)
    assert len(list(fresh.iterdir())) == 2  # training with held-out images, and test images


def test_its_checkpoint_is_evaluated_on_images(config, data, fresh, tmp_path):
    half = config.override({"data.feature_dtype": "fp16", "stage2.epochs": 0})
    outcome = fit(half, data, str(tmp_path / "run"), device="cpu")
    predictor = inference.load(outcome.checkpoint, device="cpu")
    scores = dict(predictor.predict(data.val.path(0))[0])
    logits = outcome.logits["val"][0].float()
    for label, score in zip(data.labels, torch.sigmoid(logits).tolist(), strict=True):
        assert scores[label] == pytest.approx(score, abs=0.01)
    assert predictor.explain(data.val.path(0))[0].map_HW.max() <= 1


def test_views_are_those_of_the_augmentation_and_each_epoch_takes_one(config, data, fresh):
    spec = Augmentation(flip=True, cutout=0.5)
    views = config.override(
        {f"stage1.augmentation.{k}": v for k, v in (("flip", True), ("cutout", 0.5))}
        | {"data.feature_views": 3}
    )
    store = store_for(views, data)
    split = store.split("train", spec)
    pool = features.pool_of(data, "train").images
    for view in (1, 3):
        through = build.loader(views.override({"seed": 0}), pool, augmentation=spec)
        maps = [store.backbone.maps(batch.images_BCHW)[0] for batch in through.batches(view)]
        stored = split.views[view - 1].read(torch.arange(len(pool)).numpy())[0]
        assert torch.equal(torch.cat(maps), stored)
    keys = [[(5, epoch, index, 0) for index in range(len(data.train))] for epoch in range(1, 4)]
    taken = [[split.view_of(key) for key in epoch] for epoch in keys]
    assert all({epoch[i] for epoch in taken} == {0, 1, 2} for i in range(len(data.train)))
    assert len(set(taken[0])) == 3
    mixed = split.read(keys[0][:8])[0]
    for i, key in enumerate(keys[0][:8]):
        assert torch.equal(split.read([key])[0][0], mixed[i])


def test_the_key_is_everything_that_maps_depend_on(config, data, fresh):
    def folder(changed, images=data):
        (file,) = store_for(changed, images).files("train").values()
        return file.folder.name

    same_maps = [
        {"stage1.lr": 1e-3},
        {"model.hidden": 8},
        {"stage1.augmentation.flip": True},
        {"optim.batch_size": 8},
    ]
    other_maps = [
        {"seed": 1},  # other random weights
        {"data.image_size": 64},
        {"data.feature_dtype": "fp16"},
        {"data.mean": (0.4, 0.5, 0.5)},
        {"model.feature": -3},
        {"optim.precision": "bf16"},
    ]
    plain = folder(config)
    assert {folder(config.override(changes)) for changes in same_maps} == {plain}
    others = [folder(config.override(changes)) for changes in other_maps]
    assert len({plain, *others}) == 1 + len(others)
    whole = replace(data, train=data.val, val=data.train)  # another way to divide them
    assert folder(config, whole) == plain


def test_an_image_that_cannot_be_decoded_is_named(config, data, fresh, tmp_path):
    broken = tmp_path / "broken.jpg"
    broken.write_bytes(b"no image")
    files = pa.array(["broken.jpg"])
    test = replace(
        data.test.subset([0], "x"), folder=str(tmp_path), files=files, reopen=None, manifest_file=""
    )
    store = store_for(config, replace(data, test=test))
    with pytest.raises(UserError, match=r"broken\.jpg' \(8 bytes\) cannot be decoded"):
        store.split("test")


def test_the_pool_keeps_the_limit_of_pixels(data):
    limited = replace(data, train=replace(data.train, max_pixels=7))
    assert features.pool_of(limited, "train").images.max_pixels == 7
    assert features.pool_of(data, "train").images.max_pixels is None


def test_a_format_that_is_too_small_is_named(config, data, fresh):
    store = store_for(config.override({"data.feature_dtype": "fp16"}), data)
    maps, stored = (torch.tensor([7e4]),), [torch.tensor([7e4]).half()]
    with pytest.raises(UserError, match=r"'fp16' cannot hold .*: one has a value of 7e\+04"):
        store._check_finite(maps, stored)
    with pytest.raises(UserError, match="are not finite"):
        store._check_finite((torch.tensor([torch.nan]),), [torch.tensor([torch.nan])])


def test_what_is_there_is_not_computed_again(config, data, fresh, monkeypatch):
    reports = []
    monkeypatch.setattr(features, "REPORT_SECONDS", 0.0)
    store_for(config, data, lambda *report: reports.append(report)).split("train")
    assert [(done, rows) for done, rows, _ in reports] == [(32, 60), (60, 60), (60, 60)]
    before = Loader.total_batches
    store_for(config, data, lambda *report: reports.append(report)).split("train")
    assert Loader.total_batches == before
    assert len(reports) == 3


def test_a_file_without_a_mark_is_checked_in_steps_that_show_life(config, data, fresh):
    store = store_for(config, data)
    store.split("train")
    (file,) = store.files("train").values()
    file.mark.unlink()
    before, pool = Loader.total_batches, features.pool_of(data, "train")
    assert len(list(store._complete(file, pool, 0, None))) == 2  # 60 images
    assert Loader.total_batches == before + 2
    assert file.is_whole()
    assert not list(store._complete(file, pool, 0, None))


def test_a_cache_that_cannot_be_written_is_a_mistake_of_the_user(
    config, data, tmp_path, monkeypatch
):
    (tmp_path / "file").write_text("")
    monkeypatch.setattr(features, "cache_folder", lambda: tmp_path / "file" / "features")
    with pytest.raises(UserError, match="cannot be stored in .*XDG_CACHE_HOME"):
        store_for(config, data).split("train")


def _compute(config, data, folder, queue):
    features.cache_folder = lambda: folder
    before = Loader.total_batches
    features._wait = lambda: iter([None])  # waiting counts no batches
    store_for(config, data).split("train")
    queue.put(Loader.total_batches - before)


@pytest.mark.soak
def test_two_processes_do_the_work_once(config, data, fresh):
    context = multiprocessing.get_context("spawn")
    queue = context.Queue()
    processes = [
        context.Process(target=_compute, args=(config, data, fresh, queue)) for _ in range(2)
    ]
    for process in processes:
        process.start()
    assert sorted(queue.get(timeout=120) for _ in processes) == [0, 2]
    for process in processes:
        process.join()


def test_the_frozen_backbone_gives_an_image_the_same_maps_in_any_batch():
    torch.manual_seed(0)
    backbone = Backbone("test_byobnet", frozen="all").train()
    assert not backbone.body.training
    assert not any(p.requires_grad for p in backbone.parameters())
    images = torch.randn(33, 3, 32, 32)
    whole = backbone(images)
    assert not whole.requires_grad
    for part in (images[:2], images[:13], images[:32]):
        assert torch.equal(backbone(part), whole[: len(part)])


def test_an_interrupted_run_resumes_from_stored_maps(config, data, fresh, tmp_path):
    class Stop(Exception):
        pass

    def stop(epoch):
        if epoch.stage == 2:
            raise Stop

    whole = fit(config, data, str(tmp_path / "whole"), device="cpu")
    with pytest.raises(Stop):
        fit(config, data, str(tmp_path / "cut"), device="cpu", callbacks=Callbacks(report=stop))
    resumed = fit(config, data, str(tmp_path / "cut"), device="cpu")
    assert same(whole.logits, resumed.logits)
