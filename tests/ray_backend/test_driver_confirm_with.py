"""A search that is confirmed in another configuration: its confirmation, and one on a cluster."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from sadcl import results
from sadcl.ray_backend import driver
from tests.conftest import TINY
from tests.search.test_confirm_with import ended, plan, rows_of_trials

STUDY = """
from sadcl import Search, main, recipes
from sadcl.search import Float

frozen = {{"model.frozen": "all", "model.freeze_batchnorm": True}}
main(Search(
    name="cheap", question="Which tau?", base=recipes.coco14(),
    demo=recipes.demo().override({changes!r} | frozen), space={{"loss.tau": Float(0.05, 0.5)}},
    n_demo_trials=2, confirm_seeds=(7, 8, 9), confirm_with={{"model.frozen": ()}},
))
"""


def test_a_disk_that_shows_rows_late_does_not_end_the_search():
    value = plan(confirm_top=1)
    rows = ended(value)
    pool = SimpleNamespace(start=lambda trial: None)
    pool.result = lambda trial: rows_of_trials([trial])[0]
    study = SimpleNamespace(plan=value, refresh=lambda: rows)  # without those of the confirmation
    final = driver._run_confirmation(study, pool)
    assert (final.phase, final.config.model.frozen) == ("final", ())


@pytest.mark.soak
@pytest.mark.timeout(1800)
def test_the_confirmation_and_the_final_run_train_everything(command, tmp_path):
    file, root = tmp_path / "cheap.py", str(tmp_path / "runs")
    file.write_text(STUDY.format(changes=TINY))
    plan_text = " ".join(command("python", file, "--dry-run", timeout=1200).stdout.split())
    assert "again over seeds 7, 8, 9, one final run with the same changes" in plan_text
    first = command("python", file, timeout=1200)
    rows = results.read(root, "trials").to_pylist()
    assert {row["status"] for row in rows} == {"complete"}
    assert {row["model_frozen"] for row in rows if row["phase"] in ("confirm", "final")} == {"[]"}
    assert {row["model_frozen"] for row in rows if row["phase"] in ("search", "baseline")} == {
        "all"
    }
    confirmed = [row for row in rows if (row["phase"], row["arm"]) == ("confirm", "tuned")]
    (final,) = [row for row in rows if row["phase"] == "final"]
    assert final["stage2_epochs"] == sorted(row["epoch"] for row in confirmed)[1]
    assert f"Test mAP of the final run: {final['test_mAP']:.2f}" in first.stdout
    again = command("python", file, timeout=1200)
    assert f"Resuming: {len(rows)} runs are complete." in again.stdout
    assert len(results.read(root, "trials")) == len(rows)
