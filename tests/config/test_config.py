"""Configuration: overrides, errors, digests."""

import json

import pytest

from sadcl import recipes
from sadcl.config import ClassLoss, Config, Loss, Stage
from sadcl.errors import UserError


def test_override_changes_one_field_and_leaves_the_original():
    base = Config()
    changed = base.override({"loss.tau": 0.1, "stage2.augmentation.flip": True})
    assert (changed.loss.tau, changed.stage2.augmentation.flip) == (0.1, True)
    assert (base.loss.tau, base.stage2.augmentation.flip) == (0.2, False)
    assert changed.override({"loss.tau": 0.2, "stage2.augmentation.flip": False}) == base


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"loss.tua": 0.1}, ["loss.tua", "Did you mean 'loss.tau'?"]),
        ({"loss.tau": -1}, ["loss.tau = -1", "greater than or equal to 0.005"]),
        ({"bank.epsilon": 1.5}, ["bank.epsilon = 1.5", "less than or equal to 1"]),
        ({"loss.sample_weight": float("nan")}, ["loss.sample_weight = nan"]),
        (
            {"stage1.class_loss.kind": "hinge"},
            ["stage1.class_loss.kind = 'hinge'", "'bce', 'asymmetric' or an import path"],
        ),
        ({"stage1.planned_epochs": 3}, ["stage1", "planned_epochs >= epochs"]),
        ({"seed": -1}, ["seed = -1"]),
        ({"stage1.epochs": 0}, ["stage1.epochs >= 1"]),
        ({"optim.report": "ema", "optim.ema_decay": 0.0}, ["optim", "needs ema_decay > 0"]),
        ({"stage2.augmentation.cutout": 2.0}, ["stage2.augmentation.cutout = 2.0"]),
        (
            {"loss.anchor_mask": "right"},
            ["loss.anchor_mask = 'right'", "'activated', 'targets' or 'released'"],
        ),
        (
            {"loss.anchor_mask": "released", "bank.policy": "fifo"},
            ["anchor_mask = 'released'", "'slot'", "but got 'fifo'"],
        ),
        (
            {"loss.anchor_mask": "targets", "bank.policy": "none"},
            ["anchor_mask = 'targets'", "but got 'none'"],
        ),
        (
            {"loss.anchor_mask": "released", "bank.scope": "worker"},
            ["bank.scope = 'cluster'", "'worker'"],
        ),
        (
            {"loss.anchor_mask": "released", "loss.anchors": "batch"},
            ["loss.anchors = 'batch+bank'", "and 'batch'"],
        ),
    ],
)
def test_bad_values_are_named(change, words):
    with pytest.raises(UserError) as error:
        Config().override(change)
    assert all(word in str(error.value) for word in words), str(error.value)


def test_parts_made_by_hand_are_checked_alike():
    with pytest.raises(
        UserError, match=r"tau = -1 is not possible: .* greater than or equal to 0.005"
    ):
        Loss(tau=-1)
    with pytest.raises(UserError, match=r"there is no configuration field 'tua'"):
        Loss(tua=0.1)
    with pytest.raises(
        UserError, match=r"^planned_epochs|planned_epochs >= epochs must hold, but got 3 < 20"
    ):
        Stage(planned_epochs=3)


def test_digest_is_of_the_values():
    base = Config()
    assert base.digest() == Config().digest()
    assert base.override({"seed": 1}).digest() != base.digest()
    assert Config.parse(base.model_dump(mode="json")).digest() == base.digest()


def test_stage1_is_shared_by_settings_of_stage2_only():
    base = recipes.demo()
    for same in (
        {"loss.tau": 0.5},
        {"bank.epsilon": 0.1},
        {"stage2.epochs": 1},
        {"stage2.class_loss.kind": "asymmetric"},
        {"model.projection": 8},
        {"loss.anchor_mask": "released"},
    ):
        assert base.override(same).stage1_digest() == base.stage1_digest(), same
    for other in (
        {"seed": 1},
        {"stage1.epochs": 1},
        {"stage1.class_loss.kind": "asymmetric"},
        {"data.holdout": 0.2},
    ):
        assert base.override(other).stage1_digest() != base.stage1_digest(), other


