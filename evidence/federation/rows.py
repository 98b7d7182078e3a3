"""The rows of a log by their numbers, out of its live files, each of which is checked against its commit."""

from __future__ import annotations

import itertools
from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass

import pyarrow as pa

from evidence.errors import StoreError
from evidence.files.seam import Files
from evidence.log.commits import Added
from evidence.log.ranges import Ranges, of
from evidence.schema import EVENTS_SCHEMA
from evidence.store.reading import read_rows


@dataclass(frozen=True, slots=True)
class Rows:
    """Rows of a log."""

    numbers: tuple[int, ...]
    """Their numbers, ascending."""

    table: pa.Table
    """The rows, in that order."""

    def where(self, chosen: pa.Array) -> Rows:
        """Give those that were chosen."""
        return Rows(tuple(itertools.compress(self.numbers, chosen.to_pylist())), self.table.filter(chosen))

    def between(self, begin: int, stop: int) -> Rows:
        """Give those whose numbers are from `begin` up to, without, `stop`."""
        first, behind = bisect_left(self.numbers, begin), bisect_left(self.numbers, stop)
        return Rows(self.numbers[first:behind], self.table.slice(first, behind - first))


def read(files: Files, added: Added, columns: Sequence[str] = EVENTS_SCHEMA.names) -> Rows:
    """Read a live file.

    Args:
        files: the store.
        added: the file, as its commit names it.
        columns: those that are wanted, with `log_offset` among them.

    Raises:
        StoreError: it is not there, its bytes are not those that its commit names, or it has other rows.
        UnavailableError: the store cannot be read.
    """
    table = read_rows(files, added, columns)
    numbers = numbers_of(added.leaves)
    if len(numbers) != table.num_rows:
        raise StoreError(f"{files.url(added.path)} has {table.num_rows} rows, and its commit says {len(numbers)}")
    # A compacted file is sorted by time; in the order of their offsets, rows have ascending numbers.
    return Rows(numbers, table.sort_by("log_offset"))


def numbers_of(ranges: Ranges) -> tuple[int, ...]:
    """Give the numbers that ranges hold."""
    return tuple(itertools.chain.from_iterable(range(first, last + 1) for first, last in ranges))


class Reader:
    """Gives rows by ascending numbers; a file is read when its first row is wanted, and let go behind its last."""

    def __init__(
        self, files: Files, live: Sequence[Added], begin: int, columns: Sequence[str] = EVENTS_SCHEMA.names
    ) -> None:
        """Describe the reader.

        Args:
            files: the store.
            live: the live files of the log.
            begin: the first number that will be wanted.
            columns: those that are wanted, with `log_offset` among them.
        """
        self._files = files
        self._columns = columns
        self._waiting = sorted((added for added in live if added.leaves[-1][1] >= begin), key=lambda file: file.leaves)
        self._open: list[tuple[Added, Rows]] = []

    def until(self, begin: int, stop: int) -> Rows:
        """Give the rows from `begin` up to, without, `stop`; those that expired are missing.

        Raises:
            StoreError: a file is not what its commit says.
            UnavailableError: the store cannot be read.
        """
        while self._waiting and self._waiting[0].leaves[0][0] < stop:
            added = self._waiting.pop(0)
            self._open.append((added, read(self._files, added, self._columns)))
        self._open = [(added, rows) for added, rows in self._open if added.leaves[-1][1] >= begin]
        parts = [rows.between(begin, stop) for _, rows in self._open]
        schema = pa.schema([EVENTS_SCHEMA.field(name) for name in self._columns])
        table = pa.concat_tables([schema.empty_table(), *(part.table for part in parts)]).unify_dictionaries()
        numbers = list(itertools.chain.from_iterable(part.numbers for part in parts))
        order = sorted(range(len(numbers)), key=numbers.__getitem__)
        return Rows(tuple(numbers[place] for place in order), table.take(pa.array(order, pa.int64())))


def without(begin: int, stop: int, numbers: Sequence[int]) -> Ranges:
    """Give the numbers from `begin` up to, without, `stop` that are not among these."""
    there = set(numbers)
    return of(number for number in range(begin, stop) if number not in there)
