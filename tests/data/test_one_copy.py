"""Tensors that travel in one buffer keep their values, types and shapes."""

from __future__ import annotations

import torch

from sadcl.data import one_copy

TENSORS = [
    torch.arange(5, dtype=torch.uint8),
    torch.randn(3, 2, dtype=torch.float64).t(),
    torch.zeros(0, dtype=torch.int64),
    torch.tensor([True, False, True]),
    torch.randn(2, 1, 3)[..., ::2],
    torch.tensor(7, dtype=torch.int16),
    torch.arange(4),
    torch.zeros(0, 4, dtype=torch.int8),
]


def test_one_buffer_holds_all():
    buffer = one_copy._pack(TENSORS, pin=False)
    assert (buffer.dtype, buffer.dim()) == (torch.uint8, 1)
    found = list(one_copy._unpack(buffer.clone(), TENSORS))
    assert len(found) == len(TENSORS)
    for ours, theirs in zip(found, TENSORS, strict=True):
        assert ours.dtype == theirs.dtype
        assert torch.equal(ours, theirs)


def test_they_arrive_on_the_device_as_parts_of_one_buffer():
    found = one_copy.send_together(TENSORS, torch.device("meta"))
    assert [(t.dtype, t.shape, t.device.type) for t in found] == [
        (t.dtype, t.shape, "meta") for t in TENSORS
    ]
    assert len({tensor.untyped_storage()._cdata for tensor in found}) == 1


def test_on_a_cpu_they_stay_where_they_are():
    found = one_copy.send_together(TENSORS, torch.device("cpu"))
    assert all(ours is theirs for ours, theirs in zip(found, TENSORS, strict=True))
