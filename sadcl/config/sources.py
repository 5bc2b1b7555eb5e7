"""The sources of parts of your own: where they are, and a hash of them."""

from __future__ import annotations

import ast
import difflib
import functools
import hashlib
import importlib
import importlib.metadata
import importlib.util
import os
import sys
import sysconfig
from collections.abc import Mapping
from pathlib import Path

from sadcl.errors import UserError

OURS = __name__.partition(".")[0]


def look_in_start_folder(module_name: str) -> None:
    """Add the folder that this process stands in to the path, if only it has a module."""
    top = module_name.partition(".")[0]
    if top not in sys.modules and importlib.util.find_spec(top) is None:
        folder = os.getcwd()
        if folder not in sys.path and _source_in(Path(folder), top) is not None:
            sys.path.append(folder)
            importlib.invalidate_caches()


def _source_in(folder: Path, top: str) -> Path | None:
    places = (folder / top, folder / f"{top}.py")
    return next((place for place in places if place.exists()), None)


def _modules_in(folder: Path) -> list[str]:
    """Return the modules and packages of a folder by name; none of one that cannot be listed."""
    try:
        entries = sorted(folder.iterdir())
    except OSError:
        return []
    return [one.stem for one in entries if one.suffix == ".py" or (one / "__init__.py").exists()]


def source_place(module_name: str) -> Path | None:
    """Return the folder or file of a module's top-level package; None where it has no file.

    Raises:
        UserError: where there is no such module.
    """
    top = module_name.partition(".")[0]
    found = _source_in(Path.cwd(), top)
    try:
        spec = importlib.util.find_spec(top)
    except (ImportError, ValueError):
        spec = None
    if spec is None and found is None:
        near = difflib.get_close_matches(top, _modules_in(Path.cwd()), n=1, cutoff=0.6)
        hint = f"; did you mean {near[0]!r}? Otherwise" if near else ":"
        raise UserError(
            f"There is no module {top!r}{hint} start in the folder that holds {top}.py or {top}/, "
            "or add that folder to PYTHONPATH."
        )
    if spec is None:
        return found
    if spec.submodule_search_locations:
        return Path(next(iter(spec.submodule_search_locations)))
    return Path(spec.origin) if spec.origin and os.path.exists(spec.origin) else None


def source_name(module_name: str) -> str:
    """Return what people call the source of a module: the name of its file or package's folder."""
    try:
        place = source_place(module_name)
    except UserError:
        place = None
    return module_name.partition(".")[0] if place is None else place.name


def source_places(module_name: str) -> list[Path]:
    """Return the folder or file of a module's top-level package, and those that it imports.

    Those are the others of the same folder, such as ``my_layers.py`` beside ``my_heads.py``.
    Installed ones are left out.

    Raises:
        UserError: where there is no such module.
    """
    place = source_place(module_name)
    places: list[Path] = []
    waiting = [place] if place is not None and not is_installed(place) else []
    while waiting:
        current = waiting.pop()
        if current in places:
            continue
        places.append(current)
        for file in _files_of(current):
            found = (_source_in(current.parent, name) for name in _imported_names(file))
            waiting += [other for other in found if other is not None]
    return sorted(places)


def _files_of(place: Path) -> list[Path]:
    return sorted(place.rglob("*.py")) if place.is_dir() else [place]


def _imported_names(file: Path) -> set[str]:
    """Return the top-level modules that a file imports by their full names."""
    try:
        tree = ast.parse(file.read_bytes())
    except (SyntaxError, ValueError):  # reported when it is imported
        return set()
    names = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and not node.level and node.module:
            names.add(node.module.partition(".")[0])
    return names - {OURS}


def is_installed(place: Path) -> bool:
    """Tell a package that is installed, which all machines have, from a folder of one's own."""
    return any(
        place.is_relative_to(sysconfig.get_path(kind)) for kind in ("purelib", "platlib", "stdlib")
    )


def source_hash(module_name: str) -> str:
    """Return twelve hexadecimal digits of the source of a module's top-level package.

    A part may use others of its package, and modules beside it (:func:`source_places`), so that
    every Python file of these counts. An installed package counts by its name and version.

    Raises:
        UserError: where there is no such module.
    """
    places = source_places(module_name)
    content = hashlib.sha256()
    if not places:
        content.update(_versions(module_name.partition(".")[0]).encode())
    for place in places:
        for file in _files_of(place):
            content.update(f"{file.relative_to(place.parent)}\0".encode())
            content.update(file.read_bytes())
    return content.hexdigest()[:12]


@functools.cache  # looking through all distributions takes a while
def _versions(top: str) -> str:
    """Return a module's name with its distributions and their versions."""
    distributions = importlib.metadata.packages_distributions().get(top, [])
    versions = [f"{name}=={importlib.metadata.version(name)}" for name in sorted(distributions)]
    return " ".join([top, *versions])


def sources_of(paths: Mapping[str, str]) -> dict[str, str]:
    """Return the hash of the source of each module that is not this package's own.

    Args:
        paths: import path by field.

    Raises:
        UserError: with the field, for a module that does not exist.
    """
    sources = {}
    for field, path in paths.items():
        module_name = path.partition(":")[0]
        if module_name.partition(".")[0] == OURS or module_name in sources:
            continue
        try:
            sources[module_name] = source_hash(module_name)
        except UserError as error:
            raise UserError(f"{field} = {path!r}: {error}") from None
    return dict(sorted(sources.items()))
