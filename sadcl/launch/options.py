"""The options of a start: where a run or a study goes, and how much of it there is.

Each option stands here once. The flags of the command line and the keyword arguments of
:func:`sadcl.run` and :func:`sadcl.train` are made from the fields of these classes, whose metadata
has the help text.
"""

from __future__ import annotations

import argparse
import functools
import inspect
import os
import sys
import textwrap
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any, Concatenate, ParamSpec, TypeVar, cast

from sadcl.errors import UserError

P = ParamSpec("P")
Value = TypeVar("Value")
Chosen = TypeVar("Chosen")
Result = TypeVar("Result")

FORMER_NAMES = {"trials": "n_trials", "gpus_per_trial": "gpus_per_worker"}
"""Keyword arguments of before, which still work with a warning."""
_PLACEHOLDER = "**options: those of this start."
"""The line of a docstring that the options take the place of."""
SEARCH_ONLY = ("n_trials", "max_epochs", "max_hours")
"""Options that an ablation refuses, because it runs all of its arms and seeds."""

STUDY_FLAGS = ("data_root", "scale", "n_trials", "max_epochs", "max_hours", "changes", "name")
"""Options that decide what a study computes; the others say where and how fast."""


def option(
    default: Any,
    help_text: str,
    metavar: str = "",
    *,
    parse: Callable[[str], Any] = str,
    flags: Sequence[str] = (),
    choices: Sequence[str] = (),
    docs: str = "",
) -> Any:
    """Declare a field of options.

    Args:
        default: Of the field; ``False`` makes its flag a switch.
        help_text: Of its flag.
        metavar: The word for its value in the help.
        parse: Makes the value from the flag's text.
        flags: The flag's names; one made from the field's name where there are none.
        choices: The only values, where there are few.
        docs: For Python's docstrings, where the flag's help does not fit.
    """
    metadata = {
        "help": help_text,
        "docs": docs or help_text,
        "metavar": metavar or None,
        "parse": parse,
        "flags": tuple(flags),
        "choices": tuple(choices) or None,
    }
    return field(default=default, metadata=metadata)


def _workers(text: str) -> int | str:
    try:
        return text if ":" in text else int(text)
    except ValueError:
        message = "give a whole number or, for a single run, a range such as 2:8"
        raise argparse.ArgumentTypeError(message) from None


@dataclass(frozen=True, kw_only=True)
class StartOptions:
    """Options of every start.

    Raises:
        UserError: For a value that is out of its range, naming the flag.
    """

    data_root: str | Mapping[str, str] | None = option(
        None,
        "where the data set is (default: drawn scenes, at demo scale); with several data sets "
        "NAME=DIR, once for each",
        "DIR",
        docs="where the data set is; with several data sets a mapping from data.name to its "
        "folder, and those without one are left out. None trains on drawn scenes, at demo scale",
    )
    storage: str = option(
        "runs",
        "root of tables and checkpoints: a folder, s3://... or gs://... (default: runs)",
        "ROOT",
    )
    address: str | None = option(
        None,
        "Ray cluster to join (default: RAY_ADDRESS, else a private cluster on this machine)",
        "ADDRESS",
    )
    workers: int | str = option(
        1, "training processes of each run (default: 1)", "W", parse=_workers
    )
    gpus_per_worker: float | None = option(
        None,
        "GPU of each worker, not of the whole trial: 0 (the CPU), 1, or a fraction, with which "
        "runs share a GPU (default: 1 if there is any GPU); --gpus-per-trial is the former name",
        "G",
        parse=float,
        flags=("--gpus-per-worker", "--gpus-per-trial"),
    )
    scale: str | None = option(
        None,
        "size of networks and images (default: full with --data-root, else demo)",
        choices=("demo", "full"),
    )
    yes: bool = option(False, "answer every question with yes")


@dataclass(frozen=True, kw_only=True)
class TrainOptions(StartOptions):
    """Options of a single run."""

    workers: int | str = option(
        1,
        "training processes (default: 1); a range such as 2:8 takes as many as there is room for, "
        "and follows nodes that come and go",
        "W",
        parse=_workers,
    )
    name: str = field(default="train", metadata={"docs": "study that the run's row belongs to"})


