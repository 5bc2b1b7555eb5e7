"""What every class loss and every contrast keeps to, whatever it computes.

Axes: B images of this worker, N images of all workers, L labels, P embedding size, M bank rows.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor

from sadcl import distributed
from sadcl.losses.contrast import ContrastSum, ContrastView, positive_index
from sadcl.memory import Memory
from sadcl.testing.checks import attempt, check_arguments, close, require
from sadcl.testing.workers import ask_both

_IMAGES, _LABELS, _SIZE, _ROWS = 7, 4, 5, 6


def check_class_loss(loss: Callable[..., tuple[Tensor, Tensor]], /, **arguments: Any) -> None:
    """Check a class loss of your own against :class:`sadcl.losses.ClassLoss`.

    It must return the sum over images and the number of the real ones, in the type of the logits;
    its gradient must reach the logit of each known target that is on the wrong side of 0, and no
    logit of another target; padding images and ignored targets must not count; the sum over images
    must be the sum of each image's, which makes it equal on any number of workers; and it must be
    finite for scores that are as good as 0 or 1.

    Args:
        loss: the function.
        **arguments: its own.

    Raises:
        AssertionError: with what is wrong and what to do.
    """
    function = partial(loss, **check_arguments(loss, arguments, 3, ()))
    logits_BL, targets_BL, weight_B = _scores()
    total, count = _sum(function, logits_BL, targets_BL, weight_B)
    require(
        float(count) == float(weight_B.sum()),
        loss,
        f"counts {float(count):g} images of {float(weight_B.sum()):g} real ones",
        "Return weight_B.sum() as the second value",
    )
    (gradient_BL,) = torch.autograd.grad(total, logits_BL)
    wrong_BL = ((targets_BL > 0) != (logits_BL > 0)) & (targets_BL >= 0) & (weight_B > 0)[:, None]
    require(
        bool((gradient_BL[wrong_BL] != 0).all()),
        loss,
        "gives no gradient to some logits of known targets that are on the wrong side of 0",
        "Nothing would be learned from them",
    )
    for name, chosen_BL in (
        ("targets that are -1 (ignored)", targets_BL < 0),
        ("padding images (weight 0)", (weight_B == 0)[:, None].expand_as(targets_BL)),
    ):
        moved_BL = torch.where(chosen_BL, logits_BL.detach() + 3, logits_BL.detach())
        require(
            close(_sum(function, moved_BL, targets_BL, weight_B)[0], total)
            and not bool(gradient_BL[chosen_BL].any()),
            loss,
            f"depends on the logits of {name}",
            "Multiply each part by (targets_BL >= 0) and by weight_B",
        )
    rows = [slice(i, i + 1) for i in range(_IMAGES)]
    alone = sum(_sum(function, logits_BL[r], targets_BL[r], weight_B[r])[0] for r in rows)
    require(
        close(torch.as_tensor(alone), total),
        loss,
        "is not the sum over its images",
        "Return a sum, and no mean: the platform divides by the number of all workers' images",
    )
    extreme_BL = (40 * logits_BL.detach().sign()).requires_grad_()
    far, _ = _sum(function, extreme_BL, targets_BL, weight_B)
    (slope_BL,) = torch.autograd.grad(far, extreme_BL)
    require(
        bool(far.isfinite()) and bool(slope_BL.isfinite().all()),
        loss,
        "or its gradient is not finite for logits of -40 and 40",
        "Use logsigmoid and binary_cross_entropy_with_logits, and keep powers away from 0",
    )
    single = _sum(function, logits_BL.detach().float(), targets_BL, weight_B.float())[0]
    require(
        single.dtype == torch.float32 and total.dtype == torch.float64,
        loss,
        f"returns {single.dtype} for logits in float32 and {total.dtype} for float64",
        "Compute in the type of the logits",
    )


def _scores() -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(2)
    logits_BL = torch.rand(_IMAGES, _LABELS, generator=generator, dtype=torch.float64) * 3 - 1.5
    targets_BL = (torch.rand(_IMAGES, _LABELS, generator=generator) < 0.5).to(torch.int8)
    targets_BL[torch.rand(_IMAGES, _LABELS, generator=generator) < 0.2] = -1
    targets_BL[1] = 0  # an image without a label
    weight_B = torch.ones(_IMAGES, dtype=torch.float64)
    weight_B[-1] = 0
    return logits_BL.requires_grad_(), targets_BL, weight_B


def _sum(
    function: Callable[..., Any], logits_BL: Tensor, targets_BL: Tensor, weight_B: Tensor
) -> tuple[Tensor, Tensor]:
    """Call a class loss as the platform does: the targets of padding images are -1."""
    loss = function
    known_BL = torch.where((weight_B > 0)[:, None], targets_BL, -1)
    before = logits_BL.detach().clone()
    with attempt(loss, "on logits (B, L), targets (B, L) and weights (B,)", "See the error"):
        returned = function(logits_BL, known_BL, weight_B)
    require(
        isinstance(returned, tuple)
        and len(returned) == 2
        and all(isinstance(part, Tensor) and part.dim() == 0 for part in returned),
        loss,
        "does not return two scalars",
        "Return the sum of the loss and weight_B.sum()",
    )
    require(
        torch.equal(before, logits_BL.detach()),
        loss,
        "changes the logits in place",
        "Write into new tensors",
    )
    return returned


def check_contrast(contrast: Callable[..., ContrastSum], /, **arguments: Any) -> None:
    """Check a contrast of your own against :class:`sadcl.losses.Contrast`.

    It must return scalars in float32 or wider, with a gradient that is equal to finite differences;
    padding images and ignored targets must not count; a worker without anything to contrast must
    get a differentiable zero; and sums, counts and gradients of two workers must add up to those of
    one, whose images are divided evenly, unevenly, or all of which one has.

    Args:
        contrast: the function.
        **arguments: its own; its temperature is 0.5 here.

    Raises:
        AssertionError: with what is wrong and what to do.
    """
    bound = check_arguments(contrast, arguments, 1, ("temperature",))
    function = partial(contrast, temperature=0.5, **bound)
    embeddings_NLP, targets_NL, bank_MP = _embeddings()
    whole = _measure(function, embeddings_NLP, targets_NL, bank_MP)
    require(
        bool(whole[2].any()),
        contrast,
        "gives no gradient to any embedding",
        "Compare view.rows_AP or view.embeddings_BLP, and detach neither",
    )
    with attempt(contrast, "in the comparison with finite differences", "Its gradient is wrong"):
        torch.autograd.gradcheck(
            lambda rows: function(_view(rows, targets_NL, bank_MP)).total,
            (embeddings_NLP.clone().requires_grad_(),),
        )
    padded = torch.cat([embeddings_NLP, torch.ones_like(embeddings_NLP[:1])])
    ignored = torch.cat([targets_NL, torch.full_like(targets_NL[:1], -1)])
    more = _measure(function, padded, ignored, bank_MP, padding=1)
    require(
        close(more[0], whole[0]) and close(more[1], whole[1]) and close(more[2][:-1], whole[2]),
        contrast,
        "depends on a padding image, whose targets are all -1",
        "Leave out what has no target that is 1",
    )
    for targets in ([[0, 0], [0, 0]], [[-1, -1], [-1, -1]]):
        x = torch.randn(2, 2, 3, generator=torch.Generator().manual_seed(0))
        nothing = _measure(function, x, torch.tensor(targets, dtype=torch.int8), x.new_zeros(0, 3))
        require(
            float(nothing[0]) == float(nothing[1]) == 0 and not bool(nothing[2].any()),
            contrast,
            f"is {float(nothing[0]):g} over {float(nothing[1]):g} anchors without a positive",
            "Return a sum that is 0 and still has a gradient, such as (0 * rows).sum()",
        )
    _check_half_precision(contrast, function)
    for shares in ((4, 3), (6, 1), (7, 0)):
        parts = ask_both(_measure_share, contrast, bound, shares)
        for i, name in enumerate(("sum", "count of anchors", "gradient", "gradient of the bank")):
            require(
                close(sum(part[i] for part in parts), whole[i]),
                contrast,
                f"has another {name} on two workers with {shares[0]} and {shares[1]} images",
                "Sum over this worker's own anchors, and gather candidates of all workers with "
                "sadcl.distributed.all_gather_rows",
            )


def _embeddings() -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(3)
    shape = _IMAGES, _LABELS, _SIZE
    embeddings_NLP = torch.randn(shape, generator=generator, dtype=torch.float64)
    targets_NL = (torch.rand(_IMAGES, _LABELS, generator=generator) < 0.6).to(torch.int8)
    targets_NL[torch.rand(_IMAGES, _LABELS, generator=generator) < 0.15] = -1
    targets_NL[2] = targets_NL[2].clamp(max=0)
    bank_MP = torch.randn(_ROWS, _SIZE, generator=generator, dtype=torch.float64)
    return embeddings_NLP, targets_NL, bank_MP


def _view(
    embeddings_BLP: Tensor, targets_BL: Tensor, bank_MP: Tensor, padding: int = 0
) -> ContrastView:
    rows = len(bank_MP)
    labels_M, positions_M = torch.arange(rows) % _LABELS, torch.arange(rows)
    index_A = positive_index(targets_BL)
    weight_B = torch.ones(len(targets_BL))
    weight_B[len(targets_BL) - padding :] = 0
    return ContrastView(
        embeddings_BLP,
        embeddings_BLP.flatten(0, 1).index_select(0, index_A),
        targets_BL,
        weight_B,
        index_A,
        bank_MP,
        Memory(bank_MP.detach(), labels_M, positions_M, False),
    )


def _measure(
    function: Callable[..., Any],
    embeddings_BLP: Tensor,
    targets_BL: Tensor,
    bank_MP: Tensor,
    padding: int = 0,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return sum, count, and the gradients of embeddings and bank."""
    embeddings_BLP = embeddings_BLP.clone().requires_grad_()
    bank_MP = bank_MP.clone().requires_grad_()
    with attempt(function, "on a view", "See the error"):
        returned = function(_view(embeddings_BLP, targets_BL, bank_MP, padding))
    require(
        isinstance(returned, ContrastSum)
        and all(part is None or part.dim() == 0 for part in returned),
        function,
        f"returns {type(returned).__name__}",
        "Return sadcl.losses.ContrastSum of two scalars",
    )
    require(
        returned.total.requires_grad and bool(returned.total.isfinite()),
        function,
        f"is {float(returned.total.detach()):g}, without a gradient or not finite",
        "A worker without anchors needs a gradient too: the others wait for it",
    )
    leaves = embeddings_BLP, bank_MP
    gradients = torch.autograd.grad(returned.total, leaves, allow_unused=True)
    found = [
        torch.zeros_like(x) if g is None else g for g, x in zip(gradients, leaves, strict=True)
    ]
    return returned.total.detach(), returned.counted.detach(), found[0], found[1]


