"""The ledger: what work has been intended and ended, by idempotency scope; rebuilt from `ai.ledger` before work begins.

It answers one question for each work record: is this new, is it ours that a crash interrupted, or was it taken before?
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import Enum, auto
from typing import Any, Final

from aiokafka import TopicPartition

from evidence.records import Outcome
from streams.kafka import KafkaSettings, consumer
from streams.readable import failure_of
from streams.work import LedgerEntry, Work

log = logging.getLogger(__name__)

WINDOW: Final = timedelta(hours=1)
"""How long an idempotency key is remembered after its work ended."""

_OPEN_AGAIN: Final = frozenset({Outcome.FAILED, Outcome.EXPIRED, Outcome.DENIED})
"""Outcomes after which the same key may try anew: no answer was given and nothing is in doubt."""

_MARGIN: Final = timedelta(minutes=1)
"""Clocks of brokers and workers may differ by this much."""

_PRUNE_EVERY: Final = 1000
"""After so many new entries the old ones are dropped."""


class Standing(Enum):
    """What a work record is."""

    NEW = auto()
    """Nobody has it: serve it."""

    INTERRUPTED = auto()
    """Ours, and a hosted call of it may have been made before a crash."""

    ENDED = auto()
    """Ours, and its response is written: nothing is left to do."""

    DUPLICATE = auto()
    """The same work came before: that response stands."""

    CONFLICT = auto()
    """Other work came before under the same key: this one is rejected."""


@dataclass(frozen=True, slots=True)
class Claim:
    """Who holds a scope."""

    request_id: str
    """The application's id of the request."""

    intake_id: str
    """Its arrival."""

    fingerprint: str
    """Digest of its payload."""


@dataclass(frozen=True, slots=True)
class Finding:
    """What the ledger says of a work record."""

    standing: Standing
    """What it is."""

    entry: LedgerEntry | None = None
    """What was written of it before: its intent, or its end."""

    holder: Claim | None = None
    """Who came before it."""


class Ledger:
    """The entries of one ledger partition."""

    def __init__(self) -> None:
        self._entries: dict[str, LedgerEntry] = {}
        self._claimed: dict[str, Claim] = {}
        self._since_prune = 0

    def claim(self, work: Work) -> Finding:
        """Look a work record up and, where it is to be served, hold its scope for it."""
        finding = self._find(work)
        if finding.standing in {Standing.NEW, Standing.INTERRUPTED}:
            self._claimed[work.scope] = Claim(work.said.request_id, work.intake_id, work.fingerprint)
        return finding

    def release(self, work: Work) -> None:
        """Hold a scope no more for a work record that is not served."""
        held = self._claimed.get(work.scope)
        if held is not None and held.intake_id == work.intake_id:
            del self._claimed[work.scope]

    def knows(self, scope: str, intake_id: str) -> bool:
        """Tell whether an arrival of a request holds a scope, or has ended in it."""
        held, entry = self._claimed.get(scope), self._entries.get(scope)
        return intake_id in {held.intake_id if held else None, entry.intake_id if entry else None}

    def put(self, scope: str, entry: LedgerEntry, now: datetime) -> None:
        """Take an entry that is durable."""
        self._entries[scope] = entry
        if entry.state == "ended":
            self._claimed.pop(scope, None)
        self._since_prune += 1
        if self._since_prune >= _PRUNE_EVERY:
            self._prune(now)

    def _find(self, work: Work) -> Finding:
        entry, holder = self._entries.get(work.scope), self._claimed.get(work.scope)
        if holder is None:
            if entry is None:
                return Finding(Standing.NEW)
            if entry.intake_id == work.intake_id:
                return Finding(Standing.ENDED if entry.state == "ended" else Standing.INTERRUPTED, entry)
            if entry.outcome in _OPEN_AGAIN:
                return Finding(Standing.NEW)
            holder = Claim(entry.request_id, entry.intake_id, entry.fingerprint)
        same = holder.fingerprint == work.fingerprint
        return Finding(Standing.DUPLICATE if same else Standing.CONFLICT, holder=holder)

    def _prune(self, now: datetime) -> None:
        self._since_prune = 0
        oldest = now - WINDOW
        self._entries = {
            scope: entry
            for scope, entry in self._entries.items()
            if entry.state == "intended" or entry.recorded_at_utc >= oldest
        }

    def __len__(self) -> int:
        return len(self._entries)


async def rebuild(
    kafka: KafkaSettings,
    partition: TopicPartition,
    *,
    now: datetime,
    oldest_work: datetime | None,
    skipped: Callable[[int], object] = lambda _: None,
) -> Ledger:
    """Read a ledger partition from as far back as it matters to its end; what is no entry of it is skipped.

    Args:
        kafka: how to reach the broker.
        partition: which one.
        now: the time.
        oldest_work: when the oldest unfinished work record was written: no entry of it can be older.
        skipped: is told how many records were skipped.

    Raises:
        KafkaError: the broker failed.
    """
    ledger, bad = Ledger(), list[int]()
    since = min(now - WINDOW, oldest_work or now) - _MARGIN
    reader = consumer(kafka, group=None)
    try:
        await reader.start()
        reader.assign([partition])
        end = (await reader.end_offsets([partition]))[partition]
        since_ms = max(0, int(since.timestamp() * 1000))
        found = (await reader.offsets_for_times({partition: since_ms}))[partition]
        if found is None or found.offset >= end:
            return ledger
        reader.seek(partition, found.offset)
        while await reader.position(partition) < end:
            read = await reader.getmany(partition, timeout_ms=1000)
            for record in read.get(partition, ()):
                if not _take(ledger, record, now):
                    bad.append(record.offset)
    finally:
        await reader.stop()
    if bad:
        # Only this program writes here. An entry that is gone may let a call be repeated, so somebody has to look.
        log.error(
            "%s[%d]: %d records are no entries of the ledger and were skipped, the first at offset %d",
            *partition, len(bad), bad[0],
        )  # fmt: skip
        skipped(len(bad))
    return ledger


def _take(ledger: Ledger, record: Any, now: datetime) -> bool:
    """Take a record; False where it is no entry. What was known of its scope before stays known."""
    if failure_of(record) is not None:
        return False
    if record.key is None or record.value is None:
        return record.value is None
    try:
        ledger.put(record.key.decode(), LedgerEntry.model_validate_json(record.value), now)
    except ValueError:  # pydantic's is one, and so is that of a key which is not UTF-8
        return False
    return True
