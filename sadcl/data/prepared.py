"""What says that a data root holds resized copies and not photographs: a file ``prepared.json``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from sadcl import storage
from sadcl.config import Data
from sadcl.errors import UserError

MARK = "prepared.json"


def mark_of(place: Path) -> dict[str, Any] | None:
    """``size``, ``name``, ``digest`` and ``complete`` of the copies in a folder; None where it holds none.

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
    storage.write(place / MARK, json.dumps(content, indent=1).encode())


def check(config: Data, place: Path, root: str) -> None:
    """A root of prepared copies and ``data.prepared`` belong together.

    Raises:
        UserError: where one of them is there without the other, or the copies are of another size or not complete.
    """
    mark = mark_of(place)
    if mark is None and config.prepared is not None:
        raise UserError(
            f"data.prepared = {config.prepared}, but {root!r} holds no prepared copies. Make them with `sadcl data prepare "
            f"{config.name} --data-root {root} --size {config.prepared} --to FOLDER`, and give FOLDER as the data root."
        )
    if mark is not None and not mark["complete"]:
        raise UserError(
            f"The prepared copies in {root!r} are not complete: `sadcl data prepare` with the same words goes on."
        )
    if mark is not None and mark["size"] != config.prepared:
        raise UserError(
            f"{root!r} holds copies resized to {mark['size']} pixels, but data.prepared = {config.prepared}. Set it to "
            f"{mark['size']}, so that the results say so, or give the root of the photographs."
        )
