"""``sadcl new`` writes files that run as they are, and never writes over one."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch

from sadcl import build, recipes, train
from sadcl.cli.new import _DATA
from sadcl.launch.loss_check import check_losses
from tests.conftest import TINY


def ruff(folder, *words):
    """Ruff in the user's folder, where the package is one of others."""
    command = [sys.executable, "-m", "ruff", *words]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("kind", ["search", "ablation", "head"])
def test_a_file_is_short_and_formatted(command, tmp_path, kind):
    file = tmp_path / "my_file.py"
    command("sadcl", "new", file, "--kind", kind)
    assert len(file.read_text().splitlines()) <= 60
    for width in ("88", "100"):  # ruff's own, and this project's
        ruff(tmp_path, "format", "--isolated", "--check", "--line-length", width, file.name)
    rules = "E,F,I,B,UP,RUF,C4,PIE,RET,SIM"
    ruff(tmp_path, "check", "--isolated", "--select", rules, "--line-length", "88", file.name)


@pytest.mark.parametrize(("kind", "how"), [("search", ("python",)), ("ablation", ("sadcl", "run"))])
def test_an_experiment_has_a_plan_as_it_is(command, kind, how):
    written = command("sadcl", "new", "my_study.py", "--kind", kind).stdout
    assert written == "my_study.py is written. Try: sadcl run my_study.py\n"
    text = command(*how, "my_study.py", "--dry-run").stdout
    assert "study my-study-demo: scenes" in text
    assert "to run:" in text


@pytest.mark.parametrize("kind", ["search", "ablation"])
@pytest.mark.parametrize("data", _DATA)
def test_each_data_set_has_its_base(command, tmp_path, monkeypatch, kind, data):
    """The study is made while the file is read, and checks itself at both scales."""
    import runpy

    file = tmp_path / f"{kind}_{data}.py"
    written = command("sadcl", "new", file, "--kind", kind, "--data", data).stdout
    variables = runpy.run_path(str(file))
    flags = " --data-root photos --scale demo" if data == "folder" else ""
    assert written.endswith(f"Try: sadcl run {file}{flags}\n")
    assert f"\nsadcl run {file.name}{flags}\n" in variables["__doc__"]
    base = variables["base"]
    assert base.data.name == ("coco" if data == "coco14" else data)
    assert variables["demo"].data.name == "scenes"
    assert variables["search" if kind == "search" else kind].base == base
    assert len(file.read_text().splitlines()) <= 60
    assert ("--set model.weights=FILE" in file.read_text()) == (data == "folder")
    assert (".override(recipes.FEW)" in file.read_text()) == (data == "folder")


@pytest.mark.soak
@pytest.mark.parametrize(("kind", "runs"), [("search", 16), ("ablation", 18)])
def test_a_study_runs_to_its_end(command, kind, runs):
    command("sadcl", "new", "my_study.py", "--kind", kind)
    words = [word for name, value in TINY.items() for word in ("--set", f"{name}={value}")]
    trials = ["--trials", "2"] if kind == "search" else []
    text = command("sadcl", "run", "my_study.py", *trials, *words, timeout=550).stdout
    assert f"to run: {runs} runs" in text
    assert "sadcl results report" in text


@pytest.fixture
def my_heads(command, tmp_path, monkeypatch):
    """A new head's module, importable under a name that no other test has."""
    name = f"heads_of_{tmp_path.name}".replace("-", "_")
    written = command("sadcl", "new", f"{name}.py", "--kind", "head").stdout
    assert f"\n  sadcl train coco14 --set model.head={name}:LabelAttention\n" in written
    assert f"\n  sadcl config fields {name}:LabelAttention\n" in written
    monkeypatch.syspath_prepend(str(tmp_path))
    yield name
    sys.modules.pop(name, None)


