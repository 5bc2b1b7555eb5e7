"""The command line of an experiment's file and of ``sadcl run``.

Flags say where a study runs and how much of it; what is computed is in the file, and ``--set``
changes a field of it. Flags are read before PyTorch or Ray are imported, so that ``--help`` and a
mistyped flag are answered at once.
"""

from __future__ import annotations

import argparse
import dataclasses
import difflib
import re
import sys
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NoReturn

from sadcl.cli.mistakes import mistake_text
from sadcl.config import Config
from sadcl.config.fields import parse_changes, value_text
from sadcl.console import banner, guarded, print_text
from sadcl.errors import UserError, print_error
from sadcl.launch.options import SEARCH_ONLY, Options, StartOptions, TrainOptions
from sadcl.search import Ablation, Comparison, Search
from sadcl.search.changes import changed_config

if TYPE_CHECKING:
    from sadcl.launch.outcome import Run

calls = 0
"""Command lines read in this process: ``sadcl run`` sees by it whether a file runs its study."""


def main(
    study: Search | Ablation | Comparison | Sequence[Search],
    arguments: Sequence[str] | None = None,
) -> None:
    """Run a study, or several searches one after the other, as the command line says.

    Args:
        study: What to find out.
        arguments: The flags; None takes those of this process.
    """
    if isinstance(study, Search | Ablation | Comparison):
        question = study.question
    else:
        question = "; ".join(search.question for search in study)
    skip = SEARCH_ONLY if isinstance(study, Ablation) else ()
    options = _parse(question, Options, arguments, skip=skip)
    with guarded():
        options["data_root"] = _parse_roots(options["data_root"])
        options["changes"] = parse_changes(options["changes"] or ())
        from sadcl.launch.run import run
        from sadcl.study.process import away_from_start_folder

        with away_from_start_folder():
            run(study, **options)


def main_train(
    config: Config, demo: Config, name: str, arguments: Sequence[str] | None = None
) -> None:
    """Train one configuration as the command line says.

    Args:
        config: At full scale.
        demo: At demo scale; without a data root it is trained on the drawn scenes.
        name: The study that the run's row belongs to; at demo scale ``-demo`` is added.
        arguments: The flags; None takes those of this process.
    """
    options = _parse(f"Train {name}.", TrainOptions, arguments, skip=("name",), is_training=True)
    seed, texts = options.pop("seed"), options.pop("changes")
    dry_run = options.pop("dry_run")
    name = options.pop("name") or name
    with guarded():
        changes = _training_changes(texts)
        config, demo = (
            changed_config(one, changes, scale) for one, scale in ((config, "full"), (demo, "demo"))
        )
        dataset = config.data.name
        from sadcl.launch.datasets import roots_of, scale_of
        from sadcl.launch.next_steps import print_run_steps
        from sadcl.launch.train import show_plan, train
        from sadcl.study.process import away_from_start_folder

        root = roots_of([dataset], _parse_roots(options["data_root"])).get(dataset)
        scale = scale_of(options["scale"], root)
        if root is None:
            banner("No --data-root: a small network is trained on drawn scenes.", "DEMO SCALE")
        chosen = config if scale == "full" else demo
        if root is not None:
            chosen = chosen.override(
                {"data.name": dataset, "data.arguments": config.data.arguments}
            )
        options |= {"data_root": root, "scale": scale}
        study = name if scale == "full" else f"{name}-demo"
        for field, value in changes.items():
            print_text(f"--set {field} = {value_text(value)}")
        chosen = chosen.override({"seed": seed})
        with away_from_start_folder():
            if dry_run:
                show_plan(chosen, TrainOptions(name=study, **options))
                return
            run = train(chosen, name=study, **options)
            _print_run(run)
            print_run_steps(run, options["storage"], root)


