"""The table of fields is complete, and what ``--set`` reads is what a field takes."""

from __future__ import annotations

import math
from typing import Annotated, Literal

import pytest
from pydantic import Field as Bounds

from sadcl.config import Config, component
from sadcl.config.fields import (
    all_fields,
    fields_of_part,
    parse_changes,
    sections,
    sections_below,
    value_of,
    value_text,
)
from sadcl.config.type_text import type_text
from sadcl.errors import UserError


def test_every_field_is_there_with_a_meaning_and_its_default():
    plain = Config().model_dump()
    names = []

    def walk(tree, prefix=""):
        for name, value in tree.items():
            full = f"{prefix}{name}"
            if isinstance(value, dict) and full not in all_fields():
                walk(value, f"{full}.")
            else:
                names.append((full, value))

    walk(plain)
    assert sorted(all_fields()) == sorted(name for name, _ in names)
    for name, value in names:
        assert all_fields()[name].default == value_of(Config(), name) == value, name
        assert len(all_fields()[name].meaning) > 10, name
        assert all_fields()[name].kind not in ("", "any value"), name
    assert all(section.meaning for section in sections())


def test_a_default_can_be_given_back():
    """What the table shows is what --set takes."""
    for field in all_fields().values():
        if field.name != "sources":
            text = f"{field.name}={value_text(field.default)}"
            assert parse_changes([text]) == {field.name: field.default}, text


@pytest.mark.parametrize(
    ("annotation", "text"),
    [
        (int, "whole number"),
        (float | None, "number, or None"),
        (bool, "True or False"),
        (Literal["a", "b"], "one of a, b"),
        (Literal["a", "b"] | None, "one of a, b, or None"),
        (Annotated[float, Bounds(ge=0, le=1)], "number from 0 to 1"),
        (Annotated[float, Bounds(gt=0, lt=1)], "number > 0 and < 1"),
        (Annotated[float, Bounds(ge=0, lt=0.5)], "number >= 0 and < 0.5"),
        (Annotated[int, Bounds(ge=1)], "whole number >= 1"),
        (Annotated[int, Bounds(ge=0, lt=8)], "whole number from 0 to 7"),
        (Annotated[int, Bounds(ge=1)] | None, "whole number >= 1, or None"),
        (tuple[Annotated[float, Bounds(gt=0)], ...], "list of numbers > 0"),
        (tuple[float, float, float], "list of 3 numbers"),
        (list[str], "list of texts"),
        (int | str, "whole number or text"),
        (dict[str, float], "values by name"),
        (component.ImportPath | None, "import path, or None"),
        (tuple[component.ImportPath, ...], "list of import paths"),
        (Annotated[str, component.word_or_path("x", "y")], "one of x, y or an import path"),
        (Config, "sadcl.config.Config"),
    ],
)
def test_types_are_said_in_plain_words(annotation, text):
    assert type_text(annotation) == text


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("loss.tau=0.1", 0.1),
        ("loss.tau = 1e-1", 0.1),
        ("optim.batch_size=8", 8),
        ("model.pretrained=false", False),
        ("model.pretrained=True", True),
        ("model.weights=/a=b.pth", "/a=b.pth"),
        ("model.weights=None", None),
        ("model.weights=null", None),
        ("loss.prototype_tau=none", None),
        ("bank.policy=none", "none"),
        ('bank.policy="fifo"', "fifo"),
        ("stage1.augmentation.multiscale=[1,0.8]", (1.0, 0.8)),
        ("stage1.augmentation.multiscale=1, 0.8", (1.0, 0.8)),
        ("model.frozen=conv1,bn1", ("conv1", "bn1")),
        ("model.frozen=[]", ()),
        ("model.head_arguments.dim=64", 64),
        ("model.head_arguments.size=[1,2]", [1, 2]),
        ("model.head_arguments.name=mean", "mean"),
        ("model.head_arguments.name=None", None),
        ('model.head_arguments={"dim": 64}', {"dim": 64}),
    ],
)
def test_values_have_the_type_of_their_field(text, value):
    ((_, parsed),) = parse_changes([text]).items()
    assert parsed == value
    assert type(parsed) is type(value)


