"""What a published checkpoint may hold: which tensors, numbers and prefixes, and which not."""

from __future__ import annotations

import errno

import numpy as np
import pytest
import torch

from sadcl import UserError
from sadcl.training import checkpoint, published_state
from sadcl.training.published_checkpoint import import_checkpoint
from tests.published import PublishedNetwork, checkpoint_of

NAMES = ("ant", "bee", "cat", "dog", "eel")


@pytest.fixture(scope="module")
def sadcl():
    return PublishedNetwork(5)


@pytest.fixture
def bring(tmp_path):
    """Imports a content, and returns what was found."""

    def run(content, output="best.pt", **options):
        (tmp_path / "labels.txt").write_text("\n".join(NAMES))
        torch.save(content, tmp_path / "checkpoint.pth.tar")
        (tmp_path / "best.pt").unlink(missing_ok=True)
        return import_checkpoint(
            str(tmp_path / "checkpoint.pth.tar"),
            str(tmp_path / output),
            **{"labels": tmp_path / "labels.txt", **options},
        )

    return run


BIAS, POSITIONS = "fc.b", "backbone.1.pe"
UNUSABLE = {
    "sparse": (BIAS, lambda t: t.to_sparse(), "'fc.b' of the layout sparse_coo"),
    "compressed": (BIAS, lambda t: t.to_sparse_csr(), "'fc.b' of the layout sparse_csr"),
    "nested": (BIAS, lambda t: torch.nested.nested_tensor([t, t]), "'fc.b' of the layout nested"),
    "meta": (BIAS, lambda t: t.to("meta"), "'fc.b' without values"),
    "float8": (BIAS, lambda t: t.to(torch.float8_e4m3fn), "'fc.b' of the type float8_e4m3fn"),
    "quantized": (
        BIAS,
        lambda t: torch.quantize_per_tensor(t, 0.1, 0, torch.qint8),
        "'fc.b' of the type qint8",
    ),
    "complex": ("fc.W", lambda t: t + 1j, "'fc.W' of the type complex64"),
    "integers": ("fc.W", lambda t: t.long(), "'fc.W' of the type int64"),
    "truth values": ("fc.W", lambda t: t > 0, "'fc.W' of the type bool"),
    "no positions": (
        POSITIONS,
        lambda t: t[:, :, :0, :0],
        r"'backbone.1.pe' without elements, of the shape \(1, 16, 0, 0\)",
    ),
    "beyond float32": (BIAS, lambda t: t.double() + 1e300, "'fc.b' that are not finite"),
    "a dropped tensor": ("memorybank", lambda t: t.to("meta"), "'memorybank' without values"),
}


@pytest.mark.filterwarnings("ignore")  # PyTorch warns of some of these kinds
@pytest.mark.parametrize("kind", UNUSABLE)
def test_tensors_that_are_not_plain_numbers(bring, sadcl, tmp_path, kind):
    key, change, message = UNUSABLE[kind]
    state = {**sadcl.state_dict(), key: change(sadcl.state_dict()[key])}
    with pytest.raises(UserError, match=message) as error:
        bring({"state_dict": state})
    assert "\n" not in str(error.value)
    assert not (tmp_path / "best.pt").exists()


def test_counts_of_batches_are_integers(bring, sadcl):
    count = {"backbone.0.body.bn1.num_batches_tracked": torch.tensor(7)}
    assert bring({"state_dict": {**sadcl.state_dict(), **count}}).prototypes == 5


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_other_precisions(bring, sadcl, tmp_path, dtype):
    """The positions have the rounding of the type; others are still told from them."""
    state = {key: tensor.to(dtype) for key, tensor in sadcl.state_dict().items()}
    large = PublishedNetwork(5, side=448).state_dict()[POSITIONS].to(dtype)
    found = bring({"state_dict": {**state, POSITIONS: large}})
    assert found.config.data.image_size == 448
    taken = checkpoint.load_checkpoint(str(tmp_path / "best.pt"))["model"]["head.classifier.bias_L"]
    assert taken.dtype == torch.float32
    assert torch.equal(taken, state[BIAS][0].float())
    shifted = large + 0.02
    with pytest.raises(UserError, match="'backbone.1.pe' with other values than DETR's"):
        bring({"state_dict": {**state, POSITIONS: shifted}})


