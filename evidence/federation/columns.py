"""Which parts of an event there are to be left out, and rows without them.

A column that may not leave is null in the copy. Canonical bytes leave nulls out, so the copy's rows are ordinary rows,
with hashes of their own; nothing in them is derived from what was taken out.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Final

import pyarrow as pa
import pyarrow.compute as pc

from evidence.schema import DICTIONARY, EVENTS_SCHEMA


def _fields() -> dict[str, tuple[str, ...]]:
    fields = {
        field.name: tuple(child.name for child in field.type) if pa.types.is_struct(field.type) else ()
        for field in EVENTS_SCHEMA
    }
    for field in EVENTS_SCHEMA:
        # Else a part of a part could leave with the part, without anybody having named it.
        if pa.types.is_struct(field.type) and any(pa.types.is_struct(child.type) for child in field.type):
            raise TypeError(f"{field.name}: a struct in a struct cannot be minimised")
    return fields


FIELDS: Final = _fields()
"""The fields of each column that is made of some; nothing for a plain column."""

PATHS: Final = frozenset(
    f"{name}.{child}" if child else name for name, children in FIELDS.items() for child in children or ("",)
)
"""Everything that can be kept or left out: plain columns, and fields as `<column>.<field>`."""

REQUIRED: Final = frozenset(field.name for field in EVENTS_SCHEMA if not field.nullable)
"""What no row can be without."""


def minimise(table: pa.Table, kept: Collection[str]) -> pa.Table:
    """Give rows with everything null but what is kept.

    A struct of which nothing is left is null itself, so that not even its being there is told.

    Args:
        table: rows in `EVENTS_SCHEMA`.
        kept: what stays, of `PATHS`; with all that is required.

    Raises:
        ValueError: something that is required would be taken out.
    """
    if missing := REQUIRED - set(kept):
        raise ValueError(f"no row can be without {', '.join(sorted(missing))}")
    columns = [_minimised(field, table.column(field.name).combine_chunks(), kept) for field in EVENTS_SCHEMA]
    return pa.Table.from_arrays(columns, schema=EVENTS_SCHEMA)


def _minimised(field: pa.Field, array: pa.Array, kept: Collection[str]) -> pa.Array:
    if pa.types.is_struct(field.type):
        return _struct(field, array, kept)
    if field.name not in kept:
        return pa.nulls(len(array), field.type)
    if field.type == DICTIONARY:
        # The dictionary may hold values of rows that are not here, and would be written with them.
        return array.cast(pa.string()).dictionary_encode()
    return array


def _struct(field: pa.Field, array: pa.StructArray, kept: Collection[str]) -> pa.Array:
    parts = [
        part if f"{field.name}.{child.name}" in kept else pa.nulls(len(array), child.type)
        for child, part in zip(field.type, array.flatten(), strict=True)
    ]
    empty = parts[0].is_null()
    for part in parts[1:]:
        empty = pc.and_(empty, part.is_null())
    return pa.StructArray.from_arrays(parts, fields=list(field.type), mask=empty)
