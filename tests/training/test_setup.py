"""How a run settles what its configuration leaves to the weights."""

from __future__ import annotations

import json

import pytest
import torch

from sadcl import build, inference, recipes
from sadcl.data.load import load
from sadcl.data.transforms import IMAGENET, read_image, to_input
from sadcl.training import checkpoint, evaluation, fit, selection
from sadcl.training.setup import with_normalisation
from tests.conftest import TINY

HALF = (0.5, 0.5, 0.5)
CONFIG = recipes.demo().override(
    {
        **TINY,
        "stage1.epochs": 1,
        "stage2.epochs": 0,
        "model.backbone": "test_resnet",  # its weights were trained with a mean of 0.5
        "model.feature": -1,
    }
)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A run whose configuration leaves mean and standard deviation to the backbone."""
    data = load(CONFIG.data, tmp_path_factory.mktemp("scenes"))
    return data, fit(CONFIG, data, str(tmp_path_factory.mktemp("run")), device="cpu")


def test_the_checkpoint_says_how_images_were_normalised(trained, tmp_path):
    """Evaluation and prediction use its values, and ImageNet's for a checkpoint that has none."""
    data, outcome = trained
    assert outcome.normalisation == (HALF, HALF)
    content = checkpoint.load_checkpoint(outcome.checkpoint)
    saved = json.loads(content["config"])
    assert (saved["data"]["mean"], saved["data"]["std"]) == ([0.5] * 3, [0.5] * 3)
    predictor = inference.load(outcome.checkpoint, device="cpu")
    loader = build.loader(predictor.config, data.val)
    scores_NL, _ = evaluation.evaluate(predictor.network, loader, torch.device("cpu"))
    assert torch.equal(selection.half_logits(scores_NL), outcome.logits["val"])
    del saved["data"]["mean"], saved["data"]["std"]
    older = str(tmp_path / "older.pt")
    rest = {name: value for name, value in content.items() if name != "format"}
    checkpoint.save_checkpoint(older, {**rest, "config": json.dumps(saved)})
    photo = data.val.path(0)
    for uri, normalisation in ((outcome.checkpoint, (HALF, HALF)), (older, IMAGENET)):
        predictor = inference.load(uri, device="cpu")
        assert (predictor.config.data.mean, predictor.config.data.std) == normalisation
        shown = to_input(read_image(photo, 32), normalisation)[None]
        with torch.inference_mode():
            scores = predictor.network(shown).logits_BL[0].double().sigmoid().tolist()
        assert dict(predictor.predict(photo)[0]) == dict(zip(predictor.labels, scores, strict=True))


def test_a_start_brings_its_own_normalisation(trained, tmp_path):
    """It is that of the weights, unless a field replaces it."""
    _, outcome = trained
    vit = {"model.backbone": "vit_base_patch16_clip_224.openai"}
    start = {"model.start": outcome.checkpoint}
    assert with_normalisation(CONFIG.override(vit)).data.mean[0] == 0.48145466
    found = with_normalisation(CONFIG.override({**vit, **start})).data
    assert (found.mean, found.std) == (HALF, HALF)
    explicit = {**start, "data.mean": IMAGENET.mean}
    found = with_normalisation(CONFIG.override(explicit)).data
    assert (found.mean, found.std) == (IMAGENET.mean, HALF)
    complete = CONFIG.override({"data.mean": HALF, "data.std": HALF, "model.start": "nowhere.pt"})
    assert with_normalisation(complete) == complete  # no file is read in vain


def test_on_a_cpu_auto_is_float32_to_the_bit(tmp_path):
    """Both stages, with both contrasts; the checkpoint says what it was."""
    config = recipes.demo().override({**TINY, "stage1.epochs": 1, "stage2.epochs": 1})
    data = load(config.data, tmp_path / "scenes")
    outcomes = []
    for precision in ("auto", "fp32"):
        changed = config.override({"optim.precision": precision})
        outcomes.append(fit(changed, data, str(tmp_path / precision), device="cpu"))
    auto, float32 = outcomes
    assert (auto.precision, float32.precision) == ("fp32", "fp32")
    assert auto.metrics == float32.metrics
    one, other = (checkpoint.load_checkpoint(run.checkpoint) for run in outcomes)
    assert one["precision"] == "fp32"
    assert json.loads(one["config"])["optim"]["precision"] == "auto"
    for name, tensor in one["model"].items():
        assert torch.equal(tensor, other["model"][name]), name
