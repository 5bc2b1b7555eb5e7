"""What is checked of a network before anything is reserved, with one black image."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from sadcl.errors import UserError
from sadcl.model.heads import HeadOutput
from sadcl.model.network import Network


@torch.no_grad()
def check_size(network: Network, name: str, side: int) -> None:
    """Check with one black image that a network takes images of this side.

    Args:
        network: in inference mode.
        name: of its backbone, for the message.
        side: side of the images in pixels.

    Raises:
        UserError: where the backbone takes another fixed size only, the images are too small, or
            the head does not keep to :class:`sadcl.model.Head`.
    """
    weight = next(network.parameters())
    try:
        maps = network.backbone.maps(torch.zeros(1, 3, side, side, device=weight.device))
    except (AssertionError, LookupError, RuntimeError, ValueError) as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise UserError(
            f"model.backbone = {name!r} cannot take images of data.image_size = {side} pixels: "
            f"{reason}"
        ) from None
    check_head(network, maps)


def check_head(network: Network, maps_BCHW: Sequence[Tensor]) -> None:
    """Check what a head returns for feature maps.

    Raises:
        UserError: where it fails, or returns something else than :class:`sadcl.model.Head` says.
    """
    head, count = network.head_path or type(network.head).__name__, network.num_labels
    shapes = " and ".join(str(tuple(part.shape)) for part in maps_BCHW)
    try:
        output = network.head(*maps_BCHW)
    except Exception as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise UserError(
            f"model.head = {head!r} fails on a feature map of the shape {shapes}: "
            f"{type(error).__name__}: {reason}"
        ) from None
    if not isinstance(output, HeadOutput):
        raise UserError(
            f"model.head = {head!r} must return a sadcl.model.HeadOutput, but returned "
            f"{type(output).__name__}."
        )
    images, size = len(maps_BCHW[0]), network.feature_size
    parts: dict[str, tuple[Tensor, tuple[int, ...]]] = {
        "logits_BL": (output.logits_BL, (images, count))
    }
    parts |= {
        f"auxiliary_BL[{i}]": (part, (images, count)) for i, part in enumerate(output.auxiliary_BL)
    }
    if output.features_BLD is not None and size is not None:
        parts["features_BLD"] = (output.features_BLD, (images, count, size))
    if (output.features_BLD is None) != (size is None):
        has = "no feature_size" if size is None else f"feature_size = {size}"
        returns = "no features_BLD" if output.features_BLD is None else "features_BLD"
        raise UserError(f"model.head = {head!r} has {has}, but returns {returns}.")
    for name, (tensor, shape) in parts.items():
        if tuple(tensor.shape) != shape:
            raise UserError(
                f"model.head = {head!r} must return {name} of the shape {shape}, for {images} "
                f"image and {count} labels, but returned {tuple(tensor.shape)}."
            )
