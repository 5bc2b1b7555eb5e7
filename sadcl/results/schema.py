"""The tables, their columns and what the columns mean.

Each table is a dictionary from column name to Arrow type and meaning. The trials table also has the
columns of ``trial_columns``: each field of the configuration (``loss_tau``, ...) and each metric
(``val_CF1``, ...). :func:`columns_of` has both.

Rows may have more columns than these: those of one's own metrics.
"""

from __future__ import annotations

import pyarrow as pa

from sadcl.results.status import Status
from sadcl.results.trial_columns import trial_columns

PHASES = {
    "stage1": "a first stage that other runs start from",
    "baseline": "a baseline of a search",
    "search": "a setting that a search tries",
    "confirm": "one of the best settings, or a baseline, again over other seeds",
    "final": "the chosen setting, trained on all training images",
    "arm": "an arm of an ablation",
    "train": "a single run",
}
"""What a run is for, by its phase; the column ``phase`` of the trials table."""
VERSION = 3
"""Written in every file; a file of a newer version is refused, an older one stays readable."""

Columns = dict[str, tuple[pa.DataType, str]]
_FLOAT, _INT, _BOOL = pa.float64(), pa.int64(), pa.bool_()
_TEXT, _TIME = pa.string(), pa.timestamp("ms", tz="UTC")
# Parquet calls the items of a list "element": with another name a column would change its type when
# it is read back.
_TEXTS, _HALVES, _BYTES = (
    pa.list_(pa.field("element", kind)) for kind in (pa.string(), pa.float16(), pa.int8())
)
_AT_END = "; null until the run is complete or pruned"
_CODE: Columns = {
    "sadcl": (_TEXT, "version of this package; null where it is not installed"),
    "code": (_TEXT, "hash of this package's Python sources"),
    "revision": (
        _TEXT,
        "git revision of the sources, with + for uncommitted changes; null outside a checkout",
    ),
    "python": (_TEXT, "version of Python"),
    "torch": (_TEXT, "version of torch; null where it is not installed"),
}
"""Columns that trials and benchmarks share."""