@pytest.mark.parametrize("how", ["model.checkpointing", "optim.compile"])
def test_how_the_numbers_come_about_is_in_no_digest(how):
    base = Config()
    other = base.override({how: True})
    assert other != base
    assert (other.digest(), other.stage1_digest(), other.json_text()) == (
        base.digest(),
        base.stage1_digest(),
        base.json_text(),
    )
    assert {name for name, value in other.flat().items() if value != base.flat()[name]} == {how}


def test_compressed_gradients_are_another_run_and_no_float64():
    """Both stages are computed with them."""
    base = Config()
    other = base.override({"optim.gradient_compression": "bf16"})
    assert other.digest() != base.digest()
    assert other.stage1_digest() != base.stage1_digest()
    with pytest.raises(UserError, match=r"'bf16'.*'fp64'.*'none'"):
        other.override({"optim.precision": "fp64"})


def test_frozen():
    with pytest.raises(Exception, match="frozen"):
        Config().seed = 3  # type: ignore[misc]


RECIPES = {  # the released weights 100 and 50 with 1000 / (B L) times the sum are L / 10 and L / 20
    "coco14": ("coco", 8.0, 4.0, 448),
    "voc2007": ("voc2007", 2.0, 1.0, 448),
    "voc2012": ("voc2012", 2.0, 1.0, 448),
    "nuswide": ("nuswide", 8.1, 4.05, 448),
    "vg500": ("vg500", 50.0, 25.0, 576),
}


@pytest.mark.parametrize("name", RECIPES)
def test_recipes_of_each_dataset(name):
    released, paper = (getattr(recipes, name)(variant) for variant in ("released", "paper"))
    loss = released.loss
    found = (
        released.data.name,
        loss.sample_weight,
        loss.prototype_weight,
        released.data.image_size,
    )
    assert found == RECIPES[name]
    assert (
        loss.tau,
        loss.tau_of_prototypes,
        released.bank.epsilon,
        released.prototype_epsilon,
    ) == (0.2, 0.07, 0.8, 0.85)
    assert (loss.class_reduction, loss.sample_reduction, loss.prototype_reduction) == (
        "image",
        "mean",
        "positives",
    )
    assert (loss.candidates, loss.anchors, loss.anchors_of_eq4, loss.anchor_mask) == (
        "matched",
        None,
        "batch+bank",
        "activated",
    )
    assert (released.bank.start, released.model.position) == ("prototypes", "interleaved")
    for stage in (released.stage1, released.stage2):
        assert (stage.epochs, stage.planned_epochs, stage.patience) == (80, None, 9)
        assert (stage.patience_counts, stage.class_loss.floor) == ("any", 1e-5)
    first, second = released.stage1.class_loss, released.stage2.class_loss
    assert (first.kind, first.gamma_negative, first.gamma_positive) == ("asymmetric", 4, 0)
    assert (first.clip, first.focus_gradient, second.kind) == (0, False, "bce")
    side, hole = released.data.image_size, released.stage1.augmentation.cutout
    assert round(hole * side) == 224
    assert (released.optim.drop_last, released.optim.ema_start) == (True, "initial")
    if name.startswith("voc"):
        assert released.data.difficult == "negative"
    assert (released.optim.batch_size, released.optim.ema_decay, released.optim.weight_decay) == (
        64,
        0.9998,
        5e-3,
    )
    assert (paper.loss.sample_weight, paper.loss.prototype_weight, paper.loss.class_weight) == (
        1,
        1,
        1,
    )
    assert (
        paper.loss.tau,
        paper.loss.tau_of_prototypes,
        paper.bank.epsilon,
        paper.prototype_epsilon,
    ) == (0.2, 0.2, 0.8, 0.8)
    assert (
        paper.loss.class_reduction,
        paper.loss.sample_reduction,
        paper.loss.prototype_reduction,
        paper.loss.candidates,
    ) == ("sum", "sum", "sum", "all")
    assert paper.stage1.class_loss == paper.stage2.class_loss == ClassLoss(kind="bce")
    assert (paper.loss.anchors, paper.prototypes.policy) == ("batch+bank", "mean")
    assert paper.stage1_digest() != released.stage1_digest()
    with pytest.raises(ValueError, match="variant"):
        getattr(recipes, name)("papr")


