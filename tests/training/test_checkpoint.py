"""Files that are no checkpoints, and starting from one: stage 2 alone, or with other labels."""

import errno
import json
import resource
from dataclasses import replace

import numpy as np
import pytest
import torch

from sadcl import build, inference, recipes, storage
from sadcl.data.base import ImageSet, MultiLabelData
from sadcl.data.load import load
from sadcl.errors import UserError
from sadcl.model.heads import sarl
from sadcl.training import Callbacks, checkpoint, fit, loop
from tests.conftest import TINY
from tests.model.test_position import older

VOC = [
    "aeroplane",
    "bicycle",
    "bird",
    "boat",
    "bottle",
    "bus",
    "car",
    "cat",
    "chair",
    "cow",
    "diningtable",
    "dog",
    "horse",
    "motorbike",
    "person",
    "pottedplant",
    "sheep",
    "sofa",
    "train",
    "tvmonitor",
]
COCO = [
    "person",
    "bicycle",
    "car",
    "motorcycle",
    "airplane",
    "bus",
    "train",
    "truck",
    "boat",
    "traffic light",
    "bird",
    "cat",
    "dog",
    "horse",
    "sheep",
    "cow",
    "bottle",
    "potted plant",
    "dining table",
    "tv",
    "couch",
    "chair",
    "wine glass",
]


@pytest.fixture(scope="module")
def config():
    return recipes.demo().override({**TINY, "bank.epsilon": 0.3, "prototypes.policy": "learned"})


@pytest.fixture(scope="module")
def data(config, tmp_path_factory):
    return load(config.data, tmp_path_factory.mktemp("scenes"))


@pytest.fixture(scope="module")
def trained(config, data, tmp_path_factory):
    """Both stages, with the stage 1 that stage 2 started from."""
    folder = tmp_path_factory.mktemp("trained")
    return fit(config, data, str(folder), device="cpu"), str(folder / "stage1" / "best.pt")


def relabelled(data, labels, columns) -> MultiLabelData:
    """The same images with other labels, each of them a column of the former or None."""

    def change(images):
        nothing = np.zeros((len(images), 1), np.int8)
        targets = np.concatenate(
            [nothing if c is None else images.targets[:, [c]] for c in columns], axis=1
        )
        return ImageSet(images.name, images.folder, images.files, targets, tuple(labels))

    parts = {name: change(getattr(data, name)) for name in ("train", "val", "test")}
    return replace(data, labels=tuple(labels), **parts)


@pytest.mark.parametrize("contrast", [True, False])
def test_stage2_alone_is_what_follows_a_stage1(config, data, trained, tmp_path, contrast):
    whole, stage1 = trained
    if not contrast:
        config = config.override({"loss.sample_weight": 0.0, "loss.prototype_weight": 0.0})
        whole = fit(config, data, str(tmp_path / "whole"), device="cpu", stage1=stage1)
    alone = config.override({"stage1.epochs": 0, "model.start": stage1})
    seen = []
    outcome = fit(
        alone,
        data,
        str(tmp_path / "alone"),
        device="cpu",
        callbacks=Callbacks(report=lambda e: seen.append((e.stage, e.epoch))),
    )
    assert seen == [(2, 1), (2, 2), (2, 3)]
    assert outcome.metrics == whole.metrics
    one, other = (checkpoint.load_checkpoint(run.checkpoint)["model"] for run in (outcome, whole))
    assert all(torch.equal(one[name], other[name]) for name in other)


def test_rows_go_to_the_labels_of_the_same_name(config, data, trained):
    """A permuted data set: each label keeps its scores, prototype and flag.

    A new label keeps its initial weights.
    """
    content = checkpoint.load_checkpoint(trained[0].checkpoint)
    assert bool(content["model"]["prototypes.valid_L"].any())
    order = torch.randperm(20, generator=torch.Generator().manual_seed(0)).tolist()
    labels = ("something new", *(data.labels[i] for i in order))
    former = build.model(config, 20)
    taken = checkpoint.load_network(former, content, "best.pt", data.labels)
    assert str(taken) == "all of 20 labels"
    network = build.model(config, 21)
    fresh = network.head.classifier.weight_LD[0].clone()
    taken = checkpoint.load_network(network, content, "best.pt", labels)
    assert taken == (21, 20, False, False)
    assert str(taken) == "20 of 21 labels"
    assert torch.equal(network.head.classifier.weight_LD[0], fresh)
    images = torch.randn(2, 3, 32, 32)
    former.eval(), network.eval()
    torch.testing.assert_close(network(images).logits_BL[:, 1:], former(images).logits_BL[:, order])
    rows, valid = network.prototypes.read()
    assert valid.tolist() == [False, *(former.prototypes.valid_L[order].tolist())]
    assert torch.equal(rows[1:], former.prototypes.rows_LD[order])
    assert int(network.prototypes.count_L.sum()) == 0


