"""What TensorBoard reads is what the tables have."""

from __future__ import annotations

import json

import pytest
from tensorboardX.proto.event_pb2 import Event
from tensorboardX.proto.plugin_hparams_pb2 import HParamsPluginData
from tensorboardX.record_writer import masked_crc32c

from sadcl.results import RunWriter
from sadcl.results.store import row_of
from sadcl.study.tensorboard import TensorBoardCurves
from sadcl.study.trial_event import EpochEnded, TrialEnded, TrialStarted


def scalars(folder):
    """Values by tag and step of all event files of a run, with every checksum checked.

    What a session of HPARAMS starts and ends with has its tag alone.
    """
    values = {}
    for file in sorted(folder.glob("events*")):
        content = file.read_bytes()
        while content:
            size = int.from_bytes(content[:8], "little")
            body, check = content[12 : 12 + size], content[12 + size : 16 + size]
            assert masked_crc32c(body) == int.from_bytes(check, "little")
            event = Event.FromString(body)
            for value in event.summary.value:
                if value.metadata.plugin_data.plugin_name == "hparams":
                    data = HParamsPluginData.FromString(value.metadata.plugin_data.content)
                    values[value.tag.rpartition("/")[2]] = data
                else:
                    values[value.tag, event.step] = value.simple_value
            content = content[16 + size :]
    return values


def event(key, epoch, value):
    return EpochEnded(key, 2, epoch, 3, {"val_mAP": value, "note": None})


def test_curves_are_those_of_the_tables_also_after_a_new_start(tmp_path):
    for name in ("a", "b"):
        writer = RunWriter(str(tmp_path), name, {"study": "s", "phase": "search"})
        writer.epoch({"stage": 1, "epoch": 1, "val_mAP": 10.0})
    first = TensorBoardCurves(str(tmp_path), "s", [{"key": "a", "status": "running"}])
    events = [event("a", 1, 50.0), TrialStarted("a", "search", "a"), event("b", 1, 40.0)]
    assert first.add(events) == events
    folder = tmp_path / "tensorboard" / "s"
    assert scalars(folder / "a") == {("stage1/val_mAP", 1): 10.0, ("stage2/val_mAP", 1): 50.0}
    first.add([TrialEnded("a", "complete")])
    first.close()
    # the epochs that only events knew are not in the tables
    again = TensorBoardCurves(
        str(tmp_path), "s", [{"key": key, "status": "complete"} for key in ("a", "b")]
    )
    again.close()
    assert scalars(folder / "a") == scalars(folder / "b") == {("stage1/val_mAP", 1): 10.0}


@pytest.mark.parametrize(("status", "state"), [("complete", 1), ("pruned", 1), ("failed", 2)])
@pytest.mark.parametrize("is_new_start", [False, True])
def test_hparams_have_the_settings_and_the_final_figures(tmp_path, is_new_start, status, state):
    config = {"loss": {"tau": 0.2}, "model": {"frozen": [], "head_arguments": {"lam": 0.5}}}
    facts = {"study": "s", "phase": "arm", "arm": "a", "seed": 7, "dataset": "scenes"}
    writer = RunWriter(str(tmp_path), "k", {**facts, "config": json.dumps(config)})
    fields = ("loss.tau", "model.frozen", "model.head_arguments.lam", "model.head_arguments.k")
    curves = TensorBoardCurves(str(tmp_path), "s", [], fields)
    curves.add([TrialStarted("k", "arm", "a"), TrialStarted("k", "arm", "a")])
    writer.finish(status, metrics={"val_mAP": 41.5, "test_mAP": None, "seconds": 8.0})
    curves.add([TrialEnded("k", status)])
    if is_new_start:
        TensorBoardCurves(str(tmp_path), "s", [row_of(str(tmp_path), "k")], fields).close()
    values = scalars(tmp_path / "tensorboard" / "s" / "k")
    settings = {
        name: getattr(value, value.WhichOneof("kind"))
        for name, value in values["session_start_info"].session_start_info.hparams.items()
    }
    assert settings == {
        "phase": "arm",
        "arm": "a",
        "seed": 7.0,
        "dataset": "scenes",
        "loss.tau": 0.2,
        "model.frozen": "[]",
        "model.head_arguments.lam": 0.5,
    }  # without one for k, which the configuration leaves out
    assert values["session_end_info"].session_end_info.status == state
    assert values["final/val_mAP", 0] == 41.5
    assert values["total/seconds", 0] == 8.0
    assert ("final/test_mAP", 0) not in values


def test_an_object_store_has_no_curves():
    curves = TensorBoardCurves("mock:///x", "s", [{"key": "a", "status": "running"}])
    assert curves.folder is None
    assert curves.add([event("a", 1, 1.0)])[0].key == "a"
    curves.close()
