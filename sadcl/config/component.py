"""Parts of your own, named in a configuration by their import path.

A part is a class or a function of a module, such as ``my_lab.heads:Attention``. It is found again
by that name on every machine, and the module's source is part of a run's digest. The keyword
arguments of a part are its options: what a configuration may set, a search draw, an ablation
change.
"""

from __future__ import annotations

import difflib
import importlib
import inspect
import sys
import typing
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Annotated, Any

from pydantic import BeforeValidator, ConfigDict, TypeAdapter, ValidationError

from sadcl.config.frozen import reason_text
from sadcl.config.sources import (
    look_in_start_folder,
    source_hash,
    source_name,
    sources_of,
)
from sadcl.errors import UserError, first_line_of


def _path_of(value: Any) -> Any:
    """Turn a class or function into its import path; anything else stays as it is.

    Raises:
        ValueError: for one that cannot be found again by its name.
    """
    if isinstance(value, str) or not callable(value):
        return value
    module, name = getattr(value, "__module__", None), getattr(value, "__qualname__", None)
    if module in (None, "__main__") or name is None or "<" in name:
        what = name or type(value).__name__
        raise ValueError(
            f"the part {what} cannot be found again by another process. Define it with a name at "
            "the top of a module of your own, such as my_lab/heads.py, and import it from there"
        )
    return f"{_shortest(module, name, value)}:{name}"


def _shortest(module: str, name: str, value: Any) -> str:
    """Return the highest package above a module that offers the same part by the same name."""
    parents = module.split(".")
    for depth in range(1, len(parents)):
        parent = ".".join(parents[:depth])
        if getattr(sys.modules.get(parent), name, None) is value:
            return parent
    return module


def _check_path(value: Any) -> Any:
    value = _path_of(value)
    if isinstance(value, str):
        module, _, name = value.partition(":")
        parts = [*module.split("."), *name.split(".")]
        if not all(part.isidentifier() for part in parts):
            raise ValueError("it must be an import path, such as 'my_lab.heads:Attention'")
    return value


IS_PATH = BeforeValidator(_check_path)
ImportPath = Annotated[str, IS_PATH]
"""``module:name`` of a class or function, which may be given itself."""


class WordOrPath:
    """Allows one of some words, or an import path.

    Args:
        words: that are allowed.
    """

    def __init__(self, *words: str) -> None:
        self.words = words

    def __call__(self, value: Any) -> Any:
        value = _path_of(value)
        if isinstance(value, str) and value not in self.words and ":" not in value:
            near = difflib.get_close_matches(value, self.words, n=1)
            hint = f": did you mean {near[0]!r}?" if near else ""
            raise ValueError(
                f"it must be {', '.join(map(repr, self.words))} or an import path such as "
                f"'my_lab.parts:name'{hint}"
            )
        return value if value in self.words else _check_path(value)


def word_or_path(*words: str) -> BeforeValidator:
    """Allow one of some words, or an import path."""
    return BeforeValidator(WordOrPath(*words))


Arguments = dict[str, Any]
"""Keyword arguments by name."""


class OtherSource(UserError):
    """A module of the user's has another source than a configuration records.

    Args:
        message: for a run.
        file: the module's file, or the folder of its package.
    """

    def __init__(self, message: str, file: str) -> None:
        super().__init__(message)
        self.file = file

    def __reduce__(self) -> tuple[type[OtherSource], tuple[str, str]]:
        """Pickle both: by default only the message would go to another process."""
        return type(self), (str(self), self.file)


def is_path(value: str | None) -> bool:
    """Tell an import path from a plain word."""
    return value is not None and ":" in value


def load(path: str, field: str, sources: Mapping[str, str] | None = None) -> Any:
    """Import a class or function by its path.

    Args:
        path: ``module:name``. The start folder is looked into too.
        field: that holds the path, for the messages.
        sources: hash of each module's source, as the configuration records it; None checks none.

    Raises:
        UserError: where the module cannot be imported, has no such name, or has another source than
            the configuration records.
    """
    module_name, _, name = path.partition(":")
    recorded = (sources or {}).get(module_name)
    if recorded is not None and module_name not in sys.modules:  # before its code is run
        look_in_start_folder(module_name)
        _check_source(path, field, sources_of({field: path})[module_name], recorded)
    try:
        module = _import(module_name)
    except Exception as error:
        reason = first_line_of(error)
        advice = ""
        if isinstance(error, ModuleNotFoundError):
            advice = " Start in the folder that holds it, or add that folder to PYTHONPATH."
        raise UserError(
            f"{field} = {path!r}: the module {module_name!r} cannot be imported "
            f"({type(error).__name__}: {reason}).{advice}"
        ) from None
    if recorded is not None:
        _check_source(path, field, _imported_hash(module), recorded)
    value: Any = module
    for part in name.split("."):
        value = getattr(value, part, None)
    if not callable(value):
        names = [n for n, v in vars(module).items() if callable(v) and not n.startswith("_")]
        own = [n for n in names if getattr(module, n).__module__ == module_name] or names
        has = f"it has {', '.join(own[:8])}" if own else "it has no class or function"
        raise UserError(f"{field} = {path!r}: {module_name} has no {name!r}; {has}.")
    return value


