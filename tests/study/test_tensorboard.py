"""What TensorBoard reads is what the tables have."""

from __future__ import annotations

from tensorboardX.proto.event_pb2 import Event
from tensorboardX.record_writer import masked_crc32c

from sadcl.results import RunWriter
from sadcl.study.tensorboard import TensorBoardCurves
from sadcl.study.trial_event import EpochEnded, TrialEnded, TrialStarted


def scalars(folder):
    """Values by tag and step of all event files of a run, with every checksum checked."""
    values = {}
    for file in sorted(folder.glob("events*")):
        content = file.read_bytes()
        while content:
            size = int.from_bytes(content[:8], "little")
            body, check = content[12 : 12 + size], content[12 + size : 16 + size]
            assert masked_crc32c(body) == int.from_bytes(check, "little")
            event = Event.FromString(body)
            values |= {(v.tag, event.step): v.simple_value for v in event.summary.value}
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


def test_an_object_store_has_no_curves():
    curves = TensorBoardCurves("mock:///x", "s", [{"key": "a", "status": "running"}])
    assert curves.folder is None
    assert curves.add([event("a", 1, 1.0)])[0].key == "a"
    curves.close()
