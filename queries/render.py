"""Answers as a table for people, as CSV, or as JSON."""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Iterator
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from typing import Any, Final, Literal

from rich.console import Console
from rich.table import Table
from rich.text import Text

from queries.database import Result

Format = Literal["table", "csv", "json"]
"""How an answer is written."""

MAX_TABLE_ROWS: Final = 200
"""Rows of a table unless told otherwise; CSV and JSON are always whole."""


def render(result: Result, output: Format, console: Console, *, max_rows: int = MAX_TABLE_ROWS) -> int:
    """Write an answer, and give the number of rows written.

    Args:
        result: the answer; read to its end, or closed.
        output: `table`, `csv` or `json`.
        console: where to write.
        max_rows: the most rows of a table; where there are more, the last line says so.

    Raises:
        QueryError: the database fails while the rows are read.
        TooSlow: reading them takes too long.
    """
    with result:
        match output:
            case "table":
                return _table(result, console, max_rows)
            case "csv":
                return _csv(result, console)
            case "json":
                return _json(result, console)


def _table(result: Result, console: Console, max_rows: int) -> int:
    rows, more = result.take(max_rows)
    table = Table()
    for name, kind in zip(result.columns, result.types, strict=True):
        numeric = kind.startswith(("BIGINT", "INTEGER", "HUGEINT", "DOUBLE", "DECIMAL", "FLOAT", "UBIGINT", "SMALLINT"))
        table.add_column(Text(name), justify="right" if numeric else "left", overflow="fold")
    for row in rows:
        table.add_row(*(Text(cell(value)) for value in row))
    console.print(table)
    count = f"{len(rows)} row{'' if len(rows) == 1 else 's'}"
    console.print(f"the first {count}; there are more" if more else count, style="dim", highlight=False)
    return len(rows)


def _csv(result: Result, console: Console) -> int:
    writer = csv.writer(console.file, lineterminator="\n")
    writer.writerow(result.columns)
    count = 0
    for row in result:
        writer.writerow("" if value is None else cell(value, precise=True) for value in row)
        count += 1
    return count


def _json(result: Result, console: Console) -> int:
    count = 0
    for count, text in enumerate(_objects(result), start=1):
        console.file.write(("[" if count == 1 else ",\n ") + text)
    console.file.write("[]\n" if count == 0 else "]\n")
    return count


def _objects(result: Result) -> Iterator[str]:
    for row in result:
        named = {name: jsonable(value) for name, value in zip(result.columns, row, strict=True)}
        yield json.dumps(named, ensure_ascii=False, allow_nan=False)


def jsonable(value: Any) -> Any:
    """Give a value in JSON's own types: moments as RFC 3339 in UTC, what JSON cannot hold as text or null."""
    if value is None or isinstance(value, str | bool | int):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Decimal):
        return float(value)
    if isinstance(value, datetime):
        moment = value.astimezone(UTC) if value.tzinfo else value
        return moment.isoformat().replace("+00:00", "Z")
    if isinstance(value, date | time):
        return value.isoformat()
    if isinstance(value, timedelta):
        return value.total_seconds()
    if isinstance(value, dict):
        return {str(name): jsonable(inner) for name, inner in value.items()}
    if isinstance(value, list | tuple):
        return [jsonable(inner) for inner in value]
    if isinstance(value, bytes):
        return value.hex()
    return str(value)


def cell(value: Any, *, precise: bool = False) -> str:
    """Give a value as the text of one cell; nested ones as JSON, and floats rounded unless `precise`."""
    plain = jsonable(value)
    if plain is None:
        return ""
    if isinstance(plain, float) and not precise:
        return f"{plain:.6g}"
    if isinstance(plain, dict | list):
        return json.dumps(plain, ensure_ascii=False)
    return str(plain)
