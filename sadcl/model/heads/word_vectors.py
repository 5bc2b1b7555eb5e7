"""The word vectors that stand for labels in ML-GCN and SSGRL.

Axes: L labels, E numbers of a word vector.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence

import torch
from torch import Tensor

from sadcl.errors import UserError
from sadcl.model.heads.head import Task
from sadcl.storage import local

LARGEST = torch.finfo(torch.float32).max
"""Largest number that a vector may have."""


def label_vectors(task: Task, file: str | None, *, dim: int, seed: int) -> Tensor:
    """Return a vector for each label: from a file, or random ones.

    Args:
        task: what the head is built for. Where a checkpoint's state follows, no file is read: the
            checkpoint has the vectors, and they are zero until it is loaded.
        file: as :func:`read_vectors` takes it; None draws standard normal numbers.
        dim: E.
        seed: of the random numbers.

    Returns:
        (L, E) in float32. It belongs in a buffer, so that a checkpoint needs no file.

    Raises:
        UserError: as :func:`read_vectors` does.
    """
    shape = (len(task.labels), dim)
    if file is None:
        generator = torch.Generator().manual_seed(seed)
        return torch.randn(shape, generator=generator, dtype=torch.float32, device="cpu")
    if task.is_restored:
        return torch.zeros(shape)
    return read_vectors(file, task.labels, dim=dim)


def read_vectors(file: str, labels: Sequence[str], *, dim: int) -> Tensor:
    """Read the vectors of labels from a text file in the format of GloVe.

    Each line has a word and E numbers, separated by spaces. A label is looked up in lower case:
    whole if the file has it so (``t-shirt``), else it gets the mean of the vectors of its words,
    which are what anything but letters and digits separates (``traffic light``).

    Args:
        file: path of the file.
        labels: names of the labels.
        dim: E.

    Returns:
        (L, E) in float32.

    Raises:
        UserError: where the file cannot be read, has no vector for a word of a label, or has one of
            another length or with anything but finite numbers.

    Source: Pennington, Socher, Manning, GloVe: Global Vectors for Word Representation, EMNLP 2014.
    """
    names = [label.strip().lower() for label in labels]
    words = [re.findall(r"[^\W_]+", name) for name in names]
    vectors = _read_lines(file, {*names, *(word for some in words for word in some)}, dim)
    rows = []
    for label, name, parts in zip(labels, names, words, strict=True):
        used = [name] if name in vectors else parts
        missing = [word for word in used if word not in vectors]
        if missing or not used:
            what = f"its word {missing[0]!r} is" if missing else "it has no word that could be"
            raise UserError(
                f"The label {label!r} has no word vector in {file!r}: {what} not there. Add a line "
                f"{name!r} with {dim} numbers to the file, such as the mean of similar words, or "
                "leave word_vectors out for random ones."
            )
        rows.append(torch.tensor([vectors[word] for word in used], dtype=torch.float64).mean(0))
    return torch.stack(rows).float()


def _read_lines(file: str, wanted: set[str], dim: int) -> dict[str, list[float]]:
    """Read the first vector of each of these words, which may have spaces."""
    vectors: dict[str, list[float]] = {}
    beginnings = {name.partition(" ")[0] for name in wanted}
    try:
        with local(file).open(encoding="utf-8", errors="replace") as lines:
            for number, line in enumerate(lines, 1):
                beginning = line.split(None, 1)[:1]
                if not beginning or beginning[0] not in beginnings:  # most lines end here
                    continue
                word, texts = _split(line.split(), dim)
                if word in wanted and word not in vectors:
                    vectors[word] = _numbers(texts, dim, f"{file!r}, line {number}")
    except OSError as error:
        raise UserError(
            f"word_vectors = {file!r} cannot be read: {error.strerror or error}. Give the path of "
            "a text file with a word and its numbers on each line, as those of GloVe, or leave "
            "word_vectors out for random ones."
        ) from None
    return vectors


def _split(parts: list[str], dim: int) -> tuple[str, list[str]]:
    """Split a line into its word and its numbers, of which a word with spaces has E."""
    has_spaces = len(parts) > dim + 1 and not math.isfinite(_number(parts[-dim - 1]))
    end = -dim if has_spaces else 1
    return " ".join(parts[:end]), parts[end:]


def _numbers(texts: list[str], dim: int, place: str) -> list[float]:
    if len(texts) != dim:
        raise UserError(
            f"{place}: the vector has {len(texts)} numbers, but word_dim = {dim}. Set word_dim to "
            "the size of the file's vectors, or give another file."
        )
    numbers = [_number(text) for text in texts]
    for text, number in zip(texts, numbers, strict=True):
        if not abs(number) <= LARGEST:
            raise UserError(f"{place}: {text!r} is no finite number. Repair the file.")
    return numbers


def _number(text: str) -> float:
    """Return the number, or nan for a text that is none."""
    try:
        return float(text)
    except ValueError:
        return math.nan
