"""The paper's figures from any checkpoint, each with a number that says whether what it shows is so."""

from sadcl.figures.paper import draw_paper
from sadcl.figures.photos import Shown, draw_maps, name_of, show
from sadcl.figures.prototypes import draw_prototypes
from sadcl.figures.representations import draw_representations

__all__ = [
    "Shown",
    "draw_maps",
    "draw_paper",
    "draw_prototypes",
    "draw_representations",
    "name_of",
    "show",
]
