"""The tables and what their columns mean."""

from __future__ import annotations

from enum import StrEnum

import pyarrow as pa


class Status(StrEnum):
    """The state of a run, as the column ``status`` of the trials table stores it."""

    RUNNING = "running"
    COMPLETE = "complete"
    PRUNED = "pruned"
    FAILED = "failed"


VERSION = 2
"""Written in every file; a newer file is refused, an older one stays readable."""

_F, _I, _S, _T = pa.float64(), pa.int64(), pa.string(), pa.timestamp("ms", tz="UTC")
_SS, _HH, _BB = (
    pa.list_(pa.field("element", kind)) for kind in (_S, pa.float16(), pa.int8())
)  # as Parquet has them

TRIALS: dict[str, tuple[pa.DataType, str]] = {
    "key": (_S, "identity of the run: study, arm, seed and configuration; one row each"),
    "study": (_S, "the study it belongs to"),
    "phase": (_S, "stage1, baseline, search, confirm or final"),
    "arm": (_S, "name of the setting; 'tuned' where a search chose it"),
    "seed": (_I, "of initialisation, order, augmentation and dropout"),
    "dataset": (_S, "concrete data set"),
    "scale": (_S, "demo or full"),
    "status": (_S, "running, complete, pruned or failed"),
    "cause": (_S, "why it failed, or was stopped early"),
    "params": (_S, "JSON of what the search set"),
    "val_mAP": (
        _F,
        "percent, on the held-out training images that select: interpolated envelope, all points",
    ),
    "test_mAP": (_F, "percent, on the test images that never choose anything; final runs only"),
    "weights": (_S, "raw or ema: which weights the figures come from"),
    "epoch": (_I, "epoch that the figures come from"),
    "epochs_done": (_I, "epochs trained, both stages"),
    "checkpoint": (_S, "URI of the selected weights"),
    "weights_digest": (_S, "of the file of the selected weights"),
    "stage1_key": (_S, "the stage 1 that it started from"),
    "config": (_S, "JSON of the whole configuration"),
    "config_digest": (_S, "of the configuration"),
    "data_digest": (_S, "of labels, file names, targets and split"),
    "start_digest": (_S, "of the checkpoint model.start that the run started from"),
    "seconds": (_F, "training and selection, without a shared stage 1"),
    "images": (_I, "training images seen"),
    "images_per_second": (_F, "images / seconds"),
    "memory_mb": (_F, "peak: of the GPU in this run, or of the process so far on a CPU"),
    "workers": (_I, "training processes"),
    "gpus": (_F, "GPUs of a worker"),
    "cpus": (_I, "CPUs of a worker"),
    "gpu_hours": (_F, "seconds / 3600 x workers x GPUs of a worker; 0 on CPUs"),
    "device": (_S, "what it ran on: the GPU, or cpu"),
    "cpu": (_S, "model of the machine's CPU"),
    "host": (_S, "name of the machine"),
    "sadcl": (_S, "version of this package"),
    "python": (_S, "version"),
    "torch": (_S, "version"),
    "torchvision": (_S, "version"),
    "timm": (_S, "version"),
    "ray": (_S, "version"),
    "optuna": (_S, "version"),
    "numpy": (_S, "version"),
    "pyarrow": (_S, "version"),
    "cuda": (_S, "version that torch was built for; none for CPUs alone"),
    "cudnn": (_S, "version, where there is a GPU"),
    "code": (_S, "hash of this package's sources"),
    "revision": (_S, "git revision where known, with + for changes"),
    "started": (_T, "first start"),
    "ended": (_T, "end, in whatever status"),
    "schema_version": (_I, "of this table"),
}
EPOCHS: dict[str, tuple[pa.DataType, str]] = {
    "key": (_S, "the trial"),
    "study": (_S, "its study"),
    "stage": (_I, "1: SARL alone; 2: with the contrasts"),
    "epoch": (_I, "from 1, within the stage"),
    "val_mAP": (_F, "percent, of the weights that are reported"),
    "val_mAP_raw": (_F, "percent, of the raw weights"),
    "val_mAP_ema": (_F, "percent, of the averaged weights"),
    "loss": (_F, "weighted sum of the terms, mean over the steps"),
    "loss_class": (_F, "Eq. 8"),
    "loss_sample": (_F, "Eq. 4"),
    "loss_prototype": (_F, "Eq. 6"),
    "anchors": (_F, "anchors with a positive, mean over the steps"),
    "counted_labels": (_F, "labels counted by Eq. 6, mean over the steps"),
    "admitted": (_F, "rows admitted to the bank, mean over the labels"),
    "labels_admitted": (_F, "labels with at least one admitted row"),
    "bank_fill": (_F, "valid rows of the bank at the end"),
    "lr": (_F, "learning rate at the end"),
    "seconds": (_F, "training and selection"),
    "images_per_second": (_F, "training alone"),
    "memory_mb": (_F, "peak so far"),
}
LABELS: dict[str, tuple[pa.DataType, str]] = {
    "key": (_S, "the trial"),
    "study": (_S, "its study"),
    "split": (_S, "val or test"),
    "label": (_S, "name"),
    "AP": (_F, "percent; nan where the split has no positive"),
    "P": (_F, "precision at 0.5, percent"),
    "R": (_F, "recall at 0.5, percent"),
    "F1": (_F, "percent"),
    "support": (_F, "images with the label"),
    "pointing": (
        _F,
        "percent of the images with the label whose map is highest inside a box of it; null where not measured",
    ),
    "box_energy": (
        _F,
        "mean share of the map inside the label's boxes, percent; null where not measured",
    ),
    "box_area": (
        _F,
        "mean share of the image inside them, percent: what a map that knows nothing has of both",
    ),
}
PREDICTIONS: dict[str, tuple[pa.DataType, str]] = {
    "key": (_S, "the trial"),
    "study": (_S, "its study"),
    "split": (_S, "val or test"),
    "image": (_S, "file name as the data set has it"),
    "labels": (_SS, "names, in the order of the next two"),
    "logits": (
        _HH,
        "of the reported weights, in float16; a label's score is 1 / (1 + exp(-logit))",
    ),
    "targets": (_BB, "1 shows, 0 does not, -1 is ignored"),
}
STUDIES: dict[str, tuple[pa.DataType, str]] = {
    "study": (_S, "its name"),
    "kind": (_S, "search or ablation"),
    "question": (_S, "what it is to answer"),
    "scale": (_S, "demo or full"),
    "datasets": (_SS, "concrete data sets, as far as they have rows or are named in the study"),
    "base_digest": (
        _S,
        "of the configuration that it starts from; of each data set where there are several",
    ),
    "data_digest": (_S, "of the data; of each data set where there are several"),
    "created": (_T, "when its first run was started"),
    "about": (_S, "JSON of all that is written down about it: space, arms, seeds, ..."),
}
BENCHMARKS: dict[str, tuple[pa.DataType, str]] = {
    "benchmark": (_S, "name of its file in experiments/benchmarks"),
    "what": (_S, "what was measured"),
    "measured": (_T, "when the benchmark was started"),
    "ours": (_F, "median, in the unit"),
    "reference": (_F, "what it stands beside, in the unit; null where nothing was run"),
    "unit": (_S, "of ours, reference, bound and at_most"),
    "ratio": (_F, "how many times better ours is than the reference"),
    "low": (
        _F,
        "lowest ratio of interleaved repeats, or the lower quartile where the benchmark says so",
    ),
    "high": (_F, "highest, or the upper quartile"),
    "bound": (_F, "what the machine cannot pass; null where that is not known"),
    "share": (_F, "of the bound that ours reaches, 0 to 1"),
    "goal": (_F, "ratio to reach"),
    "at_most": (_F, "what ours is to stay within"),
    "reached": (pa.bool_(), "both of these; null where there is neither"),
    "command": (_S, "that measures it again"),
    "quick": (pa.bool_(), "small sizes, to see that it runs: no figure to quote"),
    "threads": (_I, "of torch, as OMP_NUM_THREADS or the number of cores has it"),
    "cores": (_I, "of the CPU that the process may use"),
    "cpu": (_S, "model of the machine's CPU"),
    "device": (_S, "the GPU, or cpu"),
    "host": (_S, "name of the machine"),
    "load": (_F, "processes that wanted to run in the minute before"),
    "sadcl": (_S, "version of this package"),
    "code": (_S, "hash of this package's sources"),
    "revision": (_S, "git revision where known, with + for changes"),
    "python": (_S, "version"),
    "torch": (_S, "version"),
}
BY_RUN = {"trials": TRIALS, "epochs": EPOCHS, "labels": LABELS, "predictions": PREDICTIONS}
"""Tables that each run has a file of its own in."""
TABLES = {**BY_RUN, "studies": STUDIES, "benchmarks": BENCHMARKS}
KEYS = {
    "trials": ("key",),
    "epochs": ("key", "stage", "epoch"),
    "labels": ("key", "split", "label"),
    "predictions": ("key", "split", "image"),
    "studies": ("study",),
    "benchmarks": ("benchmark", "what", "measured"),
}


def table(name: str, rows: list[dict[str, object]]) -> pa.Table:
    """Rows as an Arrow table: the columns of the schema in their types, then what else the rows have.

    Another column's type is float64, bool, text, or none yet where all is null; a value of a known column that does
    not fit is an error of ours.
    """
    known = TABLES[name]
    extra = sorted({column for row in rows for column in row} - known.keys())
    columns = {
        column: pa.array([row.get(column) for row in rows], kind)
        for column, (kind, _) in known.items()
    }
    for column in extra:
        values = [row.get(column) for row in rows]
        there = [v for v in values if v is not None]
        if not there or all(isinstance(v, bool) for v in there):
            columns[column] = pa.array(values)
        elif all(isinstance(v, (int, float)) and not isinstance(v, bool) for v in there):
            columns[column] = pa.array([None if v is None else float(v) for v in values], _F)  # type: ignore[arg-type]
        else:
            columns[column] = pa.array([None if v is None else str(v) for v in values], _S)
    return pa.table(columns).replace_schema_metadata({"sadcl": str(VERSION)})
