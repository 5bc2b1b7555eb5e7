"""What the contract suites share: the check of a part's arguments, and how they fail."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from sadcl.config import component
from sadcl.errors import UserError, first_line_of


def require(holds: bool, part: Callable[..., Any], problem: str, advice: str) -> None:
    """Raise AssertionError with the name of a part, what is wrong with it, and what to do."""
    if not holds:
        raise AssertionError(f"{name_of(part)} {problem}. {advice}.")


def name_of(part: Callable[..., Any]) -> str:
    """Return the name of a class or function, for messages."""
    part = getattr(part, "func", part)  # of a partial
    return str(getattr(part, "__qualname__", type(part).__name__))


@contextmanager
def attempt(part: Callable[..., Any], what: str, advice: str) -> Iterator[None]:
    """Turn any error of the block into AssertionError with a part's name and what it was to do."""
    try:
        yield
    except AssertionError:
        raise
    except Exception as error:
        reason = first_line_of(error)
        raise AssertionError(
            f"{name_of(part)} fails {what}: {type(error).__name__}: {reason}. {advice}."
        ) from error


def check_arguments(
    part: Callable[..., Any], arguments: Mapping[str, Any], positional: int, given: tuple[str, ...]
) -> dict[str, Any]:
    """Check that a configuration can set a part's arguments, and these ones.

    Args:
        part: a class or function.
        arguments: that it is tested with.
        positional: how many positional arguments the platform calls it with.
        given: keyword arguments that the platform calls it with.

    Returns:
        The arguments in the types of the signature.

    Raises:
        AssertionError: for an argument without a type or a default, or that is not a keyword.
    """
    call = part.__init__ if inspect.isclass(part) else part
    parameters = list(inspect.signature(call).parameters.values())
    if inspect.isclass(part):
        parameters = parameters[1:]
    kinds = inspect.Parameter
    count = sum(p.kind in (kinds.POSITIONAL_ONLY, kinds.POSITIONAL_OR_KEYWORD) for p in parameters)
    if not any(p.kind == kinds.VAR_POSITIONAL for p in parameters):
        require(
            count == positional,
            part,
            f"takes {count} positional arguments, but is called with {positional}",
            "Put '*' before its own arguments, so that they are keywords",
        )
    for name, (hint, default) in component.options_of(part).items():
        if name in given:
            continue
        require(
            default is not kinds.empty,
            part,
            f"has the argument {name!r} without a default",
            "A configuration need not set it: give it a default",
        )
        require(
            hint is not Any,
            part,
            f"has the argument {name!r} without a type",
            "Write one, such as float, so that a mistyped value is found before a run",
        )
    try:
        return component.bind(part, arguments, name_of(part), "arguments", given)
    except UserError as error:
        raise AssertionError(str(error)) from None


def close(left: Tensor, right: Tensor, tolerance: float = 1e-9) -> bool:
    """Tell whether two tensors are equal up to a share of the largest value."""
    size = float(right.detach().abs().max()) if right.numel() else 0.0
    return left.shape == right.shape and torch.allclose(
        left.double(), right.double(), rtol=0, atol=tolerance * max(size, 1e-3)
    )
