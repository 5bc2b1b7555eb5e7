"""The recipe trains what plain PyTorch trains, step by step: the published run at a small size.

``published_run.py`` has the plain PyTorch. Each setting of the recipe that is changed alone makes
the comparison fail.
"""

import copy
import dataclasses
from collections import defaultdict
from operator import attrgetter

import numpy as np
import pytest
import torch

from sadcl import build, recipes
from sadcl.data.load import load
from sadcl.training import engine, fit, loop
from tests.training.published_run import PublishedRun, one_cycle

TOLERANCE = 1e-9
STEPS_PER_EPOCH, EPOCHS, PLANNED_EPOCHS = 10, 10, 16
BATCH_SIZE, BANK_EPSILON, PROTOTYPE_EPSILON, LR = 8, 0.2, 0.25, 2e-3
START_BIAS = {3: -14.0, 17: 14.0, 0: -10.0, 4: -11.0, 7: -9.0}
"""Initial classifier bias of some labels: logarithms reach their floor, one label never gets a
prototype, and others get theirs late."""
ENLARGED = 30.0
"""Factor on the weights of the layer after the backbone."""
CONFIG = recipes.coco14().override(
    {
        "data.name": "scenes",
        "data.image_size": 32,
        "data.holdout": 0.0,
        "data.scene_train": BATCH_SIZE * STEPS_PER_EPOCH + 5,
        "data.scene_test": 8,
        "model.backbone": "test_resnet",
        "model.feature": -2,
        "model.pretrained": False,
        "model.hidden": 32,
        "model.feedforward": 32,
        "model.projection": 16,
        "model.dropout": 0.0,
        "bank.epsilon": BANK_EPSILON,
        "prototypes.epsilon": PROTOTYPE_EPSILON,
        "stage2.augmentation.resize": 37,
        "optim.batch_size": BATCH_SIZE,
        "optim.report": "raw",
        "optim.precision": "fp64",
        **{f"stage{stage}.lr": LR for stage in (1, 2)},
        **{f"stage{stage}.epochs": EPOCHS for stage in (1, 2)},
        **{f"stage{stage}.planned_epochs": PLANNED_EPOCHS for stage in (1, 2)},
    }
)


class Different(AssertionError):
    """Product and reference differ."""


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    """On a busy machine threads that wait for each other would cost minutes."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Scenes; the last 5 training images of an epoch fill no batch, and some targets are -1."""
    scenes = load(CONFIG.data, tmp_path_factory.mktemp("scenes"))
    targets = scenes.train.targets.copy()
    targets[np.random.default_rng(0).random(targets.shape) < 0.05] = -1
    train = dataclasses.replace(scenes.train, targets=targets, reopen=None)
    return dataclasses.replace(scenes, train=train)


def training_images(data):
    """The training images without augmentation (N, 3, H, W), and their targets (N, L)."""
    batches = [*build.loader(CONFIG, data.train).batches(0)]
    images = torch.cat([batch.images_BCHW for batch in batches])
    return images, torch.cat([batch.targets_BL for batch in batches])


@pytest.fixture(scope="module")
def initial_network(data):
    """Replaces ``build.model``: a network with ``START_BIAS`` that tells images apart.

    All images look alike to a random backbone whose BatchNorm is frozen. The layer after it takes
    the mean away here and enlarges what remains, so that both contrasts can be learned.
    """
    images_NCHW, _ = training_images(data)
    build_model = build.model

    @torch.no_grad()
    def build_initial(config, num_labels, **options):
        network = build_model(config, num_labels, **options)
        mean_C = network.backbone(images_NCHW).mean((0, 2, 3))
        network.head.reduce.weight *= ENLARGED
        network.head.reduce.bias.copy_(-network.head.reduce.weight[:, :, 0, 0] @ mean_C)
        for label, bias in START_BIAS.items():
            network.head.classifier.bias_L[label] = bias
        return network

    return build_initial


