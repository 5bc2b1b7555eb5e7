"""The command ``sadcl train``: one configuration, from a recipe or an experiment's file."""

from __future__ import annotations

import os
import sys
from typing import Annotated

import typer

RECIPES = {
    "coco14": "coco",
    "voc2007": "voc2007",
    "voc2012": "voc2012",
    "nuswide": "nuswide",
    "vg500": "vg500",
}
"""The demo of each recipe."""


def train(
    context: typer.Context,
    what: Annotated[
        str,
        typer.Argument(
            metavar="DATASET|FILE",
            help="A data set with a recipe, such as coco14, or an experiment's Python file.",
        ),
    ],
) -> None:
    """Train the recipe of a data set once, or run a file that trains.

    Without --data-root it trains a small network on drawn scenes. `sadcl train coco14 --help` lists
    the flags, and --set FIELD=VALUE changes a field of the recipe.
    """
    from sadcl import recipes
    from sadcl.cli import experiment, run
    from sadcl.errors import UserError, did_you_mean

    if what.endswith(".py") or os.path.isfile(what):
        run.run(context, what)
        return
    if what not in RECIPES:
        raise UserError(f"There is no recipe for {what!r}{did_you_mean(what, RECIPES)}")
    sys.argv = [f"sadcl train {what}", *context.args]
    config, demo = recipes.by_name(what), recipes.demo(RECIPES[what])
    experiment.main_train(config, demo, name=f"{what}-train", arguments=context.args)