def _check_half_precision(contrast: Callable[..., Any], function: Callable[..., Any]) -> None:
    embeddings_NLP, targets_NL, bank_MP = _embeddings()
    exact = function(_view(embeddings_NLP.bfloat16().double(), targets_NL, bank_MP.bfloat16()))
    with (
        attempt(contrast, "in bfloat16 under autocast", "optim.precision = 'bf16' needs it"),
        torch.autocast("cpu", dtype=torch.bfloat16),
    ):
        half = function(_view(embeddings_NLP.bfloat16(), targets_NL, bank_MP.bfloat16()))
    require(
        half.total.dtype == torch.float32 and close(half.total, exact.total, 1e-3),
        contrast,
        f"is {float(half.total):g} in {half.total.dtype} for embeddings in bfloat16, and "
        f"{float(exact.total):g} in float64",
        "Compare in float32: with torch.autocast(device, enabled=False) and rows.float()",
    )


def _measure_share(
    contrast: Callable[..., Any], bound: dict[str, Any], shares: tuple[int, ...]
) -> tuple[Tensor, ...]:
    """Return what :func:`_measure` does on this worker; gradients have the places of all images."""
    function = partial(contrast, temperature=0.5, **bound)
    embeddings_NLP, targets_NL, bank_MP = _embeddings()
    rank = distributed.rank()
    start, stop = sum(shares[:rank]), sum(shares[: rank + 1])
    embeddings_BLP, targets_BL = embeddings_NLP[start:stop], targets_NL[start:stop]
    padding = int(start == stop)  # as the loader does, an empty share has a padding image
    if padding:
        embeddings_BLP = embeddings_NLP[:1]
        targets_BL = torch.full_like(targets_NL[:1], -1)
    total, count, gradient_BLP, bank = _measure(
        function, embeddings_BLP, targets_BL, bank_MP, padding
    )
    gradient_NLP = torch.zeros_like(embeddings_NLP)
    if not padding:
        gradient_NLP[start:stop] = gradient_BLP
    return total, count, gradient_NLP, bank
