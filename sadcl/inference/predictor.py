"""A trained network that labels photographs and shows where it looks.

Axes: B images of a batch, L labels, H and W height and width of a photograph, h and w those of the
network's grid.
"""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from sadcl import build
from sadcl.config import Config
from sadcl.data.augment import resize
from sadcl.data.transforms import read_image, read_photo, to_input
from sadcl.errors import UserError
from sadcl.model import Network, with_maps


class Explanation(NamedTuple):
    """Where a network finds a label in a photograph."""

    label: str
    score: float
    """0 to 1."""
    map_HW: NDArray[np.float32]
    """One value for each pixel of the upright photograph, 0 to 1, with 1 where the network looks
    most. All values are 0 if a class activation map is negative everywhere. Maps of different
    labels are not on one scale."""


class LabelMaps(NamedTuple):
    """A photograph with the scores of all labels, and their maps over the network's own grid."""

    photo_HW3: NDArray[np.uint8]
    """Upright, in its own size."""
    scores_L: NDArray[np.float64]
    """0 to 1."""
    maps_Lhw: torch.Tensor
    """float32, at least 0, over the whole photograph whatever its proportions."""

    def map_of(self, label: int, height: int, width: int) -> NDArray[np.float32]:
        """Return a label's map at this size, scaled so that its highest value is 1.

        Values between the centres of the grid's cells are bilinear.
        """
        map_11hw = self.maps_Lhw[label][None, None]
        map_11HW = torch.nn.functional.interpolate(map_11hw, (height, width), mode="bilinear")
        map_HW = map_11HW[0, 0].numpy()
        return map_HW / max(map_HW.max(), 1e-12)


class Predictor:
    """A trained network that labels photographs.

    Attributes:
        config: what it was trained with; ``data.image_size`` is the side of its input.
        labels: in the order of its scores.
        network: in inference mode, on ``device``.
        normalisation: mean and standard deviation of its input.
    """

    def __init__(
        self, config: Config, labels: Sequence[str], network: Network, device: torch.device
    ) -> None:
        self.config, self.labels, self.network, self.device = config, tuple(labels), network, device
        self.normalisation = build.normalisation(config)

    @torch.inference_mode()
    def predict(self, images: Sequence[str | Path] | str | Path) -> list[list[tuple[str, float]]]:
        """Return every label with its score (0 to 1) for each image file, highest score first.

        Args:
            images: one file or several.

        Raises:
            UserError: for a file that is missing or is no image.
        """
        paths = [images] if isinstance(images, (str, Path)) else list(images)
        result = []
        for path in paths:
            spec = self.config.data
            photo = read_image(str(path), spec.image_size, spec.max_pixels)
            logits_BL = self.network(self._input(photo)).logits_BL
            scores = logits_BL[0].cpu().double().sigmoid().tolist()
            result.append(sorted(zip(self.labels, scores, strict=True), key=lambda pair: -pair[1]))
        return result

    def explain(
        self, image: str | Path, *, labels: Sequence[str] | None = None, threshold: float = 0.5
    ) -> list[Explanation]:
        """Show where the network finds labels in an image file (Fig. 5), highest score first.

        The map is the positive part of the head's (:func:`sadcl.model.with_maps`): of SARL the
        attention of the label's query in the last decoder layer, averaged over its heads, of the
        pooled baseline the class activation map.

        Args:
            image: of any proportions; the maps have those of the upright photograph.
            labels: the labels to show, in this order; None is those that score above ``threshold``,
                and at least the best one.
            threshold: 0 to 1.

        Raises:
            UserError: for a file that is missing or is no image, or a label that the network does
                not know.
        """
        maps = self.label_maps(image)
        height, width, _ = maps.photo_HW3.shape
        return [
            Explanation(self.labels[i], float(maps.scores_L[i]), maps.map_of(i, height, width))
            for i in self.select_labels(maps, labels, threshold)
        ]

    @torch.inference_mode()
    def label_maps(self, image: str | Path) -> LabelMaps:
        """Return the scores and maps of all labels; arguments and errors as for :meth:`explain`."""
        photo = read_photo(str(image), self.config.data.max_pixels)
        input_13SS = self._input(resize(photo, self.config.data.image_size))
        output, maps_1Lhw = with_maps(self.network, input_13SS)
        scores_L = output.logits_BL[0].cpu().double().sigmoid().numpy()
        maps_Lhw = maps_1Lhw[0].float().cpu().clamp(min=0)
        return LabelMaps(photo.permute(1, 2, 0).numpy(), scores_L, maps_Lhw)

    def _input(self, image: torch.Tensor) -> torch.Tensor:
        """Turn uint8 (3, S, S) into a batch of the network's input."""
        return to_input(image, self.normalisation)[None].to(self.device)

    def select_labels(
        self, maps: LabelMaps, labels: Sequence[str] | None = None, threshold: float = 0.5
    ) -> list[int]:
        """Return the positions of the labels to show; arguments, errors as for :meth:`explain`."""
        if labels is None:
            order = np.argsort(-maps.scores_L, kind="stable").tolist()
            return [i for i in order if maps.scores_L[i] > threshold] or order[:1]
        for label in labels:
            if label not in self.labels:
                near = difflib.get_close_matches(label, self.labels, n=1, cutoff=0.5)
                examples = ", ".join(self.labels[:12])
                hint = f"did you mean {near[0]!r}?" if near else f"it knows {examples} and so on."
                raise UserError(f"The network knows no label {label!r}; {hint}")
        return [self.labels.index(label) for label in labels]
