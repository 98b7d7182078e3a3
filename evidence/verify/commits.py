"""The text of a commit, read strictly: a line that is odd in any way is an error."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from typing import Final

from evidence.verify.notes import ED25519, NoteError, VerifierKey, parse_key, strict_base64
from evidence.verify.tree import HASH

Ranges = tuple[tuple[int, int], ...]
"""Inclusive, ascending ranges that do not touch each other."""

MOST_NUMBER: Final = 2**63 - 1
"""The largest number that is believed."""

_NUMBER: Final = re.compile(r"0|[1-9][0-9]{0,18}")
_HEX: Final = re.compile(r"[0-9a-f]{64}")
_MOMENT: Final = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z", re.ASCII)
_WORD: Final = re.compile(r"[!-~]{1,256}")
_ORIGIN: Final = re.compile(
    r"waybill/(?P<site>[A-Za-z0-9][A-Za-z0-9._-]{0,63})/(?P<log_id>[A-Za-z0-9_-]{1,64})"
    r"/(?P<topic>[A-Za-z0-9._-]{1,120})-(?P<partition>0|[1-9][0-9]{0,9})"
)
_PATH: Final = re.compile(
    r"events/site=(?P<site>[^/=]+)/date=(?P<day>\d{4}-\d\d-\d\d)"
    r"/(?P<log>[^/]+)-(?P<first>\d{20})-(?P<last>\d{20})-(?P<hash>[0-9a-f]{16})\.parquet",
    re.ASCII,
)
_ORDER: Final = (
    "commit",
    "previous",
    "time",
    "writer",
    "partitions",
    "next",
    "first",
    "rejected",
    "lost",
    "add",
    "remove",
    "expire",
    "statement",
    "source",
    "withheld",
    "key",
)
_REPEATED: Final = frozenset({"lost", "add", "remove", "expire"})
_NEEDED: Final = frozenset({"commit", "previous", "time", "writer", "partitions", "next"})


class CommitError(ValueError):
    """A commit's text, or a part of it, is not as it must be."""


@dataclass(frozen=True, slots=True)
class Origin:
    """Which partition of which topic of which cluster, at which site."""

    site: str
    log_id: str
    topic: str
    partition: int

    @property
    def folder(self) -> str:
        """Name of the log's folder, and the beginning of its files' names."""
        return f"{self.log_id}.{self.topic}-{self.partition}"

    @property
    def key_name(self) -> str:
        """Name of the keys that sign for it."""
        return f"waybill/{self.site}"

    def __str__(self) -> str:
        return f"waybill/{self.site}/{self.log_id}/{self.topic}-{self.partition}"


@dataclass(frozen=True, slots=True)
class Added:
    """A file that a commit makes live."""

    path: str
    rows: int
    size: int
    sha256: str
    leaves: Ranges
    site: str
    day: date
    log: str
    first: int
    last: int


@dataclass(slots=True)
class Commit:
    """What a commit says."""

    origin: Origin
    size: int
    root: bytes
    number: int = 0
    previous: str | None = None
    time: datetime = datetime(1970, 1, 1, tzinfo=UTC)
    epoch: int = 0
    writer: str = ""
    partitions: int = 0
    next: int = 0
    first: int | None = None
    rejected: Ranges = ()
    lost: list[tuple[Ranges, str]] = field(default_factory=list)
    added: list[Added] = field(default_factory=list)
    removed: list[str] = field(default_factory=list)
    expired: list[tuple[Ranges, str]] = field(default_factory=list)
    statement: str | None = None
    source: tuple[Origin, int, bytes] | None = None
    withheld: Ranges = ()
    key: VerifierKey | None = None


def number(text: str) -> int:
    """Read a number in decimal digits.

    Raises:
        CommitError: it is none, has a zero in front, or is absurdly large.
    """
    if not _NUMBER.fullmatch(text) or int(text) > MOST_NUMBER:
        raise CommitError(f"{text[:40]!r} is not a number")
    return int(text)


