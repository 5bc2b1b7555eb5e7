"""Parts of one's own: found by their path, checked, and part of the digest by their source."""

from __future__ import annotations

import sys

import pytest

from sadcl import build, recipes
from sadcl.config import Config, component
from sadcl.config.sources import source_places
from sadcl.data.load import load
from sadcl.errors import UserError
from sadcl.launch.loss_check import check_losses
from sadcl.model import heads
from sadcl.training import fit

SOURCE = """
from torch import nn
from sadcl.model import HeadOutput, Task

LIMIT = 3

class Mean(nn.Module):
    def __init__(self, task: Task, *, dropout: float = 0.0, sizes: tuple[int, ...] = (1,)) -> None:
        super().__init__()
        self.sizes = sizes
        self.dropout = nn.Dropout(dropout)
        self.classifier = nn.Linear(task.channels[-1], len(task.labels))

    def forward(self, map_BCHW):
        return HeadOutput(self.classifier(self.dropout(map_BCHW.mean((2, 3)))))

def focal(logits_BL, targets_BL, weight_B, *, gamma: float):
    return logits_BL.sum(), weight_B.sum()
"""
ALONE = {"stage2.epochs": 0}


@pytest.fixture
def package(tmp_path, monkeypatch):
    """A package of one's own in the start folder, which is not on the path."""
    (tmp_path / "own_lab").mkdir()
    (tmp_path / "own_lab" / "__init__.py").write_text("")
    (tmp_path / "own_lab" / "heads.py").write_text(SOURCE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    yield tmp_path / "own_lab"
    for name in [name for name in sys.modules if name.startswith("own_lab")]:
        del sys.modules[name]


def own(**changes) -> Config:
    return recipes.demo().override({"model.head": "own_lab.heads:Mean", **ALONE, **changes})


def checked(**changes) -> None:
    config = own(**changes)
    check_losses(config)
    build.check_model(config)


def test_a_part_is_built_with_its_arguments(package):
    config = own(**{"model.head_arguments.dropout": 0.5, "model.head_arguments.sizes": [1, 2]})
    head = build.model(config, 4).head
    assert type(head).__name__ == "Mean"
    assert head.dropout.p == 0.5
    assert head.sizes == (1, 2), "a list is the tuple that the signature asks for"


def test_the_class_itself_is_its_path(package):
    module = component.load("own_lab.heads:Mean", "model.head").__module__
    given = recipes.demo().override({"model.head": sys.modules[module].Mean, **ALONE})
    assert given == own()


def test_an_edit_of_any_file_of_the_package_makes_another_digest(package):
    before = own()
    assert list(before.sources) == ["own_lab.heads"]
    (package / "notes.txt").write_text("no source")
    assert own().digest() == before.digest()
    (package / "layers.py").write_text("WIDTH = 1\n")
    after = own()
    assert after.digest() != before.digest()
    assert after.stage1_digest() != before.stage1_digest()
    assert Config.stored(before.json_text()) == before, "what is stored keeps its hash"
    with pytest.raises(UserError, match=r"own_lab was edited after this run was planned"):
        build.model(before, 4)
    build.model(after, 4)


def test_a_configuration_without_parts_of_ones_own_has_no_sources():
    assert recipes.demo().sources == {}


def test_what_is_stored_is_read_where_the_module_is_not(package, monkeypatch, tmp_path):
    text = own().json_text()
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    monkeypatch.setattr(sys, "path", [p for p in sys.path if p not in ("", str(tmp_path))])
    for name in [name for name in sys.modules if name.startswith("own_lab")]:
        del sys.modules[name]
    config = Config.stored(text)
    assert config.model.head == "own_lab.heads:Mean"
    with pytest.raises(UserError, match=r"model.head = .* There is no module 'own_lab': start in"):
        build.model(config, 4)


def test_the_values_of_a_change_stay_as_they_are(package):
    arguments = {"sizes": [1]}
    own(**{"model.head_arguments": arguments, "model.head_arguments.dropout": 0.5})
    assert arguments == {"sizes": [1]}


def test_another_part_does_not_take_over_the_arguments(package):
    config = own(**{"model.head_arguments.dropout": 0.5})
    other = config.override({"model.head": "sadcl.model.heads:CSRA"})
    assert other.model.head_arguments == {}
    assert other.sources == {}
    same = config.override({"model.head": "own_lab.heads:Mean"})
    assert same.model.head_arguments == {"dropout": 0.5}


class Local:
    """A class at the top of a module, as the tests' are."""


def test_what_cannot_be_found_again_is_refused():
    def inside():
        """Is not at the top of its module."""

    for part in (lambda: 0, inside):
        with pytest.raises(UserError, match=r"model.head = .*cannot be found again by another pro"):
            recipes.demo().override({"model.head": part})
    main = type("InNotebook", (), {"__module__": "__main__"})
    with pytest.raises(UserError, match="InNotebook cannot be found again"):
        recipes.demo().override({"model.head": main})
    assert component.is_path(recipes.demo().override({"model.head": Local, **ALONE}).model.head)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model.head": "Mean"}, "must be an import path, such as 'my_lab.heads:Attention'"),
        ({"model.head": "own_lab.haeds:Mean"}, None),
        ({"model.head": "own_lob:Mean"}, "There is no module 'own_lob'; did you mean 'own_lab'?"),
        (
            {"model.head": "own_lab.heads:Maen"},
            "model.head = 'own_lab.heads:Maen': own_lab.heads has no 'Maen'; it has Mean, focal.",
        ),
        (
            {"model.head": "own_lab.heads:LIMIT"},
            "own_lab.heads has no 'LIMIT'; it has Mean, focal.",
        ),
        (
            {"model.head_arguments.drop": 1},
            "model.head_arguments: own_lab.heads:Mean has no argument 'drop'; it takes dropout, s",
        ),
        (
            {"model.head_arguments.dropout": "high"},
            "model.head_arguments.dropout = 'high' is not possible for own_lab.heads:Mean: "
            "it must be a number",
        ),
        (
            {"stage1.class_loss.kind": "own_lab.heads:focal"},
            "stage1.class_loss.arguments: own_lab.heads:focal needs the argument 'gamma', which",
        ),
        ({"stage2.class_loss.kind": "asymetric"}, "did you mean 'asymmetric'?"),
        ({"data.name": "coc14"}, "did you mean 'coco14'?"),
    ],
)
def test_mistakes_are_named(package, changes, message):
    with pytest.raises(UserError) as error:
        checked(**changes)
    assert (message or "cannot be imported") in str(error.value)
    assert next(iter(changes)).rpartition(".")[0] in str(error.value)


