"""Runs written by hand, for tests of the tables."""

from __future__ import annotations

from sadcl.results import RunWriter


def run(
    root,
    key="k",
    *,
    study="s",
    phase="search",
    epochs=2,
    status="complete",
    figures=None,
    config=None,
    **row,
):
    text = config.json_text() if config is not None else None
    known = {"config": text, "config_digest": config.digest() if config else None} if config else {}
    writer = RunWriter(
        str(root),
        key,
        {"study": study, "phase": phase, "arm": "tuned", "params": "{}", **known, **row},
    )
    for epoch in range(1, epochs + 1):
        writer.epoch({"stage": 2, "epoch": epoch, "val_mAP": 50.0 + epoch})
    if status != "running":
        labels = [{"split": "val", "label": label, "AP": 50.0} for label in ("cat", "dog")]
        writer.finish(status, metrics=figures or {"val_mAP": 52.0}, labels=labels)
    return writer


ROW = {
    "study": "s",
    "phase": "search",
    "arm": "tuned",
    "seed": 0,
    "scale": "demo",
    "params": '{"loss.tau": 0.1}',
}


def complete_trial(root, key="s-tuned-s0-a", *, mAP=50.0, epochs=2, status="complete", **row):
    writer = RunWriter(str(root), key, {**ROW, **row})
    for epoch in range(1, epochs + 1):
        writer.epoch(
            {"stage": 2, "epoch": epoch, "val_mAP": mAP - epochs + epoch, "loss": 1.0 / epoch}
        )
    labels = [{"split": "val", "label": name, "AP": mAP, "support": 3.0} for name in ("cat", "dog")]
    writer.finish(status, metrics={"val_mAP": mAP, "epoch": epochs}, labels=labels)
    return writer


def trial(root, key, *, status="complete", epochs=3, value=50.0, **row):
    writer = RunWriter(str(root), key, {"study": "s", "phase": "search", "arm": "tuned", **row})
    for epoch in range(1, epochs + 1):
        writer.epoch({"stage": 2, "epoch": epoch, "val_mAP": value})
    if status != "running":
        writer.finish(
            status,
            metrics={"val_mAP": value},
            labels=[{"split": "val", "label": "cat", "AP": value}],
        )
    return writer
