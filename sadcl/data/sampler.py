"""A sampler: which training images an epoch has, and in which order.

A configuration names one of yours by its import path, ``data.sampler = "my_lab.order:rare"``. The
one that this page asks for is complete. It draws a label first and then one of its images, so that
rare labels are seen as often as frequent ones::

    def rare(
        targets_NL: NDArray[np.int8], epoch: int, rng: np.random.Generator, *, share: float = 0.5
    ) -> NDArray[np.int64]:
        images_by_label = [np.flatnonzero(targets_L == 1) for targets_L in targets_NL.T]
        images_by_label = [images for images in images_by_label if len(images)]
        order_N = rng.permutation(len(targets_NL))
        for place in rng.permutation(len(order_N))[: round(share * len(order_N))]:
            order_N[place] = rng.choice(images_by_label[rng.integers(len(images_by_label))])
        return order_N

Axes: N training images, L labels.
"""

from __future__ import annotations

from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from sadcl.errors import UserError, reason_of

FIELD = "data.sampler"
_ORDER = 1  # the stream of random numbers


class Sampler(Protocol):
    """The call that a sampler answers; its own arguments are keywords with a type and a default.

    It gets the targets (N, L) of the images that the run trains on, 1, 0 or -1 (ignored), which it
    must not change, the number of the epoch, from 1 in each stage, and a generator that is seeded
    with the run's seed and the epoch. It returns N indices of images, 0 to N - 1, as whole numbers.
    An image may occur several times, and is augmented in another way each time, or not at all. The
    number of images of an epoch is always N, so that its number of steps is known.

    It is called once an epoch on every worker, and again where a run resumes. All calls for an
    epoch must return the same: the generator is its only source of randomness, and it keeps
    nothing from one call to the next. It cannot see what the network has learned.
    """

    def __call__(
        self, targets_NL: NDArray[np.int8], epoch: int, rng: np.random.Generator, /
    ) -> NDArray[np.int64]: ...


def permute(
    targets_NL: NDArray[np.int8], epoch: int, rng: np.random.Generator
) -> NDArray[np.int64]:
    """Take each image once, in random order."""
    return rng.permutation(len(targets_NL))


def draw_order(
    sampler: Sampler, targets_NL: NDArray[np.int8], seed: int, epoch: int, name: str = "permute"
) -> NDArray[np.int64]:
    """Return the indices (N,) of an epoch's images, in their order.

    Args:
        sampler: with its own arguments bound.
        targets_NL: of the training images.
        seed: of the run.
        epoch: number of the epoch.
        name: import path of the sampler, for messages.

    Raises:
        UserError: for a sampler that fails, or returns something else than N indices.
    """
    targets_NL = targets_NL.view()
    targets_NL.flags.writeable = False
    try:
        returned = sampler(targets_NL, epoch, np.random.default_rng([_ORDER, seed, epoch]))
        order_N = np.asarray(returned)
    except Exception as error:
        raise UserError(f"{FIELD} = {name!r}, epoch {epoch}: {reason_of(error)}") from None
    count, problem = len(targets_NL), ""
    if order_N.shape != (count,):
        problem = f"as many indices as there are training images, {count}, but an array of the "
        problem += f"shape {order_N.shape}. Repeat or leave out images to get this number"
    elif order_N.dtype.kind not in "iu":
        problem = f"whole numbers, but {order_N.dtype}"
    elif count and not 0 <= order_N.min() <= order_N.max() < count:
        wrong = order_N[(order_N < 0) | (order_N >= count)][0]
        problem = f"indices from 0 to {count - 1}, but {wrong} is among them"
    if problem:
        raise UserError(f"{FIELD} = {name!r} must return {problem} (epoch {epoch}).")
    return order_N.astype(np.int64)


def check_sampler(
    sampler: Sampler, targets_NL: NDArray[np.int8], seed: int, name: str = "permute"
) -> None:
    """Check a sampler on the first two epochs.

    Raises:
        UserError: as :func:`draw_order`, and for an order that is another one when it is asked for
            again.
    """
    for epoch in (1, 2):
        first_N = draw_order(sampler, targets_NL, seed, epoch, name)
        if epoch == 2:  # after another epoch's, as on a worker that has just joined
            draw_order(sampler, targets_NL, seed, 1, name)
        if not np.array_equal(first_N, draw_order(sampler, targets_NL, seed, epoch, name)):
            raise UserError(
                f"{FIELD} = {name!r} returns another order when epoch {epoch} is asked for again, "
                "so that workers would train on different batches. Draw from the generator that "
                "it gets alone, and keep nothing between calls."
            )


def count_repeats(order_N: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return for each place of an order how often its image was there before, (N,)."""
    sorted_N = np.argsort(order_N, kind="stable")
    _, first_I, count_I = np.unique(order_N[sorted_N], return_index=True, return_counts=True)
    repeats_N = np.empty(len(order_N), dtype=np.int64)
    repeats_N[sorted_N] = np.arange(len(order_N)) - np.repeat(first_I, count_I)
    return repeats_N