def test_a_former_name_still_works():
    changes = parse_changes(["model.arch=pooled"])
    assert changes == {"model.head": "sadcl.model.heads:Pooled"}


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("loss.tau=high", "loss.tau must be a number from 0.005 to 100"),
        ("loss.tau=-1", "loss.tau must be a number from 0.005 to 100"),
        ("loss.tau=nan", "loss.tau must be a number from 0.005 to 100"),
        ("optim.clip_norm=inf", "optim.clip_norm must be a number > 0, or None"),
        ("optim.batch_size=2.5", "optim.batch_size must be a whole number >= 1"),
        ("optim.batch_size=true", "optim.batch_size must be a whole number >= 1"),
        ("model.pretrained=maybe", "model.pretrained must be True or False"),
        ("bank.policy=slto", "bank.policy must be one of slot, fifo, none"),
        ("data.name=cocoo", "did you mean 'coco'?"),
        ("data.mean=0.1,0.2", "data.mean must be a list of 3 numbers from 0 to 1, or None"),
        ("model.head=Attention", "model.head: it must be an import path"),
        ("model.head=no_lab:Attention", "There is no module 'no_lab'"),
        ("model.head_arguments=3", 'must be values by name, such as {"size": 2}'),
        ("loss.tua=1", "there is no configuration field 'loss.tua'; did you mean 'loss.tau'?"),
        ("tau=1", "did you mean 'loss.tau'?"),
        ("lr=1", "did you mean 'stage1.lr' or 'stage2.lr'?"),
        ("stage1=1", "stage1 has several fields, which `sadcl config fields stage1` lists"),
        ("sources.lab=1", "filled in"),
        ("loss.tau", "give FIELD=VALUE, as in loss.tau=0.2"),
        ("loss.tau=", "give FIELD=VALUE, as in loss.tau=0.2"),
        ("=1", "give FIELD=VALUE"),
    ],
)
def test_a_mistake_is_answered_with_the_text_and_what_is_possible(text, words):
    with pytest.raises(UserError) as error:
        parse_changes([text])
    if words != "give FIELD=VALUE":
        assert words in str(error.value)
    assert f"{text}" in str(error.value)


def test_a_field_is_given_once():
    with pytest.raises(UserError, match=r"loss.tau is given twice"):
        parse_changes(["loss.tau=1", "loss.tau=2"])


def test_a_name_selects_a_section_those_in_it_or_one_field():
    assert [part.name for part in sections_below("stage1")] == [
        "stage1",
        "stage1.class_loss",
        "stage1.augmentation",
    ]
    (part,) = sections_below("loss.tau")
    assert [field.name for field in part.fields] == ["loss.tau"]
    assert sum(len(part.fields) for part in sections_below("")) == len(all_fields())
    for name, near in (
        ("modle", "model"),
        ("tau", "loss.tau"),
        ("stage1.clas", "stage1.class_loss"),
    ):
        with pytest.raises(UserError, match=f"{name}'; did you mean '{near}"):
            sections_below(name)


def test_arguments_of_a_part_have_type_default_and_meaning():
    (heads, lam, temperatures) = fields_of_part("sadcl.model.heads.csra:CSRA", "model.head")
    assert heads.name == "model.head_arguments.heads"
    assert (heads.kind, heads.default) == ("whole number", 1)
    assert lam.meaning == (
        "lambda, at least 0; published: 0.1 for VOC 2007, 0.5 for MS-COCO with 6 heads."
    )
    assert temperatures.kind == "list of numbers, or None"
    names = [field.name for field in fields_of_part("sadcl.model.heads:SARL", "model.head")]
    assert "model.hidden" in names
    assert "model.head_arguments.hidden" not in names
    contrast = "sadcl.losses.mulsupcon:mulsupcon"
    assert [field.name for field in fields_of_part(contrast)] == ["temperature"]
    assert fields_of_part(contrast, "loss.contrast") == []


def test_no_number_is_lost_on_its_way():
    value = math.pi / 10
    assert parse_changes([f"loss.tau={value_text(value)}"]) == {"loss.tau": value}