class Comparison:
    """Trains the reference beside the product, and compares both after each step.

    Args:
        data: what both train on.
        network: of the reference: initial weights, or with ``stage`` 1 those that stage 1 ended
            with.
        stage: the stage that the reference has finished, 0 or 1.
    """

    def __init__(self, data, network, stage=0):
        self.data, self.stage1_network = data, None
        self.steps, self.largest, self.losses = {1: 0, 2: 0}, defaultdict(float), defaultdict(list)
        self.reference = PublishedRun(
            network,
            batch_size=BATCH_SIZE,
            lr=LR,
            planned_steps=PLANNED_EPOCHS * STEPS_PER_EPOCH,
            epsilon=BANK_EPSILON,
            prototype_epsilon=PROTOTYPE_EPSILON,
            stage=stage,
        )

    def train_step(self, training, batch, **options):
        """Replaces the product's step in its loop."""
        reference = self.reference
        if training.step == 0:
            self._begin(training.stage)
        rates = {group["lr"] for group in training.optimizer.param_groups}
        if rates != {one_cycle(reference.steps, reference.planned_steps, LR)}:
            raise Different(f"learning rate {rates}")
        values = engine.train_step(training, batch, **options)
        for name, value in reference.step(batch.images_BCHW, batch.targets_BL).items():
            self._compare("loss", values[name], value, name)
            self.losses[name].append(float(value))
        self._compare_state(training)
        self.steps[training.stage] += 1
        return values

    def _begin(self, stage):
        if stage == 1:
            self.reference.begin_stage1()
            return
        self.stage1_network = copy.deepcopy(self.reference.network)
        self.reference.begin_stage2(*training_images(self.data))

    def _compare_state(self, training):
        reference, network = self.reference, training.network
        for name, weight in reference.trained().items():
            read = attrgetter("prototypes.rows_LD" if name == "prototypes" else name)
            for kind, module, expected in (
                ("weights", network, weight),
                ("average", training.ema.module, reference.average[name]),
            ):
                self._compare(kind, *without_key_bias(name, read(module), expected), name)
        if training.stage == 2:
            self._compare_memory(training)

    def _compare_memory(self, training):
        reference, memory = self.reference, training.bank.read()
        rows_LD, has_L = training.network.prototypes.read()
        if not torch.equal(has_L, reference.has_prototype_L):
            raise Different("labels that have a prototype")
        places = torch.stack([memory.positions_M, memory.labels_M], 1)
        if not torch.equal(places, reference.in_bank_BL.nonzero()):
            raise Different("places of the bank that have a row")
        self._compare("prototypes", rows_LD[has_L], reference.prototypes_LD[has_L])
        self._compare("bank", memory.rows_MD, reference.bank_BLD[reference.in_bank_BL])

    def _compare(self, kind, product, expected, name=""):
        """Record the length of the difference as a share of the expected length."""
        product, expected = product.detach(), expected.detach()
        length = float(torch.linalg.vector_norm(expected)) or 1.0
        share = float(torch.linalg.vector_norm(product - expected)) / length
        self.largest[kind] = max(self.largest[kind], share)
        if not share <= TOLERANCE:
            where = f"stage {self.reference.stage}, step {self.reference.steps}"
            raise Different(f"{kind} {name} differs by {share:.3g} of its length in {where}")


def without_key_bias(name, *biases):
    """Leave out the bias of an attention's keys, the second of three, which has no gradient.

    Softmax does not see it, so that rounding noise is all that AdamW moves it by: its difference is
    up to 1e-9 of the other two biases' length, theirs 1e-14.
    """
    if not name.endswith("attention.in_proj_bias"):
        return biases
    return tuple(torch.cat(bias.detach().chunk(3)[::2]) for bias in biases)


@pytest.fixture(scope="module")
def whole_run(data, initial_network, tmp_path_factory):
    """The comparison of both stages, and the URI of the product's stage-1 checkpoint."""
    folder = tmp_path_factory.mktemp("run")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(build, "model", initial_network)
        comparison = Comparison(data, build.model(CONFIG, len(data.labels)))
        patch.setattr(loop, "train_step", comparison.train_step)
        fit(CONFIG, data, str(folder), device="cpu")
    return comparison, str(folder / "stage1" / "best.pt")


