"""Configuration: overrides, errors, digests."""

import pytest

from sadcl import recipes
from sadcl.config import Config, Loss, Stage
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
        ({"loss.class_loss": "hinge"}, ["loss.class_loss = 'hinge'", "'bce' or 'asymmetric'"]),
        ({"stage1.planned_epochs": 3}, ["stage1", "planned_epochs >= epochs"]),
        ({"seed": -1}, ["seed = -1"]),
        ({"stage1.epochs": 0}, ["stage1.epochs >= 1"]),
        ({"optim.report": "ema", "optim.ema_decay": 0.0}, ["optim", "needs ema_decay > 0"]),
        ({"stage2.augmentation.cutout": 2.0}, ["stage2.augmentation.cutout = 2.0"]),
    ],
)
def test_bad_values_are_named(change, words):
    with pytest.raises(UserError) as error:
        Config().override(change)
    assert all(word in str(error.value) for word in words), str(error.value)


def test_parts_made_by_hand_are_checked_alike():
    with pytest.raises(UserError, match=r"tau = -1 is not possible: .* greater than or equal to 0.005"):
        Loss(tau=-1)
    with pytest.raises(UserError, match=r"there is no configuration field 'tua'"):
        Loss(tua=0.1)
    with pytest.raises(UserError, match=r"^planned_epochs|planned_epochs >= epochs must hold, but got 3 < 20"):
        Stage(planned_epochs=3)


def test_digest_is_of_the_values():
    base = Config()
    assert base.digest() == Config().digest()
    assert base.override({"seed": 1}).digest() != base.digest()
    assert Config.parse(base.model_dump(mode="json")).digest() == base.digest()


def test_stage1_is_shared_by_settings_of_stage2_only():
    base = recipes.demo()
    for same in ({"loss.tau": 0.5}, {"bank.epsilon": 0.1}, {"stage2.epochs": 1}, {"model.projection": 8}):
        assert base.override(same).stage1_digest() == base.stage1_digest(), same
    for other in ({"seed": 1}, {"stage1.epochs": 1}, {"loss.class_loss": "asymmetric"}, {"data.holdout": 0.2}):
        assert base.override(other).stage1_digest() != base.stage1_digest(), other


def test_frozen():
    with pytest.raises(Exception, match="frozen"):
        Config().seed = 3  # type: ignore[misc]


@pytest.mark.parametrize("variant", ["paper", "released"])
def test_recipes_build(variant):
    config = recipes.coco14(variant)
    assert config.model.hidden == 2048
    with pytest.raises(ValueError, match="variant"):
        recipes.coco14("papr")