@pytest.mark.parametrize(
    ("recorded", "mAP"),
    [
        (torch.tensor(86.75), 86.75),
        (torch.tensor([86.75], dtype=torch.float64), 86.75),
        (86, 86.0),
        (float("nan"), None),
        (np.float64("inf"), None),
        (-1.0, None),
        (10**400, None),
        (True, None),
        (torch.tensor([1.0, 2.0]), None),
        (torch.tensor(float("nan")), None),
        (torch.tensor(1j), None),
        (torch.empty((), device="meta"), None),
        ("86.75", None),
    ],
)
def test_the_recorded_mAP(bring, sadcl, tmp_path, recorded, mAP):
    """What is no mAP is not recorded, and is listed as dropped."""
    found = bring(checkpoint_of(sadcl, best_mAP=recorded))
    assert found.mAP == mAP
    assert ("best_mAP" in found.dropped) == (mAP is None)
    metrics = checkpoint.load_checkpoint(str(tmp_path / "best.pt"))["metrics"]
    assert metrics == ({} if mAP is None else {"test_mAP_published": mAP})


@pytest.mark.parametrize(
    ("recorded", "epoch"),
    [
        *((3, 3), (np.int64(3), 3), (torch.tensor(3), 3)),
        *((True, 0), (-2, 0), (2.5, 0), (10**400, 0)),
    ],
)
def test_the_recorded_epoch(tmp_path, recorded, epoch):
    content = {"state_dict": {BIAS: torch.zeros(1, 5)}, "epoch": recorded}
    torch.save(content, tmp_path / "checkpoint.pth.tar")
    found = published_state.read_published(str(tmp_path / "checkpoint.pth.tar"))
    assert (found.epoch, found.other) == (epoch, () if epoch else ("epoch",))
    assert type(found.epoch) is int


def test_weights_without_the_prefix_are_what_the_user_says(bring, sadcl, tmp_path):
    """They are averaged by the published code's habit alone."""
    state, prefixed = sadcl.state_dict(), checkpoint_of(sadcl)["state_dict"]
    for content, weights, expected in (
        (state, None, ("ema", True)),
        (state, "ema", ("ema", False)),
        (state, "raw", ("raw", False)),
        ({"model": state}, "raw", ("raw", False)),
        (prefixed, None, ("raw", False)),
        ({"state_dict": prefixed, "state_dict_ema": state}, None, ("ema", False)),
        ({"state_dict": state, "state_dict_ema": state}, "raw", ("raw", False)),
    ):
        found = bring(content, weights=weights)
        assert (found.weights, found.weights_assumed) == expected
        content = checkpoint.load_checkpoint(str(tmp_path / "best.pt"))
        assert content["weights"] == expected[0]
    with pytest.raises(UserError, match="has no raw weights; it has 'ema'"):
        bring({"state_dict_ema": state}, weights="raw")


def test_an_empty_file(bring):
    with pytest.raises(UserError, match="has no 'state_dict' of tensors; it has nothing"):
        bring({})


def test_an_output_that_cannot_be_written(bring, sadcl, tmp_path, monkeypatch):
    with pytest.raises(UserError, match=r"cannot be written .*: give another place"):
        bring(checkpoint_of(sadcl), output="x" * 300 + ".pt")

    def fail(*_, **__):
        raise FileNotFoundError(errno.ENOENT, "No such file or directory", "/proc/x")

    monkeypatch.setattr("sadcl.storage.new_file", fail)
    with pytest.raises(
        UserError, match=r"best.pt' cannot be written \(No such file or directory\): give another"
    ):
        bring(checkpoint_of(sadcl))


def test_labels_of_no_data_set_and_of_another(bring, sadcl):
    network = PublishedNetwork(80, projection=None)
    with pytest.raises(UserError, match="has 80 labels, but voc2007 has 20. Give the data set"):
        bring(network.state_dict(), dataset="voc2007", labels=None)
    with pytest.raises(UserError) as error:
        bring(sadcl.state_dict(), labels=None)
    assert "has 5 labels, and no data set has that many (coco14 80, voc2007 20," in str(error.value)
    assert str(error.value).endswith("): name them in a file, one a line (--labels).")
