"""A commit: what one signed note says of a log (docs/evidence-format.md), as a record and as text."""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

from evidence.errors import StoreError
from evidence.log.ranges import Ranges, from_text, to_text

_TIME: Final = "%Y-%m-%dT%H:%M:%S.%fZ"
_SHA256: Final = re.compile(r"[0-9a-f]{64}")
_NUMBER: Final = re.compile(r"0|[1-9]\d{0,19}")
_HASH_BYTES: Final = 32


@dataclass(frozen=True, slots=True)
class Added:
    """A file that becomes live."""

    path: str
    """Where it lies, relative to the store."""

    rows: int
    """Events in it."""

    size: int
    """Its size in bytes."""

    sha256: str
    """SHA-256 of its bytes, in hex."""

    leaves: Ranges
    """The rows' numbers in the log."""


@dataclass(frozen=True, slots=True)
class Lost:
    """Offsets that were gone from the topic before they were read."""

    offsets: Ranges
    """Which."""

    reason: str
    """Why: `expired`."""


@dataclass(frozen=True, slots=True)
class Expired:
    """Rows that were removed for ever."""

    leaves: Ranges
    """Their numbers in the log."""

    rule: str
    """The retention rule under which they were."""


@dataclass(frozen=True, slots=True)
class Source:
    """Which log, in which state, an export was copied from."""

    origin: str
    """The log's origin."""

    size: int
    """Its size then."""

    root: bytes
    """Its root then."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Commit:
    """One commit; which fields may be absent says docs/evidence-format.md."""

    origin: str
    """Name of the log, for ever."""
    size: int
    """Rows so far."""
    root: bytes
    """Root of the Merkle tree over them."""
    number: int
    """0, 1, 2, …"""
    previous: str | None
    """SHA-256 of the previous commit's file, in hex."""
    time: datetime
    """When it was made; never before the previous one's."""
    epoch: int
    """Grows by one with each writer."""
    writer: str
    """Names the writer."""
    partitions: int
    """Partitions of the topic."""
    next: int
    """First offset that is not covered yet."""
    first: int | None = None
    """Where the log's coverage begins; in commit 0 only."""
    rejected: Ranges = ()
    """Covered offsets whose records were no evidence events."""
    lost: tuple[Lost, ...] = ()
    """Offsets that nobody can store any more."""
    add: tuple[Added, ...] = ()
    """Files that become live."""
    remove: tuple[str, ...] = ()
    """Paths of files that are live no longer."""
    expire: tuple[Expired, ...] = ()
    """Rows that are gone for ever."""
    statement: str | None = None
    """SHA-256, in hex, of a document that says more."""
    source: Source | None = None
    """What this log is an export of."""
    withheld: Ranges = ()
    """Rows of the source that did not leave."""
    key: str | None = None
    """The verifier key that signs from the next commit on."""

    def text(self) -> str:
        """Give the text that is signed."""
        return "".join(f"{line}\n" for line in self._lines())

    def _lines(self) -> Iterator[str]:
        yield self.origin
        yield str(self.size)
        yield base64.b64encode(self.root).decode()
        yield f"commit {self.number}"
        yield f"previous {self.previous or 'none'}"
        yield f"time {self.time.astimezone(UTC).strftime(_TIME)}"
        yield f"writer {self.epoch} {self.writer}"
        yield f"partitions {self.partitions}"
        yield f"next {self.next}"
        yield from self._coverage()
        yield from self._files()
        if self.statement is not None:
            yield f"statement {self.statement}"
        if self.source is not None:
            root = base64.b64encode(self.source.root).decode()
            yield f"source {self.source.origin} {self.source.size} {root}"
        if self.withheld:
            yield f"withheld {to_text(self.withheld)}"
        if self.key is not None:
            yield f"key {self.key}"

    def _coverage(self) -> Iterator[str]:
        if self.first is not None:
            yield f"first {self.first}"
        if self.rejected:
            yield f"rejected {to_text(self.rejected)}"
        for lost in self.lost:
            yield f"lost {to_text(lost.offsets)} {lost.reason}"

    def _files(self) -> Iterator[str]:
        for added in self.add:
            yield f"add {added.path} {added.rows} {added.size} {added.sha256} {to_text(added.leaves)}"
        for path in self.remove:
            yield f"remove {path}"
        for expired in self.expire:
            yield f"expire {to_text(expired.leaves)} {expired.rule}"


