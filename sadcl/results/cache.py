"""A table as parts that can be asked at once: large files as they are, and many small ones as copies in the user's cache.

A small file is copied once, and is known again by name, size and time. Only this makes a store of ten thousand files quick;
nothing depends on it, and the folder may be removed at any time.
"""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import os
import shutil
import time
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from pyarrow import fs

from sadcl import storage
from sadcl.errors import UserError
from sadcl.results import files, schema
from sadcl.results.files import Files, Single, Vanished

FEW = 64
"""So many files, or bytes, are read where they lie."""
FEW_BYTES = 32 << 20
SETTLED = 3.0
"""Seconds without a change after which a file's time tells it from what was there before."""
PART_BYTES = 256 << 20
"""Of Arrow data that become one file."""
MANY_PARTS = 8
Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Parts:
    """A table as files on this machine, and rows in memory.

    Attributes:
        paths: each with the keys whose rows in it do not count.
        rows: the rest.
    """

    paths: Mapping[str, Sequence[str]] = field(default_factory=dict)
    rows: Sequence[pa.Table] = ()

    def schemas(self) -> list[pa.Schema]:
        return [files.opened(path).schema_arrow for path in self.paths] + [
            part.schema for part in self.rows
        ]


def parts(root: str, table: str, progress: Progress | None = None) -> Parts:
    """The parts of a table at one moment; those of an object store are copied to the cache first.

    Raises:
        UserError: for a file that is not of the tables.
    """
    return files.steady(lambda: _parts(root, table, progress))


def _parts(root: str, table: str, progress: Progress | None) -> Parts:
    found = files.look(root, table)
    place = _place(root, table)
    remote = not isinstance(storage.resolve(root)[0], fs.LocalFileSystem)
    paths = dict(found.merged)
    if remote:
        paths = {
            _mirrored(place / files.MERGED, uri): without for uri, without in found.merged.items()
        }
        _sweep(place / files.MERGED, set(paths))
    else:
        paths = {storage.resolve(uri)[1]: without for uri, without in paths.items()}
    if table == "predictions" and not remote:  # large already, and of few kinds
        singles = {storage.resolve(found.uri(one))[1]: () for one in found.single.values()}
        return Parts({**paths, **singles}, [schema.table(table, [])])
    copies, fresh = _copied(found, place, progress)
    rows = list(reading(found, fresh))
    return Parts({**paths, **copies}, [schema.table(table, []), *rows])


def _place(root: str, table: str) -> Path:
    where = storage.absolute(os.fspath(root))
    return files.cache() / hashlib.sha256(where.encode()).hexdigest()[:16] / table


def _copied(
    found: Files, place: Path, progress: Progress | None
) -> tuple[dict[str, list[str]], list[Single]]:
    """Copies with the keys whose rows in them do not count, and the files that have no copy."""
    own = {one.file: one for one in found.single.values()}
    known = _known(place)
    copies, fresh = _known_of(place, known, own)
    if len(fresh) <= FEW and sum(one.mark[0] for one in fresh) <= FEW_BYTES:
        return copies, fresh
    settled = [one for one in fresh if time.time() - one.mark[1] / 1e9 > SETTLED]
    if not settled:
        return copies, fresh
    with contextlib.suppress(OSError):  # a cache that cannot be written: all is read where it lies
        place.mkdir(parents=True, exist_ok=True)
        known = _extend(found, place, known, own, settled, progress)
        copies, fresh = _known_of(place, known, own)
    return copies, fresh


def _known(place: Path) -> pa.Table | None:
    try:
        known = pq.ParquetFile(pa.OSFile(str(place / "index.parquet"))).read()
    except (OSError, pa.ArrowInvalid):
        return None
    return (
        known
        if all((place / f"{part}.parquet").exists() for part in known["part"].unique().to_pylist())
        else None
    )


def _known_of(
    place: Path, known: pa.Table | None, own: Mapping[str, Single]
) -> tuple[dict[str, list[str]], list[Single]]:
    if known is None:
        return {}, list(own.values())
    columns = [known[name].to_pylist() for name in ("file", "size", "time", "key", "part")]
    copies: dict[str, list[str]] = {}
    fresh, counts = dict(own), set()
    for file, size, changed, key, part in zip(*columns, strict=True):
        path = str(place / f"{part}.parquet")
        without = copies.setdefault(path, [])
        if file in fresh and fresh[file].mark == (size, changed):
            del fresh[file]
            counts.add(path)
        elif key is not None:
            without.append(key)
    return {path: without for path, without in copies.items() if path in counts}, list(
        fresh.values()
    )


