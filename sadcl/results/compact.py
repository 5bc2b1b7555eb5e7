"""Merging the small files of runs that have ended into large ones, while others read and write."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc

from sadcl import storage
from sadcl.results import cache, files, schema, store
from sadcl.results.files import Files, Single

LARGE = 256 << 20
"""A merged file of so many bytes stays as it is; a table becomes files of about this size."""
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
            for of, number in zip(part["name"].to_pylist(), part["number"].to_pylist(), strict=True):
                ended[of] = max(number, ended.get(of, -1))
        with ThreadPoolExecutor(4) as pool:
            rows = pool.map(lambda one: files.read(found.uri(one), ["status"]), found.single.values())
            for (of, one), part in zip(found.single.items(), rows, strict=True):
                if not len(part) or part["status"][0].as_py() in store.ENDED:
                    ended[of] = one.number
                else:
                    ended.pop(of, None)
        return ended

    return files.steady(attempt)


def _table(
    root: str, table: str, ended: dict[str, int], alone: bool, progress: Callable[[str], cache.Progress] | None
) -> Done:
    found = files.look(root, table)
    for one in found.old:  # first, so that nobody sees a former row once the one that replaced it is merged
        if one.number <= ended.get(files.parse(one.file)[0], -1):
            storage.delete(found.uri(one))
    take = {of: one for of, one in found.single.items() if one.number <= ended.get(of, -1)}
    sizes = {uri: (storage.mark(uri) or (0, 0))[0] for uri in found.merged}
    small = [uri for uri in found.merged if sizes[uri] < LARGE]
    before = len(found.single) + len(found.merged)
    if not take and (len(small) < 2 and not any(found.merged[uri] for uri in small)):
        return Done(table, before, before)
    seen = 0
    for rows, entries in cache.gathered(_inputs(found, small, take, progress and progress(table)), LARGE):
        seen += 1
        _publish(storage.join(found.folder, files.MERGED), rows, entries)
    for uri in small:
        storage.delete(uri.removesuffix(".parquet") + files.INDEX)  # it is the index that makes it count
        storage.delete(uri)
    large = {uri: set(files.index(uri)["name"].to_pylist()) for uri in found.merged if uri not in small}
    for of, one in take.items():
        removed = files.parse(one.file)[1] and _rowless(found, one)
        if removed and (any(of in names for names in large.values()) or not (alone or time.time() - one.mark[1] / 1e9 > GRACE)):
            continue
        storage.delete(found.uri(one))
    now = files.look(root, table)
    return Done(table, before, len(now.single) + len(now.merged))


def _rowless(found: Files, one: Single) -> bool:
    return files.opened(found.uri(one)).metadata.num_rows == 0


def _inputs(
    found: Files, small: Sequence[str], take: dict[str, Single], progress: cache.Progress | None
) -> Iterator[tuple[pa.Table, list[Entry]]]:
    """What is to be merged, with the names, numbers and keys that it stands for."""
    for uri in small:
        part = files.index(uri)
        for group in _groups(uri):
            yield files.kept(group, found.merged[uri]), []
        yield schema.table(part_table(found), []), files.kept(part, found.merged[uri]).to_pylist()
    with ThreadPoolExecutor(4) as pool:
        items = sorted(take.items())
        for i, ((of, one), part) in enumerate(zip(items, pool.map(lambda item: files.read(found.uri(item[1])), items), strict=True)):
            key = part["key"][0].as_py() if len(part) else None
            yield part, [{"name": of, "number": one.number, "key": key}] if key is not None else []
            if progress is not None:
                progress(i + 1, len(items))


def part_table(found: Files) -> str:
    return found.folder.rsplit("/", 1)[-1]


def _groups(uri: str) -> Iterator[pa.Table]:
    file = files.opened(uri)
    for i in range(file.num_row_groups):
        yield file.read_row_group(i, use_threads=False)


def _publish(where: str, rows: pa.Table, entries: list[Entry]) -> None:
    """Write a merged file, then the index that makes it count."""
    if not entries:
        return
    uri = storage.join(where, uuid.uuid4().hex)
    listed = pa.Table.from_pylist(entries, schema=_INDEX)
    storage.write(f"{uri}.parquet", files.encode(rows, large=True))
    storage.write(f"{uri}{files.INDEX}", files.encode(listed.take(pc.sort_indices(listed["name"])), large=True))
