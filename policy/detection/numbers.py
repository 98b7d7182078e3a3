# ruff: noqa: PLR2004 - how many digits an identifier has is a fact of it, best read where it is checked
"""Identifiers made of digits: cards, telephone numbers, social security, health and identity numbers, IMEI.

They share one reading. A *run* is a stretch of digits with at most three separators between neighbours (spaces,
dashes, dots, brackets, slashes, line breaks); it falls into *groups*, and each identifier is a window of whole groups
whose digits pass its check and whose shape is one that people write. The work is linear in the length of the text: a
window never has more than 19 digits, and of the groups inside of a run only those of a promising shape get any.

The text is folded ASCII (`policy.detection.folding`), so that byte offsets are character offsets.
"""

from __future__ import annotations

import re
from collections.abc import Container, Iterator
from itertools import accumulate
from typing import NamedTuple

import re2

from policy.detection import validators
from policy.detection.dialling import country_digits

TRIGGER = rb"\d(?:[ \t\r\n.()/_-]{0,3}\d){6}"
"""What the prefilter looks for: the beginning of a run of at least seven digits."""

_RUN = re2.compile(rb"\d(?:[ \t\r\n.()/_-]{0,3}\d){6}(?:[ \t\r\n.()/_-]{0,3}\d)*")
_GROUP = re.compile(r"\d+")
_LONGEST = 19
_SPANISH = frozenset((7, 8))
_SPANISH_TAIL = re.compile(r"[ \t.-]?([A-Za-z])(?![A-Za-z0-9])")
_SPANISH_SHAPES = frozenset(((7,), (8,), (1, 3, 3), (2, 3, 3)))
_CHECKED = frozenset((9, 10, *range(13, 20)))
_SIZES = frozenset(range(7, 20))
"""How many digits each family of identifiers has; all other windows are passed over."""

_WORDS = 48
"""How far before a number its context may begin, in characters."""

_AFTER = 4
"""How far behind a number its letter may stand, in characters, what follows that letter included."""

# The word, then no digit, bracket or sentence end up to the number. Brackets are excluded so that a placeholder never
# lends its name to what follows it.
_CONTEXT = {
    "phone": re.compile(
        r"(?i)(?:\b(?:tele)?(?:phone|fon|fono|foon|fax|telefax)\w{0,8}|\bt[eé]l\b|\btlf\b|\bph\b[.:]|\bmob(?:ile)?\b|\bcell(?:ulare?)?\b"
        r"|\bmovil\b|\bhandy\b|\bwhats ?app\b|\bsms\b|\btext me\b"
        r"|\bcall(?: me| us| him| her| them)?\b(?! (?:id|number \d))"
        r"|\bring\b|\breach (?:me|us|him|her|them)\b|\bdial\b|\bnumero\b|\brufnummer\b|\bhotline\b"
        r"|\bmy number\b|\bcontact (?:number|no)\b)[^\d\[\]\x1e\n!?;]{0,32}$"
    ),
    "card": re.compile(r"(?i)\b(?:card|visa|mastercard|amex|karte|tarjeta|carte|pan)\b[^\d\[\]\x1e]{0,32}$"),
    "us_ssn": re.compile(r"(?i)(?:\bssn\b|social[\s_-]{0,3}security|\bss#)[^\d\[\]\x1e]{0,32}$"),
    "uk_nhs": re.compile(r"(?i)\b(?:nhs|national health)\b[^\d\[\]\x1e]{0,32}$"),
    "imei": re.compile(r"(?i)\bimei\b[^\d\[\]\x1e]{0,32}$"),
}
_WORD = re2.compile(
    rb"(?i)fon|foon|phone|fax|tel|tlf|ph[.:]|mob|cell|movil|handy|whats ?app|sms|text me|call|ring|reach|dial|numero"
    rb"|rufnummer|hotline|my number|contact|card|visa|amex|karte|tarjeta|carte|pan|ssn|social|ss#|nhs|national|imei"
)
"""What every expression of `_CONTEXT` needs."""

_DATE = re.compile(r"(?:(?:19|20)\d\d([-./ ])\d{1,2}\1\d{1,2}|\d{1,2}([-./ ])\d{1,2}\2(?:19|20)\d\d)(?!\d)")
_COMPACT_DATE = re.compile(r"(?:19|20)\d\d(?:0[1-9]|1[0-2])(?:0[1-9]|[12]\d|3[01])")
_TRUNK_SHAPES = frozenset(
    tuple(int(size) for size in shape.split("-"))
    for shape in str.split(
        "2-2-2-2-2 5-6 4-3-4 3-4-4 5-3-3 4-7 3-8 4-6 3-7 4-3-3 2-4-4 3-3-2-2 3-2-2-3 2-3-4 2-8 2-3-2-2 3-3-4 "
        "3-6 5-5 4-8 3-4-2-2 3-3-3 2-3-2-3 3-4-3 4-4-3 3-2-2-2 4-2-2-2 2-4-3 2-7"
    )
)
"""Group sizes in which national numbers with a leading 0 are written."""

