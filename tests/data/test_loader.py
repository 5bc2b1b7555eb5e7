"""Batches: every image once, the same for any number of workers and processes, from any step on."""

import dataclasses
import gc
import weakref

import numpy as np
import pytest
import torch

from sadcl.config import Augmentation, Data
from sadcl.data import loader as loader_module
from sadcl.data.load import load
from sadcl.data.loader import _CACHE, Loader
from sadcl.data.transforms import IMAGENET, read_image, to_input
from sadcl.errors import UserError

AUGMENTATION = Augmentation(multiscale=(1.0, 0.75), flip=True, cutout=0.25, randaugment=1)


def loader(images, **options):
    defaults = {
        "image_size": 32,
        "augmentation": AUGMENTATION,
        "seed": 5,
        "batch_size": 9,
        "shuffle": True,
    }
    return Loader(images, **{**defaults, **options})


def equal(a, b):
    return a.first_position == b.first_position and all(
        torch.equal(x, y) for x, y in zip(a[:4], b[:4], strict=True)
    )


def test_every_image_once_an_epoch_in_another_order(small_scenes):
    images = small_scenes.train
    one = loader(images)
    assert len(images) % 9
    assert one.steps == -(-len(images) // 9)
    orders = []
    for epoch in (1, 2, 1):
        batches = list(one.batches(epoch))
        assert len(batches) == one.steps
        assert [len(b.index_B) for b in batches[:-1]] == [9] * (one.steps - 1)
        index = torch.cat([b.index_B for b in batches])
        assert sorted(index.tolist()) == list(range(len(images)))
        assert all((b.weight_B == 1).all() and b.first_position == 0 for b in batches)
        targets = torch.cat([b.targets_BL for b in batches])
        assert targets.dtype == torch.int8
        assert (targets.numpy() == images.targets[index]).all()
        orders.append(index)
    assert torch.equal(orders[0], orders[2])
    assert not torch.equal(orders[0], orders[1])


def test_without_shuffling_or_augmentation_it_is_the_files(small_scenes):
    images = small_scenes.test
    batches = list(loader(images, augmentation=None, shuffle=False).batches(0))
    assert torch.cat([b.index_B for b in batches]).tolist() == list(range(len(images)))
    expected = torch.stack(
        [to_input(read_image(images.path(i), 32), IMAGENET) for i in range(len(images))]
    )
    assert torch.equal(torch.cat([b.images_BCHW for b in batches]), expected)


@pytest.mark.parametrize("world", [2, 3, 4, 11])
def test_shares_put_together_are_the_global_batch(small_scenes, world):
    """To the bit; a share without images runs the batch's first one with weight 0."""
    images = small_scenes.train.subset(range(19), "x")  # batches of 9, 9 and 1
    whole = list(loader(images).batches(3))
    ranks = [list(loader(images, rank=r, world_size=world).batches(3)) for r in range(world)]
    for step, batch in enumerate(whole):
        shares = [batches[step] for batches in ranks]
        real = [s for s in shares if (s.weight_B == 1).all()]
        for part in ("images_BCHW", "targets_BL", "index_B"):
            assert torch.equal(torch.cat([getattr(s, part) for s in real]), getattr(batch, part))
        sizes = [int(s.weight_B.sum()) for s in shares]
        assert max(sizes) - min(sizes) <= 1
        for share in shares:
            positive = (share.weight_B > 0)[:, None] & (share.targets_BL == 1)
            assert torch.equal(share.positive_index_A, positive.flatten().nonzero()[:, 0])
            if (share.weight_B == 1).all():
                assert torch.equal(
                    batch.index_B[share.first_position : share.first_position + len(share.index_B)],
                    share.index_B,
                )
            else:
                assert share.weight_B.tolist() == [0]
                assert torch.equal(share.images_BCHW, batch.images_BCHW[:1])
        assert len(real) == min(world, len(batch.index_B))


def test_loader_processes_give_the_same_bytes_and_name_bad_files(tmp_path):
    config = Data(name="scenes", scene_train=20, scene_test=4)
    data = load(config, tmp_path)
    alone, helped = loader(data.train, batch_size=4), loader(data.train, batch_size=4, workers=2)
    for epoch in (1, 2):
        assert all(map(equal, alone.batches(epoch), helped.batches(epoch)))
    next(helped.batches(3))  # left in the middle of an epoch
    assert all(map(equal, alone.batches(4, start_step=2), helped.batches(4, start_step=2)))
    bad = data.train.path(7)
    with open(bad, "r+b") as file:
        file.truncate(700)
    messages = []
    fresh = load(config, tmp_path).train  # nothing of it in memory yet
    for one in (loader(fresh, batch_size=4), helped):
        with pytest.raises(UserError) as caught:
            list(one.batches(5))
        messages.append(str(caught.value))
    assert messages[0] == messages[1]  # no traceback of another process in it
    assert bad in messages[0]


@pytest.mark.parametrize("workers", [0, 1])
@pytest.mark.parametrize("kinds", [("square", "torchvision"), ("distorted", "published")])
def test_augmenting_the_batch_gives_the_same_bytes(small_scenes, workers, kinds):
    """As on a GPU, but on this device."""
    spec = Augmentation(
        resize=48,
        multiscale=(1.0, 0.75, 0.5),
        multiscale_kind=kinds[0],
        flip=True,
        cutout=0.25,
        randaugment=2,
        randaugment_kind=kinds[1],
    )
    each, batched = (
        loader(small_scenes.train, augmentation=spec, batched=b, workers=w)
        for b, w in ((False, 0), (True, workers))
    )
    assert all(map(equal, each.batches(2), batched.batches(2)))
    assert all(map(equal, each.batches(2, start_step=3), batched.batches(2, start_step=3)))
    shares = [
        list(
            loader(
                small_scenes.train, augmentation=spec, batched=True, rank=r, world_size=2
            ).batches(3)
        )
        for r in (0, 1)
    ]
    for batch, *parts in zip(each.batches(3), *shares, strict=True):
        real = [p for p in parts if (p.weight_B == 1).all()]
        assert torch.equal(torch.cat([p.images_BCHW for p in real]), batch.images_BCHW)


def global_positives(loader, epoch):
    """The positives of each global batch, flattened image by image, one target after the other."""
    order = torch.cat([batch.index_B for batch in loader.batches(epoch)]).tolist()
    found = []
    for start in range(0, len(order), loader.batch_size):
        rows = [loader.images.targets[i] for i in order[start : start + loader.batch_size]]
        targets = [target for row in rows for target in row]
        found.append([place for place, target in enumerate(targets) if target == 1])
    return found


@pytest.mark.parametrize("drop_last", [False, True])
@pytest.mark.parametrize("world", [1, 2, 3])
def test_every_worker_knows_the_positives_of_the_global_batch(small_scenes, world, drop_last):
    """An ignored target is none. The last batch has one image, so two shares of three are empty."""
    images = small_scenes.train.subset(range(19), "x")
    targets = images.targets.copy()
    targets[::3, :2] = -1
    images = dataclasses.replace(images, targets=targets)
    wanted = global_positives(loader(images, drop_last=drop_last), 2)
    assert len(wanted) == 2 + (not drop_last)
    empty, shares = 0, []
    for rank in range(world):
        one = loader(images, drop_last=drop_last, rank=rank, world_size=world)
        batches = list(one.batches(2))
        shares.append(batches)
        assert [batch.global_positive_index_G.tolist() for batch in batches] == wanted
        for batch in batches:
            assert batch.global_positive_index_G.dtype == torch.int64
            if not batch.weight_B.any():
                empty += 1
                assert batch.positive_index_A.tolist() == []
    assert empty == (0 if drop_last else max(world - 1, 0))
    for together in zip(*shares, strict=True):  # the shares of a global batch
        for batch in together:
            assert batch.shares.images == [len(share.index_B) for share in together]
            assert batch.shares.positives == [len(share.positive_index_A) for share in together]


def test_an_incomplete_last_batch_is_dropped_and_its_images_come_in_other_epochs(small_scenes):
    images, size = small_scenes.train, 20
    whole, complete = (loader(images, batch_size=size, drop_last=d) for d in (False, True))
    rest = len(images) % size
    assert rest > 1
    assert complete.steps == len(images) // size == whole.steps - 1
    left_out = []
    for epoch in range(1, 20):
        batches = list(complete.batches(epoch))
        assert [len(b.index_B) for b in batches] == [size] * complete.steps
        index = [i for b in batches for i in b.index_B.tolist()]
        assert len(set(index)) == len(images) - rest
        left_out.append(set(range(len(images))) - set(index))
    assert len(set(map(frozenset, left_out))) == len(left_out)
    assert len(set.union(*left_out)) > len(images) * 0.8
    assert all(map(equal, whole.batches(3), complete.batches(3)))  # up to the dropped one
    again = list(loader(images, batch_size=size, drop_last=True).batches(3, start_step=1))
    assert len(again) == complete.steps - 1
    assert all(map(equal, again, list(complete.batches(3))[1:]))


def test_nothing_is_dropped_from_complete_batches_and_all_from_too_few_images(small_scenes):
    images = small_scenes.train.subset(range(18), "x")
    complete = list(loader(images, drop_last=True).batches(1))
    assert all(map(equal, complete, loader(images).batches(1)))
    assert len(complete) == 2
    few = loader(images.subset(range(8), "y"), drop_last=True)
    assert few.steps == 0
    assert list(few.batches(1)) == []


@pytest.mark.parametrize("world", [2, 3])
def test_complete_batches_are_shared_alike(small_scenes, world):
    whole = list(loader(small_scenes.train, drop_last=True).batches(2))
    ranks = [
        list(loader(small_scenes.train, drop_last=True, rank=r, world_size=world).batches(2))
        for r in range(world)
    ]
    for batch, *shares in zip(whole, *ranks, strict=True):
        assert all((share.weight_B == 1).all() for share in shares)
        for part in ("images_BCHW", "targets_BL", "index_B"):
            assert torch.equal(torch.cat([getattr(s, part) for s in shares]), getattr(batch, part))


@pytest.mark.parametrize("start", [1, 3, 5, 6])
def test_an_epoch_goes_on_where_it_stopped(small_scenes, start):
    one = loader(small_scenes.train)
    whole = list(one.batches(2))
    rest = list(loader(small_scenes.train).batches(2, start_step=start))
    assert len(rest) == max(len(whole) - start, 0)
    assert all(map(equal, rest, whole[start:]))


def pixels(images, epoch, **options):
    """Image index -> what the network sees of it."""
    batches = list(loader(images, **options).batches(epoch))
    return {
        int(i): image for b in batches for i, image in zip(b.index_B, b.images_BCHW, strict=True)
    }


def test_augmentation_is_a_function_of_seed_epoch_and_index(small_scenes):
    images = small_scenes.train
    one = pixels(images, 1)
    for other in (pixels(images, 1, batch_size=4), pixels(images, 1, shuffle=False)):
        assert all(torch.equal(one[i], other[i]) for i in one)
    for other in (pixels(images, 2), pixels(images, 1, seed=6)):
        assert np.mean([torch.equal(one[i], other[i]) for i in one]) < 0.1


def test_images_in_memory_are_the_files_and_go_with_their_set(tmp_path):
    data = load(Data(name="scenes", scene_train=20, scene_test=4), tmp_path)
    images = data.train
    before = pixels(images, 1)
    for i in range(len(images)):
        open(images.path(i), "w").close()
    again = pixels(images, 1)  # another loader of the same set reads no file
    assert all(torch.equal(before[i], again[i]) for i in before)
    with pytest.raises(UserError, match="empty"):
        pixels(images, 1, image_size=192)  # too large to keep, and decoded at another size
    kept = weakref.ref(next(iter(_CACHE[images].values()))[1])
    del images, data
    gc.collect()
    assert kept() is None


def test_resize_before_the_crop(small_scenes):
    spec = Augmentation(resize=64, multiscale=(0.5,))
    batch = next(loader(small_scenes.train, augmentation=spec).batches(1))
    assert batch.images_BCHW.shape[-2:] == (32, 32)
    # a crop of half of 64 px is not resized: its pixels are the file's
    source = to_input(read_image(small_scenes.train.path(int(batch.index_B[0])), 64), IMAGENET)
    windows = source.unfold(1, 32, 1).unfold(2, 32, 1)
    assert (windows == batch.images_BCHW[0][:, None, None]).flatten(3).all(dim=3).all(dim=0).any()


def test_an_empty_set_has_no_batches(small_scenes):
    empty = loader(small_scenes.train.subset([], "none"))
    assert empty.steps == 0
    assert list(empty.batches(1)) == []


def test_real_photographs(photographs):
    data = load(Data(name="coco", limit_train=12, limit_test=6, holdout=0.25), photographs)
    batches = list(loader(data.train, image_size=224, batch_size=4).batches(1))
    images = torch.cat([b.images_BCHW for b in batches])
    assert images.shape == (len(data.train), 3, 224, 224)
    assert images.isfinite().all()
    assert images.flatten(1).std(dim=1).min() > 0.1  # photographs, not blanks
    kept = pixels(data.test, 1, image_size=64, augmentation=None)
    for i, image in kept.items():
        assert torch.equal(image, to_input(read_image(data.test.path(i), 64), IMAGENET))


@pytest.mark.parametrize(
    ("workers", "device", "changed"), [(0, "cpu", True), (2, "cpu", True), (2, "cuda", False)]
)
def test_freed_memory_is_kept_where_a_loader_computes(
    small_scenes, monkeypatch, workers, device, changed
):
    """A process that only feeds a GPU keeps its own setting; loader processes make theirs."""
    calls = []
    monkeypatch.setattr(loader_module, "keep_freed_memory", lambda: calls.append(1))
    loader(small_scenes.train, workers=workers, device=torch.device(device))
    assert bool(calls) == changed
