"""The fields of the configuration as a table, and their values as a command line writes them."""

from __future__ import annotations

import ast
import functools
import inspect
import itertools
import json
import re
import sys
from collections.abc import Iterable, Sequence
from typing import Annotated, Any, NamedTuple

from pydantic import BaseModel, TypeAdapter, ValidationError

from sadcl.config import PARTS, SARL, Config, component
from sadcl.config.older import renamed
from sadcl.config.sources import look_in_start_folder, sources_of
from sadcl.config.type_text import plain_type, type_text, without_none, words_among
from sadcl.errors import UserError, did_you_mean


class Field(NamedTuple):
    """One field of the configuration."""

    name: str
    """Its dotted name, such as ``loss.tau``."""
    kind: str
    """Its type in words."""
    default: Any
    meaning: str
    annotation: Any
    """Its type with the bounds, as pydantic checks it."""


class Section(NamedTuple):
    """A part of the configuration that has fields, such as ``stage1.class_loss``."""

    name: str
    meaning: str
    fields: tuple[Field, ...]
    """Those directly in it."""


@functools.cache
def sections() -> tuple[Section, ...]:
    """Return all sections in their order, first the configuration itself, whose name is empty."""
    return tuple(_sections(Config, ""))


def _sections(kind: type[BaseModel], name: str) -> list[Section]:
    meanings, fields, below = _meanings(kind), [], []
    for last, info in kind.model_fields.items():
        full = f"{name}.{last}".lstrip(".")
        if inspect.isclass(info.annotation) and issubclass(info.annotation, BaseModel):
            below += _sections(info.annotation, full)
            continue
        annotation: Any = info.annotation
        if info.metadata:
            annotation = Annotated[annotation, *info.metadata]
        default = info.get_default(call_default_factory=True)
        fields.append(Field(full, type_text(annotation), default, meanings[last], annotation))
    return [Section(name, inspect.cleandoc(kind.__doc__ or ""), tuple(fields)), *below]


def _meanings(kind: type[BaseModel]) -> dict[str, str]:
    """Return the text after each field of a class, in one line."""
    tree = ast.parse(inspect.getsource(sys.modules[kind.__module__]))
    (body,) = (
        node.body
        for node in tree.body
        if isinstance(node, ast.ClassDef) and node.name == kind.__name__
    )
    meanings = dict.fromkeys(kind.model_fields, "")
    for field, text in itertools.pairwise(body):
        if (
            isinstance(field, ast.AnnAssign)
            and isinstance(field.target, ast.Name)
            and isinstance(text, ast.Expr)
            and isinstance(text.value, ast.Constant)
        ):
            meanings[field.target.id] = " ".join(str(text.value.value).split()).replace("``", "`")
    return meanings


@functools.cache
def all_fields() -> dict[str, Field]:
    """Return each field by its name."""
    return {field.name: field for section in sections() for field in section.fields}


def sections_below(name: str) -> list[Section]:
    """Return the sections that a name selects, without those that have no field there.

    Args:
        name: of a section, which selects those in it too; of a field, which it selects alone; empty
            for everything.

    Raises:
        UserError: for another name, with the nearest.
    """
    if not name:
        return [section for section in sections() if section.fields]
    if name in all_fields():
        return [
            Section(section.name, section.meaning, (field,))
            for section in sections()
            for field in section.fields
            if field.name == name
        ]
    below = [
        section
        for section in sections()
        if section.fields and f"{section.name}.".startswith(f"{name}.")
    ]
    if not below:
        names = [*(section.name for section in sections() if section.name), *all_fields()]
        raise UserError(f"There is no field or section {name!r}{_nearest(name, names)}")
    return below


def _nearest(name: str, names: Iterable[str]) -> str:
    """End a message about an unknown name; ``lr`` is near to ``stage1.lr``."""
    names = list(names)
    same = [other for other in names if other.rpartition(".")[2] == name]
    same = same or sorted((other for other in names if other.startswith(name)), key=len)[:1]
    return f"; did you mean {' or '.join(map(repr, same))}?" if same else did_you_mean(name, names)


def fields_of_part(path: str, field: str = "") -> list[Field]:
    """Return the keyword arguments of a part as fields.

    Args:
        path: of the part, such as ``my_lab.heads:Attention``.
        field: that holds it, such as ``model.head``; empty for none, which leaves the arguments'
            names alone.

    Raises:
        UserError: for a part that cannot be imported.
    """
    part = component.load(path, field or "SECTION")
    meanings = _meanings_of_arguments(inspect.getdoc(part) or "")
    fields = []
    for name, (annotation, default) in component.options_of(part).items():
        if field == "loss.contrast" and name == "temperature":
            continue  # it is loss.tau
        direct = f"{field.rpartition('.')[0]}.{name}"
        if path == SARL and direct in all_fields():
            fields.append(all_fields()[direct])
            continue
        full = f"{PARTS[field]}.{name}" if field else name
        default = "none, it must be given" if default is inspect.Parameter.empty else default
        fields.append(
            Field(full, type_text(annotation), default, meanings.get(name, ""), annotation)
        )
    return fields