def test_a_head_passes_the_checks_and_trains(command, my_heads, tmp_path, monkeypatch, cache):
    monkeypatch.setenv("XDG_CACHE_HOME", str(cache))
    config = recipes.demo().override(
        {
            **TINY,
            "model.head": f"{my_heads}:LabelAttention",
            "model.head_arguments.dim": 16,
            "stage1.class_loss.kind": f"{my_heads}:focal",
            "stage2.class_loss.kind": f"{my_heads}:focal",
            "stage2.class_loss.arguments.gamma": 1.0,
        }
    )
    build.check_model(config)
    check_losses(config)
    row = train(config, storage=str(tmp_path / "runs"))
    assert row["status"] == "complete"
    assert 0 < row["test_mAP"] <= 100
    text = command("sadcl", "config", "fields", f"{my_heads}:LabelAttention").stdout
    assert "dim\twhole number\t64\tD.\n" in text
    refused = config.override({"model.head_arguments.dim": "wide"})
    with pytest.raises(ValueError, match=r"head_arguments.dim = 'wide' is not possible"):
        build.check_model(refused)


def test_a_focal_loss_is_what_its_formula_says(my_heads):
    import importlib

    focal = importlib.import_module(my_heads).focal
    logits = torch.tensor([[2.0, -1.0, 0.5], [0.0, 3.0, -2.0]]).double()
    targets, weight = torch.tensor([[1, 0, -1], [0, 1, 1]]), torch.tensor([1.0, 0.0])
    expected = 0.0
    for logit, target in zip(logits[0], targets[0], strict=True):
        right = logit.sigmoid() if target == 1 else 1 - logit.sigmoid()
        expected -= 0.0 if target == -1 else float((1 - right) ** 2 * right.log())
    total, count = focal(logits, targets, weight)
    assert float(total) == pytest.approx(expected, rel=1e-12)
    assert float(count) == 1
    assert total.dtype == torch.float64


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_a_head_works_in_every_precision(my_heads, dtype):
    import importlib

    from sadcl.model import Task

    task = Task((12,), ("a", "b", "c"), torch.zeros(3, 3).double())
    head = importlib.import_module(my_heads).LabelAttention(task, dim=8)
    map_BCHW = torch.randn(2, 12, 3, 5)
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=dtype == torch.bfloat16):
        wide = dtype == torch.float64
        output = head.double()(map_BCHW.double()) if wide else head(map_BCHW)
    assert output.logits_BL.shape == (2, 3)
    assert output.features_BLD.shape == (2, 3, 8)
    assert output.logits_BL.dtype == (torch.float64 if wide else torch.float32)
    output.logits_BL.sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in head.parameters())


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["there.py"], "'there.py' exists, and is not overwritten. Give another name."),
        (["there.py", "--kind", "head"], "'there.py' exists, and is not overwritten."),
        (["x.txt"], "the file's name must end in .py"),
        (["my study.py"], "its name may have letters, digits, _ and - only"),
        (["my-heads.py", "--kind", "head"], "its name may have letters, digits and _ only"),
        (["random.py"], "it would hide the module 'random' that is installed"),
        (["no/x.py"], "'no/x.py' cannot be written: No such file or directory."),
        (["x.py", "--kind", "serach"], "--kind 'serach' is not possible; did you mean 'search'?"),
        (["x.py", "--data", "voc2008"], "--data 'voc2008' is not possible; did you mean 'voc20"),
        (["x.py", "--kind", "head", "--data", "coco14"], "a head has no data set of its own"),
    ],
)
def test_wrong_turns(command, tmp_path, words, message):
    (tmp_path / "there.py").write_text("mine\n")
    done = command("sadcl", "new", *words, check=False)
    assert done.returncode == 2
    assert done.stderr.startswith("error: ")
    assert message in done.stderr
    assert "Traceback" not in done.stderr
    assert [p.name for p in tmp_path.glob("*.py")] == ["there.py"]
    assert (tmp_path / "there.py").read_text() == "mine\n"