TRIALS: Columns = {
    "key": (
        _TEXT,
        "identity of the run, made of study, arm, seed and configuration; one row per key",
    ),
    "study": (_TEXT, "name of the study that started the run"),
    "phase": (
        _TEXT,
        "what the run is for: "
        + "; ".join(f"{phase}, {meaning}" for phase, meaning in PHASES.items()),
    ),
    "arm": (_TEXT, "name of the setting; 'tuned' where a search chose it"),
    "seed": (_INT, "seed of initialisation, image order, augmentation and dropout"),
    "dataset": (_TEXT, "name of the data set, as concrete as coco14"),
    "scale": (_TEXT, "demo or full"),
    "status": (_TEXT, f"one of {', '.join(Status)}"),
    "cause": (_TEXT, "why the run failed, was stopped early or has to resume; null otherwise"),
    "params": (
        _TEXT,
        "JSON object of the fields that a search set, with their values; {} without a search",
    ),
    "val_mAP": (
        _FLOAT,
        "percent, on the held-out training images, which choose epoch and weights: area under the "
        "interpolated precision envelope, mean over the labels; null where no image is held out, "
        "as in the phase final, and until the run is complete or pruned; nan where no label has a "
        "positive",
    ),
    "test_mAP": (
        _FLOAT,
        "percent, on the test images, which never choose anything: measured once, at the end of "
        "runs of the phases arm, confirm, final and train; null in the other phases, and where the "
        "labels of the test images are unknown; nan where no label has a positive",
    ),
    "weights": (
        _TEXT,
        "the weights that the figures come from: raw, or ema for their moving average" + _AT_END,
    ),
    "epoch": (_INT, "the epoch that the figures come from, counted from 1 in its stage" + _AT_END),
    "epochs_done": (
        _INT,
        "count of the epochs that this run has rows of, in both stages; null until it ends",
    ),
    "checkpoint": (
        _TEXT,
        "path of the selected weights below the storage's root; of a row of an older version it is "
        "absolute, and what follows checkpoints/ or stage1/ counts" + _AT_END + ", and where they "
        "were deleted",
    ),
    "weights_digest": (_TEXT, "hash of the checkpoint's bytes" + _AT_END),
    "stage1_key": (_TEXT, "key of the stage-1 run that it started from; null where it shares none"),
    "config": (_TEXT, "JSON of the whole configuration"),
    "config_digest": (_TEXT, "hash of the configuration"),
    "data_digest": (
        _TEXT,
        "hash of labels, file names, targets and split; null where the data could not be read",
    ),
    "start_digest": (
        _TEXT,
        "hash of the checkpoint model.start that the run started from; null without one",
    ),
    "seconds": (
        _FLOAT,
        "seconds of training and selection, without a shared stage 1 and the test images" + _AT_END,
    ),
    "images": (_INT, "count of the training images seen, each once per epoch" + _AT_END),
    "images_per_second": (_FLOAT, "images / seconds" + _AT_END),
    "memory_mb": (
        _FLOAT,
        "peak memory in MB of 2^20 bytes: of the GPU in this run, on a CPU of the process since "
        "its start" + _AT_END,
    ),
    "precision": (
        _TEXT,
        "fp32, bf16 or fp64: the floating-point precision that the run had; optim_precision may "
        "leave it to the device; bf16 then fp32, for example, if it was resumed on another kind of "
        "device" + _AT_END,
    ),
    "features": (
        _TEXT,
        "what the run read in place of images, in words: stored feature maps of a backbone that "
        "is frozen whole, and which augmentation had no effect then; null where the backbone "
        "computed every step",
    ),
    "input_mean": (
        _TEXT,
        "JSON list: mean of red, green and blue, 0 to 1, that was subtracted from the images: the "
        "one of the backbone's weights where data_mean is null" + _AT_END,
    ),
    "input_std": (
        _TEXT,
        "JSON list: standard deviation that the images were divided by then" + _AT_END,
    ),
    "workers": (_INT, "count of training processes"),
    "gpus": (_FLOAT, "GPUs per worker"),
    "cpus": (_INT, "CPUs per worker"),
    "gpu_hours": (_FLOAT, "seconds / 3600 x workers x GPUs per worker; 0 on CPUs" + _AT_END),
    "device": (_TEXT, "name of the GPU, or cpu"),
    "cpu": (_TEXT, "model of the machine's CPU"),
    "host": (_TEXT, "name of the machine"),
    "sadcl": _CODE["sadcl"],
    "python": _CODE["python"],
    "torch": _CODE["torch"],
    **{
        name: (_TEXT, f"version of {name}; null where it is not installed")
        for name in ("torchvision", "timm", "ray", "optuna", "numpy", "pyarrow")
    },
    "cuda": (_TEXT, "version of CUDA that torch was built for; null where it was built for CPUs"),
    "cudnn": (_TEXT, "version of cuDNN; null without a GPU"),
    "code": _CODE["code"],
    "revision": _CODE["revision"],
    "started": (_TIME, "UTC time of the run's first start"),
    "ended": (_TIME, "UTC time at which the run ended, in whatever status; null until then"),
    "schema_version": (_INT, "version of this schema when the row was written"),
}
EPOCHS: Columns = {
    "key": (_TEXT, "key of the trial"),
    "study": (_TEXT, "study of the trial"),
    "stage": (_INT, "1: SARL alone; 2: with the contrasts"),
    "epoch": (_INT, "counted from 1 within the stage"),
    "val_mAP": (
        _FLOAT,
        "percent, on the held-out training images, of the weights that are reported; null without "
        "such images",
    ),
    "val_mAP_raw": (_FLOAT, "the same of the raw weights"),
    "val_mAP_ema": (_FLOAT, "the same of their moving average; null where none is kept"),
    "loss": (_FLOAT, "weighted sum of the terms, mean over the steps"),
    "loss_class": (_FLOAT, "the classification loss, Eq. 8, mean over the steps"),
    "loss_sample": (
        _FLOAT,
        "the sample-to-sample loss, Eq. 4, mean over the steps; null without that contrast",
    ),
    "loss_prototype": (
        _FLOAT,
        "the prototype-to-sample loss, Eq. 6, mean over the steps; null without that contrast",
    ),
    "anchors": (
        _FLOAT,
        "count of the anchors with a positive, mean over the steps; null without Eq. 4",
    ),
    "counted_labels": (
        _FLOAT,
        "count of the labels in Eq. 6, mean over the steps; null without Eq. 6",
    ),
    **{
        f"gradient_{term}": (
            _FLOAT,
            f"norm of the gradient of {name} at the label features, mean over four steps, in "
            f"the unit of loss; null without contrasts{null}",
        )
        for term, name, null in (
            ("class", "the weighted classification loss", ""),
            ("sample", "the weighted Eq. 4", " or without that one"),
            ("prototype", "the weighted Eq. 6", " or without that one"),
        )
    },
    "admitted": (
        _FLOAT,
        "count of the rows admitted to the bank in this epoch, mean over the labels; null without "
        "a bank",
    ),
    "labels_admitted": (
        _FLOAT,
        "count of the labels with at least one row admitted in this epoch; null without a bank",
    ),
    "bank_fill": (_FLOAT, "count of the bank's valid rows at the epoch's end; null without a bank"),
    "lr": (_FLOAT, "learning rate at the epoch's end"),
    "seconds": (_FLOAT, "seconds of training and selection"),
    "images_per_second": (
        _FLOAT,
        "of training alone; null where the run was resumed after the last step",
    ),
    "memory_mb": (_FLOAT, "peak memory so far, in MB as in trials"),
}
LABELS: Columns = {
    "key": (_TEXT, "key of the trial"),
    "study": (_TEXT, "study of the trial"),
    "split": (_TEXT, "val or test"),
    "label": (_TEXT, "name of the label"),
    "AP": (_FLOAT, "average precision in percent; nan where the split has no positive"),
    "P": (_FLOAT, "precision at 0.5 in percent; 0 where the label is never predicted"),
    "R": (_FLOAT, "recall at 0.5 in percent; nan where the split has no positive"),
    "F1": (_FLOAT, "F1 at 0.5 in percent; nan where the split has no positive"),
    "support": (_FLOAT, "count of the images with the label"),
    "pointing": (
        _FLOAT,
        "percent of the images with the label whose attention map is highest inside a box of it; "
        "null where not measured",
    ),
    "box_energy": (
        _FLOAT,
        "mean share of the attention map inside the label's boxes, in percent; null where not "
        "measured",
    ),
    "box_area": (
        _FLOAT,
        "mean share of the image inside the label's boxes, in percent: what a map that is the same "
        "everywhere has as box_energy; null where not measured",
    ),
}
PREDICTIONS: Columns = {
    "key": (_TEXT, "key of the trial"),
    "study": (_TEXT, "study of the trial"),
    "split": (_TEXT, "val or test"),
    "image": (_TEXT, "file name in the data set"),
    "labels": (_TEXTS, "names of the labels, in the order of logits and targets"),
    "logits": (
        _HALVES,
        "logits of the reported weights, in float16; a label's score is 1 / (1 + exp(-logit))",
    ),
    "targets": (_BYTES, "1 the image shows the label, 0 it does not, -1 is ignored"),
}
STUDIES: Columns = {
    "study": (_TEXT, "name of the study"),
    "kind": (_TEXT, "search or ablation; null without a description, as for single runs"),
    "question": (_TEXT, "the question that it is to answer; null without a description"),
    "scale": (_TEXT, "demo or full"),
    "datasets": (_TEXTS, "concrete data sets that its description or its rows name"),
    "base_digest": (
        _TEXT,
        "hash of the base configuration, one for each data set; null without a description",
    ),
    "data_digest": (_TEXT, "hash of the data, one for each data set; null without a description"),
    "created": (_TIME, "UTC time at which its first run started; null before that"),
    "about": (
        _TEXT,
        "JSON of its whole description: space, arms, seeds, ...; null without a description",
    ),
}
BENCHMARKS: Columns = {
    "benchmark": (_TEXT, "name of its file in experiments/benchmarks"),
    "what": (_TEXT, "what was measured"),
    "measured": (_TIME, "UTC time at which the benchmark started"),
    "ours": (_FLOAT, "median of this package's measurements, in the unit"),
    "reference": (
        _FLOAT,
        "median of what it is compared with, in the unit; null where nothing was run",
    ),
    "unit": (_TEXT, "unit of ours, reference, bound and at_most"),
    "ratio": (
        _FLOAT,
        "how many times better ours is than the reference; null without a reference",
    ),
    "low": (
        _FLOAT,
        "lowest ratio of interleaved repeats, or the lower quartile where the benchmark says so; "
        "null without repeats",
    ),
    "high": (_FLOAT, "highest ratio, or the upper quartile; null without repeats"),
    "bound": (_FLOAT, "the best that the machine could reach, in the unit; null where unknown"),
    "share": (_FLOAT, "share of the bound that ours reaches, 0 to 1; null without a bound"),
    "goal": (_FLOAT, "the least ratio to reach; null without a goal"),
    "at_most": (_FLOAT, "the most that ours may be, in the unit; null without a limit"),
    "reached": (_BOOL, "whether goal and at_most are met; null where there is neither"),
    "command": (_TEXT, "the command that measures it again"),
    "quick": (_BOOL, "measured with small sizes, to see that it runs: not a figure to quote"),
    "threads": (_INT, "count of torch's threads"),
    "cores": (_INT, "count of the CPU's cores that the process may use"),
    "cpu": (_TEXT, "model of the machine's CPU"),
    "device": (_TEXT, "name of the GPU, or cpu"),
    "host": (_TEXT, "name of the machine"),
    "load": (_FLOAT, "mean count of runnable processes in the minute before"),
    **_CODE,
}
TRIAL_TABLES = {"trials": TRIALS, "epochs": EPOCHS, "labels": LABELS, "predictions": PREDICTIONS}
"""Tables with rows by trial; each run has a file of its own in each of them."""
TABLES = {**TRIAL_TABLES, "studies": STUDIES, "benchmarks": BENCHMARKS}
KEYS = {
    "trials": ("key",),
    "epochs": ("key", "stage", "epoch"),
    "labels": ("key", "split", "label"),
    "predictions": ("key", "split", "image"),
    "studies": ("study",),
    "benchmarks": ("benchmark", "what", "measured"),
}
"""The columns that identify a row."""


