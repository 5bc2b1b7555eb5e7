"""XML as an annotation has it: elements alone, without entities of its own.

A file of a few hundred bytes could otherwise take all memory: entities that contain entities.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, NoReturn
from xml.etree import ElementTree
from xml.parsers import expat

from sadcl.errors import UserError


def parse(data: bytes, path: Path) -> ElementTree.Element:
    """Return the root element.

    Args:
        data: content of the file.
        path: of the file, for messages.

    Raises:
        UserError: if it is not valid XML, or declares an entity.
    """

    def refuse(name: str, *_: Any) -> NoReturn:
        raise UserError(
            f"{str(path)!r} declares the entity {name!r}, which annotations do not need and which "
            "may grow without limit; remove the declaration."
        )

    builder = ElementTree.TreeBuilder()
    try:
        parser = expat.ParserCreate()
        parser.buffer_text = True
        parser.StartElementHandler = builder.start
        parser.EndElementHandler = builder.end
        parser.CharacterDataHandler = builder.data
        parser.EntityDeclHandler = refuse
        parser.Parse(data, True)
        return builder.close()
    except UserError:
        raise
    # the latter two are raised for encodings
    except (expat.ExpatError, ElementTree.ParseError, ValueError, LookupError) as error:
        raise UserError(
            f"{str(path)!r} is not valid XML: {error}. It may have been cut short while it was "
            "copied or unpacked; fetch it again."
        ) from None