_NANP = (3, 3, 4)
_CHECKED_SHAPES = frozenset(((2, 6, 6, 1), (3, 2, 4), _NANP))
"""Shapes in which identifiers other than cards are written whole (IMEI, SSN, NHS), where no word calls them."""

_INNER_SHAPES = frozenset(((1, 3, 3), (2, 3, 3), (2, 6, 6), (3, 2, 4), _NANP, (3, 4, 4), (3, 2, 2)))
"""The first three sizes of what is told by its shape alone: a DNI, an IMEI, numbers that are dialled."""

_TRUNK_BEGINNINGS = frozenset(shape[:2] for shape in _TRUNK_SHAPES)
_LONGEST_PHONE, _MOST_GROUPS = 17, 8
"""Digits and groups of a telephone number at most."""
_PLUS = re.compile(r"(?:^|[^\w+])\(?\+ ?\(?$")
_AMOUNT = re.compile(r"[\d$][.,]$")


class Group(NamedTuple):
    """Neighbouring digits."""

    start: int
    end: int
    digits: str
    before: str
    """The separators between the previous group and this one ("" for the first)."""


class _Run:
    """A run with what is asked of it again and again."""

    __slots__ = ("_digits", "_offsets", "data", "groups", "sizes", "text")

    def __init__(self, text: str, data: bytes, groups: list[Group]) -> None:
        self.text, self.data, self.groups = text, data, groups
        self.sizes = tuple(group.end - group.start for group in groups)
        self._offsets = (0, *accumulate(self.sizes))
        self._digits = "".join(group.digits for group in groups)

    def head(self, index: int) -> str:
        """Return the first four digits from a group on, of whatever group they are."""
        offset = self._offsets[index]
        return self._digits[offset : offset + 4]

    def windows(self, index: int, sizes: Container[int]) -> Iterator[tuple[int, str, tuple[int, ...]]]:
        """Return the windows that begin at a group and have one of some sizes: last group, digits, sizes of groups."""
        offset = self._offsets[index]
        for place in range(index, min(index + _LONGEST, len(self.groups))):  # every group has a digit
            size = self._offsets[place + 1] - offset
            if size > _LONGEST:
                return
            if size in sizes:
                yield place, self._digits[offset : offset + size], self.sizes[index : place + 1]


class Number(NamedTuple):
    """One identifier found."""

    kind: str
    start: int
    end: int


class _Before:
    """What stands before a number; each question is answered once for all windows that begin there."""

    __slots__ = ("_amount", "_called", "_data", "_plus", "_said", "_start", "inner", "words")

    def __init__(self, text: str, data: bytes, start: int, *, inner: bool) -> None:
        self.words = text[max(0, start - _WORDS) : start]
        self._data, self._start = data, start
        self.inner = inner  # before it stand digits of the same run, so that neither a word nor a `+` calls it
        self._said: dict[str, bool] = {}
        self._called: bool | None = None
        self._plus: bool | None = None
        self._amount: bool | None = None

    def says(self, kind: str) -> bool:
        """Say whether the words before call the number by this kind's name."""
        if self.inner:
            return False
        if self._called is None:  # mostly no word of any kind stands there, and this look is much the cheapest
            self._called = _WORD.search(self._data, max(0, self._start - _WORDS), self._start) is not None
        if not self._called:
            return False
        if kind not in self._said:
            self._said[kind] = _CONTEXT[kind].search(self.words) is not None
        return self._said[kind]

    def plus(self) -> bool:
        """Say whether a `+` that belongs to nothing else stands directly before."""
        if self._plus is None:
            self._plus = not self.inner and _PLUS.search(self.words[-5:]) is not None
        return self._plus

    def amount(self) -> bool:
        """Say whether this continues an amount or a reference: `$`, `#`, `%`, or `1,` before it."""
        if self._amount is None:
            self._amount = self.words[-1:] in ("$", "#", "%") or _AMOUNT.search(self.words[-3:]) is not None
        return self._amount


def find(text: str, data: bytes, changed: str = "") -> Iterator[Number]:
    """Give the identifiers of all runs; they may overlap. `data` is `text` in bytes, the same offsets.

    With `changed`, only those runs that have this character near enough to matter: what a run gives depends on its own
    characters, `_WORDS` before it and `_AFTER` behind it.
    """
    for match in _RUN.finditer(data):
        start, end = match.span()
        if not changed or changed in text[max(0, start - _WORDS) : end + _AFTER]:
            yield from _in_run(text, data, _groups(text, start, end))