def ranges(text: str) -> Ranges:
    """Read ranges such as `3,7-9`.

    Raises:
        CommitError: they are not ascending, not in their one form, or none.
    """
    made: list[tuple[int, int]] = []
    for part in text.split(","):
        first, dash, last = part.partition("-")
        low = number(first)
        high = number(last) if dash else low
        if (dash and high <= low) or (made and low <= made[-1][1] + 1):
            raise CommitError(f"the ranges are not ascending, or not written in their one form, at {part[:40]!r}")
        made.append((low, high))
    return tuple(made)


def count(spans: Ranges) -> int:
    """Give how many numbers some ranges hold."""
    return sum(high - low + 1 for low, high in spans)


def digest(text: str) -> str:
    """Read a SHA-256 in hex.

    Raises:
        CommitError: it is none.
    """
    if not _HEX.fullmatch(text):
        raise CommitError("a SHA-256 has 64 hex digits in lower case")
    return text


def moment(text: str) -> datetime:
    """Read a moment with six digits of fraction.

    Raises:
        CommitError: it is none.
    """
    try:
        if _MOMENT.fullmatch(text):
            return datetime.strptime(text, "%Y-%m-%dT%H:%M:%S.%fZ").replace(tzinfo=UTC)
    except ValueError:
        pass
    raise CommitError(f"{text[:40]!r} is not a moment in UTC with six digits of fraction")


def origin(text: str) -> Origin:
    """Read a log's origin.

    Raises:
        CommitError: it is none.
    """
    match = _ORIGIN.fullmatch(text)
    if match is None:
        raise CommitError("the origin is not `waybill/<site>/<log id>/<topic>-<partition>`")
    return Origin(match["site"], match["log_id"], match["topic"], int(match["partition"]))


def root(text: str) -> bytes:
    """Read a tree's root.

    Raises:
        CommitError: it is none.
    """
    try:
        made = strict_base64(text)
    except NoteError as error:
        raise CommitError(f"the root is {error}") from error
    if len(made) != HASH:
        raise CommitError("the root has not 32 bytes")
    return made


def checkpoint(text: bytes) -> tuple[Origin, int, bytes]:
    """Read the first three lines of a checkpoint: origin, size and root.

    Raises:
        CommitError: they are not there.
    """
    try:
        name, size, top, _ = text.decode().split("\n", 3)
    except ValueError as error:
        raise CommitError("a checkpoint has origin, size and root, each in a line") from error
    return origin(name), number(size), root(top)


def parse_commit(text: bytes) -> Commit:
    """Read a commit's text.

    Raises:
        CommitError: anything in it is not as it must be; the text says in which line.
    """
    whole = text.decode()
    if not whole.endswith("\n"):
        raise CommitError("the last line has no end")
    commit = Commit(*checkpoint(text))
    place, seen = 0, set()
    for line_number, line in enumerate(whole[:-1].split("\n")[3:], start=4):
        word, _, rest = line.partition(" ")
        if word not in _ORDER:
            raise CommitError(f"line {line_number} is of no known kind: {line[:60]!r}")
        at = _ORDER.index(word)
        if at < place or (at == place and word in seen and word not in _REPEATED):
            raise CommitError(f"line {line_number}: `{word}` stands twice or in the wrong place")
        place = at
        seen.add(word)
        try:
            _READERS[word](commit, rest.split(" "))
        except (CommitError, NoteError) as error:
            raise CommitError(f"line {line_number}: {error}") from error
        except (ValueError, IndexError) as error:
            raise CommitError(f"line {line_number}: `{word}` has too many or too few parts") from error
    if missing := _NEEDED - seen:
        raise CommitError(f"there is no `{min(missing)}`")
    if commit.number == 0 and commit.previous is not None:
        raise CommitError("number 0 names a previous commit")
    if commit.number > 0 and commit.previous is None:
        raise CommitError("`previous none` stands in a commit that is not the first")
    return commit


def _commit(made: Commit, parts: list[str]) -> None:
    (text,) = parts
    made.number = number(text)


def _previous(made: Commit, parts: list[str]) -> None:
    (text,) = parts
    made.previous = None if text == "none" else digest(text)


def _time(made: Commit, parts: list[str]) -> None:
    (text,) = parts
    made.time = moment(text)


