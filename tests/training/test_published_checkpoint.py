"""Published checkpoints: what becomes of them, compared with the published network itself."""

from __future__ import annotations

import argparse
import io
import zipfile

import numpy as np
import pytest
import torch

from sadcl import UserError, build, inference, recipes, storage
from sadcl.data.readers.label_lists import LABELS
from sadcl.data.transforms import IMAGENET
from sadcl.memory import Memory
from sadcl.model import with_maps
from sadcl.model.position import sine_position
from sadcl.training import checkpoint
from sadcl.training.published_checkpoint import import_checkpoint
from tests.published import PublishedNetwork, checkpoint_of

NAMES = ("ant", "bee", "cat", "dog", "eel")
IMAGES = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(1))


@pytest.fixture(scope="module")
def sadcl():
    return PublishedNetwork(5)


@pytest.fixture(scope="module")
def query2label():
    return PublishedNetwork(5, projection=None)


@pytest.fixture
def bring(tmp_path):
    """Imports a content, and returns what was found and the path of the new file."""

    def run(content, **options):
        if not options.keys() & {"labels", "dataset"}:
            (tmp_path / "labels.txt").write_text("\n".join(NAMES))
            options["labels"] = tmp_path / "labels.txt"
        source, output = tmp_path / "checkpoint.pth.tar", tmp_path / "best.pt"
        if isinstance(content, bytes):
            source.write_bytes(content)
        else:
            torch.save(content, source)
        return import_checkpoint(str(source), str(output), **options), str(output)

    return run


def close(ours, theirs):
    difference = (ours - theirs).abs().max() / theirs.abs().max()
    assert float(difference) < 1e-9


def with_our_rounding(encoding: torch.Tensor) -> None:
    """Replace an encoding from double sines by ours, from float32 sines as published."""
    _, dim, *side = encoding.shape
    ours = sine_position(*side, dim, device=torch.device("cpu"), dtype=torch.float64)
    ours = ours.t().reshape(encoding.shape)
    torch.testing.assert_close(encoding, ours, atol=2e-6, rtol=0)
    encoding.copy_(ours)


@pytest.mark.parametrize(
    ("backbone", "hidden", "layers", "labels", "projection"),
    [
        ("resnet18", 16, (1, 2), 5, 12),
        ("resnet34", 8, (0, 1), 3, None),
        ("resnet50", 12, (2, 3), 7, 12),
        ("resnet18", 512, (1, 2), 5, None),
    ],
)
def test_it_is_the_published_network(bring, tmp_path, projection, backbone, hidden, layers, labels):
    """In float64, with and without DDP's prefix, and without the convolution after the backbone."""
    network = PublishedNetwork(
        labels, backbone=backbone, hidden=hidden, layers=layers, projection=projection
    )
    (tmp_path / "names.txt").write_text("".join(f"label {i}\n" for i in range(labels)))
    found, path = bring(checkpoint_of(network), labels=tmp_path / "names.txt")
    ours, theirs = inference.load(path, device="cpu").network.double(), network.double()
    with_our_rounding(theirs.backbone[1].pe)
    with torch.no_grad():
        expected = theirs(IMAGES.double())
        output, maps = with_maps(ours, IMAGES.double())
    close(output.logits_BL, expected.logits)
    close(output.features_BLD, expected.features)
    close(maps.flatten(2), expected.attention)
    model = found.config.model
    assert (model.backbone, model.hidden, model.feedforward) == (f"{backbone}.tv_in1k", hidden, 24)
    assert (model.encoder_layers, model.decoder_layers, model.heads) == (*layers, 4)
    assert found.config.data.image_size == 64
    if projection is None:
        assert found.method == "Query2Label"
        return
    rows, places = theirs.memorybank.flatten(0, 1), torch.zeros(3 * labels, dtype=torch.int64)
    with torch.no_grad():
        output = ours(IMAGES.double(), Memory(rows, places, places))
        close(output.embeddings_BLP, theirs.project(expected.features))
        close(output.bank_MP, theirs.project(rows))
        close(output.prototypes_LP, theirs.project(theirs.prototype[0]))
    assert output.prototype_valid_L.all()
    assert model.projection == 12


