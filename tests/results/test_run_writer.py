"""One writer a run: whole files only, one row a key, resumed where it was interrupted."""

import subprocess
import sys

from sadcl import results
from sadcl.results import RunWriter
from tests.results.runs import ROW


def test_an_interrupted_trial_goes_on_with_its_rows_and_a_repeated_report_is_one_row(tmp_path):
    first = RunWriter(str(tmp_path), "k", ROW)
    first.epoch({"stage": 1, "epoch": 1, "val_mAP": 1.0})
    first.epoch({"stage": 1, "epoch": 2, "val_mAP": 2.0})
    (before,) = results.read(tmp_path, "trials").to_pylist()
    assert before["status"] == "running"
    again = RunWriter(str(tmp_path), "k", ROW)
    again.epoch({"stage": 1, "epoch": 2, "val_mAP": 2.5})
    again.epoch({"stage": 2, "epoch": 1, "val_mAP": 3.0})
    again.finish("failed", cause="NaN")
    epochs = results.read(tmp_path, "epochs").to_pylist()
    assert [(e["stage"], e["epoch"], e["val_mAP"]) for e in epochs] == [
        (1, 1, 1.0),
        (1, 2, 2.5),
        (2, 1, 3.0),
    ]
    (row,) = results.read(tmp_path, "trials").to_pylist()
    assert (row["status"], row["cause"], row["started"]) == ("failed", "NaN", before["started"])


def test_readers_see_whole_files_while_many_write(tmp_path):
    """Real processes write; a reader in between never sees a broken table or a row twice."""
    code = (
        "import sys; from sadcl.results import RunWriter\n"
        "for i in range(12):\n"
        "    w = RunWriter(sys.argv[1], f'k{sys.argv[2]}-{i}', {'study': 's'})\n"
        "    for e in range(3): w.epoch({'stage': 1, 'epoch': e, 'loss': 0.5})\n"
        "    w.finish('complete')\n"
    )
    RunWriter(str(tmp_path), "first", ROW)
    writers = [
        subprocess.Popen([sys.executable, "-c", code, str(tmp_path), str(n)]) for n in range(3)
    ]
    seen = 0
    while any(w.poll() is None for w in writers):
        keys = results.read(tmp_path, "trials")["key"].to_pylist()
        assert len(keys) == len(set(keys)) >= seen
        seen = len(keys)
        results.read(tmp_path, "epochs")
    assert [w.returncode for w in writers] == [0, 0, 0]
    assert len(results.read(tmp_path, "trials")) == 37
    assert len(results.read(tmp_path, "epochs")) == 3 * 12 * 3
    assert not list(tmp_path.rglob("*.part"))
