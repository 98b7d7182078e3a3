"""Rows as the bytes of a Parquet file."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import date
from typing import Final

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from evidence.log.ranges import Ranges, of
from evidence.records import EVIDENCE_VERSION
from evidence.schema import EVENTS_SCHEMA, parquet_dictionary_columns

ROW_GROUP_ROWS: Final = 64 * 1024
"""Most rows of a row group: one for most files, and small enough for a reader to skip."""

LARGE_GROUP_ROWS: Final = 64 * 1024
"""Rows of a row group in a large file: what is read where a bloom filter says that an id may be in it."""

BLOOM_COLUMNS: Final = ("request_id", "intake_id", "trace_id", "event_id")
"""Ids that people look single requests up by."""

_FALSE_POSITIVES: Final = 0.01
_SORTED_BY: Final = ["occurred_at", "log_offset"]
"""The columns whose least and greatest values let a reader skip; of the others they cost time and say nothing."""

_SORTING: Final = pq.SortingColumn.from_ordering(EVENTS_SCHEMA, [(name, "ascending") for name in _SORTED_BY])
_DICTIONARY_COLUMNS: Final = parquet_dictionary_columns()
_EPOCH_DAY: Final = date(1970, 1, 1).toordinal()


@dataclass(frozen=True, slots=True)
class Encoded:
    """A file's bytes."""

    data: pa.Buffer
    """The bytes."""

    sha256: str
    """Their SHA-256, in hex."""


def encode(rows: pa.Table, about: Mapping[str, str], *, level: int, large: bool = False) -> Encoded:
    """Give the file of some rows.

    Args:
        rows: the rows, in the schema of the events.
        about: what else the file says of itself.
        level: of zstd; 1 is both faster and smaller on evidence than 3.
        large: whether the file is one for long: with bloom filters, in small row groups, that a reader may skip.
    """
    told = {"evidence_version": EVIDENCE_VERSION} | dict(about)
    metadata = {f"waybill.{name}": text for name, text in told.items()}
    sink = pa.BufferOutputStream()
    pq.write_table(
        rows.replace_schema_metadata(metadata),
        sink,
        compression="zstd",
        compression_level=level,
        use_dictionary=_DICTIONARY_COLUMNS,
        write_statistics=_SORTED_BY,
        row_group_size=LARGE_GROUP_ROWS if large else ROW_GROUP_ROWS,
        bloom_filter_options=_blooms(rows.num_rows) if large else None,
        sorting_columns=_SORTING if large else None,
    )
    data = sink.getvalue()
    return Encoded(data, hashlib.sha256(data).hexdigest())


def _blooms(rows: int) -> dict[str, dict[str, float]]:
    distinct = max(1, min(rows, LARGE_GROUP_ROWS))
    return {name: {"ndv": distinct, "fpp": _FALSE_POSITIVES} for name in BLOOM_COLUMNS}


def days(table: pa.Table) -> Iterator[tuple[date, pa.Table, Ranges]]:
    """Give the rows of each UTC day, in their order, with their places in the table."""
    if table.num_rows == 0:
        return
    column = table.column("occurred_at").cast(pa.date32()).cast(pa.int32()).combine_chunks()
    found = pc.unique(column).to_pylist()
    if len(found) == 1:
        yield date.fromordinal(_EPOCH_DAY + found[0]), table, ((0, table.num_rows - 1),)
        return
    for day in sorted(found):
        places = pc.indices_nonzero(pc.equal(column, day))
        yield date.fromordinal(_EPOCH_DAY + day), table.take(places), of(places.to_pylist())


def shifted(ranges: Ranges, by: int) -> Ranges:
    """Give ranges that begin `by` numbers later."""
    return tuple((first + by, last + by) for first, last in ranges)
