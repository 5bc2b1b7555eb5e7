"""What is checked of a network before anything is reserved, with one black image."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from sadcl.errors import UserError, first_line_of
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
        reason = first_line_of(error)
        raise UserError(
            f"model.backbone = {name!r} cannot take images of data.image_size = {side} pixels: "
            f"{reason}"
        ) from None
    check_head(network, maps)
    if network.head_path is not None and not network.head_path.startswith("sadcl."):
        check_gradients(network, maps)


def check_gradients(network: Network, maps_BCHW: Sequence[Tensor]) -> None:
    """Check in training mode that each parameter of a head takes part in its logits.

    Several workers would wait for the gradient of one that does not.

    Raises:
        UserError: where a parameter does not, or the head fails in training.
    """
    head, count = network.head, network.num_labels
    targets = {"targets_BL": torch.zeros(2, count, dtype=torch.int8, device=maps_BCHW[0].device)}
    was_training = head.training
    try:
        with torch.enable_grad(), torch.random.fork_rng(devices=[]):
            head.train()
            maps = [torch.cat([part, part + torch.randn_like(part)]) for part in maps_BCHW]
            output = head(*maps, **(targets if network.needs_targets else {}))
            sum(part.sum() for part in (output.logits_BL, *output.auxiliary_BL)).backward()
    except Exception as error:
        reason = first_line_of(error)
        raise UserError(
            f"model.head = {network.head_path!r} fails in training: {type(error).__name__}: "
            f"{reason}"
        ) from None
    finally:
        head.train(was_training)
    parameters = [(n, p) for n, p in head.named_parameters() if p.requires_grad]
    unused = [name for name, parameter in parameters if parameter.grad is None]
    head.zero_grad(set_to_none=True)
    if unused:
        raise UserError(
            f"model.head = {network.head_path!r} has parameters that no logit depends on "
            f"({', '.join(unused[:4])}), and several workers would wait for their gradients. Leave "
            "them out, or call requires_grad_(False) on them."
        )


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
        reason = first_line_of(error)
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
    if (output.features_BLD is None) != (size is None):
        has = "no feature_size" if size is None else f"feature_size = {size}"
        returns = "no features_BLD" if output.features_BLD is None else "features_BLD"
        raise UserError(f"model.head = {head!r} has {has}, but returns {returns}.")
    for name, tensor, shape in expected_shapes(output, images, count, size):
        if tuple(tensor.shape) != shape:
            raise UserError(
                f"model.head = {head!r} must return {name} of the shape {shape}, for {images} "
                f"image and {count} labels, but returned {tuple(tensor.shape)}."
            )


def expected_shapes(
    output: HeadOutput, images: int, num_labels: int, feature_size: int | None
) -> Iterator[tuple[str, Tensor, tuple[int, ...]]]:
    """Yield the name of each part of a head's output, the part, and the shape that it must have."""
    yield "logits_BL", output.logits_BL, (images, num_labels)
    for i, part in enumerate(output.auxiliary_BL):
        yield f"auxiliary_BL[{i}]", part, (images, num_labels)
    if output.features_BLD is not None and feature_size is not None:
        yield "features_BLD", output.features_BLD, (images, num_labels, feature_size)
