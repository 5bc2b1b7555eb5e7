"""What to do about a fault of a store. None of it destroys anything that is not named with it."""

from __future__ import annotations

RESTORE = (
    "Take the file from a copy of the storage if there is one. Without one, keep it, and do not "
    "rely on what it says."
)
"""For a file that contradicts itself, of which only a copy brings back what is right."""
TAKE_COPY = (
    "Take it from a copy of the storage if there is one. Otherwise move it out of the folder and "
    "keep it: the rows in it are missing until the command of the study has trained those "
    "runs again."
)
"""For a file that cannot be read, and that every reader stumbles over."""
MOVE_AWAY = "Move it out of the folder, and keep it if you do not know what it is."
"""For a file that is none of the tables'."""


def doubtful(root: str, key: str, doubt: str) -> str:
    """Return the remedy for a run of which something is in doubt, but which can be kept.

    Args:
        root: of the store.
        key: of the run.
        doubt: what is in doubt: the subject of a sentence, and its verb.
    """
    return (
        f"{doubt} in doubt; everything else can stay as it is. Only if you want this run trained "
        f"again: sadcl.results.store.delete({root!r}, {key!r}) removes its row, figures, epochs, "
        "labels and predictions, and the command of its study then trains it."
    )