def _groups(text: str, start: int, end: int) -> list[Group]:
    found: list[Group] = []
    previous = start
    for match in _GROUP.finditer(text, start, end):
        found.append(Group(match.start(), match.end(), match.group(), text[previous : match.start()]))
        previous = match.end()
    return found


def _in_run(text: str, data: bytes, groups: list[Group]) -> Iterator[Number]:
    run = _Run(text, data, groups)
    taken = 0
    for index in range(len(groups)):
        lengths = validators.card_lengths(run.head(index))
        any_kind = not index or _may_begin(run, index)
        if not any_kind and not lengths:
            continue
        phone: Number | None = None
        for number in _at(run, index, lengths, taken, any_kind=any_kind):
            if number.kind == "phone":
                phone = number  # the longest one, which comes last
            else:
                yield number
        if phone is not None:
            taken = phone.end
            yield phone


def _at(run: _Run, index: int, lengths: tuple[int, ...], taken: int, *, any_kind: bool) -> Iterator[Number]:
    """Return what begins at a group: cards of some lengths, or any kind; telephone numbers only behind `taken`."""
    text, groups, start = run.text, run.groups, run.groups[index].start
    free = not text[start - 1 : start].isalnum() or start == 0
    before = _Before(text, run.data, start, inner=index > 0)
    for place, digits, shape in run.windows(index, _SIZES if any_kind else lengths):
        size, end, window = len(digits), groups[place].end, groups[index : place + 1]
        if size in _SPANISH and shape in _SPANISH_SHAPES:
            yield from _spanish(text, window, digits)
        if not free or text[end : end + 1].isalnum():
            continue
        kind = None
        if size in lengths or (size in _CHECKED and (not index or shape in _CHECKED_SHAPES)):
            kind = _identifier(text, before, window, shape, digits)
        if kind is not None:
            yield Number(kind, start, end)
            if kind in _CONTEXT and before.says(kind):
                continue  # it is called by its name, so that it is no telephone number of the same shape
        if not any_kind or start < taken or size > _LONGEST_PHONE or len(shape) > _MOST_GROUPS:
            continue
        if _phone(text, before, window, shape, digits, groups[place + 1 : place + 2]):
            yield _with_prefix(text, start, end)


def _may_begin(run: _Run, index: int) -> bool:
    """Say whether something other than a card may begin at an inner group of a run.

    No words and no `+` stand directly before an inner group, so that only its shape can tell. Most groups of a long
    list or table end here, which is why such a text costs little.
    """
    text, groups, sizes, digits = run.text, run.groups, run.sizes, run.head(index)
    size, start = sizes[index], groups[index].start
    if size in _SPANISH or sizes[index : index + 3] in _INNER_SHAPES:
        return True
    if text[start - 1 : start] == "(" and groups[index + 1 : index + 2] and groups[index + 1].before[:1] == ")":
        return True
    if digits[0] != "0":
        return False
    if digits[:3] == "011" or (size > 2 and digits[1] == "0" and digits[2] != "0"):
        return True
    return digits[1:2] != "0" and sizes[index : index + 2] in _TRUNK_BEGINNINGS


def _identifier(text: str, before: _Before, window: list[Group], shape: tuple[int, ...], digits: str) -> str | None:
    start, size = window[0].start, len(digits)
    if size >= 13 and validators.luhn(digits) and _card_shape(window, shape):
        if validators.card(digits):
            return "card"
        if before.says("card"):
            return "card"  # an issuer that the table does not know
    if size == 15 and (shape == (2, 6, 6, 1) or before.says("imei")) and validators.luhn(digits):
        return "imei"
    if size == 9 and validators.us_ssn(digits):
        written = shape == (3, 2, 4) and window[1].before.strip(" \t\r\n") == window[2].before.strip(" \t\r\n")
        if (written and "." not in window[1].before) or before.says("us_ssn"):
            return "us_ssn"
    if size == 10 and validators.nhs_number(digits):
        written = shape == _NANP and "." not in window[1].before and "(" not in text[max(0, start - 1) : start]
        if (written and not _nanp(digits)) or before.says("uk_nhs"):
            return "uk_nhs"
    return None


