"""Files of feature maps: written batch by batch, resumed, repaired, mapped or read."""

import errno
import mmap
import os

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from sadcl.data import feature_file
from sadcl.data.feature_file import FeatureFile, Layout
from sadcl.errors import UserError

BATCH = 4
SHAPES = ((3, 2, 2), (5, 1, 1))


def maps_of(count, dtype=torch.float16):
    rng = torch.Generator().manual_seed(0)
    return [torch.randn(count, *shape, generator=rng).to(dtype) for shape in SHAPES]


def begin(file):
    """Check what is there, and go on after it."""
    return file.begin(max(file.check(), default=0))


def fill(file, maps, stop=None):
    """Write what is missing, up to a row."""
    for first in range(begin(file), len(maps[0]) if stop is None else stop, BATCH):
        file.append(first, [part[first : first + BATCH] for part in maps])


@pytest.fixture
def file(tmp_path):
    return FeatureFile(tmp_path / "key", Layout(10, SHAPES, "fp16"), BATCH)


@pytest.mark.parametrize(
    ("name", "dtype"), [("fp16", torch.float16), ("bf16", torch.bfloat16), ("fp32", torch.float32)]
)
def test_it_is_a_safetensors_file_of_every_format(tmp_path, name, dtype):
    file = FeatureFile(tmp_path / "key", Layout(10, SHAPES, name), BATCH)
    maps = maps_of(10, dtype)
    assert not file.is_whole()
    fill(file, maps)
    assert file.is_whole()
    loaded = load_file(file.path)
    rows = np.array([7, 0, 7])
    for i, (part, read) in enumerate(zip(maps, file.rows().read(rows), strict=True)):
        assert torch.equal(loaded[f"map{i}"], part)
        assert torch.equal(read, part[rows])
    assert file.path.stat().st_size == file.layout.total_bytes


def test_a_kill_loses_one_batch(file):
    maps = maps_of(10)
    fill(file, maps, stop=8)
    with open(file.path, "r+b") as half:  # the third batch was being written
        half.seek(file.layout.starts[0] + 8 * file.layout.row_bytes[0])
        half.write(b"\x01" * 9)
    assert not file.is_whole()
    assert begin(file) == 8
    fill(file, maps)
    assert file.is_whole()


def cut(file):
    os.truncate(file.path, file.layout.starts[1] + 6 * file.layout.row_bytes[1])


def damage(file):
    with open(file.path, "r+b") as damaged:
        damaged.seek(file.layout.starts[0] + 6 * file.layout.row_bytes[0])
        damaged.write(b"\x7f\x7f")
    os.utime(file.path)  # the clock of a file system may be coarse


def lose_record(file):
    os.truncate(file.record, 6 * 4 + 1)


@pytest.mark.parametrize("harm", [cut, damage, lose_record])
def test_a_file_with_a_bad_row_is_rebuilt_from_the_last_whole_batch(file, harm):
    maps = maps_of(10)
    fill(file, maps)
    assert file.is_whole()
    harm(file)
    assert not file.is_whole()
    assert begin(file) == 4
    fill(file, maps)
    assert file.is_whole()
    assert all(torch.equal(file.rows().read(np.arange(10))[i], maps[i]) for i in (0, 1))


def test_rows_are_checked_batch_by_batch_and_not_again_once_the_file_is_marked(file, monkeypatch):
    fill(file, maps_of(10))
    assert list(file.check()) == [4, 8, 10]
    file.mark.unlink()
    assert not file.is_whole()
    assert begin(file) == 10
    again = FeatureFile(file.folder, file.layout, BATCH)
    monkeypatch.setattr(feature_file, "_crc", None)  # no row is compared
    assert again.is_whole()
    os.utime(file.path, (0, 0))
    assert not again.is_whole()
    file.remove()
    assert not file.mark.exists()
    assert not list(file.check())


def test_a_file_of_another_layout_is_begun_again(file):
    fill(file, maps_of(10))
    other = FeatureFile(file.folder, Layout(9, SHAPES, "fp16"), BATCH)
    assert not other.is_whole()
    assert begin(other) == 0


def test_without_mmap_rows_are_read(file, monkeypatch):
    maps = maps_of(10)
    fill(file, maps)
    mapped = file.rows().read(np.array([9, 2]))

    def refuse(*_, **__):
        raise OSError(errno.ENODEV, "no mmap here")

    monkeypatch.setattr(mmap, "mmap", refuse)
    rows = file.rows()
    assert not rows._pages
    for one, other in zip(rows.read(np.array([9, 2])), mapped, strict=True):
        assert torch.equal(one, other)


def full(*_, **__):
    raise OSError(errno.ENOSPC, "No space left on device")


def test_a_full_disk_is_said_and_leaves_nothing(file, monkeypatch):
    monkeypatch.setattr(os, "posix_fallocate", full)
    with pytest.raises(UserError, match=r"is full: the feature maps need .* GB there"):
        begin(file)
    monkeypatch.undo()
    assert not file.path.exists()
    assert not file.record.exists()
    monkeypatch.setattr(feature_file.storage, "free_bytes", lambda _: file.layout.total_bytes)
    with pytest.raises(UserError, match="10 images need .* are left to others"):
        begin(file)
    assert not file.path.exists()


def test_without_fallocate_the_file_is_written_all_the_same(file, monkeypatch):
    monkeypatch.delattr(os, "posix_fallocate")
    fill(file, maps_of(10), stop=4)
    assert file.path.stat().st_size == file.layout.total_bytes
    fill(file, maps_of(10))
    assert file.is_whole()


def test_only_one_process_writes(file):
    file.folder.mkdir()
    with file.claimed() as first, file.claimed() as second:
        assert first
        assert not second


def test_files_that_nobody_uses_are_removed(tmp_path):
    files = [FeatureFile(tmp_path / key, Layout(4, SHAPES, "fp16"), BATCH) for key in "ab"]
    for file in files:
        fill(file, maps_of(4))
    os.utime(files[0].record, (0, files[0].record.stat().st_mtime))
    feature_file.prune(tmp_path, 30)
    assert not files[0].folder.exists()
    assert files[1].is_whole()
    files[1].touch()
    assert files[1].is_whole()
