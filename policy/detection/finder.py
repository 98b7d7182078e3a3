"""The frame of everything that is recognised by its letters; the finders are in `addresses` and `secrets`.

Each finder has two expressions. The *trigger* joins the prefilter and is kept so simple that the combined automaton
stays small; the *span* runs only where its trigger hit, and its check decides. All of them are RE2 (linear time,
whatever the text), over folded ASCII bytes (`policy.detection.folding`), so that byte offsets are character offsets.

Look-around does not exist in RE2, so that what stands before and after a span is checked here.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import re2

Span = tuple[int, int]
Check = Callable[[str, Any], Span | None]
Resume = Callable[[str, int], int]
"""Returns the next place, after the start of a rejected candidate, at which another one may begin."""


@dataclass(frozen=True, slots=True)
class Finder:
    """Finds one kind of thing."""

    kind: str
    """Its name in `policy.detection.kinds.KINDS`."""

    trigger: bytes
    """What the prefilter looks for (RE2 over ASCII bytes)."""

    span: Any
    """The compiled expression of the span; group 1 is the finding where there is a group."""

    check: Check
    """Gives the finding's exact span, or None where the candidate is none."""

    resume: Resume | None = None
    """Set where a rejected candidate may hide another one that begins inside it; only for bounded expressions."""

    def find(self, text: str, data: bytes) -> Iterator[Span]:
        """Give the spans in a text; `data` is `text` in bytes, the same offsets."""
        position = 0
        while (match := self.span.search(data, position)) is not None:
            found = self.check(text, match)
            if found is not None:
                yield found
                position = max(found[1], match.start() + 1)
            else:
                start = match.start()
                position = max(match.end(), start + 1) if self.resume is None else self.resume(text, start)


def before(text: str, start: int, size: int = 1) -> str:
    """Give the characters directly before a place."""
    return text[max(0, start - size) : start]


def alone(text: str, start: int, end: int, also: str = "") -> bool:
    """Say whether neither neighbour is a letter, a digit or one of `also`."""
    left, right = before(text, start), text[end : end + 1]
    return not (left.isalnum() or right.isalnum() or (left and left in also) or (right and right in also))


_OUTSIDE_WORD = re.compile(r"(?<![0-9A-Za-z])")


def next_character(text: str, start: int) -> int:
    """Return the next place; for checks that accept a candidate wherever it begins."""
    del text
    return start + 1


def next_word(text: str, start: int) -> int:
    """Return the next place without a letter or digit before it; for checks that refuse all others."""
    found = _OUTSIDE_WORD.search(text, start + 1)
    return found.start() if found else len(text)


def finder(kind: str, trigger: str, span: str, check: Check, *, resume: Resume | None = None) -> Finder:
    """Make a finder from expressions as text."""
    return Finder(kind, trigger.encode(), re2.compile(span.encode()), check, resume)
