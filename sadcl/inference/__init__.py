"""Use a checkpoint: evaluate it, label photographs with it, and show where it looks."""

from sadcl.inference.evaluation import (
    CheckpointWithData,
    Evaluation,
    evaluate,
    load,
    localise,
    open_with_data,
    voc2012_submission,
)
from sadcl.inference.predictor import Explanation, LabelMaps, Predictor

__all__ = [
    "CheckpointWithData",
    "Evaluation",
    "Explanation",
    "LabelMaps",
    "Predictor",
    "evaluate",
    "load",
    "localise",
    "open_with_data",
    "voc2012_submission",
]
