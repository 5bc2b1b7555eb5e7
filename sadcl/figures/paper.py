"""All figures of one checkpoint at once, with photographs from its own test images."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from sadcl import inference, storage
from sadcl.data.base import Progress
from sadcl.errors import UserError
from sadcl.figures.drawing import SEED
from sadcl.figures.photos import draw_maps, map_photo, network_name
from sadcl.figures.prototypes import draw_prototypes
from sadcl.figures.representations import draw_representations
from sadcl.inference import CheckpointWithData, Predictor

LABELS = (2, 4)
"""Smallest and largest number of labels of a photograph in Fig. 5."""


def draw_paper(
    checkpoint: str,
    folder: str,
    *,
    baseline: str | None = None,
    data_root: str | None = None,
    device: str | None = None,
    ending: str = "png",
    photos: int = 4,
    show_progress: Callable[[str], Progress] | None = None,
) -> list[str]:
    """Draw Fig. 4, 5 and 6 of a checkpoint as ``fig4.png`` and so on.

    A figure that the checkpoint cannot have is left out (a pooled network has no prototypes).

    Args:
        checkpoint: a ``best.pt``.
        folder: of the figures, local or s3:// or gs://.
        baseline: a ``best.pt`` of the pooled baseline on the same data; its held-out images may
            differ.
        data_root: the data both were trained on; None draws the scenes again.
        device: such as cpu or cuda; None takes a GPU if there is one.
        ending: png, svg or pdf.
        photos: number of test images in Fig. 5, at least 1, drawn at random among those with two to
            four labels.
        show_progress: returns for the name of a task the function that its progress is reported to.

    Returns:
        For each figure its file and what it shows, or why it is left out.

    Raises:
        UserError: for a checkpoint, baseline or data that do not belong together, or a folder that
            cannot be written.
    """
    if photos < 1:
        raise UserError(f"photos = {photos} is not possible: Fig. 5 needs at least 1.")
    progress = show_progress or (lambda what: lambda done, total: None)
    opened = inference.open_with_data(checkpoint, data_root=data_root, device=device)
    networks, notes = {network_name(opened.predictor): opened.predictor}, list[str]()
    if baseline is not None:
        other = inference.open_with_data(baseline, data_root=data_root, device=device)
        name = network_name(other.predictor)
        if other.data.test.digest != opened.data.test.digest or name in networks:
            raise UserError(
                f"{baseline!r} is no pooled baseline of the same data: its maps cannot be compared "
                "with the others."
            )
        if other.data.digest != opened.data.digest:
            notes.append("Only one of the two was trained on the held-out images too.")
        networks[name] = other.predictor
    uris = {number: storage.join(folder, f"fig{number}.{ending}") for number in (4, 5, 6)}
    figures: dict[int, Callable[[], list[str]]] = {
        4: lambda: draw_prototypes(opened, uris[4]),
        5: lambda: _draw_photos(opened, networks, photos, uris[5], progress, notes),
        6: lambda: draw_representations(opened, uris[6], progress("representations")),
    }
    lines = []
    for number, draw in figures.items():
        try:
            lines.append(f"{uris[number]}: " + " ".join(draw()))
        except UserError as error:
            lines.append(f"Fig. {number} is left out. {error}")
    return lines


def _draw_photos(
    opened: CheckpointWithData,
    networks: dict[str, Predictor],
    photos: int,
    uri: str,
    progress: Callable[[str], Progress],
    notes: list[str],
) -> list[str]:
    """Draw Fig. 5 over random test images, and return sentences about it."""
    data = opened.data
    count_N = (data.test.targets == 1).sum(axis=1)
    candidates = np.flatnonzero((count_N >= LABELS[0]) & (count_N <= LABELS[1]))
    candidates = candidates if len(candidates) else np.arange(len(count_N))
    images = np.random.default_rng(SEED).permutation(candidates)[:photos].tolist()
    all_boxes = data.boxes(data.test) if data.boxes is not None else None
    maps = []
    for image in images:
        of_image = all_boxes.of(image).items() if all_boxes is not None else ()
        boxes = {data.labels[label]: boxes_K4 for label, boxes_K4 in of_image}
        maps.append(map_photo(data.test.path(image), list(networks.values()), boxes=boxes))
    sentences = list(notes)
    if all_boxes is not None and len(all_boxes.image_K):
        means = {
            name: inference.localise(predictor, data, progress(f"maps of {name}"))
            for name, predictor in networks.items()
        }
        sentences.append(_localisation_sentence(means))
    draw_maps(maps, networks, uri, sentences)
    return sentences


def _localisation_sentence(means: dict[str, dict[str, Any]]) -> str:
    """Return a sentence with the localisation of each network, beside chance.

    Args:
        means: of :func:`sadcl.inference.localise`, by the name of the network.
    """
    mean_of = {
        name: {measure: np.nanmean(values) for measure, values in measures.items()}
        for name, measures in means.items()
    }
    each = "; ".join(
        f"{name}: pointing {mean['pointing']:.1f} %, energy inside the boxes "
        f"{mean['box_energy']:.1f} %"
        for name, mean in mean_of.items()
    )
    chance = next(iter(mean_of.values()))["box_area"]
    return (
        f"Over all test images, mean over the labels: {each}; a map that is the same everywhere "
        f"has {chance:.1f} % of both."
    )