def _card_shape(window: list[Group], shape: tuple[int, ...]) -> bool:
    """Say whether people group a card number like this: one block, even blocks, single digits, a broken line."""
    if len(shape) == 1:
        return True
    between = {group.before for group in window[1:]}
    if set(shape) == {1}:
        return len(between) == 1 and between <= {" ", "-", "  ", " - "}
    if any("\n" in before for before in between):
        return True
    return all(size >= 2 for size in shape) and len(set(shape[:-1])) <= 2


def _spanish(text: str, window: list[Group], digits: str) -> Iterator[Number]:
    """Find a DNI or NIE, whose letters stand outside the digits."""
    start, end = window[0].start, window[-1].end
    tail = _SPANISH_TAIL.match(text[end : end + 3])
    if tail is None:
        return
    if any(group.before not in (".", " ", "-") for group in window[1:]):
        return  # the seconds of a time, say, "12.345678Z"
    if len(digits) == 8:
        lead = ""
    elif len(digits) == 7 and (
        head := re.search(r"(?:^|[^A-Za-z0-9])([XYZxyz])[ .-]?$", text[max(0, start - 3) : start])
    ):
        lead = head.group(1)
        start -= len(head.group(0)) - head.group(0).upper().index(lead.upper())
    else:
        return
    if start > 0 and text[start - 1].isalnum():
        return
    if validators.spanish_id(lead + digits + tail.group(1)):
        yield Number("spanish_id", start, end + tail.end())


def _with_prefix(text: str, start: int, end: int) -> Number:
    """Widen a telephone number over its `+` and its opening bracket."""
    while start > 0 and text[start - 1] in "+(":
        start -= 1
    if start > 1 and text[start - 2 : start] == "+ ":
        start -= 2
    return Number("phone", start, end)


def _nanp(digits: str) -> bool:
    """Say whether ten digits are a North American number: area and exchange begin with 2 to 9, no service code."""
    area, exchange = digits[:3], digits[3:6]
    return area[0] > "1" and exchange[0] > "1" and area[1:] != "11" and exchange[1:] != "11"


def _phone(
    text: str, before: _Before, window: list[Group], shape: tuple[int, ...], digits: str, rest: list[Group]
) -> bool:
    if before.inner and digits[0] != "0" and (len(window) == 1 or window[0].before in [g.before for g in window[1:]]):
        return False  # the middle of a longer list of numbers, as `_national` would find out at length
    start = window[0].start
    if before.plus():
        return _international(window, digits)
    if digits.startswith("00") and len(window[0].digits) > 2 and digits[2] != "0":
        return _international(window, digits[2:])
    if digits.startswith("011") and len(digits) > 11:
        return _international(window, digits[3:])
    if before.amount() or _DATE.match(text, start):
        return False
    if before.says("phone") and 7 <= len(digits) <= 13:
        spaced = all("\n" not in group.before for group in window[1:])
        return spaced and not (len(window) == 1 and len(digits) == 8 and _COMPACT_DATE.match(digits))
    return _national(text, window, digits, shape, rest)


def _international(window: list[Group], digits: str) -> bool:
    """Check digits that follow a `+`: a country code that exists and a length that it uses."""
    if len(window) > 1 and window[1].digits == "0" and "(" in window[1].before:
        digits = digits.replace("0", "", 1) if digits[: len(window[0].digits)].count("0") == 0 else digits
    least, most = country_digits(digits)
    return least <= len(digits) <= most


def _national(text: str, window: list[Group], digits: str, shape: tuple[int, ...], rest: list[Group]) -> bool:
    """Check a number without country code or context: only the shapes that nothing else is written in."""
    start, end = window[0].start, window[-1].end
    between = {group.before for group in window[1:]}
    if not between or any("\n" in before or "_" in before for before in between):
        return False
    if (rest and rest[0].before in between) or (window[0].before and window[0].before in between):
        return False  # the middle of a longer list of numbers
    after_area = {group.before for group in window[2:]}  # an area code is often set apart in its own way
    bracketed = text[max(0, start - 1) : start] == "(" and window[1].before.startswith(")")
    if shape in (_NANP, (1, *_NANP)) and (shape[0] == 3 or digits[0] == "1") and _nanp(digits[-10:]):
        return bracketed or len(between) == 1 or "(" in text[start:end]
    year = shape[0] == 4 and digits[:2] in ("19", "20")
    if bracketed and not year and 2 <= shape[0] <= 5 and len(digits) >= 9:
        return True
    if digits[0] == "0" and digits[1] != "0" and shape in _TRUNK_SHAPES and len(after_area) <= 1:
        return True
    if shape == (3, 4, 4) and len(between) == 1 and digits[0] == "1":
        return digits[1] in "3456789"  # a Chinese mobile
    return shape == (3, 2, 2, 2) and len(between) == 1 and digits[0] in "679"  # a Spanish number
