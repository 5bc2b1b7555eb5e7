"""All figures of one checkpoint at once, with photographs out of its own test images."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from sadcl import inference, storage
from sadcl.data.base import Progress
from sadcl.errors import UserError
from sadcl.figures.drawing import SEED
from sadcl.figures.photos import Shown, draw_maps, name_of, show
from sadcl.figures.prototypes import draw_prototypes
from sadcl.figures.representations import draw_representations
from sadcl.inference import Opened, Predictor

LABELS = (2, 4)
"""That a photograph of Fig. 5 shows, from and to."""


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
    """Draw Fig. 4, 5 and 6 of a checkpoint as ``fig4.png`` and so on, and say in sentences what each shows.

    A figure that the checkpoint cannot have (a pooled network has no prototypes) is left out, and a sentence says why.

    Args:
        checkpoint: a ``best.pt``.
        folder: where the figures go, local or s3:// or gs://.
        baseline: a ``best.pt`` of the pooled baseline on the same data; what it held out may differ.
        data_root: the data both were trained on; None makes the embedded scenes again.
        device: None takes a GPU where there is one.
        ending: png, svg or pdf.
        photos: test images in Fig. 5, drawn at random among those with two to four labels.
        show_progress: gives for the name of a task what takes how much of it is done.

    Raises:
        UserError: for a checkpoint, baseline or data that do not fit each other, or a place that cannot be written.
    """
    if photos < 1:
        raise UserError(f"photos = {photos} is not possible: Fig. 5 needs at least 1.")
    progress = show_progress or (lambda what: lambda done, of: None)
    opened = inference.open_with_data(checkpoint, data_root=data_root, device=device)
    networks, notes = {name_of(opened.predictor): opened.predictor}, list[str]()
    if baseline is not None:
        beside = inference.open_with_data(baseline, data_root=data_root, device=device)
        if (
            beside.data.test.digest != opened.data.test.digest
            or name_of(beside.predictor) in networks
        ):
            raise UserError(
                f"{baseline!r} is no pooled baseline of the same data: its maps cannot stand beside the others."
            )
        if beside.data.digest != opened.data.digest:
            notes.append("Only one of the two was trained on the held-out images too.")
        networks[name_of(beside.predictor)] = beside.predictor
    where = {number: storage.join(folder, f"fig{number}.{ending}") for number in (4, 5, 6)}
    steps: dict[int, Callable[[], list[str]]] = {
        4: lambda: draw_prototypes(opened, where[4]),
        5: lambda: _photos(opened, networks, photos, where[5], progress, notes),
        6: lambda: draw_representations(opened, where[6], progress("representations")),
    }
    said = []
    for number, step in steps.items():
        try:
            said.append(f"{where[number]}: " + " ".join(step()))
        except UserError as error:
            said.append(f"Fig. {number} is left out. {error}")
    return said


def _photos(
    opened: Opened,
    networks: dict[str, Predictor],
    photos: int,
    uri: str,
    progress: Callable[[str], Progress],
    notes: list[str],
) -> list[str]:
    data = opened.data
    count_N = (data.test.targets == 1).sum(axis=1)
    fits = np.flatnonzero((count_N >= LABELS[0]) & (count_N <= LABELS[1]))
    fits = fits if len(fits) else np.arange(len(count_N))
    chosen = np.random.default_rng(SEED).permutation(fits)[:photos].tolist()
    known = data.boxes(data.test) if data.boxes is not None else None
    shown: list[Shown] = []
    for image in chosen:
        boxes = {data.labels[i]: b for i, b in known.of(image).items()} if known is not None else {}
        shown.append(show(data.test.path(image), list(networks.values()), boxes=boxes))
    said = list(notes)
    if known is not None and len(known.image_K):
        means = {
            n: inference.localise(p, data, progress(f"maps of {n}")) for n, p in networks.items()
        }
        figures = {
            name: {what: np.nanmean(values) for what, values in found.items()}
            for name, found in means.items()
        }
        each = "; ".join(
            f"{name}: pointing {of['pointing']:.1f} %, energy inside the boxes {of['box_energy']:.1f} %"
            for name, of in figures.items()
        )
        chance = next(iter(figures.values()))["box_area"]
        said.append(
            f"Over all test images, mean over the labels: {each}; a map that knows nothing has {chance:.1f} % of both."
        )
    draw_maps(shown, networks, uri, said)
    return said
