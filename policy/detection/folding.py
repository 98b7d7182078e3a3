"""Text as detectors see it: plain ASCII, with a way back to the offsets of the original.

Full-width digits, zero-width characters, accents, exotic dashes and spaces, and the commonest look-alike letters all
become what they look like, so that one pattern finds every spelling. Control characters, and letters that look like
nothing, become nothing; tag characters, which models read, become the ASCII that they shadow. Folding is paid for only
where a text is not ASCII or has control characters, and the way back is built only where a pattern hit. Not folded:
look-alikes beyond the table below, text drawn in other ways (leetspeak, base64, images).
"""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass

OPAQUE = "\x1f"
"""Stands for a character with no ASCII likeness: neither a word character, nor a space, nor a separator."""

_CACHED = 8192
"""Characters whose folding is remembered; bounded, because the text is written by others."""

_DASHES = "\u2010\u2011\u2012\u2013\u2014\u2015\u2043\u2212\u2e3a\ufe58\ufe63\uff0d"
_LOOKALIKES = str.maketrans(
    "\u0430\u0435\u043e\u0440\u0441\u0443\u0445\u0456\u0455\u0458\u0501\u0410\u0412\u0415\u041a\u041c\u041d\u041e\u0420\u0421\u0422\u0425\u03bf\u039f\u0391\u0392\u0395\u0397\u0399\u039a\u039c\u039d\u03a1\u03a4\u03a7\u0131",
    "aeopcyxisjdABEKMHOPCTXoOABEHIKMNPTXi",
)


# Letters and symbols in which nothing is to be seen, and what Unicode says is to be ignored though it is unassigned.
_BLANK_LOOKING = (
    *"\u115f\u1160\u3164\uffa0\u2800\u2065\ufffc\U0001d159",
    *map(chr, (*range(0xFFF0, 0xFFF9), *range(0xE0080, 0xE0100), *range(0xE01F0, 0xE1000))),
)
_TAGS = 0xE0000
_SPECIAL = {
    **dict.fromkeys(_DASHES, "-"),
    **dict.fromkeys(_BLANK_LOOKING, ""),
    **{chr(_TAGS + code): chr(code) for code in range(0x20, 0x7F)},
}
"""What does not look like what Unicode says of it."""

CONTROLS = r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]"
"""What of ASCII is folded, as an expression: all controls but tab and line ends."""

_CONTROL = re.compile(CONTROLS)


def _fold_control(character: str) -> str:
    """Return what an ASCII character becomes: a page's or column's end is the end of a line, other controls nothing."""
    if _CONTROL.match(character) is None:
        return character
    return "\n" if character in "\x0b\x0c" else ""


def _fold_character(character: str) -> str:
    """Give the ASCII text (perhaps empty, perhaps several characters) that a character looks like."""
    if character.isascii():
        return _fold_control(character)
    if (special := _SPECIAL.get(character)) is not None:
        return special
    looks = character.translate(_LOOKALIKES)
    if looks.isascii():
        return looks
    category = unicodedata.category(character)
    if category in ("Zl", "Zp") or character == "\x85":
        return "\n"
    if category in ("Cc", "Cf", "Mn", "Me"):
        return ""  # controls, zero-width characters, soft hyphens, combining marks, keycap frames
    if category == "Zs":
        return " "
    if category == "Nd":
        return str(unicodedata.decimal(character))
    spelled = unicodedata.normalize("NFKD", character)
    if spelled != character:
        return "".join(_fold_character(part) for part in spelled)
    # A letter of a cased script may be part of an address (an internationalised domain); a letter of any other script
    # has no word boundary of its own and must not hide the number or the address that it touches.
    return "z" if category in ("Ll", "Lu", "Lt") else OPAQUE


class _Table(dict[int, str]):
    """A translation table that fills itself; `str.translate` asks it once for each new character."""

    def __missing__(self, code: int) -> str:
        folded = _fold_character(chr(code))
        if len(self) < _CACHED:
            self[code] = folded
        return folded


_TABLE = _Table((code, _fold_control(chr(code))) for code in range(128))
_ASCII = re.compile(r"([\t\n\r\x20-\x7e]+)")  # runs of this class are skipped four times as fast as single foreign ones


class _Runs(dict[str, str]):
    """Folded runs of foreign characters: a few runs, such as one accented letter or a dash, are most of all runs."""

    def __missing__(self, run: str) -> str:
        folded = run.translate(_TABLE)
        if len(run) <= _SHORT and len(self) < _CACHED:
            self[run] = folded
        return folded


_SHORT = 4
"""Characters of a run that is remembered; longer ones hardly come twice."""

_RUNS = _Runs()


@dataclass(frozen=True, slots=True)
class Offsets:
    """The way from offsets in folded text back to the original."""

    origin: tuple[int, ...] | None
    """For each folded character the index of its original; None where both texts have the same offsets."""

    def span(self, start: int, end: int) -> tuple[int, int]:
        """Give the smallest span of the original that holds the folded span [start, end); never an empty one."""
        if self.origin is None:
            return start, end
        return self.origin[start], self.origin[end - 1] + 1


def fold(text: str, *, controls: bool = True) -> str:
    """Return the ASCII form of a text.

    Args:
        text: the text; it is returned itself where it is ASCII without controls.
        controls: whether controls are looked for in a text that is ASCII; without, it is returned itself.
    """
    if text.isascii():
        return text.translate(_TABLE) if controls and _CONTROL.search(text) else text
    parts = _ASCII.split(text)  # every second part is foreign (or empty, at the ends): only these cost a look-up
    parts[::2] = map(_RUNS.__getitem__, parts[::2])
    return "".join(parts)


def offsets(text: str) -> Offsets:
    """Build the way back for `fold(text)`."""
    if text.isascii() and not _CONTROL.search(text):
        return Offsets(None)
    origin: list[int] = []
    for index, character in enumerate(text):
        origin.extend([index] * len(_TABLE[ord(character)]))
    return Offsets(tuple(origin))
