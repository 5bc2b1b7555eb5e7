"""The command line of an experiment's file: flags only say where and how much."""

from __future__ import annotations

import argparse
import re
from collections.abc import Sequence

from sadcl.config import Config
from sadcl.console import banner, console, guarded
from sadcl.errors import UserError
from sadcl.launch.datasets import roots_of, scale_of
from sadcl.launch.run import Study, run
from sadcl.launch.train import train
from sadcl.search import Ablation, Search


def main(study: Study | Sequence[Search], arguments: Sequence[str] | None = None) -> None:
    """Run a study, or several searches in turn, from the command line."""
    searches = not isinstance(study, Ablation)
    question = (
        study.question
        if isinstance(study, Search | Ablation)
        else "; ".join(s.question for s in study)
    )
    parser = argparse.ArgumentParser(description=question.replace("%", "%%"))
    _shared_flags(parser)
    parser.add_argument(
        "--max-concurrent", type=int, metavar="N", help="trials at once (default: as many as fit)"
    )
    parser.add_argument(
        "--max-disk",
        type=float,
        metavar="GB",
        help="of checkpoints in the storage (default: what is free)",
    )
    if searches:
        parser.add_argument(
            "--trials", type=int, metavar="N", help="settings that the whole search tries"
        )
        parser.add_argument(
            "--max-epochs", type=int, metavar="N", help="that all trials together train"
        )
        parser.add_argument(
            "--max-hours", type=float, metavar="H", help="that all trials together train"
        )
    parser.add_argument(
        "--scale", choices=("demo", "full"), help="default: full with --data-root, else demo"
    )
    parser.add_argument(
        "--retry-failed", action="store_true", help="run again what failed, with the same settings"
    )
    parser.add_argument(
        "--fresh", action="store_true", help="remove what the study has and start anew"
    )
    parser.add_argument("--dry-run", action="store_true", help="say what would be done, and stop")
    parser.add_argument("--yes", action="store_true", help="ask nothing")
    options = vars(parser.parse_args(arguments))
    with guarded():
        options["data_root"] = _parse_roots(options["data_root"])
        run(study, **options)


def _parse_roots(given: list[str] | None) -> str | dict[str, str] | None:
    """DIR of the one data set, or NAME=DIR of several."""
    if given is None:
        return None
    named = [re.fullmatch(r"([A-Za-z0-9_-]+)=(.+)", text) for text in given]
    if len(given) == 1 and named[0] is None:
        return given[0]
    roots: dict[str, str] = {}
    for text, match in zip(given, named, strict=True):
        if match is None or match[1] in roots:
            raise UserError(
                f"--data-root {text!r}: of several data sets each is given once, as NAME=DIR."
            )
        roots[match[1]] = match[2]
    return roots


def main_train(
    config: Config, demo: Config, name: str, arguments: Sequence[str] | None = None
) -> None:
    """Train one configuration from the command line; without data the demo's, on the embedded scenes."""
    parser = argparse.ArgumentParser(description=f"Train {name}.")
    _shared_flags(
        parser, "; 2:8 takes as many as there is room for, and follows nodes that come or go"
    )
    parser.add_argument("--seed", type=int, default=0, help="of the run (default: 0)")
    parser.add_argument(
        "--scale", choices=("demo", "full"), help="default: full with --data-root, else demo"
    )
    parser.add_argument("--yes", action="store_true", help="ask nothing")
    options = vars(parser.parse_args(arguments))
    seed = options.pop("seed")
    with guarded():
        given = _parse_roots(options["data_root"])
        options["data_root"] = roots_of([config.data.name], given).get(config.data.name)
        scale = scale_of(options.pop("scale"), options["data_root"])
        if options["data_root"] is None:
            banner("no --data-root was given: a small network on embedded scenes.", "DEMO SCALE")
        chosen = config if scale == "full" else demo
        if options["data_root"] is not None:
            chosen = chosen.override({"data.name": config.data.name})
        study_name = name if scale == "full" else f"{name}-demo"
        row = train(chosen.override({"seed": seed}), name=study_name, scale=scale, **options)
        figures = [
            (n, row.get(f"{split}_mAP")) for split, n in (("val", "held-out"), ("test", "test"))
        ]
        text = ", ".join(f"{name} mAP {value:.2f}" for name, value in figures if value is not None)
        console.print(f"{text} ({row['weights']} weights)", highlight=False)
        console.print(f"checkpoint: {row['checkpoint']}", highlight=False)


def _parse_workers(text: str) -> int | str:
    return text if ":" in text else int(text)


def _shared_flags(parser: argparse.ArgumentParser, ranges: str = "") -> None:
    parser.add_argument(
        "--data-root",
        action="append",
        metavar="DIR",
        help="where the data lies (default: embedded scenes, at demo scale); of several data sets NAME=DIR, for each",
    )
    parser.add_argument(
        "--storage",
        default="runs",
        metavar="ROOT",
        help="of tables and checkpoints (default: runs)",
    )
    parser.add_argument(
        "--address",
        help="of a Ray cluster (default: RAY_ADDRESS, else a private one on this machine)",
    )
    parser.add_argument(
        "--workers",
        type=_parse_workers,
        default=1,
        metavar="W",
        help=f"training processes (default: 1){ranges}",
    )
    parser.add_argument(
        "--gpus-per-trial",
        type=float,
        metavar="G",
        help="GPUs of each worker, also a part of one; 0 is the CPU",
    )
