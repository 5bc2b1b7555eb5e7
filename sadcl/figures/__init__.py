"""The paper's figures from any checkpoint, each with numbers that test what it seems to show."""

from sadcl.figures.paper import draw_paper
from sadcl.figures.photos import PhotoMaps, draw_maps, map_photo, network_name
from sadcl.figures.prototypes import draw_prototypes
from sadcl.figures.representations import draw_representations

__all__ = [
    "PhotoMaps",
    "draw_maps",
    "draw_paper",
    "draw_prototypes",
    "draw_representations",
    "map_photo",
    "network_name",
]
