"""Correlation: joins the events of one intake into a story, closes it, and knows which stories should have ended.

The state is what is open. After a restart it is rebuilt by reading again from the lowest offset at which an open story
began, which is also the position that the stage commits.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, Final

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

    events: list[Event] = field(default_factory=list)
    """In order."""

    def due(self) -> datetime:
        """Say when it should have ended."""
        deadline = next((event["deadlineUtc"] for event in self.events if "deadlineUtc" in event), None)
        if deadline is not None:
            return parse_time(deadline) + GRACE
        return parse_time(self.events[0]["occurredAtUtc"]) + PATIENCE


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

    def observe(self, event: Event, partition: int, offset: int) -> ClosedStory | None:
        """Take the next event of a partition; give the story that it closes."""
        self._next[partition] = offset + 1
        intake = event["intakeId"]
        story = self._open.get(intake)
        if story is None:
            story = self._open[intake] = OpenStory(partition, offset)
        story.events.append(event)
        if "outcome" not in event:
            return None
        del self._open[intake]
        return ClosedStory(tuple(story.events))

    def watermark(self, partition: int) -> int | None:
        """Give the offset from which this partition must be read again after a restart."""
        begun = [story.first_offset for story in self._open.values() if story.partition == partition]
        return min(begun) if begun else self._next.get(partition)

    def overdue(self, now: datetime) -> Iterator[OpenStory]:
        """Give the stories that should have ended."""
        return (story for story in self._open.values() if story.due() < now)

    def forget(self, partition: int) -> None:
        """Drop the state of a partition that another worker reads now."""
        self._open = {intake: story for intake, story in self._open.items() if story.partition != partition}
        self._next.pop(partition, None)

    def __len__(self) -> int:
        return len(self._open)


def parse_time(text: str) -> datetime:
    """Read an RFC 3339 time that ends in Z."""
    return datetime.fromisoformat(text).astimezone(UTC)


def seconds_between(earlier: Event, later: Event) -> float:
    """Give the seconds from one event to another."""
    return (parse_time(later["occurredAtUtc"]) - parse_time(earlier["occurredAtUtc"])).total_seconds()
