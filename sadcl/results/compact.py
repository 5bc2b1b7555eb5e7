"""Merging the small files of runs that have ended into large ones, while others read and write."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc

from sadcl import storage
from sadcl.results import cache, files, schema, store
from sadcl.results.files import Files, Single

PART_BYTES = 256 << 20
"""Of Arrow data that become one file; a merged file of half as many stays as it is while most of its rows count."""
GRACE = 86400.0
"""Seconds that a file which says that rows were removed stays on an object store, where two may merge at once."""
Entry = dict[str, object]
_INDEX = pa.schema([("name", pa.string()), ("number", pa.int64()), ("key", pa.string())])


@dataclass(frozen=True)
class Done:
    """What a table had before, and has now: files in all."""

    table: str
    before: int
    after: int


def compact(root: str, progress: Callable[[str], cache.Progress] | None = None) -> list[Done]:
    """Merge the files of runs that have ended, whatever others read or write at the same time; a crash harms nothing.

    Args:
        progress: for a table, takes how many files were read, and of how many.

    Raises:
        UserError: for a root that is no store, or a file that is damaged.
    """
    store.check_root(root)
    with store.merging(root) as alone:
        for table in schema.BY_RUN:
            _sweep(storage.join(files.folder(root, table), files.MERGED), alone)
        ended = _ended(root)
        return [
            files.steady(lambda table=table: _table(root, table, ended, alone, progress))  # type: ignore[misc]
            for table in schema.BY_RUN
        ]


def _ended(root: str) -> dict[str, int]:
    """The highest number of each run's files that will not change any more: none of a run that is under way."""

    def attempt() -> dict[str, int]:
        found = files.look(root, "trials")
        ended: dict[str, int] = {}
        for uri in found.merged:
            part = files.index(uri)
            for of, number in zip(
                part["name"].to_pylist(), part["number"].to_pylist(), strict=True
            ):
                ended[of] = max(number, ended.get(of, -1))
        rows = cache.reading(found, list(found.single.values()), columns=["status"])
        for (of, one), part in zip(found.single.items(), rows, strict=True):
            if not len(part) or part["status"][0].as_py() in store.ENDED:
                ended[of] = one.number
            else:  # under way again; what it had before may be merged
                ended[of] = one.number - 1
        return ended

    return files.steady(attempt)


def _table(
    root: str,
    table: str,
    ended: dict[str, int],
    alone: bool,
    progress: Callable[[str], cache.Progress] | None,
) -> Done:
    found = files.look(root, table)
    for one in (
        found.old
    ):  # first, so that nobody sees a former row once the one that replaced it is merged
        if one.number <= ended.get(files.parse(one.file)[0], -1):
            storage.delete(found.uri(one))
    take = {of: one for of, one in found.single.items() if one.number <= ended.get(of, -1)}
    again = [uri for uri, without in found.merged.items() if _worth(uri, len(without))]
    before = len(found.single) + len(found.merged)
    if not take and len(again) < 2 and not any(found.merged[uri] for uri in again):
        return Done(table, before, before)
    for rows, entries in cache.gathered(
        _inputs(found, again, take, progress and progress(table)), PART_BYTES
    ):
        _publish(storage.join(found.folder, files.MERGED), rows, entries)
    for uri in again:
        storage.delete(
            uri.removesuffix(".parquet") + files.INDEX
        )  # it is the index that makes it count
        storage.delete(uri)
    stay = [set(files.index(uri)["name"].to_pylist()) for uri in found.merged if uri not in again]
    for of, one in take.items():
        # what says that rows were removed stays as long as a merged file has them, or may come to have them
        young = not alone and time.time() - one.mark[1] / 1e9 < GRACE
        if one.number and (young or any(of in names for names in stay)) and _rowless(found, one):
            continue
        storage.delete(found.uri(one))
    now = files.look(root, table)
    return Done(table, before, len(now.single) + len(now.merged))


def _rowless(found: Files, one: Single) -> bool:
    return files.opened(found.uri(one)).metadata.num_rows == 0


def _worth(uri: str, superseded: int) -> bool:
    """Whether a merged file is to be merged again: a small one, or one of whose rows many do not count."""
    about = files.opened(uri).metadata
    size = sum(about.row_group(i).total_byte_size for i in range(about.num_row_groups))
    return size < PART_BYTES // 2 or superseded > len(files.index(uri)) / 4


def _inputs(
    found: Files, again: Sequence[str], take: dict[str, Single], progress: cache.Progress | None
) -> Iterator[tuple[pa.Table, list[Entry]]]:
    """What is to be merged, with the names, numbers and keys that it stands for."""
    for uri in again:
        without = found.merged[uri]
        yield (
            files.kept(files.read(uri), without),
            files.kept(files.index(uri), without).to_pylist(),
        )
    for (of, one), part in zip(
        sorted(take.items()),
        cache.reading(found, [take[of] for of in sorted(take)], progress),
        strict=True,
    ):
        yield (
            part,
            [{"name": of, "number": one.number, "key": part["key"][0].as_py()}]
            if len(part)
            else [],
        )


def _sweep(where: str, alone: bool) -> None:
    """Remove what a merging that was killed has left: a merged file without its index."""
    marks = storage.stamps(where, ".parquet")
    for file, mark in marks.items():
        ours = file.removesuffix(".parquet") + files.INDEX not in marks and not file.endswith(
            files.INDEX
        )
        if ours and (alone or time.time() - mark[1] / 1e9 > GRACE):
            storage.delete(storage.join(where, file))


def _publish(where: str, rows: pa.Table, entries: list[Entry]) -> None:
    """Write a merged file, then the index that makes it count."""
    if not entries:
        return
    uri = storage.join(where, uuid.uuid4().hex)
    listed = pa.Table.from_pylist(entries, schema=_INDEX)
    storage.write(f"{uri}.parquet", files.encode(rows, large=True))
    storage.write(
        f"{uri}{files.INDEX}",
        files.encode(listed.take(pc.sort_indices(listed["name"])), large=True),
    )
