"""Text as its reader will see it: quotes, signs and digits that JSON, HTML or a URL have written in another way.

A log holds JSON inside of a string, a page holds `&quot;`, a link holds `%20`. Detectors look at such a text twice, as
it is and as it reads; this module makes the second one, with a way back to the offsets of the first.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from dataclasses import dataclass

_NAMED = {"quot": '"', "apos": "'", "amp": "&", "nbsp": " ", "commat": "@", "equals": "=", "colon": ":", "num": "#"}
_NAMES = "|".join(_NAMED)

TRIGGER = (
    rb"\\[\"'`/:=@nrtu]|%(?:25)?[2-7][0-9A-Fa-f]|%(?:25)?0[9AaDd]|&(?:" + _NAMES.encode() + rb");|&#(?:[xX]|[0-9])"
)
"""What the prefilter looks for: anything that `unescape` may change."""

_ESCAPE = re.compile(
    r"""\\{1,7}(?:(?P<sign>["'`/:=@])|(?P<blank>[nrt])|u00(?P<unit>[2-7][0-9A-Fa-f]))"""
    r"|%(?:25){0,2}(?P<percent>[2-7][0-9A-Fa-f]|0[9AaDd])"
    r"|&(?:amp;){0,2}(?:(?P<name>" + _NAMES + r");|\#(?P<decimal>[0-9]{2,3});|\#[xX](?P<hex>[0-9A-Fa-f]{2,4});)"
)
_BLANKS = {"n": "\n", "r": "\r", "t": "\t"}
_LAST_ASCII = 0x7E


@dataclass(frozen=True, slots=True)
class Unescaped:
    """A text as it reads, and the way back."""

    text: str
    """The text."""

    places: list[int]
    """Where in it a stretch begins: one that was copied, or one character that stands for an escape."""

    origins: list[int]
    """Where each of them begins in the text as given."""

    def span(self, start: int, end: int) -> tuple[int, int]:
        """Return the span [start, end), which is not empty, in the text as given."""
        return self._origin(start), self._origin(end)

    def _origin(self, place: int) -> int:
        stretch = bisect_right(self.places, place) - 1
        return self.origins[stretch] + place - self.places[stretch]


def unescape(text: str) -> Unescaped:
    """Return a text with its escapes undone, one level or several of the same sort; linear in its length."""
    pieces: list[str] = []
    places, origins = [0], [0]
    size = done = 0
    for match in _ESCAPE.finditer(text):
        character = _meaning(match)
        if character is None:
            continue
        start, end = match.span()
        pieces += text[done:start], character
        size += start - done
        places += size, size + 1
        origins += start, end
        size, done = size + 1, end
    pieces.append(text[done:])
    return Unescaped("".join(pieces), places, origins)


def _meaning(match: re.Match[str]) -> str | None:
    """Return the character that an escape stands for; None where it is none of ASCII."""
    kind, value = match.lastgroup, match[match.lastgroup or 0]
    if kind == "sign":
        return value
    if kind == "blank":
        return _BLANKS[value]
    if kind == "name":
        return _NAMED[value]
    code = int(value, 10 if kind == "decimal" else 16)
    character = chr(code)
    return character if code <= _LAST_ASCII and (character.isprintable() or character in "\t\n\r") else None
