"""A head and a class loss of one's own in an ablation, in processes that Ray starts."""

from __future__ import annotations

from pathlib import Path

import pytest

from sadcl import results
from tests.cluster.nodes import Cluster
from tests.conftest import TINY

MODULE = """
from pathlib import Path

from torch import nn
from torch.nn import functional as F

from sadcl.model import HeadOutput, Task


class Mean(nn.Module):
    def __init__(self, task: Task, *, log: str, scale: float = 1.0) -> None:
        super().__init__()
        self.feature_size, self.scale = 8, scale
        self.embed = nn.Linear(task.channels[-1], len(task.labels) * 8)
        self.classifier = nn.Linear(8, 1)
        with Path(log).open("a") as file:
            file.write(f"{__file__} {not task.is_restored and int(task.co_occurrence_LL.sum())}\\n")

    def forward(self, map_BCHW):
        features_BLD = self.embed(map_BCHW.mean((2, 3))).unflatten(1, (-1, 8))
        return HeadOutput(self.classifier(features_BLD).squeeze(2) * self.scale, features_BLD)


def squared(logits_BL, targets_BL, weight_B, *, power: int = 2):
    error_BL = (logits_BL.sigmoid() - (targets_BL == 1).float()).abs() ** power
    return (error_BL.sum(1) * weight_B).sum(), weight_B.sum()
"""
FILE = """
from sadcl import Ablation, main, recipes

own = {{"model.head": "my_parts:Mean", "model.head_arguments": {{"log": {log!r}}}}}
main(Ablation(
    name="own", base=recipes.coco14(), demo=recipes.demo().override({changes!r}), baseline="mean",
    seeds=(0,),
    arms={{
        "mean": own,
        "scaled": own | {{"model.head_arguments.scale": 2.0}},
        "alone": own | {{
            "stage1.class_loss.kind": "my_parts:squared", "stage2.epochs": 0,
            "stage1.class_loss.arguments.power": 3,
        }},
    }},
))
"""


@pytest.fixture
def files(tmp_path):
    (tmp_path / "my_parts.py").write_text(MODULE)
    log = tmp_path / "log.txt"
    (tmp_path / "own.py").write_text(FILE.format(changes=TINY, log=str(log)))
    return tmp_path / "own.py", log


def trials(root):
    rows = results.read(str(root), "trials").to_pylist()
    assert {row["status"] for row in rows} == {"complete"}, [row["cause"] for row in rows]
    return {row["key"]: row for row in rows}


@pytest.mark.soak
def test_an_edit_makes_another_study_and_everything_knows_the_head(files, command, tmp_path):
    file, log = files
    command("python", file)
    before = trials(tmp_path / "runs")
    by_arm = {row["arm"]: row for row in before.values() if row["phase"] == "arm"}
    assert by_arm.keys() == {"mean", "scaled", "alone"}
    assert by_arm["mean"]["loss_sample_weight"] > 0
    assert by_arm["scaled"]["model_head_arguments_scale"] == 2.0
    counts = {line.split()[1] for line in log.read_text().splitlines()}
    assert max(int(count) for count in counts if count != "False") > 0

    again = command("python", file)
    assert f"Resuming: {len(before)} runs are complete." in again.stdout
    module = tmp_path / "my_parts.py"
    module.write_text(
        module.read_text().replace("self.scale, features", "self.scale * 1, features")
    )
    refused = command("python", file, check=False)
    assert refused.returncode == 2
    assert "my_parts.py was edited after this study began. To keep the" in refused.stderr
    file.write_text(file.read_text().replace('name="own"', 'name="edited"'))
    command("python", file)
    after = trials(tmp_path / "runs")
    assert len(after) == 2 * len(before)
    assert before.items() <= after.items()

    key = next(key for key, row in after.items() if row["arm"] == "mean" and key not in before)
    predicted = command("sadcl", "evaluate", "--checkpoint", key)
    assert "mAP" in predicted.stdout
    gone = command("sadcl", "evaluate", "--checkpoint", by_arm["mean"]["key"], check=False)
    assert gone.returncode
    assert "was trained with another version of my_parts.py" in gone.stderr


@pytest.mark.soak
def test_a_cluster_that_is_joined_gets_the_module(files, command, tmp_path, cache):
    file, _ = files
    (tmp_path / "cluster").mkdir()
    cluster = Cluster(tmp_path / "cluster", cache)
    cluster.start(cluster.head, cpus=2)
    try:
        command("python", file, "--address", cluster.address, **cluster.environment)
        trials(tmp_path / "runs")
        # This machine has the start folder too, so that only the copy shows that it was sent.
        sent = Path(cluster.short.name).rglob("py_modules_files/*/my_parts.py")
        assert [file.read_text() for file in sent] == [MODULE]
    finally:
        cluster.stop()