def _training_changes(texts: Sequence[str] | None) -> dict[str, Any]:
    """Read --set of a single run.

    Raises:
        UserError: For the seed, which has a flag of its own, and as :func:`parse_changes` does.
    """
    changes = parse_changes(texts or ())
    if "seed" in changes:
        raise UserError(f"--set seed={changes['seed']} is not possible: --seed is the flag for it.")
    return changes


def _print_run(run: Run) -> None:
    splits = (("val", "held-out"), ("test", "test"))
    metrics = [(word, run.metrics.get(f"{split}_mAP")) for split, word in splits]
    text = ", ".join(f"{word} mAP {value:.2f}" for word, value in metrics if value is not None)
    print_text(f"{text} ({run['weights']} weights)")
    print_text(f"checkpoint: {run.checkpoint}")


def _parse(
    description: str,
    kind: type[StartOptions],
    arguments: Sequence[str] | None,
    *,
    skip: Sequence[str] = (),
    is_training: bool = False,
) -> dict[str, Any]:
    """Read flags.

    Args:
        description: The first line of the help.
        kind: The options that there are flags for.
        arguments: The flags; None takes those of this process.
        skip: Options without a flag.
        is_training: Whether there are flags for the seed, for the name, for changes of the
            configuration and for a dry run, which are no options of a single run.

    Returns:
        The options by name.
    """
    global calls
    calls += 1
    parser = _Parser(description=description.replace("%", "%%"), add_help=False)
    parser.add_argument("-h", "--help", action="help", help="Show this message and exit.")
    for one in dataclasses.fields(kind):
        if one.name not in skip:
            _add_flag(parser, one)
    if is_training:
        for field in ("changes", "name", "dry_run"):
            _add_flag(parser, Options.__dataclass_fields__[field])
        parser.add_argument(
            "--seed", type=int, default=0, metavar="N", help="Seed of the run (default: 0)."
        )
    return vars(parser.parse_args(arguments))


def _add_flag(parser: argparse.ArgumentParser, one: dataclasses.Field[Any]) -> None:
    about: Mapping[str, Any] = one.metadata
    flags = about["flags"] or (f"--{one.name.replace('_', '-')}",)
    text = about["help"]
    shared: dict[str, Any] = {"dest": one.name, "help": f"{text[0].upper()}{text[1:]}."}
    if one.default is False:
        parser.add_argument(*flags, action="store_true", **shared)
    elif one.name in ("data_root", "changes"):  # once for each data set, or field
        parser.add_argument(*flags, action="append", metavar=about["metavar"], **shared)
    else:
        parser.add_argument(
            *flags,
            type=about["parse"],
            default=one.default,
            metavar=about["metavar"],
            choices=about["choices"],
            **shared,
        )


class _Parser(argparse.ArgumentParser):
    """Answers a mistake with one paragraph that names the nearest flag, not with the usage."""

    def parse_args(self, args: Any = None, namespace: Any = None) -> Any:
        parsed, unknown = self.parse_known_args(args, namespace)
        if unknown:
            word = unknown[0].split("=")[0]
            if not word.startswith("-"):
                self.error(f"Got unexpected extra argument: {word}")
            near = ", ".join(difflib.get_close_matches(word, self._option_string_actions))
            self.error(f"No such option: {word}" + (f" (Possible options: {near})" if near else ""))
        return parsed

    def error(self, message: str) -> NoReturn:
        sys.exit(print_error(UserError(mistake_text(message))))


def _parse_roots(values: Sequence[str] | None) -> str | dict[str, str] | None:
    """Read the values of --data-root: DIR of the only data set, or NAME=DIR of each of several."""
    if values is None:
        return None
    matches = [re.fullmatch(r"([A-Za-z0-9_-]+)=(.+)", value) for value in values]
    if len(values) == 1 and matches[0] is None:
        return values[0]
    roots: dict[str, str] = {}
    for value, match in zip(values, matches, strict=True):
        if match is None or match[1] in roots:
            raise UserError(
                f"--data-root {value!r} is not possible: with several data sets, give each of them "
                "once as NAME=DIR."
            )
        roots[match[1]] = match[2]
    return roots