def test_what_is_written(bring, sadcl, query2label, tmp_path):
    found, path = bring(checkpoint_of(sadcl))
    content = checkpoint.load_checkpoint(path)
    assert content["labels"] == list(NAMES)
    assert (content["stage"], content["weights"], content["epoch"]) == (2, "raw", 11)
    assert content["metrics"] == {"test_mAP_published": 86.75}
    assert content["data_digest"] is None
    assert content["source_digest"] == checkpoint.digest(str(tmp_path / "checkpoint.pth.tar"))
    config = found.config
    assert config.model.position == "interleaved"
    assert config.data.holdout == 0
    assert (config.data.mean, config.data.std) == IMAGENET
    assert config.loss.sample_weight == 0.5
    same = recipes.coco14().flat()
    differing = {name for name, value in config.flat().items() if same[name] != value}
    assert differing <= {
        *("data.name", "data.holdout", "data.image_size", "loss.sample_weight"),
        *("loss.prototype_weight", "model.backbone", "model.hidden", "model.feedforward"),
        *("model.projection", "data.mean", "data.std"),
    }
    assert found.dropped == ("memorybank", "arch", "optimizer")
    (tmp_path / "best.pt").unlink()
    _, path = bring(checkpoint_of(query2label))
    content = checkpoint.load_checkpoint(path)
    assert content["stage"] == 1
    assert not content["model"]["prototypes.valid_L"].any()


def test_forms_of_files(bring, sadcl, tmp_path):
    """Bare, wrapped, with and without a prefix, with averaged weights beside the raw ones."""
    state = sadcl.state_dict()
    prefixed = checkpoint_of(sadcl)["state_dict"]
    other = {key: tensor + 1 if key == "fc.b" else tensor for key, tensor in state.items()}
    both = {"state_dict": prefixed, "state_dict_ema": other}
    for content, options, weights, shift in (
        (state, {}, "ema", 0),
        (prefixed, {}, "raw", 0),
        ({"model": state, "epoch": 3}, {}, "ema", 0),
        ({"state_dict": {f"module.{key}": t for key, t in prefixed.items()}}, {}, "raw", 0),
        (both, {}, "ema", 1),
        (both, {"weights": "raw"}, "raw", 0),
    ):
        found, path = bring(content, **options)
        assert found.weights == weights
        bias = checkpoint.load_checkpoint(path)["model"]["head.classifier.bias_L"]
        assert torch.equal(bias, state["fc.b"][0] + shift)
        (tmp_path / "best.pt").unlink()
    with pytest.raises(UserError, match="has no ema weights; it has 'raw'"):
        bring(prefixed, weights="ema")
    with pytest.raises(UserError, match="weights = 'mean' is not possible: raw or ema"):
        bring(prefixed, weights="mean")


@pytest.mark.parametrize("kind", [np.float64, np.float32, float])
@pytest.mark.parametrize("module", ["numpy._core.multiarray", "numpy.core.multiarray"])
def test_numpy_scalars_of_all_versions(bring, sadcl, module, kind):
    torch.save(checkpoint_of(sadcl, best_mAP=kind(86.75)), sink := io.BytesIO())
    found, _ = bring(renamed(sink.getvalue(), "numpy._core.multiarray", module))
    assert found.mAP == 86.75


def renamed(data: bytes, old: str, new: str) -> bytes:
    """A torch file whose pickle names a module otherwise."""
    with (
        zipfile.ZipFile(io.BytesIO(data)) as source,
        zipfile.ZipFile(sink := io.BytesIO(), "w") as f,
    ):
        for entry in source.infolist():
            content = source.read(entry)
            if entry.filename.endswith("data.pkl"):
                content = content.replace(old.encode(), new.encode())
            f.writestr(entry.filename, content)
    return sink.getvalue()


def test_prototypes_that_are_zero_are_not_valid(bring, sadcl):
    state = dict(sadcl.state_dict())
    state["prototype"] = state["prototype"].clone()
    state["prototype"][0, [1, 3]] = 0
    found, path = bring({"state_dict": state})
    assert found.prototypes == 3
    valid = checkpoint.load_checkpoint(path)["model"]["prototypes.valid_L"]
    assert valid.tolist() == [True, False, True, False, True]


def test_labels_of_the_data_sets(bring, tmp_path):
    for count, dataset, name in (
        (80, None, "coco14"),
        (80, "coco14", "coco14"),
        (20, "voc2012", "voc2012"),
        (81, None, "nuswide"),
    ):
        network = PublishedNetwork(count, projection=None)
        found, _ = bring({"state_dict": network.state_dict()}, dataset=dataset)
        assert (found.dataset, found.labels) == (name, LABELS[name])
        assert ("only data set" in found.label_source) == (dataset is None)
        recipe = getattr(recipes, name)().flat()
        assert found.config.loss.sample_weight == recipe["loss.sample_weight"]
        assert found.config.data.name == recipe["data.name"]
        (tmp_path / "best.pt").unlink()
        names = tmp_path / "names.txt"
        names.write_text("\n".join(LABELS[name]))
        named, _ = bring({"state_dict": network.state_dict()}, labels=names)
        assert named.dataset == ("folder" if count == 20 else name)  # two data sets have 20
        (tmp_path / "best.pt").unlink()
        if name == "voc2012":
            assert found.config.data.voc2012_test == "server"
            with pytest.raises(UserError, match=r"20 labels, as voc2007 and voc2012 have: say"):
                bring({"state_dict": network.state_dict()}, dataset=None)


