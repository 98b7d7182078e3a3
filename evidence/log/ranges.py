"""Sets of whole numbers as inclusive, ascending ranges: offsets and leaf numbers are mostly consecutive."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterable
from typing import Final

Ranges = tuple[tuple[int, int], ...]
"""Inclusive ranges, ascending, with a gap between any two."""

_TEXT: Final = re.compile(r"\d{1,20}(-\d{1,20})?(,\d{1,20}(-\d{1,20})?)*")


def of(numbers: Iterable[int]) -> Ranges:
    """Give the ranges of ascending numbers."""
    found: list[tuple[int, int]] = []
    for number in numbers:
        if found and number == found[-1][1] + 1:
            found[-1] = (found[-1][0], number)
        else:
            found.append((number, number))
    return tuple(found)


def span(begin: int, stop: int) -> Ranges:
    """Give the numbers from `begin` up to, without, `stop`."""
    return ((begin, stop - 1),) if stop > begin else ()


def count(ranges: Ranges) -> int:
    """Tell how many numbers there are."""
    return sum(last - first + 1 for first, last in ranges)


def union(*several: Ranges) -> Ranges:
    """Give the numbers of all.

    Raises:
        ValueError: a number stands in two of them.
    """
    found: list[tuple[int, int]] = []
    for first, last in sorted(itertools.chain.from_iterable(several)):
        if found and first <= found[-1][1]:
            raise ValueError(f"{first} stands twice")
        if found and first == found[-1][1] + 1:
            found[-1] = (found[-1][0], last)
        else:
            found.append((first, last))
    return tuple(found)


def to_text(ranges: Ranges) -> str:
    """Write ranges as `3,7-9`."""
    return ",".join(str(first) if first == last else f"{first}-{last}" for first, last in ranges)


def from_text(text: str) -> Ranges:
    """Read what `to_text` wrote, and nothing else.

    Raises:
        ValueError: it is not in that form, or the ranges do not ascend.
    """
    if not _TEXT.fullmatch(text):
        raise ValueError(f"{text[:40]!r} is no list of ranges such as `3,7-9`")
    found = []
    for part in text.split(","):
        first, _, last = part.partition("-")
        found.append((int(first), int(last or first)))
    ranges = tuple(found)
    joined = any(after[0] <= before[1] + 1 for before, after in itertools.pairwise(ranges))
    if joined or any(first > last for first, last in ranges) or to_text(ranges) != text:
        raise ValueError(f"{text[:40]!r}: the ranges are not ascending, apart, and written the shortest way")
    return ranges
