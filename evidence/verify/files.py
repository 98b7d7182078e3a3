"""Data files: their bytes, their rows, and where the rows lie in the log. Runs in workers."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from datetime import date, timedelta
from itertools import islice
from typing import Any, Final

import pyarrow as pa
import pyarrow.compute as pc

from evidence.verify.cells import RowError
from evidence.verify.report import Finding
from evidence.verify.rows import leaf_hashes
from evidence.verify.source import MissingError, Parquet, ReadError, Store
from evidence.verify.spans import Span
from evidence.verify.stories import StoryPart, story_columns, tell
from evidence.verify.tiles import Tiles
from evidence.verify.tree import HASH, TILE

BATCH_ROWS: Final = 32 * 1024
"""Rows that are turned into bytes at once."""

MOST_GROUP_BYTES: Final = 4 * 1024**3
"""A row group that says it needs more memory is refused."""

MOST_AHEAD: Final = 4096
"""Tiles that are read ahead: 32 MiB, for a million rows."""

PHASE_FILES: Final = 3

_EPOCH: Final = date(1970, 1, 1)
_NEEDED: Final = (
    "log_partition",
    "log_offset",
    "occurred_at",
    "intake_id",
    "request_id",
    "sequence",
    "event_type",
    "stage",
)


@dataclass(frozen=True, slots=True)
class FileJob:
    """One live file, and what the commits say of it."""

    path: str
    rows: int
    size: int
    sha256: str
    leaves: tuple[Span, ...]
    first: int
    last: int
    day: date
    windows: tuple[tuple[int, int, int], ...]
    """For each stretch of leaves of one commit: the leaf after its last, first offset, offset after the last."""
    gone: tuple[Span, ...]
    """Offsets that were rejected or lost, as far as they lie within the file's."""


@dataclass(frozen=True, slots=True)
class LogFacts:
    """What is the same for all files of a log."""

    folder: str
    partition: int
    size: int


@dataclass(slots=True)
class Checked:
    """What became of some files."""

    rows: int = 0
    missing: list[str] = field(default_factory=list)
    wrong: list[Finding] = field(default_factory=list)
    spans: list[tuple[int, int, int, int]] = field(default_factory=list)
    """First and last leaf, first and last offset, for each run of leaves."""
    stories: StoryPart | None = None


@dataclass(slots=True)
class _File:
    """A file that is being read."""

    job: FileJob
    hashes: list[bytes] = field(default_factory=list)
    offsets: list[Any] = field(default_factory=list)
    stories: list[Any] = field(default_factory=list)
    error: str | None = None
    rows: int = 0


def check_files(store: Store, log: LogFacts, jobs: Sequence[FileJob]) -> Checked:
    """Check some live files of one log; their rows are hashed together."""
    made, done, waiting = Checked(), list[_File](), list[tuple[_File, pa.RecordBatch]]()
    for job in jobs:
        parquet = _opened(store, job, made)
        if parquet is None:
            continue
        file = _File(job)
        done.append(file)
        try:
            for batch in _batches(parquet, job):
                _look(file, batch, log)
                waiting.append((file, batch))
                if sum(item.num_rows for _, item in waiting) >= BATCH_ROWS:
                    _hash(waiting)
        except Exception as error:  # noqa: BLE001 - whatever a hostile file makes the reader do is a finding
            file.error = file.error or _sentence(error)
    _hash(waiting)
    tiles = Tiles(store, log.folder, log.size)
    wanted = dict.fromkeys(islice(_tiles_of(jobs, log.size), MOST_AHEAD))
    store.ahead([tiles.path(0, number, tiles.width(0, number)) for number in wanted])
    for file in done:
        if file.error is None and file.rows != file.job.rows:
            file.error = f"holds {file.rows} rows, committed were {file.job.rows}"
        if file.error is not None:
            made.wrong.append(_finding(file.job, "file-wrong", file.error))
            continue
        made.rows += file.rows
        made.wrong.extend(_place(file, tiles, made))
    good = [table for file in done if file.error is None for table in file.stories]
    if good:
        made.stories = tell(good)
    return made


