"""An ablation from one command to its table; arms and seeds that are added train alone."""

from __future__ import annotations

from sadcl import results
from tests.conftest import TINY

ABLATION = """
from sadcl import Ablation, main, recipes

main(Ablation(
    name="parts", question="What brings what?", base=recipes.coco14(),
    demo=recipes.demo().override({changes!r}), baseline="stage 2", seeds={seeds!r},
    arms={{
        "pooled": {{"model.arch": "pooled"}},
        "SARL": {{"stage2.epochs": 0}},
        "stage 2": {{"loss.sample_weight": 0.0, "loss.prototype_weight": 0.0}},
        "both": {{}},
        {more}
    }},
))
"""


def test_an_ablation_from_one_command_to_its_table(command, tmp_path):
    def write(seeds, more=""):
        (tmp_path / "parts.py").write_text(ABLATION.format(changes=TINY, seeds=seeds, more=more))
        return tmp_path / "parts.py"

    file, root = write((0, 1)), tmp_path / "runs"
    first = command("python", file)
    rows = {row["key"]: row for row in results.read(str(root), "trials").to_pylist()}
    arms = {(row["arm"], row["seed"]): row for row in rows.values() if row["phase"] == "arm"}
    assert {row["status"] for row in rows.values()} == {"complete"}
    assert len(rows) == 2 + 4 * 2
    assert all(row["test_mAP"] is not None and row["val_mAP"] is not None for row in arms.values())
    for seed in (0, 1):
        stage1 = rows[arms["SARL", seed]["stage1_key"]]
        assert {arms[arm, seed]["stage1_key"] for arm in ("SARL", "stage 2", "both")} == {
            stage1["key"]
        }
        assert arms["pooled", seed]["stage1_key"] is None
        same = ("val_mAP", "val_CF1", "epoch", "weights")
        assert [arms["SARL", seed][name] for name in same] == [stage1[name] for name in same]
        assert (arms["SARL", seed]["seconds"], arms["SARL", seed]["epochs_done"]) == (0.0, 0)
        assert stage1["test_mAP"] is None
    assert "both compared with stage 2: " in first.stdout
    assert "Demo scale" in first.stdout

    again = command("python", file)
    assert "Resuming: 10 runs are complete." in again.stdout
    assert results.read(str(root), "trials").sort_by("key").to_pylist() == sorted(
        rows.values(), key=lambda row: row["key"]
    )

    command("python", write((0, 1, 2), '"+SSCL": {"loss.prototype_weight": 0.0},'))
    now = {row["key"]: row for row in results.read(str(root), "trials").to_pylist()}
    assert {key: now[key] for key in rows} == rows
    assert len(now) == 3 + 5 * 3
    table = command("sadcl", "results", "ablation", "--study", "parts-demo", "--markdown").stdout
    assert table.count("\n| +SSCL |") == 1
    assert "over 3 seeds" in table
    held = command("sadcl", "evaluate", "--raw", "--checkpoint", arms["SARL", 0]["key"]).stdout
    assert f"test_mAP\t{arms['SARL', 0]['test_mAP']!r}\t{arms['SARL', 0]['test_mAP']!r}" in held

    other = command("python", write((0,), '"+SSCL": {"loss.sample_weight": 0.0},'), check=False)
    assert other.returncode == 2
    assert "another one (" in other.stderr
    assert "+SSCL" in other.stderr
