"""Published methods: every one is a configuration of its own, under each protocol and scale."""

from __future__ import annotations

import pytest

from sadcl import build, recipes
from sadcl.errors import UserError
from sadcl.launch.loss_check import check_losses

methods = recipes.methods
BASE, DEMO = recipes.coco14(), recipes.demo()
ONE = BASE.override(methods.ONE_PROTOCOL)
NETWORK = ("model.head", "model.head_arguments", "stage1", "stage2", "loss", "bank")
"""What the methods may differ in under one protocol, of all fields of a configuration."""


@pytest.mark.parametrize("name", methods.NAMES)
def test_a_method_differs_in_its_network_and_losses_only_under_one_protocol(name):
    config, flat = ONE.override(methods.shared(name, ONE)), ONE.flat()
    changed = {
        field
        for field, value in config.flat().items()
        if flat.get(field) != value and not field.startswith("model.head")
    }
    allowed = {"epochs", "planned_epochs"}
    for field in changed:
        stage, _, rest = field.partition(".")
        assert stage in ("loss", "bank") or rest in allowed or "class_loss" in rest, field
    assert config.stage1.epochs + config.stage2.epochs == 50
    assert (config.stage2.epochs > 0) == (name in methods.TWO_STAGES)


def test_all_methods_are_different_settings():
    for base, small in ((ONE, False), (DEMO, True)):
        shared = {
            base.override(methods.shared(n, base, small=small)).digest() for n in methods.NAMES
        }
        own = {base.override(methods.own(n, small=small)).digest() for n in methods.NAMES}
        assert len(shared) == len(own) == len(methods.NAMES)


@pytest.mark.parametrize("name", methods.NAMES)
def test_a_small_method_can_be_built_and_trains_fourteen_epochs(name):
    for changes in (methods.shared(name, DEMO, small=True), methods.own(name, small=True)):
        config = DEMO.override(changes)
        check_losses(config)
        network = build.model(config, 20)
        assert sum(p.numel() for p in network.parameters()) < 600_000
        assert config.stage1.epochs + config.stage2.epochs == methods.DEMO_EPOCHS
        assert 16 <= config.optim.batch_size <= 64
        assert all(0 < end < 14 for end in config.optim.step_epochs)


def test_some_published_settings():
    ml_gcn, ssgrl, tdrg, ml_decoder = (
        BASE.override(methods.own(name)) for name in ("ML-GCN", "SSGRL", "TDRG", "ML-Decoder")
    )
    assert (ml_gcn.optim.kind, ml_gcn.stage1.lr, ml_gcn.optim.backbone_lr) == ("sgd", 0.1, 0.1)
    assert ml_gcn.loss.class_weight == 1 / 80  # a mean over labels too
    assert (ml_gcn.optim.batch_size, ml_gcn.optim.ema_decay) == (16, 0)
    assert (ssgrl.data.image_size, ssgrl.model.frozen[-1]) == (576, "layer3")
    assert (tdrg.optim.step_epochs, tdrg.optim.clip_norm) == ((41,), 10)
    assert (ml_decoder.data.mean, ml_decoder.data.std) == ((0, 0, 0), (1, 1, 1))
    assert BASE.override(methods.own("SADCL")) == BASE


def test_heads_with_features_have_them():
    for name in methods.FEATURES:
        config = DEMO.override(methods.head(name, small=True))
        assert build.model(config, 20).feature_size is not None
        assert config.stage1.class_loss == DEMO.stage1.class_loss


def test_another_name_is_refused():
    with pytest.raises(UserError, match="The methods are SADCL, .* but got 'CSR'"):
        methods.own("CSR")
    assert set(methods.PUBLISHED) <= set(methods.NAMES)
