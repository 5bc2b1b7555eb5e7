"""The recipe for photographs of one's own: cheap on stored features, and the whole network."""

import pytest

from sadcl import Search, build, recipes
from sadcl.errors import UserError
from sadcl.search import Float
from sadcl.training.optim import create_optimizer

RANDOM = {"model.pretrained": False}


def test_features_are_stored_and_the_head_alone_learns():
    config = recipes.photographs().override(RANDOM)
    assert config.stores_features
    network = build.model(config, 5)
    assert not any(p.requires_grad for p in network.backbone.parameters())
    assert network.must_be_measured


def test_with_everything_training_the_head_comes_first_and_early_layers_learn_least():
    config = recipes.photographs("everything").override(RANDOM)
    assert not config.stores_features
    assert 0 < config.stage1.head_epochs < config.stage1.epochs
    network = build.model(config, 5)
    groups = create_optimizer(network, config.stage1, config.optim).param_groups
    rate_of = {id(p): group["lr"] for group in groups for p in group["params"]}
    body, head = network.backbone.body, network.head
    first, last = body.conv_stem.weight, body.blocks[6][0].conv_pw.weight
    assert rate_of[id(first)] < rate_of[id(last)] < rate_of[id(head.classifier.weight_LD)]


def test_a_search_on_features_can_be_confirmed_with_everything_training():
    search = Search(
        name="mine",
        question="?",
        base=recipes.photographs(),
        demo=recipes.demo(),
        space={"stage1.lr": Float(1e-4, 1e-2, log=True)},
        confirm_with=recipes.EVERYTHING,
    )
    confirmed = search.base.override(search.confirm_with)
    assert confirmed == recipes.photographs("everything")


def test_runs_of_fewer_epochs_than_the_head_has_alone_can_be_planned():
    """The final run of a search trains as many epochs as the best one."""
    config = recipes.photographs("everything")
    assert config.override({"stage1.epochs": 2, "stage2.epochs": 0}).stage1.head_epochs > 2


def test_few_photographs_get_a_recipe_of_their_own():
    few = recipes.photographs().override(recipes.FEW)
    assert few.model.dropout > recipes.photographs().model.dropout
    assert few.digest() != recipes.photographs().digest()


@pytest.mark.parametrize("variant", ["features", "everything"])
def test_its_code_builds_it(variant):
    config = recipes.photographs(variant).override({"seed": 3})
    text = recipes.code(config)
    assert f'photographs("{variant}")' in text
    names: dict = {}
    exec(text, names)
    assert names["config"] == config


def test_another_variant_is_named():
    with pytest.raises(UserError, match="'features' or 'everything', but got 'frozen'"):
        recipes.photographs("frozen")
