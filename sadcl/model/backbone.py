"""Any timm backbone as a feature map, with its frozen parts.

Axes: B images, C channels, H, W height and width, r the backbone's stride.
"""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import timm
import torch
from huggingface_hub import get_hf_file_metadata, hf_hub_url, try_to_load_from_cache
from huggingface_hub.errors import EntryNotFoundError
from safetensors.torch import load_file
from torch import Tensor, nn

from sadcl.errors import UserError, first_line_of
from sadcl.model.frozen_batchnorm import freeze_batchnorm as freeze_all_batchnorm
from sadcl.model.recompute import recompute_backbone

BLOCK = 32
"""Images that a frozen backbone computes together on a CPU."""
_Colours = tuple[float, float, float]


class Backbone(nn.Module):
    """Feature maps of a timm model, (B, 3, H, W) -> (B, C, H / r, W / r).

    Args:
        name: a timm model that offers ``features_only``, with or without the tag of its weights.
        image_size: side of the images in pixels, for models that are built for one size.
        feature: index of the feature map, negative from the end, or indices of several in rising
            order; later layers are not built.
        pretrained: load timm's weights (a download at first use).
        weights: path of a local file of weights to load instead; keys of a classifier are ignored.
        frozen: names of top-level modules that are not trained and stay in inference mode; or
            ``"all"``, and then no gradients are computed either.
        freeze_batchnorm: let all BatchNorm layers use and keep their stored statistics.
        checkpointing: compute the activations of trainable blocks again in the backward pass.

    Raises:
        UserError: for an unknown name, a model without feature maps, weights that are not available
            or do not fit, a frozen part that the model does not have, or checkpointing of a model
            that has no stages.
    """

    channels: int
    """Of the last of the feature maps."""
    map_channels: tuple[int, ...]
    """Of each feature map."""

    def __init__(
        self,
        name: str,
        *,
        image_size: int | None = None,
        feature: int | Sequence[int] = -1,
        pretrained: bool = False,
        weights: str | None = None,
        frozen: Sequence[str] | Literal["all"] = (),
        freeze_batchnorm: bool = True,
        checkpointing: bool = False,
    ) -> None:
        super().__init__()
        self.body = create(
            name, image_size=image_size, feature=feature, pretrained=pretrained and weights is None
        )
        if weights is not None:
            _load_local(self.body, name, weights)
        self.map_channels = tuple(map(int, self.body.feature_info.channels()))
        self.channels = self.map_channels[-1]
        self.channels_last = str(getattr(self.body, "output_fmt", "NCHW")).endswith("NHWC")
        self.is_frozen = frozen == "all"
        """Whether the whole backbone is frozen."""
        parts = dict(self.body.named_children())
        if self.is_frozen:
            frozen = tuple(parts)
            self.body.requires_grad_(False)
        if missing := [part for part in frozen if part not in parts]:
            raise UserError(
                f"model.frozen names {missing[0]!r}, which {name} does not have; its parts are "
                f"{', '.join(parts)}; 'all' freezes it whole."
            )
        self.frozen = tuple(frozen)
        for part in self.frozen:
            parts[part].requires_grad_(False)
        if freeze_batchnorm:
            freeze_all_batchnorm(self.body)
        if checkpointing:
            recompute_backbone(self.body, name)
        self.train()

    def train(self, mode: bool = True) -> Backbone:
        super().train(mode)
        for part in self.frozen:
            self.body.get_submodule(part).eval()
        if self.is_frozen:
            self.body.eval()
        return self

    def forward(self, images: Tensor) -> Tensor:
        """Return the last of the feature maps."""
        return self.maps(images)[-1]

    def maps(self, images: Tensor) -> tuple[Tensor, ...]:
        """Return all of the feature maps, in their order.

        Those of a backbone that is frozen whole are contiguous and in the type of its weights, as
        they are when they come from a file. On a CPU it computes several images in blocks of
        :data:`BLOCK`, so that an image's maps are the same to the bit in any batch: kernels are
        chosen by the number of images.
        """
        if not self.is_frozen:
            return self._maps(images)
        with torch.no_grad():
            if len(images) == 1 or images.device.type != "cpu":
                return self._maps(images)
            blocks = [self._maps(_fill(block)) for block in images.split(BLOCK)]
        return tuple(torch.cat(parts)[: len(images)] for parts in zip(*blocks, strict=True))

    def _maps(self, images: Tensor) -> tuple[Tensor, ...]:
        dtype = next(self.body.parameters()).dtype
        features: Sequence[Tensor] = self.body(images.to(dtype))
        if self.channels_last:
            features = [feature.permute(0, 3, 1, 2) for feature in features]
        if self.is_frozen:
            features = [feature.to(dtype).contiguous() for feature in features]
        return tuple(features)