def columns_of(table: str) -> Columns:
    """Return all columns that this package writes to a table."""
    columns = TABLES[table]
    return {**trial_columns(), **columns} if table == "trials" else columns


def to_table(name: str, rows: list[dict[str, object]]) -> pa.Table:
    """Make an Arrow table: the schema's columns in their types, then the rows' others by name.

    The type of another column is float64, bool or text as its values need, and so is that of a
    configuration field whose value does not fit its type. Another column without any value is left
    out, because it would have no type.

    Args:
        name: of the table.
        rows: values by column; a missing column is null.

    Raises:
        pa.ArrowInvalid, pa.ArrowTypeError: for a value that does not fit a column of the schema,
            which is a bug.
    """
    fixed = TABLES[name]
    columns = {
        column: pa.array([row.get(column) for row in rows], kind)
        for column, (kind, _) in fixed.items()
    }
    derived = {} if name != "trials" else trial_columns()
    for column, (kind, _) in derived.items():
        if column not in fixed:
            columns[column] = _array([row.get(column) for row in rows], kind)
    for column in sorted({column for row in rows for column in row} - columns.keys()):
        values = _array([row.get(column) for row in rows])
        if values.null_count < len(values):
            columns[column] = values
    return pa.table(columns).replace_schema_metadata(metadata())


def empty_table(name: str) -> pa.Table:
    """Make a table without rows of the columns that are written out here, in their order.

    Queries begin with it, so it does not import the configuration.
    """
    columns = pa.schema([(column, kind) for column, (kind, _) in TABLES[name].items()])
    return columns.empty_table().replace_schema_metadata(metadata())


def metadata() -> dict[str, str]:
    """Return the metadata of every table's files: the version of the schema."""
    return {"sadcl": str(VERSION)}


def _array(values: list[object], kind: pa.DataType | None = None) -> pa.Array:
    """Make a column of the type that its values need, or of ``kind`` if they fit it."""
    present = [value for value in values if value is not None]
    if all(isinstance(value, bool) for value in present):
        needed = pa.bool_()
    elif all(isinstance(value, (int, float)) and not isinstance(value, bool) for value in present):
        needed = _FLOAT
        values = [None if value is None else float(value) for value in values]  # type: ignore[arg-type]
    else:
        needed = _TEXT
        values = [None if value is None else str(value) for value in values]
    if kind == _TEXT and needed != _TEXT:
        values = [None if value is None else str(value) for value in values]
    return pa.array(values, kind if kind in (needed, _TEXT) or not present else needed)
