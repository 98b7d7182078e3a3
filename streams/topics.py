"""The topics, as data: name, what is on it, how long it is kept."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

DAY_MS: Final = 24 * 60 * 60 * 1000
FOR_EVER: Final = -1
"""Kafka's own word for a retention without an end."""


@dataclass(frozen=True, slots=True)
class Topic:
    """One topic of the pipeline."""

    name: str
    """Its name on the broker."""

    about: str
    """What is on it, in one sentence."""

    retention_ms: int
    """How long records are kept, in milliseconds; `FOR_EVER` keeps the last record of each key for good."""

    compacted: bool = False
    """Whether the last record of each key outlives the others."""

    config: dict[str, str] = field(default_factory=dict)
    """Further topic settings, by Kafka's names."""

    def settings(self, *, retention_ms: int | None = None) -> dict[str, str]:
        """Give Kafka's topic settings.

        Args:
            retention_ms: overrides the topic's own retention (the development broker keeps little).
        """
        if self.retention_ms == FOR_EVER:
            return {"cleanup.policy": "compact", "retention.ms": str(FOR_EVER), **self.config}
        kept = self.retention_ms if retention_ms is None else min(retention_ms, self.retention_ms)
        policy = "compact,delete" if self.compacted else "delete"
        return {"cleanup.policy": policy, "retention.ms": str(kept), **self.config}

    @property
    def kept(self) -> str:
        """How long records are kept, for people."""
        time = "for ever" if self.retention_ms == FOR_EVER else f"{self.retention_ms // DAY_MS} days"
        return time + (", compacted" if self.compacted else "")


REQUESTS: Final = Topic("ai.requests", "Requests of applications, as they sent them.", 7 * DAY_MS)
WORK_LOCAL: Final = Topic("ai.work.local", "Admitted requests whose route is local.", 7 * DAY_MS)
WORK_HOSTED: Final = Topic(
    "ai.work.hosted", "Admitted requests whose route is hosted, with their waybills.", 7 * DAY_MS
)
RESPONSES: Final = Topic("ai.responses", "One response for each request, with its route receipt.", 7 * DAY_MS)
EVIDENCE: Final = Topic("ai.evidence", "Every event of every request, in order within a request.", 14 * DAY_MS)
DEADLETTER: Final = Topic("ai.deadletter", "Position and reason of each record that broke its contract.", 14 * DAY_MS)
LEDGER: Final = Topic("ai.ledger", "What has been started and ended, by idempotency scope.", 7 * DAY_MS, compacted=True)
CONSENT: Final = Topic(
    "ai.consent",
    "What each person allows, by subject and purpose.",
    FOR_EVER,
    compacted=True,
    # What was withdrawn or forgotten is gone from the disk within about two days, and not only from the answers.
    config={"max.compaction.lag.ms": str(DAY_MS), "delete.retention.ms": str(DAY_MS)},
)
APPROVALS: Final = Topic("ai.approvals", "Requests that wait for a person, and what people answered.", 30 * DAY_MS)

ALL: Final = (REQUESTS, WORK_LOCAL, WORK_HOSTED, RESPONSES, EVIDENCE, DEADLETTER, LEDGER, CONSENT, APPROVALS)
"""Every topic that the pipeline needs."""

WORKERS: Final = Topic(
    "ai.workers",
    "The workers that run, and the vault that all of them share.",
    FOR_EVER,
    compacted=True,
    # The broker's clock decides who is alive, and heartbeats are many: they are compacted within about an hour.
    config={
        "message.timestamp.type": "LogAppendTime",
        "segment.ms": str(60 * 60 * 1000),
        "min.cleanable.dirty.ratio": "0.1",
        "delete.retention.ms": str(DAY_MS),
    },
)
"""How workers find out that they belong together; of one partition, so that its records have one order."""
