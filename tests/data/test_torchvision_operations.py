"""RandAugment's operations equal torchvision's."""

import pytest
import torch
from torchvision.transforms import v2

from sadcl.data.torchvision_operations import OPERATIONS
from tests.data.pictures import operate, tensor

NAMES = list(v2.RandAugment._AUGMENTATION_SPACE)


@pytest.mark.parametrize("number", range(len(OPERATIONS)), ids=NAMES)
@pytest.mark.parametrize("side", [48, 61])
def test_randaugment_is_torchvisions(number, side):
    """Results equal torchvision's to the bit, with two exceptions.

    A weighted sum may be one level off, because torchvision rounds its two products once and not
    each. A rotated pixel whose source lies between two, within the error of float32, may be either.
    """
    reference, name = v2.RandAugment(), NAMES[number]
    operation = OPERATIONS[number]
    magnitudes, their_signed = reference._AUGMENTATION_SPACE[name]
    values = magnitudes(31, side, side)
    assert operation.signed == their_signed
    assert not operation.placed
    images = torch.stack(
        [tensor(side, side), tensor(side, side).flip(-1), torch.full((3, side, side), 7).byte()]
    )
    for m in (0, 1, 9, 17, 30):
        for sign in (1, -1) if operation.signed else (1,):
            ours, theirs = (
                sign * operation.magnitude(m, side),
                0.0 if values is None else sign * float(values[m]),
            )
            found = operate(operation, images, torch.tensor([float(ours)] * 3).double())
            wanted = torch.stack(
                [
                    reference._apply_image_or_video_transform(i, name, theirs, "nearest", {})
                    for i in images
                ]
            )
            apart = (found.int() - wanted.int()).abs()
            if name == "Rotate":
                assert (apart > 0).float().mean() < 0.01
            else:
                assert apart.max() <= (name in ("Color", "Contrast", "Sharpness"))
            assert found.dtype == torch.uint8