@pytest.mark.parametrize(
    "change",
    [
        {"loss.tau": 0.1},
        {"loss.prototype_tau": 0.1},
        {"bank.epsilon": 0.5},
        {"prototypes.epsilon": 0.5},
        {"loss.class_weight": 0.5},
        {"loss.sample_weight": 3.0},
        {"loss.prototype_weight": 3.0},
        {"bank.policy": "fifo"},
        {"bank.size": 7},
        {"bank.scope": "worker"},
        {"prototypes.policy": "ema"},
        {"prototypes.momentum": 0.5},
        {"model.projection": 512},
        {"loss.normalize": False},
        {"loss.anchors": "batch"},
        {"loss.anchor_mask": "released"},
        {"loss.class_reduction": "sum"},
        {"loss.candidates": "all"},
        {"prototypes.decay": True},
        {"loss.sample_reduction": "batch"},
        {"loss.prototype_reduction": "mean"},
        {"loss.absent_labels": "push"},
        {"stage1.class_loss.kind": "bce"},
        {"stage1.class_loss.gamma_negative": 2.0},
        {"stage1.class_loss.focus_gradient": True},
        {"stage2.class_loss.floor": 0.0},
        {"bank.start": "empty"},
        {"model.position": "halves"},
        {"optim.drop_last": False},
        {"optim.ema_start": "first_step"},
        {"stage1.patience_counts": "selected"},
        {"stage1.augmentation.randaugment_kind": "torchvision"},
        {"stage2.augmentation.multiscale_kind": "square"},
        {"stage1.epochs": 3},
        {"stage2.planned_epochs": 100},
        {"stage1.patience": None},
        {"stage1.augmentation.randaugment": 0},
        {"stage2.augmentation.multiscale": (1.0,)},
        {"stage2.lr": 1e-4},
        {"optim.pct_start": 0.3},
        {"optim.ema_decay": 0.999},
        {"model.frozen": ("conv1",)},
        {"model.freeze_batchnorm": False},
        {"model.decoder_layers": 1},
        {"model.start": "best.pt"},
        {"data.mean": (0.5, 0.5, 0.5)},
        {"data.std": (0.5, 0.5, 0.5)},
    ],
    ids=lambda change: next(iter(change)),
)
def test_every_value_of_the_method_is_a_field(change):
    base = recipes.coco14()
    changed = base.override(change)
    assert changed.digest() != base.digest()
    assert {name for name, value in changed.flat().items() if value != base.flat()[name]} == set(
        change
    )


def test_stage2_alone_needs_a_checkpoint_to_start_from():
    assert (
        recipes.demo().override({"stage1.epochs": 0, "model.start": "best.pt"}).stage1.epochs == 0
    )
    with pytest.raises(UserError, match="model.start"):
        recipes.demo().override({"stage1.epochs": 0})
    with pytest.raises(UserError, match="stage1.epochs >= 1"):
        recipes.demo().override({"stage1.epochs": 0, "stage2.epochs": 0, "model.start": "best.pt"})