@pytest.mark.parametrize(
    ("forward", "message"),
    [
        ("return HeadOutput(map_BCHW.mean((2, 3))[:, :1])", "must return logits_BL of the shape"),
        ("return map_BCHW", "must return a sadcl.model.HeadOutput, but returned Tensor."),
        ("return 1 / 0", "ZeroDivisionError: division by zero"),
        (
            "return HeadOutput(map_BCHW.new_zeros(1, 2), map_BCHW.new_zeros(1, 2, 5))",
            "has no feature_size, but returns features_BLD.",
        ),
    ],
)
def test_a_head_that_breaks_the_protocol_is_named(package, forward, message):
    source = SOURCE.replace("return HeadOutput(self.classifier(", f"{forward}\n        (")
    (package / "heads.py").write_text(source.replace("(2, 3)))))\n\ndef", "(2, 3))))\n\ndef"))
    with pytest.raises(UserError, match=r"model.head = 'own_lab.heads:Mean'") as error:
        build.check_model(own())
    assert message in str(error.value)


def test_a_contrast_needs_label_level_features(package):
    with pytest.raises(UserError, match=r"has no label-level features .*stage2.epochs = 0"):
        build.check_model(own(**{"stage2.epochs": 1}))
    told = {"model.head": "sadcl.model.heads:CTran", "model.backbone": "resnet18"}
    with pytest.raises(UserError, match=r"reads the targets in training .*known = 0 of CTran"):
        build.check_model(recipes.demo().override({**told, "model.pretrained": False}))


