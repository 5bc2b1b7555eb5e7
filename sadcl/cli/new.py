"""The command ``sadcl new``: a file to start from."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from pathlib import Path

_RELEASED = 'recipes.coco14("released")'
_DATA = {
    "coco14": ("MS-COCO", _RELEASED, "coco"),
    "coco17": ("MS-COCO 2017", f'{_RELEASED}.override({{"data.name": "coco17"}})', "coco"),
    "voc2007": ("PASCAL VOC 2007", 'recipes.voc2007("released")', "voc2007"),
    "voc2012": ("PASCAL VOC 2012", 'recipes.voc2012("released")', "voc2012"),
    "nuswide": ("NUS-WIDE", 'recipes.nuswide("released")', "nuswide"),
    "vg500": ("VG500", 'recipes.vg500("released")', "vg500"),
    "folder": ("my images", "recipes.photographs()", "coco"),
}
"""Title, base and demo by data set."""


def new(
    file: Annotated[str, typer.Argument(metavar="FILE", help="The Python file to write.")],
    kind: Annotated[
        str, typer.Option(metavar="KIND", help="search, ablation, or head (with a class loss).")
    ] = "search",
    data: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="An experiment's data set at full scale: coco14 (the default), coco17, voc2007, "
            "voc2012, nuswide, vg500 or folder (your own images).",
        ),
    ] = None,
) -> None:
    """Write a commented file to start from: an experiment, or a head of your own.

    It runs as it is, at demo scale. A file that exists is never overwritten.
    """
    from pathlib import Path

    from sadcl.errors import UserError, did_you_mean

    kinds = ("search", "ablation", "head")
    for option, value, values in (("--kind", kind, kinds), ("--data", data, _DATA)):
        if value is not None and value not in values:
            reason = did_you_mean(value, values)
            raise UserError(f"{option} {value!r} is not possible{reason}")
    if kind == "head" and data is not None:
        raise UserError(f"--data {data} is not possible: a head has no data set of its own.")
    path = Path(file)
    _check_name(path, kind)
    text = _text(path, kind, data or "coco14")
    try:
        with path.open("x", encoding="utf-8") as stream:
            stream.write(text)
    except FileExistsError:
        raise UserError(f"{file!r} exists, and is not overwritten. Give another name.") from None
    except OSError as error:
        raise UserError(f"{file!r} cannot be written: {error.strerror}.") from None
    if kind == "head":
        part = f"{path.stem}:LabelAttention"
        typer.echo(f"{file} is written. Train it, and look at its arguments:")
        typer.echo(f"  sadcl train coco14 --set model.head={part}")
        typer.echo(f"  sadcl config fields {part}")
    else:
        typer.echo(f"{file} is written. Try: sadcl run {file}{_demo_flags(data)}")


def _demo_flags(data: str | None) -> str:
    """The flags of a first try: on one's own images, where there are any."""
    return f" --data-root {_root(data)} --scale demo" if data == "folder" else ""


def _root(data: str) -> str:
    return "photos" if data == "folder" else f"/data/{data}"


def _check_name(path: Path, kind: str) -> None:
    """Check that a file's name can be that of a module.

    Raises:
        UserError: where it cannot, or where the module would hide another one.
    """
    import importlib.util
    import re

    from sadcl.errors import UserError

    if path.suffix != ".py":
        raise UserError(f"{str(path)!r} is not possible: the file's name must end in .py.")
    stem = path.stem
    if not re.fullmatch(r"[A-Za-z_]\w*" if kind == "head" else r"\w[\w-]*", stem):
        allowed = "letters, digits" + (" and _" if kind == "head" else ", _ and -")
        raise UserError(f"{str(path)!r} is not possible: its name may have {allowed} only.")
    spec = importlib.util.find_spec(stem) if stem.isidentifier() else None
    if spec is not None and spec.origin is not None:
        raise UserError(
            f"{str(path)!r} is not possible: it would hide the module {stem!r} that is installed. "
            "Give another name."
        )


def _text(path: Path, kind: str, data: str) -> str:
    from sadcl.cli import new_files

    if kind == "head":
        return new_files.HEAD.substitute(name=path.stem)
    template = new_files.SEARCH if kind == "search" else new_files.ABLATION
    title, base, demo = _DATA[data]
    return template.substitute(
        title=title,
        file=path.name,
        root=_root(data),
        demo_data="your images" if data == "folder" else "drawn scenes",
        demo_flags=_demo_flags(data),
        hint=new_files.FOLDER_HINT if data == "folder" else "",
        base=base,
        demo=f'recipes.demo("{demo}")',
        name=path.stem.replace("_", "-"),
    )
