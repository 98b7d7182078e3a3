"""Answers: as a table or records for people, as CSV or JSON for programs, as Markdown for a page."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Final, Literal

from rich.cells import cell_len
from rich.console import Console  # noqa: TID251 - a type; tests give the library's own
from rich.table import Table

from evidence.visible import safe_json, visible, visible_line
from queries.database import Result
from queries.forms import cell, json_text, plain_text, short, unique
from queries.terminal import Text, data

Format = Literal["auto", "table", "line", "csv", "json", "jsonl", "md"]
"""How an answer is written; `auto` is a table where it fits and records where it does not."""

MAX_TABLE_ROWS: Final = 200
"""Rows that are shown to people unless told otherwise; CSV and JSON are always whole."""

_QUOTED: Final = re.compile('[",\r\n]')
_SYNTAX: Final = re.compile(r"[\\`*\[\]<|~&]|(?<!\w)_|_(?!\w)")
"""What Markdown would read as its own."""
_NUMBERS: Final = re.compile(r"U?(BIGINT|INTEGER|HUGEINT|SMALLINT|TINYINT)|DOUBLE|FLOAT|BIGNUM|DECIMAL\(.*\)")
_NARROW: Final = 36
"""Columns of a terminal below which no column of a table is folded; wider ones may be folded to it."""
_FRAME: Final = 3
"""Columns of a terminal that a table needs beside each of its own."""


def render(result: Result, output: Format, console: Console, *, max_rows: int = MAX_TABLE_ROWS) -> int:
    """Write an answer, and return the number of rows written.

    Args:
        result: the answer; read to its end, or closed.
        output: the form.
        console: where to write.
        max_rows: the most rows for people; where there are more, the last line says so.

    Raises:
        QueryError: the database fails while the rows are read.
        TooSlow: reading them takes too long.
        OutputError: the output cannot be written.
    """
    with result:
        match output:
            case "csv":
                return data(console, _csv(result), what="CSV") - 1
            case "json":
                return data(console, _framed(_objects(result, console)), what="JSON") - 1
            case "jsonl":
                return data(console, (f"{text}\n" for text in _objects(result, console)), what="JSON")
            case _:
                return _shown(result, output, console, max_rows)


def _shown(result: Result, output: Literal["auto", "table", "line", "md"], console: Console, most: int) -> int:
    rows, more = result.take(most)
    cells = [[_Cell(value) for value in row] for row in rows]
    if output == "md":
        _markdown(result.columns, cells, console)
    elif output == "line":
        _records(result.columns, cells, console)
    else:
        fits = _fits(result.columns, cells, console.width)
        if not fits:
            cells = [[each.shorter() for each in row] for row in cells]
        if output == "table" or fits or _fits(result.columns, cells, console.width):
            console.print(_table(result, cells))
        else:
            _records(result.columns, [[_Cell(value) for value in row] for row in rows], console)
    count = f"{len(rows)} row{'' if len(rows) == 1 else 's'}"
    said = f"the first {count}; there are more (--rows N)" if more else count
    if output != "md":
        console.print(said, style="dim", highlight=False)
    elif more:
        console.print(f"\n{said}", highlight=False)
    return len(rows)


class _Cell:
    """One value as people see it."""

    def __init__(self, value: Any, text: str | None = None) -> None:
        self.null = value is None
        self.text = visible("NULL" if value is None else cell(value) if text is None else text)
        self._value = value

    @property
    def width(self) -> int:
        return max((cell_len(line) for line in self.text.split("\n")), default=0)

    def shorter(self) -> _Cell:
        return _Cell(self._value, short(self.text)) if isinstance(self._value, str) else self

    def styled(self) -> Text:
        return Text(self.text, "dim" if self.null else "")


def _fits(columns: Sequence[str], rows: Sequence[Sequence[_Cell]], width: int) -> bool:
    """Say whether a table can be read: short values whole, longer ones in pieces that are not too small."""
    needed = 1
    for place, name in enumerate(columns):
        widest = max((row[place].width for row in rows), default=0)
        needed += max(min(widest, _NARROW), min(cell_len(visible(name)), _NARROW)) + _FRAME
    return needed <= width


def _table(result: Result, rows: Iterable[Sequence[_Cell]]) -> Table:
    table = Table()
    for name, kind in zip(result.columns, result.types, strict=True):
        numeric = _NUMBERS.fullmatch(kind) is not None
        table.add_column(Text(name), justify="right" if numeric else "left", overflow="fold")
    for row in rows:
        table.add_row(*(each.styled() for each in row))
    return table


def _records(columns: Sequence[str], rows: Iterable[Sequence[_Cell]], console: Console) -> None:
    """Write one record a block, one column a line."""
    for number, row in enumerate(rows, start=1):
        console.print(Text(f"── {number} ".ljust(min(console.width, 40), "─"), "dim"))
        block = Table.grid(padding=(0, 2))
        block.add_column(no_wrap=True)
        block.add_column(overflow="fold")
        for name, each in zip(columns, row, strict=True):
            block.add_row(Text(visible_line(name), "bold"), each.styled())
        console.print(block)


def _markdown(columns: Sequence[str], rows: Iterable[Sequence[_Cell]], console: Console) -> None:
    lines = [[visible_line(name) for name in columns], ["---"] * len(columns)]
    lines += [[each.text for each in row] for row in rows]
    for line in lines:
        shown = (_SYNTAX.sub(_literal, text).replace("\n", "<br>") for text in line)
        console.print(f"| {' | '.join(shown)} |", markup=False, highlight=False, soft_wrap=True)


def _literal(sign: re.Match[str]) -> str:
    return {"<": "&lt;", "&": "&amp;"}.get(sign[0], f"\\{sign[0]}")


def _csv(result: Result) -> Iterator[str]:
    yield ",".join(_field(name) for name in result.columns) + "\n"
    for row in result:
        yield ",".join("" if value is None else _field(plain_text(value)) for value in row) + "\n"


def _field(text: str) -> str:
    """Return a field by RFC 4180; an empty text is quoted, because nothing at all stands for null."""
    return '"' + text.replace('"', '""') + '"' if not text or _QUOTED.search(text) else text


def _objects(result: Result, console: Console) -> Iterator[str]:
    names = unique(result.columns)
    ascii_only = not console.encoding.lower().replace("-", "").startswith("utf")
    for row in result:
        named = dict(zip(names, row, strict=True))
        yield safe_json(json_text(named), ascii_only=ascii_only)


def _framed(objects: Iterator[str]) -> Iterator[str]:
    count = 0
    for count, text in enumerate(objects, start=1):
        yield ("[" if count == 1 else ",\n ") + text
    yield "]\n" if count else "[]\n"
