"""An export: a copy of a site's logs for one recipient, of the rows and columns that may go there and no others.

The copy is a store like any other, with logs, tiles, commits and a proof of its own, signed by the same site; its logs
are named `<log id>-to-<recipient>`. Each of its commits names the state of the original that it goes up to, which is
one that a signed commit of the original states, and the numbers of the rows that stayed.

An export goes on where the last one ended, which the copy itself tells. It may be killed at any moment: what is not
committed is copied again by the next one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from evidence.errors import StoreError
from evidence.federation.choice import READ, Choice, Terms
from evidence.federation.columns import minimise
from evidence.federation.rows import Reader, Rows, read, without
from evidence.files.seam import Files
from evidence.log.commits import Added, Commit, Source
from evidence.log.notes import Verifier, open_note
from evidence.log.ranges import count
from evidence.store.history import read_commit
from evidence.store.layout import LOGS, LogPartition
from evidence.store.live import read_live
from evidence.store.site import EvidenceStore
from evidence.store.state import read_head
from evidence.store.upkeep import Upkeep
from evidence.store.writer import PartitionWriter

ROWS_AT_ONCE: Final = 50_000
"""Rows of the original that one commit of the copy is about, unless one of the original's commits has more."""

SETTLE_S: Final = 900.0
"""Seconds for which an event of a request whose class is not known yet is waited for."""


@dataclass(frozen=True, slots=True)
class Original:
    """A log that is to be exported, as it was when the export was planned."""

    log: LogPartition
    """Its name."""

    head: Commit
    """Its newest commit."""

    live: tuple[Added, ...]
    """Its live files."""

    done: int
    """Rows that the copy is about already."""

    upto: Commit
    """The commit up to which the copy will go."""

    leaving: int
    """Rows that will leave."""

    withheld: int
    """Rows that will not."""

    @property
    def source(self) -> Source:
        """The state that the copy will go up to."""
        return Source(self.upto.origin, self.upto.size, self.upto.root)


@dataclass(frozen=True, slots=True)
class Plan:
    """What an export will do."""

    originals: tuple[Original, ...]
    """The logs."""

    choice: Choice
    """Which rows leave."""

    @property
    def leaving(self) -> int:
        """Rows that will leave."""
        return sum(original.leaving for original in self.originals)

    @property
    def withheld(self) -> int:
        """Rows that will not."""
        return sum(original.withheld for original in self.originals)


