"""Fingerprints change with any bit and any order."""

import torch

from sadcl.training.agreement import fingerprint


def test_fingerprint_sees_a_bit_and_an_order():
    torch.manual_seed(0)
    rows = torch.randn(7, 5)
    same = fingerprint(rows.clone())
    assert same == fingerprint(rows)
    nudged = rows.clone()
    nudged[3, 2] = torch.nextafter(nudged[3, 2], torch.tensor(9.0))
    assert fingerprint(nudged) != same
    assert fingerprint(rows.flip(0)) != same
    flags = torch.tensor([True, False])
    assert fingerprint(flags) != fingerprint(flags.flip(0))
    assert fingerprint(torch.zeros(0)) == 0
