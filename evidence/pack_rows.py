"""The rows of one request in the live files of a log, with their numbers."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import date
from typing import Any

import orjson
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from evidence.errors import StoreError
from evidence.files.seam import Files
from evidence.log.commits import Added
from evidence.log.ranges import Ranges
from evidence.rows import canonical_rows
from evidence.store.layout import LogPartition, events_file
from evidence.store.live import read_live


@dataclass(frozen=True, slots=True)
class Place:
    """Where a row lies; it stays there for ever, whichever file holds it."""

    day: date
    """The UTC day on which it happened."""

    partition: int
    """Partition of the topic."""

    offset: int
    """Offset in the partition."""


@dataclass(frozen=True, slots=True)
class Found:
    """A row of the request."""

    number: int
    """Its number in the log."""

    row: bytes
    """Its canonical bytes."""

    said: dict[str, Any] = field(repr=False)
    """The same, read."""

    @classmethod
    def of(cls, number: int, row: bytes) -> Found:
        """Read the row."""
        return cls(number, row, orjson.loads(row))


def find(files: Files, log: LogPartition, request_id: str, places: frozenset[Place] | None) -> list[Found]:
    """Give the rows of a request in a log, in the log's order.

    Args:
        files: the store.
        log: which log.
        request_id: the application's id of the request.
        places: where its rows lie; None looks through all live files.

    Raises:
        NotThere: a file is gone that was live a moment ago.
        StoreError: a file is damaged.
    """
    found: list[Found] = []
    for added in read_live(files, str(log)).files.values():
        offsets = None if places is None else _offsets(added, log, places)
        if offsets is None or offsets:
            found += _rows(files, added, offsets, request_id)
    return sorted(found, key=lambda one: one.number)


@dataclass(frozen=True, slots=True)
class Gap:
    """Where events of a story are missing."""

    numbers: tuple[int, int]
    """The numbers in the log between which they lay; -1 where the story's beginning is missing."""

    offsets: tuple[int, int]
    """The same, as offsets."""


def gaps_of(rows: Sequence[Found]) -> Iterator[Gap]:
    """Give the gaps in the stories that rows tell, which are in the order of the log."""
    before: dict[str, tuple[int, int, int]] = {}
    for found in rows:
        sequence, offset = found.said["sequence"], found.said["logOffset"]
        last, number, at = before.get(found.said["intakeId"], (-1, -1, -1))
        if sequence != last + 1:
            yield Gap((number, found.number), (at, offset))
        before[found.said["intakeId"]] = (sequence, found.number, offset)


def _offsets(added: Added, log: LogPartition, places: frozenset[Place]) -> list[int]:
    file = events_file(added.path)
    return [
        place.offset
        for place in places
        if place.partition == log.partition and place.day == file.day and file.first <= place.offset <= file.last
    ]


def _rows(files: Files, added: Added, offsets: list[int] | None, request_id: str) -> Iterator[Found]:
    """Give the rows of a request in a file; only the row groups that hold one are read whole."""
    # A row's number is that of its rank by offset among the file's rows, however the file is sorted.
    every: list[pa.ChunkedArray] = []
    rows: list[tuple[int, bytes]] = []
    try:
        with files.reader(added.path) as source:
            parquet = pq.ParquetFile(source)
            for group in range(parquet.num_row_groups):
                column = ["log_offset"] if offsets is not None else ["log_offset", "request_id"]
                part = parquet.read_row_group(group, columns=column)
                every.append(part.column("log_offset"))
                if not pc.any(_mask(part, offsets, request_id)).as_py():
                    continue
                whole = parquet.read_row_group(group)
                mine = whole.filter(pc.and_(_mask(whole, offsets, request_id), _mask(whole, None, request_id)))
                rows += zip(mine.column("log_offset").to_pylist(), canonical_rows(mine), strict=True)
    except (pa.ArrowException, OSError, KeyError, TypeError, ValueError) as error:
        raise StoreError(f"{added.path} cannot be read: {error}; `waybill verify` tells more") from error
    if rows:
        place = pa.chunked_array([chunk for column in every for chunk in column.chunks])
        for offset, row in rows:
            rank = pc.sum(pc.less(place, offset)).as_py() or 0
            yield Found.of(_nth(added.leaves, rank, added.path), row)


def _mask(table: pa.Table, offsets: list[int] | None, request_id: str) -> Any:
    if offsets is None:
        return pc.equal(table.column("request_id"), request_id)
    return pc.is_in(table.column("log_offset"), value_set=pa.array(offsets, pa.int64()))


def _nth(leaves: Ranges, rank: int, path: str) -> int:
    for first, last in leaves:
        if rank <= last - first:
            return first + rank
        rank -= last - first + 1
    raise StoreError(f"{path} holds more rows than its commit says; `waybill verify` tells more")
