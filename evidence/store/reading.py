"""Rows of live files, checked against their commits, in today's schema."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Sequence

import pyarrow as pa
import pyarrow.parquet as pq

from evidence.errors import StoreError
from evidence.files.seam import Files
from evidence.log.commits import Added
from evidence.schema import EVENTS_SCHEMA


def read_rows(files: Files, added: Added, columns: Sequence[str] = EVENTS_SCHEMA.names) -> pa.Table:
    """Read columns of a live file.

    Raises:
        NotThere: it is gone.
        StoreError: its bytes are not those that its commit names, or a newer version wrote it.
    """
    data = files.read(added.path)
    if hashlib.sha256(data).hexdigest() != added.sha256:
        raise StoreError(f"{files.url(added.path)} is not the file that its commit names; `waybill verify` tells more")
    try:
        there = pq.ParquetFile(io.BytesIO(data))
        schema = there.schema_arrow  # made anew each time that it is asked for
        _check_known(schema)
        known = set(schema.names)
        return in_schema(there.read([name for name in columns if name in known]), columns)
    except pa.ArrowException as error:
        raise StoreError(f"{files.url(added.path)} cannot be read: {error}") from None


def in_schema(table: pa.Table, columns: Sequence[str] = EVENTS_SCHEMA.names) -> pa.Table:
    """Give rows of any version of the schema in today's: columns, and members of structs, that came later are null.

    Raises:
        StoreError: there is a column that today's schema does not know, or one of another type.
    """
    schema = pa.schema([EVENTS_SCHEMA.field(name) for name in columns])
    if table.schema.equals(schema):
        return table.replace_schema_metadata(None)
    _check_known(table.schema)
    known = set(table.column_names)
    try:
        made = [
            table.column(field.name).cast(field.type) if field.name in known else pa.nulls(len(table), field.type)
            for field in schema
        ]
    except pa.ArrowException as error:
        raise StoreError(f"a column has another type than today: {error}") from None
    return pa.Table.from_arrays(made, schema=schema)


def _check_known(schema: pa.Schema) -> None:
    if unknown := _unknown(schema, EVENTS_SCHEMA):
        raise StoreError(f"there is a column {unknown[0]!r} that this version does not know; use a newer one")


def _unknown(fields: pa.Schema | pa.StructType, known: pa.Schema | pa.StructType, path: str = "") -> list[str]:
    """Give the columns, and members of structs, that a schema does not know: a cast would drop the latter unseen."""
    found: list[str] = []
    for field in fields:
        index = known.get_field_index(field.name)
        if index < 0:
            found.append(path + field.name)
        elif pa.types.is_struct(field.type):
            found += _unknown(field.type, known.field(index).type, f"{path}{field.name}.")
    return found
