"""The file ``prepared.json``, which marks a data root of resized copies instead of photographs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from sadcl import storage
from sadcl.config import Data, component
from sadcl.errors import UserError

MARK = "prepared.json"


def mark_of(place: Path) -> dict[str, Any] | None:
    """Read the mark of a folder: ``size``, ``name``, ``digest`` and ``complete`` of its copies.

    Returns:
        None if the folder holds no copies.

    Raises:
        UserError: for a file that is damaged.
    """
    path = place / MARK
    try:
        content = json.loads(path.read_bytes())
        return {
            "size": int(content["size"]),
            **{key: content[key] for key in ("name", "digest", "complete")},
        }
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (ValueError, KeyError, TypeError):
        raise UserError(
            f"{str(path)!r} is damaged: delete the folder and make its copies again."
        ) from None


def write_mark(place: Path, **content: object) -> None:
    """Write the mark of a folder."""
    storage.write(place / MARK, json.dumps(content, indent=1).encode())


def check(config: Data, place: Path, root: str) -> None:
    """Check that a root and ``data.prepared`` agree.

    Args:
        config: the configuration.
        place: the local folder of the root.
        root: as the user gave it, for messages.

    Raises:
        UserError: if only one of them is about copies, or the copies have another size or are not
            complete.
    """
    mark = mark_of(place)
    if component.is_path(config.name) and (mark is not None or config.prepared is not None):
        raise UserError(
            f"Prepared copies are only read of data sets that are built in, not of {config.name!r}:"
            " leave out data.prepared, and give the root of the photographs."
        )
    if mark is None and config.prepared is not None:
        raise UserError(
            f"data.prepared = {config.prepared}, but {root!r} holds no prepared copies. Make them "
            f"with `sadcl data prepare {config.name} --data-root {root} --size {config.prepared} "
            "--to FOLDER`, and give FOLDER as the data root."
        )
    if mark is not None and not mark["complete"]:
        raise UserError(
            f"The prepared copies in {root!r} are not complete: run the same `sadcl data prepare` "
            "command again, and it resumes."
        )
    if mark is not None and mark["size"] != config.prepared:
        raise UserError(
            f"{root!r} holds copies resized to {mark['size']} pixels, but data.prepared = "
            f"{config.prepared}. Set it to {mark['size']}, so that the results record it, or give "
            "the root of the photographs."
        )
