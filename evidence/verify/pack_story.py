"""The rows of a pack: whose they are, where in their log, and whether each story is told from its beginning on."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any, Final

from evidence.verify.commits import Commit, Ranges
from evidence.verify.signed import Signed, Untrue
from evidence.verify.strict import ShapeError, load, number_of, text_of
from evidence.verify.tree import check_inclusion, leaf_hash

_BEGINNINGS: Final = ("request.admitted", "request.rejected")
_ENDS: Final = ("request.ended", "request.rejected")
_OPERATOR: Final = "operator"


@dataclass(frozen=True, slots=True)
class Row:
    """One row of a pack."""

    where: str
    """Its place in the pack."""
    text: str
    """Its canonical text: what the log hashed."""
    said: dict[str, Any]
    """The same, read."""
    log: str
    """Its log's origin."""
    number: int
    """Its number in that log."""
    proof: list[bytes]
    """Its inclusion proof."""
    event_id: str
    request_id: str
    intake_id: str
    event_type: str
    stage: str
    sequence: int
    partition: int
    offset: int
    waybill: str | None
    """Digest of the waybill under which data crossed."""

    @property
    def sha256(self) -> str:
        """Give the SHA-256 of the canonical text, in hex."""
        return hashlib.sha256(self.text.encode()).hexdigest()

    @property
    def last(self) -> bool:
        """Tell whether nothing may follow it in its story."""
        return self.event_type in _ENDS or self.stage == _OPERATOR


def read_row(text: str, log: str, number: int, proof: list[bytes], where: str) -> Row:
    """Read a row.

    Raises:
        ShapeError: it is no event.
    """
    said = load(text, where, floats=True)
    if not isinstance(said, dict):
        raise ShapeError(f"{where}: the row is no object")

    def word(name: str) -> str:
        return text_of(said.get(name), f"{where}: `{name}`")

    def count(name: str) -> int:
        return number_of(said.get(name), f"{where}: `{name}`")

    return Row(
        where=where,
        text=text,
        said=said,
        log=log,
        number=number,
        proof=proof,
        event_id=word("eventId"),
        request_id=word("requestId"),
        intake_id=word("intakeId"),
        event_type=word("eventType"),
        stage=word("stage"),
        sequence=count("sequence"),
        partition=count("logPartition"),
        offset=count("logOffset"),
        waybill=word("waybillHash") if "waybillHash" in said else None,
    )


def check_in_log(row: Row, newest: Commit) -> None:
    """Check that a row is in its log.

    Raises:
        Untrue: it is not.
    """
    if row.partition != newest.origin.partition:
        what = f"is of partition {row.partition}, and its log is {newest.origin}"
        raise Untrue("other-log", row.where, what)
    if row.number >= newest.size or row.offset >= newest.next:
        raise Untrue("inclusion", row.where, f"number {row.number} is behind the log's end, {newest.size}")
    if not check_inclusion(leaf_hash(row.text.encode()), row.number, newest.size, row.proof, newest.root):
        what = (
            f"the proof does not show that this row is number {row.number} of the {newest.size} of {newest.origin}: "
            "the row, its number, its proof or the checkpoint was changed"
        )
        raise Untrue("inclusion", row.where, what)


def check_places(rows: Sequence[Row]) -> None:
    """Check that rows are sorted by log and number, that no row stands twice, and that offsets ascend with numbers.

    Raises:
        Untrue: they are not.
    """
    ids: set[str] = set()
    for row in rows:
        if row.event_id in ids:
            raise Untrue("repeated", row.where, f"the event {row.event_id} stands twice")
        ids.add(row.event_id)
    for one, other in pairwise(rows):
        if (other.log, other.number) <= (one.log, one.number):
            raise Untrue("order", other.where, "stands behind a row that comes later in the log, or twice")
        if other.log == one.log and other.offset <= one.offset:
            raise Untrue("order", other.where, "its offset does not ascend with its number")


