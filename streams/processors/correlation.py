"""Correlation: joins the events of one intake into a story, closes it, and knows which stories should have ended.

The state is what is open. After a restart it is rebuilt by reading again from the lowest offset at which an open story
began, which is the position that the stage commits, together with how far it had read: what closed before that was
told already and is not told twice.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from evidence.moments import shifted

GRACE: Final = timedelta(seconds=30)
"""How long after its deadline a story may still be open."""

PATIENCE: Final = timedelta(minutes=15)
"""How long a story without a deadline may be open."""

Event = Mapping[str, Any]
"""An evidence event as JSON: camelCase names."""


@dataclass(slots=True)
class OpenStory:
    """The events of one intake so far."""

    partition: int
    """Where its events lie."""

    first_offset: int
    """Where they begin."""

    due: datetime
    """When it should have ended."""

    events: list[Event] = field(default_factory=list)
    """In order."""


@dataclass(frozen=True, slots=True)
class ClosedStory:
    """A story that ended."""

    events: tuple[Event, ...]
    """All its events, in order."""

    @property
    def outcome(self) -> str:
        """How it ended."""
        return str(self.events[-1]["outcome"])

    @property
    def complete(self) -> bool:
        """Whether its sequence runs 0, 1, 2, … without a gap."""
        return [event["sequence"] for event in self.events] == list(range(len(self.events)))


class Correlator:
    """Holds the open stories of the partitions that this worker reads."""

    def __init__(self) -> None:
        self._open: dict[str, OpenStory] = {}
        self._next: dict[int, int] = {}
        self._told: dict[int, int] = {}

    def begin(self, partition: int, told: int) -> None:
        """Start to follow a partition; what closes below the offset `told` was told before."""
        self.forget(partition)
        self._told[partition] = told

    def observe(self, event: Event, partition: int, offset: int) -> ClosedStory | None:
        """Take the next event of a partition; give the story that it closes.

        Raises:
            KeyError, TypeError, ValueError: it is no evidence event; nothing of it is kept.
        """
        self._next[partition] = offset + 1
        intake, sequence, known = event["intakeId"], event["sequence"], offset < self._told.get(partition, 0)
        story = self._open.get(intake)
        if story is None:
            if known and sequence != 0:
                return None  # the rest of a story that began before what is read again, and ended in it
            story = self._open[intake] = OpenStory(partition, offset, _due(event))
        story.events.append(event)
        _wait(story, event)
        if "outcome" not in event:
            return None
        del self._open[intake]
        return None if known else ClosedStory(tuple(story.events))

    def watermark(self, partition: int) -> int | None:
        """Give the offset from which this partition must be read again after a restart."""
        begun = [story.first_offset for story in self._open.values() if story.partition == partition]
        return min(begun) if begun else self._next.get(partition)

    def told(self, partition: int) -> int:
        """Give the offset below which everything that closed was told."""
        return max(self._next.get(partition, 0), self._told.get(partition, 0))

    def overdue(self, now: datetime) -> Iterator[OpenStory]:
        """Give the stories that should have ended."""
        return (story for story in self._open.values() if story.due < now)

    def forget(self, partition: int) -> None:
        """Drop the state of a partition that another worker reads now."""
        self._open = {intake: story for intake, story in self._open.items() if story.partition != partition}
        self._next.pop(partition, None)
        self._told.pop(partition, None)

    def __len__(self) -> int:
        return len(self._open)


def _wait(story: OpenStory, event: Event) -> None:
    """Take into account that a person has to answer first."""
    if event["eventType"] == "approval.requested":
        story.due = shifted(parse_time(event["approval"]["expiresAtUtc"]), GRACE)
    elif event["eventType"] == "approval.approved" and "deadlineUtc" not in story.events[0]:
        story.due = shifted(parse_time(event["occurredAtUtc"]), PATIENCE)


def _due(first: Event) -> datetime:
    if "deadlineUtc" in first:
        return shifted(parse_time(first["deadlineUtc"]), GRACE)
    return shifted(parse_time(first["occurredAtUtc"]), PATIENCE)


def parse_time(text: str) -> datetime:
    """Read an RFC 3339 time that ends in Z."""
    return datetime.fromisoformat(text).astimezone(UTC)
