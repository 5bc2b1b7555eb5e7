"""Standardised feature maps, whatever wraps, moves or saves the network."""

import numpy as np
import pytest
import torch

from sadcl import build, inference, recipes
from sadcl.data.load import load
from sadcl.errors import UserError
from sadcl.model.standardization import Standardization
from sadcl.training import checkpoint, fit
from tests.conftest import TINY

CONFIG = recipes.demo().override(TINY | {"model.standardize": True, "stage1.epochs": 1})


def sums_of(map_BCHW):
    rows_CN = map_BCHW.double().transpose(0, 1).flatten(1)
    count_C = torch.full((len(rows_CN),), rows_CN.shape[1])
    return torch.stack([count_C, rows_CN.sum(1), rows_CN.square().sum(1)])


def test_a_map_passes_unchanged_until_it_is_measured_and_is_standardised_then():
    torch.manual_seed(0)
    map_BCHW = torch.randn(9, 4, 3, 3) * torch.tensor([1.0, 50.0, 0.5, 0.0])[:, None, None] + 7.0
    module = Standardization(4)
    assert torch.equal(module(map_BCHW), map_BCHW)
    module.set_from(sums_of(map_BCHW))
    rows_CN = module(map_BCHW).transpose(0, 1).flatten(1)
    np.testing.assert_allclose(rows_CN.mean(1), 0, atol=1e-3)
    np.testing.assert_allclose(rows_CN.std(1, correction=0), [1, 1, 1, 0], atol=1e-3)
    assert module(map_BCHW.bfloat16()).dtype == torch.bfloat16


def test_a_channel_that_hardly_varied_is_not_blown_up():
    torch.manual_seed(0)
    map_BCHW = torch.randn(9, 3, 3, 3) * torch.tensor([1.0, 2.0, 1e-6])[:, None, None]
    module = Standardization(3)
    module.set_from(sums_of(map_BCHW))
    unusual_BCHW = torch.full((1, 3, 1, 1), 0.1)
    np.testing.assert_allclose(module.std_C[2] / module.std_C.mean(), 0.01, rtol=0.02)
    assert module(unusual_BCHW).abs().max() < 0.1 / (0.009 * module.std_C.mean())


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    data = load(CONFIG.data, tmp_path_factory.mktemp("scenes"))
    folder = str(tmp_path_factory.mktemp("run"))
    fit(CONFIG, data, folder, device="cpu")
    return data, folder


def test_it_is_measured_once_on_the_plain_training_images_and_goes_with_the_weights(trained):
    data, folder = trained
    network = build.model(CONFIG, len(data.labels), labels=data.labels).eval()
    loader = build.loader(CONFIG, data.train)
    maps = [network.maps(batch.images_BCHW)[0].detach() for batch in loader.batches(0)]
    expected = Standardization(network.backbone.channels)
    expected.set_from(sums_of(torch.cat(maps)))
    for name in ("stage1/best.pt", "best.pt", "last.pt"):  # also where stage 2 has moved the maps
        state = checkpoint.load_checkpoint(f"{folder}/{name}")["model"]
        torch.testing.assert_close(state["standardizations.0.mean_C"], expected.mean_C)
        torch.testing.assert_close(state["standardizations.0.std_C"], expected.std_C)
        assert bool(state["standardizations.0.is_measured"])


def test_predictions_are_those_of_the_network_that_was_trained(trained):
    data, folder = trained
    predictor = inference.load(f"{folder}/best.pt")
    content = checkpoint.load_checkpoint(f"{folder}/best.pt")
    network = build.model(CONFIG, len(data.labels), labels=data.labels).eval()
    network.load_state_dict(content["model"])
    batch = next(iter(build.loader(CONFIG, data.test).batches(0)))
    expected_BL = network(batch.images_BCHW).logits_BL.sigmoid()
    paths = [data.test.path(int(i)) for i in batch.index_B[:3]]
    for found, expected_L in zip(predictor.predict(paths), expected_BL, strict=False):
        assert found
        for label, score in found:
            assert score == pytest.approx(expected_L[data.labels.index(label)].item(), abs=1e-4)


def test_a_checkpoint_without_it_is_refused(trained):
    data, folder = trained
    plain = build.model(CONFIG.override({"model.standardize": False}), len(data.labels))
    content = checkpoint.load_checkpoint(f"{folder}/best.pt")
    with pytest.raises(UserError, match="was trained with model.standardize = True"):
        checkpoint.load_network(plain, content, "best.pt", data.labels)