def test_coco_to_voc_by_name_whatever_the_spelling(config):
    coco, voc = build.model(config, len(COCO)), build.model(config.override({"seed": 1}), len(VOC))
    content = {"config": config.json_text(), "labels": COCO, "model": coco.state_dict()}
    taken = checkpoint.load_network(voc, content, "best.pt", tuple(VOC))
    assert str(taken) == "20 of 20 labels"
    for name, theirs in (
        ("aeroplane", "airplane"),
        ("tvmonitor", "tv"),
        ("diningtable", "dining table"),
        ("person", "person"),
    ):
        mine = voc.head.transformer.query_LD[VOC.index(name)]
        assert torch.equal(mine, coco.head.transformer.query_LD[COCO.index(theirs)])


def test_a_label_takes_the_row_of_its_own_name_first(config):
    there = ["couch", "sofa", "C++", "C#", "motorcycle"]
    here = ("sofa", "couch", "C#", "C++", "motorbike", "c")
    assert checkpoint._label_pairs(here, there) == [
        (0, 1),
        (1, 0),
        (2, 3),
        (3, 2),
        (4, 4),
    ]  # what "c" means is in doubt


def test_training_goes_on_with_other_labels_from_a_finished_model(config, data, trained, tmp_path):
    """Both stages, and stage 2 alone.

    A label that nothing is admitted for keeps its former prototype.
    """
    labels = ("something new", *data.labels[:5])
    other = relabelled(data, labels, [None, *range(5)])
    both = config.override(
        {"model.start": trained[0].checkpoint, "stage1.epochs": 1, "stage2.epochs": 1}
    )
    assert fit(both, other, str(tmp_path / "both"), device="cpu").stage == 2
    strict = both.override({"stage1.epochs": 0, "prototypes.epsilon": 1.0})
    outcome = fit(strict, other, str(tmp_path / "alone"), device="cpu")
    content, former = (
        checkpoint.load_checkpoint(outcome.checkpoint),
        checkpoint.load_checkpoint(trained[0].checkpoint),
    )
    assert content["model"]["prototypes.valid_L"].tolist() == [
        False,
        *former["model"]["prototypes.valid_L"][:5].tolist(),
    ]


def test_the_pooled_baseline_takes_the_backbone_alone(config, data, trained):
    content = checkpoint.load_checkpoint(trained[0].checkpoint)
    pooled = build.model(config.override({"model.arch": "pooled"}), 20)
    taken = checkpoint.load_network(pooled, content, "best.pt", data.labels)
    assert taken.backbone_only
    assert "backbone alone" in str(taken)
    name, weight = next(iter(pooled.backbone.state_dict(prefix="backbone.").items()))
    assert torch.equal(weight, content["model"][name])


def test_what_does_not_fit_is_named(config, data, trained, tmp_path):
    start = {"model.start": trained[0].checkpoint}
    with pytest.raises(
        UserError,
        match=r"was trained with model.hidden = 16.*Set model.hidden to 16; it is 32",
    ):
        fit(
            config.override({**start, "model.hidden": 32}),
            data,
            str(tmp_path / "wide"),
            device="cpu",
        )
    state = trained[0].checkpoint.replace("best.pt", "state.pt")
    with pytest.raises(UserError, match="state.pt' is a run's training state"):
        fit(config.override({"model.start": state}), data, str(tmp_path / "state"), device="cpu")
    alone = {**start, "stage1.epochs": 0}
    with pytest.raises(UserError, match="knows none of the 2 labels: stage 2 cannot start from it"):
        fit(
            config.override(alone),
            relabelled(data, ["a", "b"], [0, 1]),
            str(tmp_path / "strange"),
            device="cpu",
        )
    pooled = fit(
        config.override({"model.arch": "pooled", "stage2.epochs": 0}),
        data,
        str(tmp_path / "pooled"),
        device="cpu",
    )
    with pytest.raises(
        UserError, match=r"another head \(sadcl.model.heads:Pooled\): stage 2 cannot start"
    ):
        fit(
            config.override({**alone, "model.start": pooled.checkpoint}),
            data,
            str(tmp_path / "bare"),
            device="cpu",
        )
    with pytest.raises(UserError, match="There is no checkpoint at 'nowhere.pt'"):
        fit(
            config.override({"model.start": "nowhere.pt"}),
            data,
            str(tmp_path / "none"),
            device="cpu",
        )


