"""Expiry of evidence in a worker: which rows have to go by the rules in force, and what is told of it."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Final

import orjson

from evidence.errors import PermanentError, WaybillError
from evidence.files.seam import Files
from evidence.records import EventType
from evidence.store.expiry import Expiry, Hold, Plan, Removal, Rule
from evidence.store.writer import PartitionWriter
from policy.holds import HoldBook, Holds
from policy.retention import ANY, RetentionRules
from streams.kafka import KafkaSettings
from streams.operator import Deed
from streams.operator import tell as say

log = logging.getLogger(__name__)

ACTOR: Final = "service:sink"
"""Who removes rows, as evidence names it."""


def plan_of(rules: RetentionRules, holds: Holds) -> Plan:
    """Give what has to go by the rules, and what the holds keep."""
    return Plan(
        tuple(
            Rule(
                rule.name,
                rule.max_days,
                rule.min_days,
                None if ANY in rule.classes else frozenset(rule.classes),
                None if ANY in rule.purposes else frozenset(rule.purposes),
            )
            for rule in rules.config.evidence
        ),
        tuple(Hold(hold.tenant, hold.subject, hold.request) for hold in holds.active),
        rules.digest,
    )


class Expiring:
    """What the upkeep of a log calls; it fails closed: what cannot be decided is not removed."""

    def __init__(
        self,
        files: Files,
        rules: Callable[[], RetentionRules],
        book: HoldBook,
        *,
        tell: Callable[[Removal], None] = lambda _: None,
        now: Callable[[], float] = time.time,
    ) -> None:
        """Describe it.

        Args:
            files: the store.
            rules: gives the rules in force.
            book: the legal holds.
            tell: is told of each removal, once it is committed.
            now: the wall clock, in seconds since 1970.
        """
        self._expiry = Expiry(files, lambda: plan_of(rules(), book.active()), tell=tell, now=now)

    def __call__(self, writer: PartitionWriter) -> None:
        """Remove what has to go from one log.

        Raises:
            RetryableError: the log was taken over, or the store does not answer.
        """
        try:
            self._expiry(writer)
        except PermanentError as error:
            # The rest of the upkeep goes on, and new evidence is stored.
            log.error("no evidence is removed from %s: %s", writer.log, error)  # noqa: TRY400 - a sentence, not a fault


class Telling:
    """Writes an event of each removal; the commit and its statement are the record, should that fail."""

    def __init__(self, kafka: KafkaSettings, site: str) -> None:
        self._kafka = kafka
        self._site = site

    def __call__(self, removal: Removal) -> None:
        """Write the event; blocks, so that it belongs in a thread."""
        content = {
            "log": removal.log,
            "day": removal.day.isoformat(),
            "commit": removal.commit,
            "statement": removal.sha256,
            "rows": dict(list(removal.rows.items())[:12]),
        }
        deed = Deed(
            EventType.EVIDENCE_EXPIRED,
            f"expiry:{removal.log[:200]}",
            ACTOR,
            {"detail": orjson.dumps(content).decode()},
        )
        log.info("%s: rows of %s were removed under %s", removal.log, removal.day, ", ".join(removal.rows))
        try:
            asyncio.run(say(self._kafka, (deed,), site=self._site, now=datetime.now(UTC)))
        except WaybillError as error:
            log.warning("commit %d of %s removed rows, and no event says so: %s", removal.commit, removal.log, error)