@dataclass(frozen=True, slots=True)
class Exporter:
    """Makes and continues the copy for one recipient."""

    files: Files
    """The site's own store."""
    copy: EvidenceStore
    """The copy."""
    recipient: str
    """Whom it is for."""
    terms: Terms
    """What may leave."""
    keys: Sequence[Verifier]
    """The site's public keys."""
    rows_at_once: int = ROWS_AT_ONCE
    """Rows of the original that one commit is about."""
    settle_s: float = SETTLE_S
    """Seconds for which an event of a request whose class is not known yet is waited for."""

    def plan(self, now: datetime) -> Plan:
        """Find out what is to be copied; nothing is written.

        Args:
            now: the moment, for events whose class is not known yet.

        Raises:
            StoreError: the original is not what its commits say, or not the one that the copy was made from.
            UnavailableError: one of the two cannot be read.
        """
        states = [self._state(LogPartition.named(name)) for name in self.files.folders(f"{LOGS}/")]
        choice = Choice(self.terms)
        for _, head, live, done in states:
            for rows in self._windows(live, done, head.size, READ):
                choice.want(rows.table)
        for _, _, live, _ in () if choice.sure else states:
            for added in live:
                choice.learn(read(self.files, added, READ).table)
        return Plan(tuple(self._original(*state, choice, now) for state in states), choice)

    def run(self, plan: Plan, statement: bytes, each: Callable[[LogPartition, Commit], None]) -> None:
        """Do it.

        Args:
            plan: what.
            statement: the export waybill, which every commit of the copy that says something new names.
            each: is told each commit.

        Raises:
            StoreError: the original is not what its commits say, or another export has been here since the plan.
            UnavailableError: one of the two cannot be read or written.
        """
        for original in plan.originals:
            log = self.named(original.log)
            with self.copy.open(
                log.log_id,
                log.topic,
                log.partition,
                beginning=self._commit(original.log, 0).first or 0,
                partitions=original.head.partitions,
            ) as writer:
                last = self._last(log)
                if (0 if last is None else last.size) != original.done:
                    raise StoreError(f"{log}: another export to {self.recipient} has been here; run it again")
                for commit in self._copied(original, plan.choice, statement, writer):
                    each(log, commit)
                if original.leaving:
                    Upkeep(self.copy.files)(writer)

    def named(self, log: LogPartition) -> LogPartition:
        """Give the name of a log's copy."""
        return LogPartition(f"{log.log_id}-to-{self.recipient}", log.topic, log.partition)

    def _copied(
        self, original: Original, choice: Choice, statement: bytes, writer: PartitionWriter
    ) -> Iterator[Commit]:
        begin, reader = original.done, Reader(self.files, original.live, original.done)
        while True:
            step = self._step(original, begin)
            rows = reader.until(begin, step.size)
            leaving = rows.where(choice.leaves(rows.table))
            yield writer.append(
                minimise(leaving.table, self.terms.columns),
                end=step.next - 1,
                statement=statement,
                source=Source(step.origin, step.size, step.root),
                withheld=without(begin, step.size, leaving.numbers),
            ).commit
            begin = step.size
            if begin >= original.upto.size:
                return

    def _step(self, original: Original, begin: int) -> Commit:
        """Give the commit of the original up to which the next commit of the copy goes."""
        found = self._within(original.log, original.upto, begin + self.rows_at_once)
        if found.size == begin < original.upto.size:  # the next commit alone has more rows
            found = self._within(original.log, original.upto, self._commit(original.log, found.number + 1).size)
        return found

    def _windows(self, live: Sequence[Added], begin: int, stop: int, columns: Sequence[str]) -> Iterator[Rows]:
        reader = Reader(self.files, live, begin, columns)
        for first in range(begin, stop, self.rows_at_once):
            yield reader.until(first, min(first + self.rows_at_once, stop))

    def _state(self, log: LogPartition) -> tuple[LogPartition, Commit, tuple[Added, ...], int]:
        head = read_head(self.files, log)
        if head is None:
            raise StoreError(f"{log}: there is no commit")
        open_note(head.noted.note, self.keys)
        live = read_live(self.files, str(log))
        # A file that came since has only rows that come behind those of this head; compaction takes none away.
        return log, head.commit, tuple(live.files.values()), self._done(log, head.commit)

    def _done(self, log: LogPartition, head: Commit) -> int:
        """Give how many rows of a log the copy is about, and see that it is a copy of this one."""
        source = self._last(self.named(log))
        if source is None:
            return 0
        stated = self._within(log, head, source.size)
        if (stated.origin, stated.size, stated.root) != (source.origin, source.size, source.root):
            raise StoreError(
                f"{self.named(log)} is a copy of {source.origin} with {source.size} rows, and that was never a state "
                "of this log: one of the two was replaced; move the copy away and export anew"
            )
        return source.size

    def _last(self, copy: LogPartition) -> Source | None:
        """Give the state of the original that the copy goes up to; None where nothing was copied yet."""
        head = read_head(self.copy.files, copy)
        for number in range(-1 if head is None else head.commit.number, -1, -1):
            # A commit that takes the log over, or compacts it, says nothing of the original.
            source = read_commit(self.copy.files, str(copy), number).commit.source
            if source is not None:
                return source
        return None

    def _original(
        self, log: LogPartition, head: Commit, live: tuple[Added, ...], done: int, choice: Choice, now: datetime
    ) -> Original:
        limit, since = head.size, now - timedelta(seconds=self.settle_s)
        for rows in self._windows(live, done, head.size, READ):
            waiting = rows.where(choice.undecided(rows.table, since))
            if waiting.numbers:
                limit = waiting.numbers[0]
                break
        upto = self._within(log, head, limit)
        leaving = sum(
            len(rows.where(choice.leaves(rows.table)).numbers) for rows in self._windows(live, done, upto.size, READ)
        )
        return Original(log, head, live, done, upto, leaving, upto.size - done - leaving)

    def _within(self, log: LogPartition, newest: Commit, size: int) -> Commit:
        """Give the last commit of the original with at most so many rows."""
        if newest.size <= size:
            return newest
        low, high = self._commit(log, 0), newest
        while high.number - low.number > 1:
            middle = self._commit(log, (low.number + high.number) // 2)
            low, high = (middle, high) if middle.size <= size else (low, middle)
        return low

    def _commit(self, log: LogPartition, number: int) -> Commit:
        return read_commit(self.files, str(log), number).commit


def told(commit: Commit) -> tuple[int, int]:
    """Give how many rows a commit of a copy added and withheld."""
    return sum(added.rows for added in commit.add), count(commit.withheld)