@dataclass(frozen=True, kw_only=True)
class Options(StartOptions):
    """Options of a study."""

    workers: int = option(1, "training processes of each trial (default: 1)", "W", parse=_workers)
    max_concurrent: int | None = option(
        None, "most trials at the same time (default: as many as fit)", "N", parse=int
    )
    max_disk: float | None = option(
        None,
        "most GB of checkpoints in the storage (default: what the disk has free); a search "
        "removes those of its worst trials to stay below",
        "GB",
        parse=float,
    )
    n_trials: int | None = option(
        None,
        "settings that the search tries in all, those of earlier starts included (default: the "
        "experiment's own)",
        "N",
        parse=int,
        flags=("--trials", "--n-trials"),
    )
    max_epochs: int | None = option(
        None, "start no further trial after so many epochs, summed over trials", "N", parse=int
    )
    max_hours: float | None = option(
        None, "start no further trial after so many hours, summed over trials", "H", parse=float
    )
    changes: Mapping[str, Any] | None = option(
        None,
        "a field of the configuration with another value than the file's, at both scales, such as "
        "loss.tau=0.1; may be repeated; `sadcl config fields` lists the fields",
        "FIELD=VALUE",
        flags=("--set",),
        docs="fields of the study's base, at both scales, with other values than it has, by dotted "
        "name",
    )
    name: str | None = option(
        None,
        "another name for the study, which keeps it apart from one that is there (default: the "
        "experiment's own)",
        "NAME",
    )
    retry_failed: bool = option(False, "run failed trials again, with the same settings")
    fresh: bool = option(False, "remove everything the study has and start anew")
    dry_run: bool = option(False, "print the plan and stop; no cluster is needed")

    def __post_init__(self) -> None:
        if isinstance(self.workers, str):
            raise UserError(
                f"--workers {self.workers} is not possible here: the trials of a study have one "
                "fixed number of workers, as in --workers 2. Ranges are for single runs "
                "(experiments/train_coco.py, sadcl.train)."
            )
        for name in ("workers", "max_concurrent", "n_trials", "max_epochs"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise UserError(f"{flag(name)} {value} is not possible: it must be at least 1.")
        for name in ("max_hours", "max_disk"):
            value = getattr(self, name)
            if value is not None and not value > 0:
                raise UserError(f"{flag(name)} {value:g} is not possible: it must be above 0.")


def flag(name: str) -> str:
    """The flag of an option of a study."""
    flags = Options.__dataclass_fields__[name].metadata["flags"]
    return str(flags[0]) if flags else f"--{name.replace('_', '-')}"


def parse_workers(text: str | int) -> tuple[int, int]:
    """Read a number of workers.

    Args:
        text: ``8``, or a range such as ``2:8`` for as many as there is room for.

    Returns:
        The least number of workers, and the most; 0 where the number is fixed.

    Raises:
        UserError: For anything else.
    """
    first, colon, second = str(text).partition(":")
    try:
        least, most = int(first), int(second) if colon else 0
    except ValueError:
        raise UserError(
            f"--workers {text} is not possible: give a number, or a range such as 2:8."
        ) from None
    if least < 1:
        raise UserError(f"--workers {text} is not possible: it must be at least 1.")
    if colon and most <= least:
        raise UserError(
            f"--workers {text} is not possible: the second number must be the larger one, as in "
            "2:8."
        )
    return least, most


def takes_options(
    kind: Callable[P, Chosen],
) -> Callable[[Callable[[Value, Chosen], Result]], Callable[Concatenate[Value, P], Result]]:
    """Turn a function ``f(value, options)`` into one that takes ``f(value, **options)``.

    Its signature, for editors and type checkers, has the names of all options, and its docstring
    their help. Names of before (:data:`FORMER_NAMES`) work with a DeprecationWarning.

    Args:
        kind: The class of the options.
    """

    def decorate(
        function: Callable[[Value, Chosen], Result],
    ) -> Callable[Concatenate[Value, P], Result]:
        first = next(iter(inspect.signature(function).parameters.values()))
        options = inspect.signature(kind).parameters.values()
        signature = inspect.signature(function).replace(parameters=[first, *options])

        @functools.wraps(function)
        def start(*args: Any, **kwargs: Any) -> Result:
            _check_is_no_import(function.__name__)
            for former in FORMER_NAMES.keys() & kwargs.keys():
                name = FORMER_NAMES[former]
                warnings.warn(f"{former}= is called {name}= now", DeprecationWarning, stacklevel=2)
                if name in kwargs:
                    raise TypeError(f"give {name}= only, not both {name}= and {former}=")
                kwargs[name] = kwargs.pop(former)
            bound = signature.bind(*args, **kwargs).arguments
            value = bound.pop(first.name)
            return function(value, kind(**bound))  # type: ignore[call-arg]

        start.__signature__ = signature  # type: ignore[attr-defined]
        start.__doc__ = _with_options(function.__doc__ or "", cast(type, kind))
        return cast(Callable[Concatenate[Value, P], Result], start)

    return decorate


def _check_is_no_import(function: str) -> None:
    """Check that this is not the user's script being imported, which would start it twice.

    A script is imported where it has a part such as a head that its configuration names, here and
    on the workers, and by the processes that it starts with ``multiprocessing``.

    Raises:
        UserError: Where it is.
    """
    frame = sys._getframe(2)
    while frame.f_code.co_name != "<module>":
        if frame.f_back is None:
            return
        frame = frame.f_back
    name, file = frame.f_globals.get("__name__"), frame.f_globals.get("__file__")
    main = getattr(sys.modules["__main__"], "__file__", None) or ""
    is_main = file is not None and os.path.abspath(file) == os.path.abspath(main)
    on_worker = os.path.basename(main) == "default_worker.py"  # of Ray
    if name == "__mp_main__" or (name != "__main__" and (is_main or on_worker)):
        raise UserError(
            f"{file}, line {frame.f_lineno}, starts sadcl.{function} while the file is imported as "
            f"{name!r}, so that it would start twice. Put what starts it below `if __name__ == "
            '"__main__":`.'
        )


def _with_options(text: str, kind: type) -> str:
    """Put the options below ``Args:`` of a docstring, after the first argument."""
    paragraphs = [textwrap.fill(f"{one.name}: {one.metadata['docs']}.", 92) for one in fields(kind)]
    return text.replace(_PLACEHOLDER, textwrap.indent("\n".join(paragraphs), " " * 8).lstrip())