def _extend(
    found: Files,
    place: Path,
    known: pa.Table | None,
    own: Mapping[str, Single],
    new: Sequence[Single],
    progress: Progress | None,
) -> pa.Table:
    """Copy files, and what is left of the former copies where these have become many; gives the new index."""
    rows: list[dict[str, object]] = [] if known is None else known.to_pylist()
    valid = [
        row
        for row in rows
        if row["file"] in own and own[str(row["file"])].mark == (row["size"], row["time"])
    ]
    keep = {str(row["part"]) for row in valid}
    if len(keep) >= MANY_PARTS:
        copies, _ = _known_of(place, known, own)
        source: Iterator[tuple[pa.Table, list[dict[str, object]]]] = _again(place, copies, valid)
        rows = []
    else:
        source = iter(())
        rows = [
            row for row in rows if row["part"] in keep
        ]  # a part that stays says which of its rows do not count
    for part, entries in gathered(itertools.chain(source, _new(found, new, progress)), PART_BYTES):
        name = uuid.uuid4().hex
        storage.write(place / f"{name}.parquet", files.encode(part, large=True))
        rows += [{**entry, "part": name} for entry in entries]
    kinds = {
        "file": pa.string(),
        "size": pa.int64(),
        "time": pa.int64(),
        "key": pa.string(),
        "part": pa.string(),
    }
    table = pa.Table.from_pylist(rows, schema=pa.schema(kinds))
    storage.write(place / "index.parquet", files.encode(table, large=True))
    _sweep(place, {str(place / f"{name}.parquet") for name in table["part"].unique().to_pylist()})
    return table


def _again(
    place: Path, copies: Mapping[str, Sequence[str]], rows: Iterable[dict[str, object]]
) -> Iterator[tuple[pa.Table, list[dict[str, object]]]]:
    by_part: dict[str, list[dict[str, object]]] = {}
    for row in rows:
        by_part.setdefault(str(place / f"{row['part']}.parquet"), []).append(row)
    for path, entries in by_part.items():
        yield files.kept(files.read(path), copies[path]), entries


def _new(
    found: Files, new: Sequence[Single], progress: Progress | None
) -> Iterator[tuple[pa.Table, list[dict[str, object]]]]:
    for one, part in zip(new, reading(found, new, progress), strict=True):
        if "key" not in part.column_names:
            raise UserError(files.damaged(found.uri(one), "it has no column 'key'"))
        key = part["key"][0].as_py() if len(part) else None
        yield part, [{"file": one.file, "size": one.mark[0], "time": one.mark[1], "key": key}]


def reading(
    found: Files,
    singles: Sequence[Single],
    progress: Progress | None = None,
    columns: Sequence[str] | None = None,
) -> Iterator[pa.Table]:
    """The content of runs' files, in their order, of which few are in memory at once."""
    with ThreadPoolExecutor(4) as pool:
        for at in range(0, len(singles), 64):
            yield from pool.map(
                lambda one: files.read(found.uri(one), columns), singles[at : at + 64]
            )
            if progress is not None:
                progress(min(at + 64, len(singles)), len(singles))


def gathered(
    source: Iterable[tuple[pa.Table, list[dict[str, object]]]], most: int
) -> Iterator[tuple[pa.Table, list[dict[str, object]]]]:
    """Tables put together until they have so many bytes, each time in the order of their keys, with what comes with them."""
    pending: list[pa.Table] = []
    entries: list[dict[str, object]] = []
    size = 0
    for part, with_it in source:
        pending.append(part)
        entries += with_it
        size += part.nbytes
        if len(pending) >= 512:  # many small tables take more memory, and time, than one
            pending = [files.together(pending).combine_chunks()]
        if size >= most:
            yield _sorted(pending), entries
            pending, entries, size = [], [], 0
    if entries:
        yield _sorted(pending), entries


def _sorted(pending: Sequence[pa.Table]) -> pa.Table:
    whole = files.together(pending).sort_by("key")
    return whole.replace_schema_metadata({"sadcl": str(schema.VERSION)})


def _mirrored(place: Path, uri: str) -> str:
    """A merged file of an object store, which never changes, as a file here."""
    path = place / uri.rsplit("/", 1)[-1]
    if not path.exists():
        try:
            place.mkdir(parents=True, exist_ok=True)
            part = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}.part")
            system, source = storage.resolve(uri)
            with system.open_input_stream(source) as stream, open(part, "wb") as file:
                shutil.copyfileobj(stream, file, 1 << 20)
            part.replace(path)
        except FileNotFoundError:
            raise Vanished from None
        except OSError as error:
            raise UserError(
                f"{uri!r} cannot be copied to {str(place)!r}: {error}. Set XDG_CACHE_HOME to a disk with room."
            ) from None
    return str(path)


def _sweep(place: Path, keep: set[str]) -> None:
    """Remove old copies that nothing refers to any more; whoever still reads one looks again."""
    with contextlib.suppress(OSError):
        kept = keep | {str(place / "index.parquet")}
        for path in place.glob("*.parquet"):
            if str(path) not in kept and time.time() - path.stat().st_mtime > 600:
                path.unlink(missing_ok=True)
