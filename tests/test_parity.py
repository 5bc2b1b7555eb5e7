"""Ours against golden files of the published code, and against files of the same form made here."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

import sadcl
from tests import parity, published_heads
from tests.published import PublishedNetwork

GOLDEN = Path(sadcl.__file__).parents[2] / "shared" / "parity"
NETWORKS, LOSSES = ("sadcl_resnet18_d64_128", "q2l_resnet18_d64_128"), "losses"


def compare(ours, theirs, tolerance):
    assert ours.shape == theirs.shape
    assert ours.dtype == theirs.dtype
    assert float((ours - theirs).norm()) <= tolerance * float(theirs.norm())


def golden(name):
    stem = GOLDEN / name
    if not stem.with_suffix(".json").exists():
        pytest.skip("there are no golden files beside the repository")
    return stem, load_file(f"{stem}.safetensors")


@pytest.mark.parametrize("name", NETWORKS)
def test_networks_equal_the_published_ones(name):
    stem, theirs = golden(name)
    ours = parity.outputs(stem)
    assert set(ours) == set(theirs)
    assert {tensor.dtype for name, tensor in ours.items() if name != "images"} == {torch.float64}
    for key, tensor in ours.items():
        compare(tensor, theirs[key], 1e-9)


def heads_files():
    """Golden files of the heads that tests/published_heads/ has a module for."""
    files = sorted((GOLDEN / "heads").glob("*.json"))
    heads = {file.stem: json.loads(file.read_text())["head"] for file in files}
    return [stem for stem, head in heads.items() if head in published_heads.names()]


@pytest.mark.parametrize("name", heads_files())
def test_heads_equal_the_published_ones(name):
    stem, theirs = golden(f"heads/{name}")
    inputs = json.loads(stem.with_suffix(".json").read_text())["inputs"]
    ours = parity.outputs(stem)
    assert set(ours) == set(theirs)
    for key, tensor in ours.items():
        assert tensor.dtype == theirs[key].dtype
        assert key in inputs or tensor.dtype == torch.float64
        assert tensor.shape == theirs[key].shape, key
        largest = float(theirs[key].abs().max())
        assert float((tensor - theirs[key]).abs().max()) <= 1e-9 * largest, key


def test_losses_equal_the_published_ones():
    """The published sample contrast has an epsilon in its logarithm."""
    stem, theirs = golden(LOSSES)
    ours = parity.outputs(stem)
    values = {key for key in theirs if ".sample." in key and key.endswith(".value")}
    assert set(ours) == set(theirs) - values
    assert {tensor.dtype for tensor in ours.values()} == {torch.float64}
    assert len(values) == 8
    for key, tensor in ours.items():
        compare(tensor, theirs[key], 1e-5 if ".sample." in key else 1e-9)


@pytest.mark.parametrize(
    ("backbone", "labels", "hidden", "side", "layers", "projection"),
    [
        ("resnet18", 80, 16, 96, (1, 2), 12),
        ("resnet34", 7, 8, 64, (2, 1), None),
        ("resnet50", 5, 12, 64, (0, 3), 6),
    ],
)
def test_other_sizes(tmp_path, backbone, labels, hidden, side, layers, projection):
    """A golden file that the published network in plain PyTorch makes, of any sizes."""
    network = PublishedNetwork(
        labels,
        backbone=backbone,
        hidden=hidden,
        side=side,
        layers=layers,
        projection=projection,
    )
    described = {key: [list(t.shape), "float32"] for key, t in network.state_dict().items()}
    spec = {
        "what": "sadcl" if projection else "q2l",
        "backbone": backbone,
        "hidden": hidden,
        "feedforward": 24,
        "image_size": side,
        "labels": labels,
        "seed": 11,
        "state": described,
        "not_filled": {"fc.b": "zeros, not filled"},
        "scale_after_fill": {"fc.W": 0.25},
    }
    state = parity.filled_state(spec)
    assert not state["fc.b"].any()
    plain = parity.filled_state({**spec, "scale_after_fill": {}})
    assert torch.equal(4 * state["fc.W"], plain["fc.W"])
    network.load_state_dict(state)
    network.double()
    images = torch.randn(2, 3, side, side)
    with torch.no_grad():
        result = network(images.double())
        theirs = {
            "logits": result.logits,
            "label_features": result.features,
            "attention": result.attention,
        }
        if projection:
            theirs |= {
                "embeddings": network.project(result.features),
                "bank_embeddings": network.project(network.memorybank),
                "prototype_embeddings": network.project(network.prototype[0]),
            }
    stem = tmp_path / "golden"
    stem.with_suffix(".json").write_text(json.dumps(spec))
    theirs = {key: tensor.contiguous() for key, tensor in {**theirs, "images": images}.items()}
    save_file(theirs, f"{stem}.safetensors")
    ours = parity.outputs(stem)
    assert set(ours) == set(theirs)
    for key, tensor in ours.items():
        compare(tensor, theirs[key], 1e-9)


def test_the_rule_of_the_weights():
    """Each line of the rule, with numbers that depend on key and seed alone."""
    described = {
        "bn1.running_var": [[1000], "float32"],
        "norm1.weight": [[1000], "float32"],
        "norm1.bias": [[1000], "float32"],
        "conv.weight": [[40, 5, 2, 2], "float32"],
        "linear.weight": [[40, 25], "float32"],
        "bn1.num_batches_tracked": [[], "int64"],
    }
    state = parity.filled_state({"state": described, "seed": 3})
    other = parity.filled_state({"parameters": dict(reversed(described.items())), "seed": 3})
    assert all(torch.equal(state[key], other[key]) for key in described)
    again = parity.filled_state({"state": described, "seed": 4})
    assert not torch.equal(state["linear.weight"], again["linear.weight"])
    variance, weight = state["bn1.running_var"], state["norm1.weight"]
    assert 0.7 < float(variance.min()) < 0.8
    assert 1.2 < float(variance.max()) < 1.3
    assert 0.5 < float(weight.min()) < 0.6
    assert 0.8 < float(weight.max()) < 0.9
    deviations = {key: float(state[key].std()) for key in list(described)[2:5]}
    expected = {"norm1.bias": 0.1, "conv.weight": (2 / 20) ** 0.5, "linear.weight": 0.2}
    assert deviations == pytest.approx(expected, rel=0.1)
    assert state["bn1.num_batches_tracked"].dtype == torch.int64
    assert state["bn1.num_batches_tracked"] == 0


def test_what_is_said_of_a_tensor_that_is_not_filled():
    described = {"x": [[2, 3, 3], "float32"]}

    def made(text):
        return parity.filled_state({"state": described, "seed": 3, "not_filled": {"x": text}})["x"]

    assert torch.equal(made("identity matrix, not filled"), torch.eye(3).expand(2, 3, 3))
    for text in ("identity", "zero", "zeros, not filled", "one", "ones (never trained)"):
        expected = {"i": torch.eye(3), "z": torch.zeros(3, 3), "o": torch.ones(3, 3)}[text[0]]
        assert torch.equal(made(text), expected.expand(2, 3, 3))
    assert torch.equal(made([1.0, 2.0, 3.0]), torch.tensor([1.0, 2, 3]).expand(2, 3, 3))
    for text in ("none of it", "rows 3 and 7 are zero", "one-hot rows", "zero in row 3", "no", ""):
        with pytest.raises(ValueError, match=f"is not known: '{text}'"):
            made(text)


def test_what_is_no_golden_file_of_a_network(tmp_path):
    (tmp_path / "other.json").write_text(json.dumps({"what": "csra"}))
    save_file({"x": torch.zeros(1)}, tmp_path / "other.safetensors")
    with pytest.raises(ValueError, match="what must be 'sadcl' or 'q2l', but got 'csra'"):
        parity.outputs(tmp_path / "other")
    (tmp_path / "other.json").write_text(json.dumps({"what": "new", "head": "new"}))
    with pytest.raises(ValueError, match="head must be one of .*, but got 'new'"):
        parity.outputs(tmp_path / "other")