@dataclass(slots=True)
class Gone:
    """What signed commits of a log say of rows that nobody can show any more."""

    expired: list[tuple[Ranges, str]] = field(default_factory=list)
    lost: list[Ranges] = field(default_factory=list)
    first: int = 0
    """Offset with which the log's coverage begins."""
    exported: bool = False
    """Whether the log is a copy that leaves rows out by design."""

    @classmethod
    def told(cls, commits: Sequence[Signed]) -> Gone:
        """Read it from commits that are trusted."""
        made = cls()
        for commit in (signed.commit for signed in commits):
            made.expired += commit.expired
            made.lost += [spans for spans, _ in commit.lost]
            made.first = max(made.first, commit.first or 0)
            made.exported = made.exported or commit.source is not None
        return made

    def why(self, before: Row | None, after: Row, missing: int) -> str | None:
        """Say why so many events before a row may be missing, or None.

        Args:
            before: the last event before them; None says that they are the story's first.
            after: the first event behind them.
            missing: how many.
        """
        low, high = (before.number if before else -1), after.number
        rules = [(_between(spans, low, high), rule) for spans, rule in self.expired]
        if sum(_count(spans) for spans, _ in rules) >= missing:
            told = ", ".join(f"numbers {_text(spans)} under {rule}" for spans, rule in rules if spans)
            return f"rows of the log between number {max(low, 0)} and {high} were expired: {told}"
        low, high = (before.offset if before else -1), after.offset
        if sum(_count(_between(spans, low, high)) for spans in self.lost) >= missing:
            return f"offsets between {max(low, 0)} and {high} were lost before they were read"
        if before is None and self.first > 0:
            return f"the log's coverage begins with offset {self.first}"
        return "the log is an export, which leaves rows out" if self.exported else None


def _between(spans: Ranges, low: int, high: int) -> list[tuple[int, int]]:
    return [(max(first, low + 1), min(last, high - 1)) for first, last in spans if first < high and last > low]


def _count(spans: Sequence[tuple[int, int]]) -> int:
    return sum(last - first + 1 for first, last in spans if last >= first)


def _text(spans: Sequence[tuple[int, int]]) -> str:
    parts = [str(first) if first == last else f"{first}-{last}" for first, last in spans if last >= first]
    return ",".join(parts[:20]) + (",…" if len(parts) > 20 else "")  # noqa: PLR2004 - enough to look them up


@dataclass(frozen=True, slots=True)
class Story:
    """One intake's story, as far as a pack tells it."""

    intake_id: str
    """Whose."""
    events: tuple[int, ...]
    """The numbers of its events."""
    ended: bool
    """Whether its end is told."""
    missing: tuple[str, ...]
    """Events that are gone, and why."""

    @property
    def whole(self) -> bool:
        """Tell whether it is told from its beginning to its end without a gap."""
        return self.ended and self.events == tuple(range(len(self.events)))

    def told(self) -> str:
        """Give the numbers of its events as ranges."""
        spans: list[tuple[int, int]] = []
        for number in self.events:
            if spans and number == spans[-1][1] + 1:
                spans[-1] = (spans[-1][0], number)
            else:
                spans.append((number, number))
        return ",".join(str(low) if low == high else f"{low}-{high}" for low, high in spans)


def stories(rows: Sequence[Row], gone: dict[str, Gone]) -> Iterator[Story]:
    """Put the rows together into stories, in the order in which they begin.

    Raises:
        Untrue: a story has a gap that no commit explains, goes on behind its end, or is otherwise none.
    """
    by_intake: dict[str, list[Row]] = {}
    for row in rows:
        by_intake.setdefault(row.intake_id, []).append(row)
    for intake, told in by_intake.items():
        yield _story(intake, told, gone[told[0].log])


def _story(intake: str, rows: list[Row], gone: Gone) -> Story:
    missing: list[str] = []
    before: Row | None = None
    for row in rows:
        if before is not None:
            if row.log != before.log:
                raise Untrue("story", row.where, f"the story of intake {intake} goes over two logs")
            if before.last:
                raise Untrue("story", row.where, f"stands behind the end of the story of intake {intake}")
        due = before.sequence + 1 if before else 0
        if row.sequence < due:
            what = f"event {row.sequence} of intake {intake} stands where event {due} or a later one belongs"
            raise Untrue("story", row.where, what)
        if row.sequence > due:
            why = gone.why(before, row, row.sequence - due)
            span = f"{due}" if row.sequence == due + 1 else f"{due} to {row.sequence - 1}"
            if why is None:
                raise Untrue(
                    "story", row.where, f"event {span} of intake {intake} is missing before event {row.sequence}"
                )
            missing.append(f"event {span} of intake {intake} cannot be shown: {why}")
        begins = row.event_type in _BEGINNINGS or row.stage == _OPERATOR
        if begins != (row.sequence == 0):
            raise Untrue("story", row.where, f"{row.event_type} cannot be event {row.sequence} of a story")
        before = row
    return Story(intake, tuple(row.sequence for row in rows), rows[-1].last, tuple(missing))