def test_where_a_start_is_given_no_weights_are_downloaded(
    config, data, trained, tmp_path, monkeypatch
):
    asked = []
    real = build.model
    monkeypatch.setattr(
        loop.build,
        "model",
        lambda c, n, pretrained=True, **more: (
            asked.append(pretrained) or real(c, n, pretrained=False, **more)
        ),
    )
    fit(
        config.override({"model.start": trained[0].checkpoint, "stage2.epochs": 0}),
        data,
        str(tmp_path),
        device="cpu",
    )
    assert asked == [False]


def test_a_start_is_read_once_in_a_process_until_its_file_changes(trained, config, data, tmp_path):
    uri = str(tmp_path / "best.pt")
    content = checkpoint.load_checkpoint(
        trained[0].checkpoint if isinstance(trained, tuple) else trained.checkpoint
    )
    checkpoint.save_checkpoint(
        uri, {name: value for name, value in content.items() if name != "format"}
    )
    cached = checkpoint.load_cached(uri)
    assert checkpoint.load_cached(uri) is cached
    before = {name: tensor.clone() for name, tensor in cached["model"].items()}
    fit(
        config.override({"stage2.epochs": 1}), data, str(tmp_path / "run"), stage1=uri, device="cpu"
    )
    assert checkpoint.load_cached(uri) is cached
    assert all(
        torch.equal(cached["model"][name], tensor) for name, tensor in before.items()
    )  # training leaves it as it was
    checkpoint.save_checkpoint(
        uri, {**{name: value for name, value in content.items() if name != "format"}, "epoch": 99}
    )
    assert checkpoint.load_cached(uri)["epoch"] == 99
    with pytest.raises(UserError, match="no checkpoint at"):
        checkpoint.load_cached(str(tmp_path / "nowhere.pt"))


def test_checkpoints_that_are_none(tmp_path):
    with pytest.raises(UserError, match="no checkpoint at"):
        checkpoint.load_checkpoint(str(tmp_path / "none.pt"))
    damaged = tmp_path / "damaged.pt"
    damaged.write_bytes(b"PK\x03\x04 half")
    with pytest.raises(UserError, match="not a checkpoint, or it is damaged"):
        checkpoint.load_checkpoint(str(damaged))
    foreign = tmp_path / "foreign.pt"
    torch.save({"weights": torch.zeros(1)}, foreign)
    with pytest.raises(UserError, match="format 1 is read"):
        checkpoint.load_checkpoint(str(foreign))


OLDER_LOSS = {"class_loss": "asymmetric", "gamma_negative": 2.0, "gamma_positive": 0.5, "clip": 0.1}


def test_an_older_checkpoint_gives_the_scores_that_it_gave(config, tmp_path, monkeypatch):
    """It has no position in its configuration, and one class loss for both stages."""
    network = build.model(config.override({"model.position": "halves"}), 20).eval()
    tree = json.loads(config.json_text())
    del tree["model"]["position"], tree["stage1"]["class_loss"], tree["stage2"]["class_loss"]
    tree["loss"] |= OLDER_LOSS
    content = {"config": json.dumps(tree), "stage": 2, "labels": [f"label {i}" for i in range(20)]}
    uri = str(tmp_path / "older.pt")
    checkpoint.save_checkpoint(uri, {**content, "model": network.state_dict()})
    predictor = inference.load(uri, device="cpu")
    stored = predictor.config
    assert stored.model.position == "halves"
    assert stored.stage1.class_loss == stored.stage2.class_loss
    assert (
        stored.stage2.class_loss.model_dump().items()
        >= {
            "kind": "asymmetric",
            "gamma_negative": 2.0,
            "gamma_positive": 0.5,
            "clip": 0.1,
        }.items()
    )
    images = torch.randn(2, 3, 32, 32)
    scores = predictor.network(images).logits_BL
    interleaved = build.model(config, 20, pretrained=False).eval()
    interleaved.load_state_dict(network.state_dict())
    assert not torch.allclose(interleaved(images).logits_BL, scores, atol=1e-4)
    with pytest.raises(
        UserError, match=r"model.position = 'halves'.*Set model.position to 'halves'"
    ):
        checkpoint.load_network(
            interleaved, checkpoint.load_checkpoint(uri), uri, tuple(content["labels"])
        )
    # as the version that wrote it computed the positions
    monkeypatch.setattr(
        sarl, "sine_position", lambda h, w, dim, *, order, device, dtype: older(h, w, dim)
    )
    assert torch.equal(network(images).logits_BL, scores)