def test_100_steps_of_both_stages_equal_plain_pytorch(whole_run):
    comparison, _ = whole_run
    assert comparison.steps == {1: 100, 2: 100}
    assert comparison.largest.keys() == {"loss", "weights", "average", "prototypes", "bank"}
    assert max(comparison.largest.values()) <= TOLERANCE


def test_the_100_steps_show_every_case(whole_run):
    cases = whole_run[0].reference.cases
    assert cases["late prototypes"] >= 1
    assert cases["labels without a first prototype"] > cases["late prototypes"]
    for name in ("ignored targets", "logarithms at the floor", "rows admitted", "rows refused"):
        assert cases[name] > 500
    assert cases["rows of the bank in Eq. 4"] > 500
    contrast = whole_run[0].losses["loss_sample"]  # which is learned
    assert np.mean(contrast[-10:]) < 0.8 * np.mean(contrast[:10])


STAGE1 = {
    "stage1.class_loss.focus_gradient": (True, "weights"),
    "stage1.class_loss.floor": (0.0, "loss"),
    "stage1.class_loss.clip": (0.05, "loss"),
    "stage1.class_loss.kind": ("bce", "loss"),
    "stage1.planned_epochs": (None, "learning rate"),
    "optim.drop_last": (False, "learning rate"),
    "optim.pct_start": (0.3, "learning rate"),
    "optim.weight_decay": (0.0, "weights"),
    "optim.ema_start": ("first_step", "average"),
    "optim.ema_decay": (0.9997, "average"),
    "optim.ema_warmup": (True, "average"),
    "model.freeze_batchnorm": (False, "loss"),
    "model.frozen": ((), "loss"),
}
STAGE2 = {
    "stage2.class_loss.floor": (0.0, "loss"),
    "stage2.class_loss.kind": ("asymmetric", "loss"),
    "loss.sample_weight": (8.1, "loss"),
    "loss.prototype_weight": (4.1, "loss"),
    "loss.tau": (0.21, "loss"),
    "loss.prototype_tau": (None, "loss"),
    "loss.normalize": (False, "loss"),
    "loss.candidates": ("all", "loss"),
    "loss.anchors": ("batch", "loss"),
    "loss.anchor_mask": ("released", "loss"),
    "loss.sample_reduction": ("batch", "loss"),
    "loss.prototype_reduction": ("mean", "loss"),
    "loss.absent_labels": ("push", "loss"),
    "bank.start": ("empty", "loss"),
    "bank.epsilon": (0.6, "(places of the )?bank"),
    "prototypes.epsilon": (0.6, "loss"),
    "prototypes.policy": ("ema", "weights"),
    "prototypes.decay": (True, "weights"),
}


@pytest.mark.parametrize("field", STAGE1)
def test_another_setting_of_stage_1_is_found(field, data, initial_network, tmp_path, monkeypatch):
    value, kind = STAGE1[field]
    monkeypatch.setattr(build, "model", initial_network)
    comparison = Comparison(data, build.model(CONFIG, len(data.labels)))
    monkeypatch.setattr(loop, "train_step", comparison.train_step)
    with pytest.raises(Different, match=f"^{kind}"):
        fit(CONFIG.override({field: value}), data, str(tmp_path), device="cpu")


def stage2(changes, whole_run, data, folder, monkeypatch):
    """Train stage 2 from the end of stage 1 with other settings than the reference has."""
    trained, checkpoint = whole_run
    comparison = Comparison(data, copy.deepcopy(trained.stage1_network), stage=1)
    monkeypatch.setattr(loop, "train_step", comparison.train_step)
    fit(CONFIG.override(changes), data, str(folder), stage1=checkpoint, device="cpu")
    return comparison


@pytest.mark.parametrize("field", STAGE2)
def test_another_setting_of_stage_2_is_found(field, whole_run, data, tmp_path, monkeypatch):
    value, kind = STAGE2[field]
    with pytest.raises(Different, match=f"^{kind}"):
        stage2({field: value}, whole_run, data, tmp_path, monkeypatch)