def _fill(images: Tensor) -> Tensor:
    """Append images of zeros up to a whole block."""
    missing = BLOCK - len(images)
    return torch.cat([images, images.new_zeros(missing, *images.shape[1:])]) if missing else images


def create(
    name: str,
    *,
    image_size: int | None = None,
    feature: int | Sequence[int] = -1,
    pretrained: bool = False,
) -> Any:
    """Create timm's feature extractor.

    Args: see :class:`Backbone`.

    Raises:
        UserError: for an unknown name, a model without feature maps, or weights that are neither
            cached nor can be downloaded.
    """
    _check_name(name)
    indices = (feature,) if isinstance(feature, int) else tuple(feature)
    try:
        if pretrained:
            _check_download(name)
        fixed_size = getattr(
            timm.get_pretrained_cfg(name, allow_unregistered=True), "fixed_input_size", False
        )
        size: dict[str, Any] = (
            {"img_size": image_size} if fixed_size and image_size is not None else {}
        )
        return timm.create_model(
            name, pretrained=pretrained, features_only=True, out_indices=indices, **size
        )
    except Exception as error:
        if not pretrained:
            raise UserError(f"model.backbone = {name!r} has no feature maps: {error}") from None
        reason = first_line_of(error)
        raise UserError(
            f"The weights of {name} are not on this machine and cannot be downloaded ({reason}). "
            "Connect the machine once so that they are cached, or copy the file to it and pass "
            "--set model.weights=FILE, or train from random weights with --set "
            "model.pretrained=false."
        ) from None


def _check_name(name: str) -> None:
    if not timm.is_model(name):
        matches = difflib.get_close_matches(name.split(".")[0], timm.list_models(), n=3)
        hint = (
            f"did you mean {', '.join(matches)}?"
            if matches
            else "timm.list_models() lists those that exist."
        )
        raise UserError(
            f"model.backbone = {name!r} is not a model of timm {timm.__version__}: {hint}"
        )


def normalisation(name: str) -> tuple[_Colours, _Colours]:
    """Return the mean and standard deviation that timm's weights of a model were trained with.

    They are for red, green and blue from 0 to 1. A name without a tag means timm's default weights;
    a local file of weights is taken to be of the same kind. timm gives a model that it has no
    weights of the values of ImageNet.

    Raises:
        UserError: for an unknown name or tag.
    """
    _check_name(name)
    try:
        weights = timm.get_pretrained_cfg(name)
    except RuntimeError as error:  # a tag that the model does not have
        raise UserError(f"model.backbone = {name!r} is not possible: {error}") from None
    options = timm.data.resolve_data_config(pretrained_cfg=weights.to_dict() if weights else {})
    mean, std = tuple(options["mean"]), tuple(options["std"])
    return mean, std


def _check_download(name: str) -> None:
    """Make one quick request first: without a network a download would retry for a minute."""
    hub = getattr(timm.get_pretrained_cfg(name), "hf_hub_id", None)
    files = ("model.safetensors", "pytorch_model.bin")
    if hub is None or any(isinstance(try_to_load_from_cache(hub, file), str) for file in files):
        return
    try:
        get_hf_file_metadata(hf_hub_url(hub, files[0]), timeout=10)
    except EntryNotFoundError:
        return  # an older repository, whose other file timm finds


def _load_local(body: nn.Module, name: str, path: str) -> None:
    if not Path(path).is_file():
        raise UserError(
            f"model.weights = {path!r} is not a file; give the path of the weights of {name}."
        )
    try:
        state = (
            load_file(path)
            if path.endswith(".safetensors")
            else torch.load(path, "cpu", weights_only=True)
        )
    except Exception as error:
        raise UserError(f"model.weights = {path!r} cannot be read as weights: {error}") from None
    missing, _ = body.load_state_dict(state, strict=False)
    if missing:
        raise UserError(
            f"model.weights = {path!r} does not fit {name}: {len(missing)} tensors are missing, "
            f"first {missing[0]!r}."
        )