def _writer(made: Commit, parts: list[str]) -> None:
    epoch, made.writer = parts
    made.epoch = number(epoch)
    if not _WORD.fullmatch(made.writer):
        raise CommitError("the writer's id is none")


def _partitions(made: Commit, parts: list[str]) -> None:
    (text,) = parts
    made.partitions = number(text)


def _next(made: Commit, parts: list[str]) -> None:
    (text,) = parts
    made.next = number(text)


def _first(made: Commit, parts: list[str]) -> None:
    (text,) = parts
    made.first = number(text)
    if made.number:
        raise CommitError("`first` stands in a commit that is not the first")


def _rejected(made: Commit, parts: list[str]) -> None:
    (text,) = parts
    made.rejected = ranges(text)


def _lost(made: Commit, parts: list[str]) -> None:
    text, reason = parts
    if reason != "expired":
        raise CommitError(f"no reason for a loss is called {reason[:40]!r}")
    made.lost.append((ranges(text), reason))


def _add(made: Commit, parts: list[str]) -> None:
    path, rows, size, sha256, leaves = parts
    match = _PATH.fullmatch(path)
    if match is None:
        raise CommitError(f"no file of evidence is called {path[:300]!r}")
    try:
        day = date.fromisoformat(match["day"])
    except ValueError as error:
        raise CommitError(f"there is no day {match['day']}") from error
    file = Added(
        path,
        number(rows),
        number(size),
        digest(sha256),
        ranges(leaves),
        match["site"],
        day,
        match["log"],
        int(match["first"]),
        int(match["last"]),
    )
    if file.site != made.origin.site or file.log != made.origin.folder:
        raise CommitError(f"{path} belongs to another site or log")
    if not file.first <= file.last <= MOST_NUMBER:
        raise CommitError(f"{path} ends before it begins")
    if not file.sha256.startswith(match["hash"]):
        raise CommitError(f"{path} is not named by its hash {file.sha256[:16]}")
    if count(file.leaves) != file.rows:
        raise CommitError(f"{path} has {file.rows} rows and {count(file.leaves)} leaves")
    made.added.append(file)


def _remove(made: Commit, parts: list[str]) -> None:
    (text,) = parts
    made.removed.append(text)


def _expire(made: Commit, parts: list[str]) -> None:
    leaves, rule = parts
    if not _WORD.fullmatch(rule):
        raise CommitError("the retention rule is none")
    made.expired.append((ranges(leaves), rule))


def _statement(made: Commit, parts: list[str]) -> None:
    (text,) = parts
    made.statement = digest(text)


def _source(made: Commit, parts: list[str]) -> None:
    name, size, top = parts
    made.source = origin(name), number(size), root(top)


def _withheld(made: Commit, parts: list[str]) -> None:
    (text,) = parts
    made.withheld = ranges(text)


def _key(made: Commit, parts: list[str]) -> None:
    (text,) = parts
    made.key = parse_key(text)
    if made.key.kind != ED25519 or made.key.name != made.origin.key_name:
        raise CommitError(f"the new key is not one of {made.origin.key_name}")


_READERS: Final[dict[str, Callable[[Commit, list[str]], None]]] = {
    "commit": _commit,
    "previous": _previous,
    "time": _time,
    "writer": _writer,
    "partitions": _partitions,
    "next": _next,
    "first": _first,
    "rejected": _rejected,
    "lost": _lost,
    "add": _add,
    "remove": _remove,
    "expire": _expire,
    "statement": _statement,
    "source": _source,
    "withheld": _withheld,
    "key": _key,
}


def parse_pack(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Give the commits of a pack with their numbers.

    Raises:
        CommitError: the pack is not as it must be.
    """
    at = 0
    while at < len(data):
        end = data.find(b"\n", at, at + 64)
        if end < 0:
            raise CommitError(f"no line `<number> <bytes>` at byte {at}")
        first, _, second = data[at:end].decode("latin-1").partition(" ")
        place, size = number(first), number(second)
        at = end + 1
        if at + size > len(data):
            raise CommitError(f"the pack ends within commit {place}")
        yield place, data[at : at + size]
        at += size