def test_a_backbone_of_ones_own_is_registered_with_timm(package):
    (package / "nets.py").write_text(
        "import timm\n"
        "from timm.models import register_model\n"
        "@register_model\n"
        "def own_lab_net(pretrained=False, **kwargs):\n"
        "    return timm.create_model('test_resnet', pretrained=pretrained, **kwargs)\n"
    )
    config = recipes.demo().override(
        {"model.backbone": "own_lab.nets:own_lab_net", "model.feature": -1, "model.frozen": []}
    )
    build.check_model(config)
    assert list(config.sources) == ["own_lab.nets"]


def test_modules_beside_the_part_count_too(package):
    """A single file that imports another one of its folder."""
    folder = package.parent
    (folder / "own_layers.py").write_text("WIDTH = 1\n")
    (folder / "own_head.py").write_text("import os\nfrom own_layers import WIDTH\n" + SOURCE)
    (folder / "own_other.py").write_text("")

    def digest():
        return recipes.demo().override({"model.head": "own_head:Mean", **ALONE}).digest()

    before = digest()
    (folder / "own_other.py").write_text("x = 1\n")
    assert digest() == before
    (folder / "own_layers.py").write_text("WIDTH = 2\n")
    assert digest() != before
    places = [place.name for place in source_places("own_head")]
    assert places == ["own_head.py", "own_layers.py"]


def test_a_class_has_the_path_that_its_package_offers():
    given = recipes.demo().override({"model.head": heads.MLDecoder, **ALONE})
    assert given.model.head == "sadcl.model.heads:MLDecoder"


def test_training_refuses_a_source_that_has_changed(package, tmp_path):
    """The configuration that a run is planned with, in a process that imports another source."""
    planned = own(**{"stage1.epochs": 1, "data.scene_train": 40, "data.scene_test": 10})
    (package / "heads.py").write_text(SOURCE.replace("(2, 3)", "(3, 2)"))
    data = load(planned.data, tmp_path / "scenes")
    with pytest.raises(UserError, match=r"own_lab was edited after this run was planned"):
        fit(planned, data, str(tmp_path / "run"), device="cpu")


def test_arguments_need_a_part_of_ones_own():
    for field in ("loss.contrast_arguments", "stage1.class_loss.arguments"):
        with pytest.raises(UserError, match=r"arguments are those of"):
            recipes.demo().override({field: {"alpha": 2}})


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"loss.contrast": "sadcl.losses.probmcl:probmcl", "loss.contrast_arguments.alpha": 2.0},
            "loss.contrast = 'sadcl.losses.probmcl:probmcl' fails on two images with two labels",
        ),
        (
            {"stage1.class_loss.kind": "own_lab.losses:one_number"},
            "stage1.class_loss fails on two images with two labels: IndexError: invalid index",
        ),
    ],
)
def test_losses_are_tried_before_anything_is_reserved(package, changes, message):
    (package / "losses.py").write_text("def one_number(x, y, w):\n    return x.sum()\n")
    with pytest.raises(UserError) as error:
        check_losses(recipes.demo().override(changes))
    assert message in str(error.value)


def test_a_constructor_without_a_task_is_explained(package):
    source = SOURCE.replace("task: Task, *,", "channels, labels, *,")
    (package / "heads.py").write_text(source)
    with pytest.raises(UserError, match=r"cannot be built: .*must take the task and then keyword"):
        build.check_model(own())
    (package / "heads.py").write_text("def (:\n")
    for name in [name for name in sys.modules if name.startswith("own_lab")]:
        del sys.modules[name]
    with pytest.raises(UserError, match=r"cannot be imported \(SyntaxError: .*\)\.$"):
        build.check_model(own())


def test_a_parameter_without_gradient_is_found(package):
    extra = "self.sizes = sizes\n        self.idle = nn.Linear(2, 2)"
    (package / "heads.py").write_text(SOURCE.replace("self.sizes = sizes", extra))
    with pytest.raises(UserError, match=r"parameters that no logit depends on \(idle.weight, idle"):
        build.check_model(own())
