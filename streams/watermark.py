"""The lowest unfinished offset of a partition whose records end out of order."""

from __future__ import annotations

from heapq import heappop, heappush


class Watermark:
    """Knows which offset may be committed: every record below it has ended.

    Offsets must be begun in rising order; they may end in any.
    """

    def __init__(self) -> None:
        self._open: list[int] = []
        self._ended: set[int] = set()
        self._next: int | None = None

    def begin(self, offset: int) -> None:
        """Note that a record was taken.

        Raises:
            ValueError: it is not above all that were begun before.
        """
        if self._next is not None and offset < self._next:
            raise ValueError(f"offset {offset} was begun already")
        heappush(self._open, offset)
        self._next = offset + 1

    def end(self, offset: int) -> None:
        """Note that a record has ended."""
        self._ended.add(offset)
        while self._open and self._open[0] in self._ended:
            self._ended.discard(heappop(self._open))

    @property
    def position(self) -> int | None:
        """The offset to commit, or None where nothing was begun."""
        return self._open[0] if self._open else self._next

    def __len__(self) -> int:
        return len(self._open)
