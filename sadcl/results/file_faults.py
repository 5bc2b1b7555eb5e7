"""What is wrong with the names of a store's files: leftovers, and what does not belong there."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from sadcl import storage
from sadcl.results import files, schema
from sadcl.results.remedies import MOVE_AWAY, RESTORE


@dataclass(frozen=True)
class Fault:
    """Something that is wrong, or that looks wrong and is not.

    Attributes:
        file: the file's URI.
        problem: what is wrong with it, as a clause whose subject is the file.
        remedy: a sentence that says what to do.
        is_note: whether it is no fault, and is reported so that nobody wonders.
    """

    file: str
    problem: str
    remedy: str
    is_note: bool = False


def check_file_names(root: str) -> Iterator[Fault]:
    """Find leftovers of interrupted writers, and files that do not belong there."""
    folder = storage.join(root, files.TABLES_FOLDER)
    paths = storage.sizes(folder).keys()
    for path in paths:
        name, uri = path.rsplit("/", 1)[-1], storage.join(folder, path)
        if name.endswith(".part"):
            yield Fault(
                uri,
                "is unfinished: its writer was killed",
                "Delete it, or run the study again, which deletes it.",
            )
        elif name.startswith("."):
            continue
        elif name.endswith(files.INDEX_SUFFIX) or _is_merged(path):
            is_index = name.endswith(files.INDEX_SUFFIX)
            if not is_index and files.index_uri(path) not in paths:
                yield Fault(
                    uri,
                    "is unfinished: a compaction was killed",
                    "`sadcl results compact` deletes it.",
                )
            elif is_index and path.removesuffix(files.INDEX_SUFFIX) + ".parquet" not in paths:
                yield Fault(uri, "is the index of a merged file that does not exist", RESTORE)
        elif not _is_known(path):
            yield Fault(uri, "does not belong to the tables", MOVE_AWAY)


def _is_merged(path: str) -> bool:
    """Whether a path below ``tables/`` is a merged file's, in the new place or the old one."""
    folders = path.split("/")[:-1]
    return any(
        folders in ([files.MERGED_FOLDER, table], [table, files.OLD_MERGED_FOLDER])
        for table in schema.TRIAL_TABLES
    ) and path.endswith(".parquet")


def _is_known(path: str) -> bool:
    """Whether a path below ``tables/`` is one of a run's own file, or of a published one."""
    folders = path.split("/")[:-1]
    if folders == ["benchmarks"]:
        return path.endswith(".parquet")
    for table in schema.TRIAL_TABLES:
        for folder, suffix in files.run_folders("", table).items():
            if f"/{files.TABLES_FOLDER}/{'/'.join(folders)}" == folder:
                return path.endswith(suffix)
    return False
