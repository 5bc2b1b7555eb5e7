"""The contract suite of heads: the documented one passes, and each fault is named."""

from __future__ import annotations

import importlib
import re
from pathlib import Path

import pytest
from typer.testing import CliRunner

import sadcl
from sadcl.cli.app import app
from sadcl.model.heads import head
from sadcl.testing import HeadCase, check_class_loss, check_head
from sadcl.testing.workers import stop
from tests.own_parts import example
from tests.testing import parts


def test_a_head_that_keeps_it(monkeypatch):
    check_head(parts.Linear)
    check_head(parts.Linear, HeadCase(num_labels=2, side=3), dropout=0.5)
    assert "self.classifier(self.dropout(" in example(head)


PAGE = Path(sadcl.__file__).parent / "model" / "README.md"


def test_the_heads_that_are_shown_keep_it(tmp_path, monkeypatch):
    """That of the page about parts of one's own, and the one that ``sadcl new`` writes."""
    (code,) = re.findall(r"```python\n(# my_heads.py.*?)```", PAGE.read_text(), flags=re.DOTALL)
    (tmp_path / "shown_heads.py").write_text(code)
    monkeypatch.chdir(tmp_path)
    assert CliRunner().invoke(app, ["new", "written_heads.py", "--kind", "head"]).exit_code == 0
    monkeypatch.syspath_prepend(tmp_path)
    stop()  # workers that start now find both files
    check_head(importlib.import_module("shown_heads").Attention, dim=8)
    written = importlib.import_module("written_heads")
    check_head(written.LabelAttention, dim=8)
    check_class_loss(written.focal)
    stop()


@pytest.mark.parametrize(
    ("part", "message"),
    [
        (parts.Untyped, "has the argument 'dropout' without a type. Write one, such as float"),
        (parts.Positional, r"takes 2 positional arguments, but is called with 1. Put '\*' before"),
        (parts.Unused, "does not use extra.weight in training. Several workers would wait"),
        (parts.Centred, "gives an image alone other logits_BL than among others"),
        (parts.Forgetful, "gives other logits after loading its state. .*register_buffer"),
        (parts.Branching, "fails in torch.compile: .* Leave out .item"),
        (parts.InPlace, "changes a feature map in place"),
        (parts.WithoutSize, "has feature_size = None, but returns features_BLD. Set self.feature"),
        (parts.Transposed, r"returns logits_BL of the shape \(4, 3\). It must be \(3, 4\)"),
        (parts.HalfPrecision, "returns logits_BL in torch.bfloat16 under autocast"),
    ],
)
def test_each_fault_is_named(part, message):
    with pytest.raises(AssertionError, match=f"{part.__name__} {message}"):
        check_head(part)


def test_mistaken_arguments_and_exceptions():
    with pytest.raises(AssertionError, match="Linear has no argument 'drop'; it takes dropout"):
        check_head(parts.Linear, drop=0.1)
    with pytest.raises(AssertionError, match="gives an image alone the same logits"):
        check_head(parts.Linear, HeadCase(of_batch=True))


def test_a_head_that_no_other_process_can_import():
    class Local(parts.Linear):
        pass

    with pytest.raises(AssertionError, match="Define it with a name at the top of a module"):
        check_head(Local)