def test_an_older_versions_configuration_means_what_it_did():
    """What that version did, field by field; reading it again changes nothing more."""
    tree = Config().override({"loss.prototype_tau": 0.07}).model_dump(mode="json")
    for section, names in {
        "data": ["mean", "std"],
        "model": ["position"],
        "optim": ["drop_last", "ema_start", "gradient_compression"],
        "bank": ["start"],
        "loss": ["candidates", "sample_reduction", "prototype_reduction", "absent_labels"],
    }.items():
        for name in names:
            del tree[section][name]
    for stage in ("stage1", "stage2"):
        del tree[stage]["class_loss"], tree[stage]["patience_counts"]
        del tree[stage]["augmentation"]["multiscale_kind"]
        del tree[stage]["augmentation"]["randaugment_kind"]
    tree["loss"] |= {
        "class_loss": "asymmetric",
        "gamma_negative": 3.0,
        "gamma_positive": 1.0,
        "clip": 0.1,
        "contrast_reduction": "sum",
    }
    config = Config.stored(json.dumps(tree))
    options = ClassLoss(kind="asymmetric", gamma_negative=3, gamma_positive=1, clip=0.1)
    assert config.stage1.class_loss == config.stage2.class_loss == options
    assert options.focus_gradient
    assert options.floor == 0
    loss = config.loss
    assert (loss.candidates, loss.sample_reduction, loss.prototype_reduction) == (
        "all",
        "sum",
        "sum",
    )
    assert (config.model.position, config.optim.ema_start) == ("halves", "first_step")
    assert (config.optim.drop_last, config.bank.start) == (False, "empty")
    assert config.optim.gradient_compression == "none"
    assert loss.prototype_tau == 0.07
    assert config.data.mean == (0.485, 0.456, 0.406)  # of ImageNet, whatever the backbone
    assert config.data.std == (0.229, 0.224, 0.225)
    assert Config.stored(config.json_text()) == config
    assert Config.stored(Config().json_text()) == Config()


def test_with_all_candidates_the_anchors_are_of_the_batch_unless_they_are_named():
    """Thousands of anchors of the bank would make the gradient of the batch's rows shorter."""
    base = recipes.coco14()
    assert base.override({"loss.candidates": "all"}).loss.anchors_of_eq4 == "batch"
    named = base.override({"loss.candidates": "all", "loss.anchors": "batch+bank"})
    assert named.loss.anchors_of_eq4 == "batch+bank"
    assert recipes.coco14("paper").loss.anchors_of_eq4 == "batch+bank"
    assert base.override({"loss.anchors": "batch"}).loss.anchors_of_eq4 == "batch"


def test_a_backbone_that_is_frozen_whole_and_its_views():
    base = recipes.demo().override({"model.frozen": "all", "model.freeze_batchnorm": True})
    assert base.stores_features
    assert base.features_text == (
        "the plain view of each image in fp16, without stage1.augmentation and stage2.augmentation"
    )
    views = base.override({"data.feature_views": 4, "data.feature_dtype": "bf16"})
    assert views.features_text == "4 augmented views of each training image in bf16"
    assert views.views_of(views.stage1.augmentation) == 4
    assert views.digest() != base.digest() != recipes.demo().digest()
    computed = base.override({"data.feature_views": 0, "optim.compile": True})
    assert (computed.stores_features, computed.features_text) == (False, None)
    assert "feature_" not in base.json_text()  # digests are those of before the fields existed
    for change, words in (
        ({"model.freeze_batchnorm": False}, "freeze_batchnorm = false cannot be combined"),
        ({"model.checkpointing": True}, "no backward pass"),
        ({"optim.backbone_lr": 0.1}, "does not learn at any rate"),
        ({"optim.compile": True}, "feature_views = 0"),
        ({"optim.precision": "fp64"}, "stored in float32 at most"),
        ({"model.frozen": "al"}, "give a list of the backbone's parts, or 'all'"),
        (
            {"data.feature_views": 2} | {f"stage{i}.augmentation.flip": False for i in (1, 2)},
            "they are all the same",
        ),
    ):
        with pytest.raises(UserError, match=words):
            base.override(change)