def changed(state, **changes):
    """A state with tensors replaced, or removed where None; a key's dots are underscores twice."""
    state = dict(state)
    for name, tensor in changes.items():
        key = name.replace("__", ".")
        if tensor is None:
            del state[key]
        else:
            state[key] = tensor
    return state


LAYER = "transformer__decoder__layers__1__"
MISTAKES = {
    "decoder self-attention": (
        {
            f"{LAYER}self_attn__in_proj_weight": torch.zeros(48, 16),
            f"{LAYER}norm1__bias": torch.zeros(16),
        },
        r"has self-attention in the decoder, for which there is no counterpart here: 2 tensors, "
        r"'transformer.decoder.layers.1.self_attn.in_proj_weight'",
    ),
    "learned positions": (
        {"backbone__1__row_embed__weight": torch.zeros(50, 8)},
        r"has learned positions, .*'backbone.1.row_embed.weight'",
    ),
    "other positions": (
        {"backbone__1__pe": torch.ones(1, 16, 2, 2)},
        r"'backbone.1.pe' with other values than DETR's",
    ),
    "positions of another shape": (
        {"backbone__1__pe": torch.ones(1, 16, 2, 3)},
        r"'backbone.1.pe' of the shape \(1, 16, 2, 3\); \(1, 16, H, H\) is expected",
    ),
    "pre-norm": (
        {"transformer__encoder__norm__weight": torch.ones(16)},
        r"normalised before .*'transformer.encoder.norm.weight'",
    ),
    "another classifier": ({"fc__weight": torch.ones(5, 16)}, r"another classifier, .*'fc.weight'"),
    "something else": ({"gate": torch.ones(5)}, r"has unknown parts, .*1 tensors, 'gate'"),
    "a Swin transformer": (
        {"backbone__0__patch_embed__proj__weight": torch.ones(4, 3, 4, 4)},
        r"another backbone than torchvision's ResNet-18, .*'backbone.0.patch_embed.proj.weight'",
    ),
    "a TResNet": (
        {"backbone__0__body__body__conv1__0__weight": torch.ones(4, 3, 4, 4)},
        r"another backbone .*'backbone.0.body.body.conv1.0.weight'",
    ),
    "another ResNet": (
        {"backbone__0__body__layer3__2__conv1__weight": torch.ones(256, 256, 3, 3)},
        r"no whole ResNet-18, .*: its stages have 2, 2, 3, 2 blocks of the basic kind",
    ),
    "no queries": ({"query_embed__weight": None}, r"not a checkpoint of .*no 'query_embed.weight'"),
    "no feed-forward": (
        {"transformer__decoder__layers__0__linear1__weight": None},
        r"is not whole: it has no 'transformer.decoder.layers.0.linear1.weight'",
    ),
    "no classifier": (
        {"fc__b": None},
        r"is not whole: it has nothing for 1 .*'head.classifier.bias_L'",
    ),
    "no prototypes": ({"prototype": None}, r"is not whole: .*'prototypes.rows_LD'"),
    "half a projection": (
        {"proj_head__layers__1__weight": None},
        r"has no 'proj_head.layers.1.weight'",
    ),
    "a layer left out": (
        {"transformer__decoder__layers__3__linear2__bias": torch.zeros(16)},
        r"has 'transformer.decoder.layers.3.linear2.bias', which a network of its other",
    ),
    "other labels": (
        {"fc__W": torch.zeros(1, 6, 16)},
        r"contradicts itself: 'fc.W' has the shape \(6, 16\), and \(5, 16\) follows",
    ),
    "another width": (
        {"transformer__decoder__norm__weight": torch.zeros(8)},
        r"contradicts itself: 'transformer.decoder.norm.weight' has the shape \(8,\)",
    ),
    "too many axes": (
        {"query_embed__weight": torch.zeros(5, 16, 1)},
        r"'query_embed.weight' with 3 axes, \(5, 16, 1\); the published networks have 2",
    ),
    "not finite": (
        {"fc__b": torch.full((1, 5), torch.nan)},
        r"values in 'fc.b' that are not finite",
    ),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_what_has_no_counterpart_or_is_not_whole(bring, sadcl, mistake, tmp_path):
    changes, message = MISTAKES[mistake]
    with pytest.raises(UserError, match=message) as error:
        bring({"state_dict": changed(sadcl.state_dict(), **changes)})
    assert "\n" not in str(error.value)
    assert not (tmp_path / "best.pt").exists()


def test_a_convolution_that_is_not_needed_has_no_counterpart(bring):
    state = PublishedNetwork(5, hidden=512, projection=None).state_dict()
    convolution = changed(state, input_proj__weight=torch.zeros(512, 512, 1, 1))
    with pytest.raises(
        UserError, match=r"has 'input_proj.weight', .*only where the channels differ"
    ):
        bring({"state_dict": convolution})


def test_options_that_do_not_fit(bring, sadcl, tmp_path):
    content = {"state_dict": sadcl.state_dict()}
    (tmp_path / "four.txt").write_text("a\nb\nc\nd\n")
    for options, message in (
        ({"labels": tmp_path / "four.txt"}, r"has 5 labels, but '.*four.txt' has 4"),
        ({"labels": tmp_path / "none.txt"}, r"none.txt' (cannot be read|does not exist)"),
        ({"dataset": "coco14"}, "has 5 labels, but coco14 has 80"),
        ({"dataset": "coco15"}, "--dataset 'coco15' is not possible: coco14, voc2007"),
        ({"dataset": None}, "has 5 labels, and no data set has that many .coco14 80, .*--labels"),
        ({"heads": 3}, "--heads 3 does not fit .*divide the hidden size 16"),
        ({"heads": 0}, "--heads 0 does not fit"),
        ({"image_size": 96}, "--image-size 96 contradicts .*positions are for 64 px"),
    ):
        with pytest.raises(UserError, match=message):
            bring(content, **options)
    without = changed(sadcl.state_dict(), backbone__1__pe=None)
    found, path = bring({"state_dict": without}, image_size=96, heads=2)
    assert found.config.data.image_size == 96
    assert found.config.model.heads == 2
    assert not found.has_image_size
    before = storage.read(path)
    with pytest.raises(UserError, match="best.pt' exists already"):
        bring(content)
    assert storage.read(path) == before


def test_files_that_are_no_checkpoints(bring, sadcl, tmp_path):
    torch.save(checkpoint_of(sadcl), sink := io.BytesIO())
    for content, message in (
        (sink.getvalue()[: len(sink.getvalue()) // 2], "is not a checkpoint, or it is damaged"),
        (b"\xff\xd8\xff\xe0 a photograph", "is not a checkpoint, or it is damaged"),
        (b"", "is not a checkpoint, or it is damaged"),
        ([1, 2], "holds no state: give one of the published"),
        ({"epoch": 3}, "has no 'state_dict' of tensors; it has 'epoch'"),
        ({"format": 1, "labels": ["a"], "model": {}}, "is already a checkpoint of sadcl"),
        (
            checkpoint_of(sadcl, args=argparse.Namespace(lr=1)),
            r"something other than tensors and plain values \(argparse.Namespace\)",
        ),
    ):
        with pytest.raises(UserError, match=message) as error:
            bring(content)
        assert "\n" not in str(error.value)
    with pytest.raises(
        UserError, match="no checkpoint at .*give the path of a published checkpoint"
    ):
        import_checkpoint(str(tmp_path / "nowhere"), str(tmp_path / "new.pt"))


def test_nothing_in_the_file_is_executed(bring, sadcl, tmp_path):
    class Trap:
        def __reduce__(self):
            return (open, (str(tmp_path / "executed"), "w"))

    with pytest.raises(UserError, match="something other than tensors and plain values"):
        bring(checkpoint_of(sadcl, best_mAP=Trap()))
    assert not (tmp_path / "executed").exists()


def test_a_network_starts_from_it(bring, sadcl, query2label, tmp_path):
    """All labels by name; a file of Query2Label has no prototypes."""
    for network, valid in ((sadcl, True), (query2label, False)):
        found, path = bring(checkpoint_of(network))
        labels = ("zebra", *NAMES[::-1])
        started = build.model(found.config, 6, pretrained=False).eval()
        content = checkpoint.load_checkpoint(path)
        taken = checkpoint.load_network(started, content, path, labels, whole=True)
        assert str(taken) == "5 of 6 labels"
        expected = inference.load(path, device="cpu").network
        with torch.no_grad():
            logits = started(IMAGES).logits_BL
            torch.testing.assert_close(logits[:, 1:], expected(IMAGES).logits_BL.flip(1))
        assert started.prototypes.valid_L.tolist() == [False] + [valid] * 5
        (tmp_path / "best.pt").unlink()
    halves = build.model(found.config.override({"model.position": "halves"}), 5, pretrained=False)
    with pytest.raises(
        UserError, match=r"trained with model.position = 'interleaved'.*it is 'halves'"
    ):
        checkpoint.load_network(halves, content, path, NAMES)