def _check_source(path: str, field: str, current: str, recorded: str) -> None:
    """Raise UserError where a module is not the one that a configuration records."""
    if current != recorded:
        file = source_name(path.partition(":")[0])
        raise OtherSource(
            f"{field} = {path!r}: {file} was edited after this run was planned, so that its "
            "numbers would be another part's. Put the former version back; or, in a new process, "
            "give the study another --name or --storage to keep the former results, or --fresh to "
            "discard them.",
            file,
        )


def _imported_hash(module: Any) -> str:
    """Return the hash of a module's source as this process imported it.

    A file that is edited while a run trains changes nothing in the processes of the run.
    """
    known: dict[str, str] = vars(module.__spec__)  # another one where the module is reloaded
    if _HASH not in known:
        known[_HASH] = source_hash(module.__name__)
    return known[_HASH]


_HASH = "sadcl_source_hash"


def _import(name: str) -> Any:
    """Import a module, from the start folder too, which a command's own path does not have."""
    look_in_start_folder(name)
    return importlib.import_module(name)


def bind(
    part: Callable[..., Any],
    arguments: Mapping[str, Any],
    path: str,
    field: str,
    given: Sequence[str] = (),
) -> dict[str, Any]:
    """Check the arguments of a part against the types of its signature.

    Args:
        part: a class or function.
        arguments: by name.
        path: of the part, for the messages.
        field: that holds the arguments, for the messages.
        given: keyword arguments that the part is called with anyway.

    Returns:
        The arguments with the types of the signature: a list where it wants a tuple is one then.

    Raises:
        UserError: for an argument that the part does not take, a value of another type, or a
            missing argument without a default.
    """
    options, hints = _options(part)
    options = {name: option for name, option in options.items() if name not in given}
    if unknown := [name for name in arguments if name not in options]:
        takes = f"it takes {', '.join(options)}" if options else "it takes no arguments"
        raise UserError(f"{field}: {path} has no argument {unknown[0]!r}; {takes}.")
    for name, parameter in options.items():
        if parameter.default is parameter.empty and name not in arguments:
            raise UserError(f"{field}: {path} needs the argument {name!r}, which has no default.")
    checked = {}
    for name, value in arguments.items():
        try:
            config = ConfigDict(arbitrary_types_allowed=True)
            hint = hints.get(name, Any)
            # A model has its own configuration, and refuses another one.
            is_model = inspect.isclass(hint) and hasattr(hint, "model_fields")
            adapter = TypeAdapter(hint) if is_model else TypeAdapter(hint, config=config)
            checked[name] = adapter.validate_python(value)
        except ValidationError as error:
            item = error.errors()[0]
            inner = ".".join([name, *map(str, item["loc"])])
            raise UserError(
                f"{field}.{inner} = {item['input']!r} is not possible for {path}: "
                f"{reason_text(item)}."
            ) from None
    return checked


def bound(
    path: str,
    arguments: Mapping[str, Any],
    field: str,
    arguments_field: str,
    sources: Mapping[str, str] | None = None,
    given: Sequence[str] = (),
) -> partial[Any]:
    """Import a function by its path, with its keyword arguments; as :func:`load` and :func:`bind`.

    Args:
        path: ``module:name``.
        arguments: by name.
        field: that holds the path, for the messages.
        arguments_field: that holds the arguments.
        sources: as for :func:`load`.
        given: as for :func:`bind`.

    Raises:
        UserError: where it cannot be imported, or takes no such arguments.
    """
    function = load(path, field, sources)
    return partial(function, **bind(function, arguments, path, arguments_field, given))


def options_of(part: Callable[..., Any]) -> dict[str, tuple[Any, Any]]:
    """Return type and default of each keyword argument of a part."""
    options, hints = _options(part)
    return {name: (hints.get(name, Any), option.default) for name, option in options.items()}


def _options(
    part: Callable[..., Any],
) -> tuple[dict[str, inspect.Parameter], dict[str, Any]]:
    call = part.__init__ if inspect.isclass(part) else part
    try:
        hints = typing.get_type_hints(call, include_extras=True)
    except Exception:  # a name that is only imported for type checkers
        hints = {}
    try:
        parameters = dict(inspect.signature(call).parameters)
    except (TypeError, ValueError):  # of a part that is not written in Python
        parameters = {}
    options = {
        name: parameter
        for name, parameter in parameters.items()
        if parameter.kind is parameter.KEYWORD_ONLY
    }
    return options, hints