def test_nothing_in_a_checkpoint_is_executed(tmp_path):
    class Trap:
        def __reduce__(self):
            return (open, (str(tmp_path / "executed"), "w"))

    path = tmp_path / "trap.pt"
    torch.save({"format": 1, "model": Trap()}, path)
    with pytest.raises(UserError):
        checkpoint.load_checkpoint(str(path))
    assert not (tmp_path / "executed").exists()


@pytest.mark.parametrize("kilobytes", [1, 100, 300])
def test_a_file_that_cannot_be_finished_has_the_disks_error(tmp_path, monkeypatch, kilobytes):
    """The limit of a file's size stands for a disk that fills up at the start, within, or late."""
    uri, limits = str(tmp_path / "best.pt"), resource.getrlimit(resource.RLIMIT_FSIZE)
    monkeypatch.setattr(storage, "PATIENCE", 0.0)
    checkpoint.save_checkpoint(uri, {"number": 1})
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000 * kilobytes, limits[1]))
    try:
        with pytest.raises(OSError, match=f"{tmp_path}/best.pt") as caught:
            checkpoint.save_checkpoint(uri, {"tensors": [torch.ones(25_000) for _ in range(3)]})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert caught.value.errno == errno.EFBIG
    assert checkpoint.load_checkpoint(uri)["number"] == 1
    assert [path.name for path in tmp_path.iterdir()] == ["best.pt"]


HEADS = {
    "MLGCN": {"hidden": 8, "word_dim": 6},
    "SSGRL": {"joint": 6, "hidden": 8, "word_dim": 6},
    "ADDGCN": {"hidden": 8},
    "MLDecoder": {"dim": 8, "heads": 2, "feedforward": 8},
    "CSRA": {},
}


@pytest.mark.parametrize("head", HEADS)
def test_labels_in_another_order_get_the_logits_of_their_names(config, head):
    """The same network, whatever the order; matrices of co-occurrence are those of the data."""
    own = {"model.head": f"sadcl.model.heads:{head}", "model.head_arguments": HEADS[head]}
    config = config.override({**own, "stage2.epochs": 0})
    names = tuple("abcdef")
    counts = torch.randint(1, 9, (6, 6), generator=torch.Generator().manual_seed(0)).double()
    counts = counts + counts.T
    trained = build.model(config, 6, labels=names, co_occurrence_LL=counts).eval()
    content = {"labels": list(names), "model": trained.state_dict(), "config": config.json_text()}
    place = [3, 0, 5, 1, 4, 2]
    other = tuple(names[i] for i in place)
    network = build.model(
        config.override({"seed": 5}), 6, labels=other, co_occurrence_LL=counts[place][:, place]
    ).eval()
    taken = checkpoint.load_network(network, content, "best.pt", other)
    assert not taken.backbone_only
    images = torch.randn(2, 3, 64, 64)
    torch.testing.assert_close(network(images).logits_BL, trained(images).logits_BL[:, place])
    fewer = build.model(config, 3, labels=names[:3], co_occurrence_LL=counts[:3, :3])
    assert checkpoint.load_network(fewer, content, "best.pt", names[:3]).num_matches == 3


def test_a_head_whose_labels_share_parameters_gives_its_backbone_alone(config):
    own = {"model.head": "sadcl.model.heads:MLDecoder", "stage2.epochs": 0}
    arguments = {**HEADS["MLDecoder"], "groups": 3}
    config = config.override({**own, "model.head_arguments": arguments})
    trained = build.model(config, 6, labels=tuple("abcdef"))
    content = {"labels": [*"abcdef"], "model": trained.state_dict(), "config": config.json_text()}
    network = build.model(config, 6, labels=tuple("fedcba"))
    assert checkpoint.load_network(network, content, "best.pt", tuple("fedcba")).backbone_only
    with pytest.raises(UserError, match="a head for other labels: stage 2 cannot start from it"):
        checkpoint.load_network(network, content, "best.pt", tuple("fedcba"), whole=True)
    assert not checkpoint.load_network(network, content, "best.pt", tuple("abcdef")).backbone_only
