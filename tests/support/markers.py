"""Markers: texts that exist once in the world, planted where they must not get out of, and the search for them.

Every marker of a detectable kind is one that the real detectors find; a plain one is a word that none of them knows.
The search looks at what it is given as it stands, at what JSON in it says, and at what base64 in it decodes to.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from random import Random
from string import ascii_letters, ascii_lowercase, ascii_uppercase, digits
from typing import Any, Literal

import orjson

from policy.detection.detectors import Detectors

Family = Literal["credential", "personal", "plain"]

_BASE64 = re.compile(rb"[A-Za-z0-9+/_-]{16,}={0,2}")
_DEPTH = 3
_PIECE = 14
"""Characters of either end of a long marker that count as the marker: half a key is a leak too."""


@dataclass(frozen=True, slots=True)
class Marker:
    """One text that exists once."""

    text: str
    """The text."""

    family: Family
    """What it is to a policy."""

    where: str
    """Where it was planted."""

    side: Literal["asked", "answered"]
    """Whether it was in a request or in an answer."""

    @property
    def needles(self) -> tuple[str, ...]:
        """What is searched for, in small letters: the text, its ends, and for a number its digits."""
        text = self.text.casefold()
        found = {text, text.partition("@")[0]} if "@" in text else {text}
        if self.family == "credential":
            found |= {text[-_PIECE:], text.rpartition(" ")[2][: 2 * _PIECE]}
        return tuple(sorted(found))

    @property
    def squeezed(self) -> str:
        """Letters and digits alone."""
        return _squeeze(self.text.casefold())


def _squeeze(text: str) -> str:
    return re.sub(r"[^0-9a-z]", "", text)


class Markers:
    """Makes markers, and knows all that it has made."""

    def __init__(self, seed: int) -> None:
        self._chance = Random(seed)  # noqa: S311 - nothing is kept secret by it
        self._detectors = Detectors()
        self.made: list[Marker] = []

    def plain(self, where: str, *, answered: bool = False) -> str:
        """Give a word that no detector knows."""
        return self._keep(self._word(7), "plain", where, answered=answered)

    def email(self, where: str, *, answered: bool = False) -> str:
        """Give an e-mail address."""
        return self._keep(
            f"{self._word(4)}.{self._word(2)}@{self._word(3)}.example", "personal", where, answered=answered
        )

    def phone(self, where: str, *, answered: bool = False) -> str:
        """Give a mobile telephone number."""
        number = f"+49 151{self._some(digits, 1)} {self._some(digits, 7)}"
        return self._keep(number, "personal", where, answered=answered)

    def iban(self, where: str, *, answered: bool = False) -> str:
        """Give a German account number with right check digits."""
        account = self._some(digits, 18)
        check = 98 - int(f"{account}131400") % 97
        return self._keep(f"DE{check:02d}{account}", "personal", where, answered=answered)

    def key(self, where: str, *, answered: bool = False) -> str:
        """Give an API key."""
        return self._keep(f"sk-proj-{self._random(40)}", "credential", where, answered=answered)

    def github(self, where: str, *, answered: bool = False) -> str:
        """Give a GitHub token."""
        return self._keep(f"ghp_{self._random(36)}", "credential", where, answered=answered)

    def aws(self, where: str, *, answered: bool = False) -> str:
        """Give an AWS access key id."""
        return self._keep(f"AKIA{self._some(ascii_uppercase + '234567', 16)}", "credential", where, answered=answered)

    def bearer(self, where: str, *, answered: bool = False) -> str:
        """Give an authorization header in prose."""
        return self._keep(f"Authorization: Bearer {self._random(44)}", "credential", where, answered=answered)

    def jwt(self, where: str, *, answered: bool = False) -> str:
        """Give a JSON Web Token that nobody ever signed."""
        head = _b64({"alg": "HS256", "typ": "JWT"})
        body = _b64({"sub": self._word(5), "exp": 1_900_000_000})
        return self._keep(f"{head}.{body}.{self._random(43)}", "credential", where, answered=answered)

    def taken(self, text: str, where: str) -> str:
        """Take note of a credential that somebody else made."""
        self.made.append(Marker(text, "credential", where, "asked"))
        return text

    def personal(self, where: str, *, answered: bool = False) -> str:
        """Give a sentence with one of each kind of personal data."""
        made = (self.email, self.phone, self.iban)
        mail, phone, iban = (make(where, answered=answered) for make in made)
        return f"Write to {mail} or call {phone}; the account is {iban}."

    def secret(self, where: str, *, answered: bool = False) -> str:
        """Give a sentence with one of each kind of credential."""
        made = (self.key, self.github, self.bearer, self.jwt)
        return " and then ".join(make(where, answered=answered) for make in made)

    def _keep(self, text: str, family: Family, where: str, *, answered: bool) -> str:
        found = [text[one.start : one.end] for one in self._detectors.scan(f"See {text} there.")]
        known = any(part in text and 2 * len(part) > len(text) for part in found)
        assert known is (family != "plain"), f"the detectors find {found} in the {family} marker {text}"
        self.made.append(Marker(text, family, where, "answered" if answered else "asked"))
        return text

    def _word(self, syllables: int) -> str:
        return "".join(self._chance.choice("bdfgklmnprstvz") + self._chance.choice("aeiou") for _ in range(syllables))

    def _some(self, letters: str, count: int) -> str:
        return "".join(self._chance.choice(letters) for _ in range(count))

    def _random(self, count: int) -> str:
        """Give letters and digits, at least four of them digits: every generated key has some."""
        half = (count - 5) // 2
        mixed = ascii_letters + digits
        ends = self._some(ascii_lowercase, 1), self._some(mixed, half), self._some(mixed, count - 5 - half)
        return f"{ends[0]}{self._some(digits, 2)}{ends[1]}{self._some(digits, 2)}{ends[2]}"


def _b64(content: dict[str, Any]) -> str:
    return base64.urlsafe_b64encode(orjson.dumps(content)).rstrip(b"=").decode()


@dataclass(frozen=True, slots=True)
class Place:
    """Something that a run left, to be searched."""

    name: str
    """Where it is."""

    data: bytes
    """What is there."""


@dataclass(frozen=True, slots=True)
class Hit:
    """A marker that is somewhere."""

    place: str
    """Where."""

    marker: Marker
    """Which one."""

    def __str__(self) -> str:
        return f"{self.marker.family} marker of `{self.marker.where}` in {self.place}"


def hits(places: Iterable[Place], markers: Iterable[Marker]) -> list[Hit]:
    """Give every marker that is in a place, in any form."""
    wanted = [(marker, marker.needles, marker.squeezed) for marker in markers]
    found = []
    for place in places:
        forms = [form.decode(errors="replace").casefold() for form in _forms(place.data)]
        squeezed = [_squeeze(form) for form in forms]
        for marker, needles, bare in wanted:
            whole = any(needle in form for form in forms for needle in needles)
            if whole or any(bare in form for form in squeezed):
                found.append(Hit(place.name, marker))
    return found


def _forms(data: bytes, depth: int = _DEPTH) -> Iterator[bytes]:
    """Give data, and what is inside of it: texts of JSON, and the contents of base64."""
    yield data
    if depth == 0:
        return
    inner = b"\n".join(_texts(data))
    if inner and inner != data:
        yield from _forms(inner, depth - 1)
    for run in _BASE64.findall(data):
        yield from (each for each in _decoded(run) if each not in data)


def _decoded(run: bytes) -> Iterator[bytes]:
    bare = run.rstrip(b"=")
    padded = bare + b"=" * (-len(bare) % 4)
    for alphabet in (b"+/", b"-_"):
        try:
            yield base64.b64decode(padded, altchars=alphabet, validate=True)
        except binascii.Error:
            continue


def _texts(data: bytes) -> Iterator[bytes]:
    """Give the texts of JSON, line by line where it is one object a line."""
    for line in [data] if data[:1] == b"[" else data.splitlines():
        if line[:1] not in {b"{", b"[", b'"'}:
            continue
        try:
            yield from _walk(orjson.loads(line))
        except orjson.JSONDecodeError:
            continue


def _walk(content: Any) -> Iterator[bytes]:
    match content:
        case str():
            yield content.encode()
        case dict():
            for name, value in content.items():
                yield name.encode()
                yield from _walk(value)
        case list():
            for value in content:
                yield from _walk(value)