def parse(text: str) -> Commit:
    """Read a commit's text; only what `Commit.text` writes is accepted.

    Raises:
        StoreError: it is not a commit; says what is wrong.
    """
    try:
        commit = _read(text.splitlines())
    except (ValueError, IndexError, binascii.Error) as error:
        raise StoreError(f"not a commit: {error}") from None
    if commit.text() != text:
        raise StoreError("not a commit: its lines are in another order or another form than the format says")
    return commit


def _read(lines: list[str]) -> Commit:
    origin, size, root = lines[:3]
    said: dict[str, list[list[str]]] = {}
    for line in lines[3:]:
        word, *rest = line.split(" ")
        if word not in _WORDS or len(rest) != _WORDS[word]:
            raise ValueError(f"{line[:60]!r} is no line of a commit")
        said.setdefault(word, []).append(rest)

    def one(word: str) -> list[str]:
        match said.get(word, []):
            case []:
                raise ValueError(f"the line `{word}` is missing")
            case [rest]:
                return rest
            case _:
                raise ValueError(f"the line `{word}` stands twice")

    def maybe(word: str) -> str | None:
        return one(word)[0] if word in said else None

    previous = one("previous")[0]
    epoch, writer = one("writer")
    first, rejected, withheld = maybe("first"), maybe("rejected"), maybe("withheld")
    source = one("source") if "source" in said else None
    return Commit(
        origin=origin,
        size=_number(size),
        root=_hash(root),
        number=_number(one("commit")[0]),
        previous=None if previous == "none" else _hex(previous),
        time=datetime.strptime(one("time")[0], _TIME).replace(tzinfo=UTC),
        epoch=_number(epoch),
        writer=writer,
        partitions=_number(one("partitions")[0]),
        next=_number(one("next")[0]),
        first=None if first is None else _number(first),
        rejected=() if rejected is None else from_text(rejected),
        lost=tuple(Lost(from_text(offsets), reason) for offsets, reason in said.get("lost", ())),
        add=tuple(
            Added(path, _number(rows), _number(octets), _hex(sha256), from_text(leaves))
            for path, rows, octets, sha256, leaves in said.get("add", ())
        ),
        remove=tuple(path for (path,) in said.get("remove", ())),
        expire=tuple(Expired(from_text(leaves), rule) for leaves, rule in said.get("expire", ())),
        statement=_hex(one("statement")[0]) if "statement" in said else None,
        source=None if source is None else Source(source[0], _number(source[1]), _hash(source[2])),
        withheld=() if withheld is None else from_text(withheld),
        key=maybe("key"),
    )


_WORDS: Final = {
    "commit": 1, "previous": 1, "time": 1, "writer": 2, "partitions": 1, "next": 1, "first": 1, "rejected": 1,
    "lost": 2, "add": 5, "remove": 1, "expire": 2, "statement": 1, "source": 3, "withheld": 1, "key": 1,
}  # fmt: skip


def _number(text: str) -> int:
    if not _NUMBER.fullmatch(text):
        raise ValueError(f"{text[:40]!r} is no whole number")
    return int(text)


def _hex(text: str) -> str:
    if not _SHA256.fullmatch(text):
        raise ValueError(f"{text[:70]!r} is no SHA-256 in hex")
    return text


def _hash(text: str) -> bytes:
    data = base64.b64decode(text, validate=True)
    if len(data) != _HASH_BYTES:
        raise ValueError(f"{text[:50]!r} is no SHA-256 in base64")
    return data
