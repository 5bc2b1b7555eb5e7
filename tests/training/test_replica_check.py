"""Fingerprints change with any bit and any order."""

from __future__ import annotations

import torch

from sadcl.training import replica_check
from sadcl.training.replica_check import fingerprint


def test_fingerprint_sees_a_bit_and_an_order():
    torch.manual_seed(0)
    rows = torch.randn(7, 5)
    same = fingerprint(rows.clone())
    assert same == fingerprint(rows)
    nudged = rows.clone()
    nudged[3, 2] = torch.nextafter(nudged[3, 2], torch.tensor(9.0))
    assert fingerprint(nudged) != same
    assert fingerprint(rows.flip(0)) != same
    assert fingerprint(-rows) != same
    for bit in range(64):  # of any place, the sign too
        words = torch.arange(9)
        words[4] ^= 1 << bit if bit < 63 else -(1 << 63)
        assert fingerprint(words) != fingerprint(torch.arange(9))
    large = torch.zeros(2 * replica_check.CHUNK + 3, dtype=torch.int64)
    seen = set()
    for place in (
        0,
        1,
        replica_check.CHUNK,
        replica_check.CHUNK + 1,
        2 * replica_check.CHUNK,
        2 * replica_check.CHUNK + 2,
    ):
        moved = large.clone()
        moved[place] = 1
        seen.add(int(fingerprint(moved)))
    assert len(seen) == 6
    flags = torch.tensor([True, False])
    assert fingerprint(flags) != fingerprint(flags.flip(0))
    assert fingerprint(torch.zeros(0)) == 0
