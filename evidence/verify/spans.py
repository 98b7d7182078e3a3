"""Arithmetic on inclusive ranges of numbers."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Sequence
from itertools import pairwise

Span = tuple[int, int]
"""First and last number, both of them in it."""


def merged(spans: Iterable[Span]) -> list[Span]:
    """Give ranges sorted, with those that touch or overlap put together."""
    made: list[Span] = []
    for low, high in sorted(spans):
        if made and low <= made[-1][1] + 1:
            made[-1] = (made[-1][0], max(high, made[-1][1]))
        else:
            made.append((low, high))
    return made


def disjoint(spans: Sequence[Span]) -> bool:
    """Tell whether sorted ranges hold no number twice."""
    return all(one[1] < other[0] for one, other in pairwise(spans))


def inside(spans: Iterable[Span], low: int, high: int) -> bool:
    """Tell whether all numbers lie between two, both included."""
    return all(low <= span[0] and span[1] <= high for span in spans)


def cover(spans: Iterable[Span], begin: int, end: int) -> bool:
    """Tell whether ranges hold each number from `begin` to before `end` once, and no other."""
    at = begin
    for low, high in sorted(spans):
        if low != at:
            return False
        at = high + 1
    return at == end


def overlaps(spans: Sequence[Span], low: int, high: int) -> bool:
    """Tell whether sorted, disjoint ranges hold a number between two, both included."""
    at = bisect_right(spans, (high, 1 << 63))
    return at > 0 and spans[at - 1][1] >= low