def _meanings_of_arguments(text: str) -> dict[str, str]:
    """Return the meaning of each argument from a docstring with a section ``Args:``."""
    _, _, after = text.partition("\nArgs:\n")
    meanings: dict[str, str] = {}
    names: list[str] = []
    for line in after.splitlines():
        if line and not line.startswith(" "):
            break
        if start := re.match(r" {4}(\w+(?:, \w+)*): (.*)", line):
            names = start[1].split(", ")
            meanings |= dict.fromkeys(names, start[2])
        for name in names if not start else ():
            meanings[name] = f"{meanings[name]} {line.strip()}".strip()
    return {name: text.replace("``", "`") for name, text in meanings.items()}


def value_of(config: Config, name: str) -> Any:
    """Return the value of a field, or of an argument of a part; None for one that is not given."""
    value: Any = config
    for part in name.split("."):
        value = value.get(part) if isinstance(value, dict) else getattr(value, part, None)
    return value


def value_text(value: Any) -> str:
    """Return a value of a field as ``--set`` takes it."""
    if isinstance(value, list | tuple | dict):
        return json.dumps(value)
    return str(value)


def parse_changes(texts: Sequence[str]) -> dict[str, Any]:
    """Read the values of ``--set``.

    Args:
        texts: ``FIELD=VALUE`` each. A value is a plain word, a number or JSON. A list may also be
            its parts with commas between them.

    Returns:
        The value of each field, in its type.

    Raises:
        UserError: for an unknown field, a value outside its range, or a field that is given twice.
    """
    changes: dict[str, Any] = {}
    for text in texts:
        name, equals, value = text.partition("=")
        ((name, value),) = renamed({name.strip(): value.strip()}).items()
        if not equals or not value:
            field = all_fields().get(name, all_fields()["loss.tau"])
            example = f"{field.name}={value_text(field.default)}"
            raise UserError(f"--set {text!r} is not possible: give FIELD=VALUE, as in {example}.")
        if name in changes:
            raise UserError(f"--set {text} is not possible: {name} is given twice.")
        try:
            changes[name] = _parse(name, value)
        except ValueError as error:
            reason = str(error)
            end = "" if reason.endswith((".", "?")) else "."
            raise UserError(f"--set {text} is not possible: {reason}{end}") from None
    return changes


def _parse(name: str, text: str) -> Any:
    """Return the value of a field from its text.

    Raises:
        ValueError: for an unknown field, or a value that it cannot have.
    """
    if name.partition(".")[0] == "sources":
        raise ValueError("the hashes of your modules are filled in")
    if name.rpartition(".")[0] in PARTS.values():  # an argument of a part
        return _json_or_word(text)
    fields = all_fields()
    if name in fields:
        return _typed(fields[name], text)
    if any(section.name == name for section in sections()):
        raise ValueError(f"{name} has several fields, which `sadcl config fields {name}` lists")
    raise ValueError(f"there is no configuration field {name!r}{_nearest(name, fields)}")


def _json_or_word(text: str) -> Any:
    words = {"None": None, "True": True, "False": False}
    try:
        return words[text] if text in words else json.loads(text)
    except ValueError:
        return text


def _typed(field: Field, text: str) -> Any:
    value: Any = text
    kind, (_, has_none) = plain_type(field.annotation), without_none(field.annotation)
    if has_none and text in ("None", "none", "null"):
        return None
    if text in words_among(field.annotation):
        return text
    if kind in (tuple, dict):
        value = _json_or_word(text)
        if kind is tuple and not isinstance(value, list):
            value = [part.strip() for part in text.split(",")]
    elif kind is str and text[0] == text[-1] == '"':
        value = _json_or_word(text)
    try:
        value = TypeAdapter(field.annotation).validate_python(value)
    except ValidationError as error:
        item = error.errors()[0]
        if item["type"] == "value_error":
            raise ValueError(f"{field.name}: {item['ctx']['error']}") from None
        example = ', such as {"size": 2}' if kind is dict else ""
        raise ValueError(f"{field.name} must be {_with_article(field.kind)}{example}") from None
    paths = {field.name: value} if isinstance(value, str) else {}
    if field.name == "metrics":
        paths = {f"metrics[{i}]": path for i, path in enumerate(value)}
    elif field.name not in (*PARTS, "model.backbone"):
        return value
    for path in filter(component.is_path, paths.values()):
        # Now, because a start leaves the folder that the command was given in.
        look_in_start_folder(path.partition(":")[0])
    sources_of({name: path for name, path in paths.items() if component.is_path(path)})
    return value


def _with_article(kind: str) -> str:
    return f"a {kind}" if kind.split()[0] in ("number", "whole", "list") else kind