def _tiles_of(jobs: Sequence[FileJob], size: int) -> Iterator[int]:
    """Give the tiles that hold the leaves of files; a hostile commit may name more leaves than there are."""
    for job in jobs:
        for low, high in job.leaves:
            yield from range(low // TILE, min(high, size - 1) // TILE + 1)


def _opened(store: Store, job: FileJob, made: Checked) -> Parquet | None:
    """Open a file whose bytes are the committed ones; others are not even looked into."""
    try:
        parquet = store.open_parquet(job.path)
    except MissingError:
        made.missing.append(job.path)
        return None
    except ReadError as error:
        made.wrong.append(_finding(job, "file-unreadable", f"cannot be read: {error}"))
        return None
    if (parquet.size, parquet.sha256) == (job.size, job.sha256):
        return parquet
    what = (
        f"is not the file that was committed: {parquet.size} bytes with SHA-256 {parquet.sha256[:16]}…, "
        f"committed were {job.size} bytes with {job.sha256[:16]}…"
    )
    parquet.close()
    made.wrong.append(_finding(job, "file-changed", what))
    return None


def _batches(parquet: Parquet, job: FileJob) -> Iterator[pa.RecordBatch]:
    with closing(parquet), parquet.read() as file:
        meta = file.metadata
        if meta.num_rows != job.rows:
            raise RowError("", f"holds {meta.num_rows} rows, committed were {job.rows}")
        names = file.schema_arrow.names
        if absent := [name for name in _NEEDED if names.count(name) != 1]:
            raise RowError("", f"has no column {absent[0]}, or has it twice")
        for number in range(meta.num_row_groups):
            if not 0 <= meta.row_group(number).total_byte_size <= MOST_GROUP_BYTES:
                raise RowError("", f"row group {number} says it needs {meta.row_group(number).total_byte_size} bytes")
        rows = max(1, min(BATCH_ROWS, job.rows))
        for number in range(meta.num_row_groups):
            # Each row group has its own dictionaries: a batch that reached into the next could not have one of both.
            yield from file.iter_batches(batch_size=rows, row_groups=[number], use_threads=False)


def _look(file: _File, batch: pa.RecordBatch, log: LogFacts) -> None:
    """Check a batch's partition and day, and keep what is needed of it."""
    if batch.num_rows == 0:
        return
    file.rows += batch.num_rows
    partitions, offsets, moments = (batch.column(name) for name in ("log_partition", "log_offset", "occurred_at"))
    if not (pa.types.is_integer(partitions.type) and pa.types.is_integer(offsets.type)):
        raise RowError("", "log_partition and log_offset are not integers")
    if not pa.types.is_timestamp(moments.type):
        raise RowError("", "occurred_at is no timestamp")
    if partitions.null_count or offsets.null_count or moments.null_count:
        raise RowError("", "a row without log_partition, log_offset or occurred_at")
    low, high = (edge.as_py() for edge in pc.min_max(partitions).values())
    if low != log.partition or high != log.partition:
        raise RowError("", f"a row of partition {low if low != log.partition else high} in a log of {log.partition}")
    micros = moments.cast(pa.timestamp("us", tz="UTC")).cast(pa.int64())
    low, high = (edge.as_py() for edge in pc.min_max(micros).values())
    first = (file.job.day - _EPOCH) // timedelta(microseconds=1)
    if not first <= low <= high < first + 86_400_000_000:
        raise RowError("", f"a row of another day than {file.job.day}, which the folder says")
    file.offsets.append(offsets.cast(pa.int64()))
    file.stories.append(story_columns(batch))


def _hash(waiting: list[tuple[_File, pa.RecordBatch]]) -> None:
    """Hash all batches that wait; batches of one schema together."""
    while waiting:
        schema = waiting[0][1].schema
        same = [item for item in waiting if item[1].schema.equals(schema)]
        waiting[:] = [item for item in waiting if not item[1].schema.equals(schema)]
        try:
            if len(same) == 1:
                joined = same[0][1]
            else:
                table = pa.Table.from_batches([batch for _, batch in same]).unify_dictionaries().combine_chunks()
                joined = table.to_batches()[0] if table.num_rows else same[0][1]
            hashes = leaf_hashes(joined)
        except Exception:  # noqa: BLE001 - one of them is odd: which one, the next lines find out
            for file, batch in same:
                _hash_one(file, batch)
            continue
        at = 0
        for file, batch in same:
            file.hashes.append(hashes[at : at + batch.num_rows * HASH])
            at += batch.num_rows * HASH


def _hash_one(file: _File, batch: pa.RecordBatch) -> None:
    try:
        file.hashes.append(leaf_hashes(batch))
    except Exception as error:  # noqa: BLE001 - whatever a hostile file makes the reader do is a finding
        file.error = file.error or _sentence(error)


def _place(file: _File, tiles: Tiles, made: Checked) -> Iterator[Finding]:
    """See that each row is the leaf that it says it is."""
    job = file.job
    if not job.rows:
        return
    offsets, hashes = pa.concat_arrays(file.offsets), b"".join(file.hashes)
    order = None
    if not _ascend(offsets):
        order = pc.array_sort_indices(offsets)
        offsets = offsets.take(order)
        fixed = pa.FixedSizeBinaryArray.from_buffers(pa.binary(HASH), job.rows, [None, pa.py_buffer(hashes)])
        hashes = fixed.take(order).buffers()[1].to_pybytes()
        if not _ascend(offsets):
            same = pc.indices_nonzero(pc.equal(offsets.slice(1), offsets.slice(0, job.rows - 1)))
            yield _finding(job, "row-repeated", f"holds the offset {offsets[same[0].as_py()].as_py()} twice")
            return
    numbers = memoryview(offsets.buffers()[1]).cast("q")[offsets.offset : offsets.offset + job.rows]
    if numbers[0] < job.first or numbers[-1] > job.last:
        yield _finding(job, "offsets", f"holds the offsets {numbers[0]}-{numbers[-1]}; its name says others")
    for low, high in job.gone:
        at = bisect_left(numbers, low)
        if at < job.rows and numbers[at] <= high:
            yield _finding(job, "offsets", f"holds the offset {numbers[at]}, which was rejected or lost")
            break
    yield from _windows(job, numbers)
    at = 0
    for low, high in job.leaves:
        rows = high - low + 1
        made.spans.append((low, high, numbers[at], numbers[at + rows - 1]))
        place = _differs(tiles, low, high, hashes[at * HASH : (at + rows) * HASH])
        if place is not None:
            row = at + place if order is None else order[at + place].as_py()
            request = pa.Table.from_batches(file.stories).column("request_id")[row].as_py()
            what = (
                f"row {row} (leaf {low + place}, offset {numbers[at + place]}, request {request}) is not the row "
                "that was committed: its hash is not the leaf's"
            )
            yield _finding(job, "row-changed", what, low + place)
            return
        at += rows


def _windows(job: FileJob, numbers: Any) -> Iterator[Finding]:
    at, place = 0, 0
    for low, high in job.leaves:
        leaf = low
        while leaf <= high and place < len(job.windows):
            end, first, after = job.windows[place]
            stop = min(end, high + 1)
            rows = stop - leaf
            if numbers[at] < first or numbers[at + rows - 1] >= after:
                odd = numbers[at] if numbers[at] < first else numbers[at + rows - 1]
                what = f"holds the offset {odd} outside the window {first}-{after - 1} of the commit that added the row"
                yield _finding(job, "offsets", what, leaf)
                return
            at, leaf = at + rows, stop
            place += stop == end


def _ascend(offsets: Any) -> bool:
    rows = len(offsets)
    return rows <= 1 or bool(pc.all(pc.greater(offsets.slice(1), offsets.slice(0, rows - 1))).as_py())


def _differs(tiles: Tiles, low: int, high: int, hashes: bytes) -> int | None:
    """Give the place of the first row whose hash is not the leaf's in the tiles."""
    at = low
    while at <= high:
        number = at // TILE
        end = min(high + 1, (number + 1) * TILE)
        tile = tiles.leaves(number)
        mine = hashes[(at - low) * HASH : (end - low) * HASH]
        if tile is not None:
            leaf = at - number * TILE
            theirs = tile[leaf * HASH : (leaf + end - at) * HASH]
            if mine != theirs:
                for place in range(end - at):
                    if mine[place * HASH :][:HASH] != theirs[place * HASH :][:HASH]:
                        return at - low + place
        at = end
    return None


def _finding(job: FileJob, kind: str, what: str, leaf: int | None = None) -> Finding:
    return Finding(kind, job.path, what, (PHASE_FILES, job.leaves[0][0] if leaf is None and job.leaves else leaf or 0))


def _sentence(error: Exception) -> str:
    if isinstance(error, RowError):
        return str(error)
    text = " ".join(str(error).split())[:200]
    return f"cannot be read as Parquet of evidence: {type(error).__name__}: {text}"
