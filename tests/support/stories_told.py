"""Three witnesses of a run, compared: responses on the topic, stories in evidence, calls in the stand-in's own log.

All of it is pure: what was seen goes in, and what does not fit together comes out, a sentence for each.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, ClassVar, Self

ENDS = frozenset({"request.ended", "request.rejected"})
CALL_ENDS = frozenset({"model.completed", "model.failed"})


@dataclass(frozen=True, slots=True)
class Call:
    """A call that reached the stand-in."""

    call_id: str
    """What the worker calls it: the event id of its intent."""

    at: datetime
    """When it was there."""

    trace_id: str
    """Its W3C trace id."""

    @classmethod
    def read(cls, line: Mapping[str, Any]) -> Self:
        """Read a line of the stand-in's log."""
        return cls(line["call_id"], datetime.fromtimestamp(line["arrived_at"], UTC), line["traceparent"].split("-")[1])


@dataclass(frozen=True, slots=True)
class Event:
    """A row of evidence, as far as it matters here."""

    event_id: str
    """Its id."""
    request_id: str
    """The application's id."""
    intake_id: str
    """The arrival that it belongs to."""
    trace_id: str
    """W3C trace id."""
    sequence: int
    """Its place in the story."""
    kind: str
    """What happened."""
    outcome: str | None
    """How the request ended."""
    intent_id: str | None
    """The intent that it belongs to."""
    placement: str | None
    """Local or hosted."""
    code: str | None
    """Why it failed."""
    at: datetime
    """When it happened."""
    logged_at: datetime
    """When it was written to the log."""


@dataclass(frozen=True, slots=True)
class Story:
    """The events of one arrival, by sequence."""

    events: tuple[Event, ...]
    """In order."""

    QUERY: ClassVar[str] = (
        "select event_id, request_id, intake_id, trace_id, sequence, event_type, outcome, intent_id, route.placement, "
        "failure.code, occurred_at, log_timestamp from events order by intake_id, sequence, event_id"
    )

    @classmethod
    def read(cls, rows: Sequence[tuple[Any, ...]]) -> tuple[Self, ...]:
        """Make stories of the rows that `QUERY` gives."""
        by_intake: defaultdict[str, list[Event]] = defaultdict(list)
        for row in rows:
            event = Event(*row)
            by_intake[event.intake_id].append(event)
        return tuple(cls(tuple(events)) for events in by_intake.values())

    @property
    def request_id(self) -> str:
        """Whose story it is."""
        return self.events[0].request_id

    @property
    def outcome(self) -> str:
        """How it ended; `open` where it did not."""
        last = self.events[-1]
        return "rejected" if last.kind == "request.rejected" else last.outcome or "open"

    @property
    def intents(self) -> tuple[Event, ...]:
        """Hosted calls that were intended."""
        return tuple(event for event in self.events if event.kind == "model.intended" and event.placement == "hosted")

    def __str__(self) -> str:
        steps = ", ".join(
            f"{event.sequence} {event.kind}" + (f" ({event.code})" * bool(event.code)) for event in self.events
        )
        return f"{self.request_id}: {steps}"


def problems(
    sent: Collection[str],
    responses: Mapping[str, Sequence[Mapping[str, Any]]],
    stories: Sequence[Story],
    calls: Sequence[Call],
    *,
    allowed: Collection[str],
) -> list[str]:
    """Say what does not fit together; nothing where each request was answered, told and called as promised.

    Args:
        sent: ids of the requests.
        responses: what came back, by request id.
        stories: what evidence holds.
        calls: what reached the stand-in.
        allowed: outcomes that may occur.
    """
    return [
        *_answered(sent, responses),
        *_told(sent, stories),
        *_alike(responses, stories, allowed),
        *_intended(stories, calls),
    ]


def _answered(sent: Collection[str], responses: Mapping[str, Sequence[Mapping[str, Any]]]) -> Iterator[str]:
    for request in sorted(set(sent) | set(responses)):
        if request not in sent:
            yield f"{request} has a response and was never sent"
        elif len(responses.get(request, ())) != 1:
            yield f"{request} has {len(responses.get(request, ()))} responses"


def _told(sent: Collection[str], stories: Sequence[Story]) -> Iterator[str]:
    count = Counter(story.request_id for story in stories)
    for request in sorted(set(sent) | set(count)):
        if request not in sent:
            yield f"{request} has a story and was never sent"
        elif count[request] != 1:
            yield f"{request} has {count[request]} stories"
    ids = Counter(event.event_id for story in stories for event in story.events)
    for event_id, times in ids.items():
        if times > 1:
            yield f"event {event_id} is stored {times} times"
    for story in stories:
        if [event.sequence for event in story.events] != list(range(len(story.events))):
            yield f"a story has holes or repeats: {story}"
        ends = [event for event in story.events if event.kind in ENDS]
        if len(ends) != 1 or ends[0] is not story.events[-1]:
            yield f"a story does not end once, at its end: {story}"


def _alike(
    responses: Mapping[str, Sequence[Mapping[str, Any]]], stories: Sequence[Story], allowed: Collection[str]
) -> Iterator[str]:
    for story in stories:
        if story.outcome not in allowed:
            yield f"a story ended as {story.outcome}: {story}"
        for response in responses.get(story.request_id, ()):
            if response["outcome"] != story.outcome:
                yield f"the response says {response['outcome']}, evidence {story.outcome}: {story}"


def _intended(stories: Sequence[Story], calls: Sequence[Call]) -> Iterator[str]:
    intents = {intent.event_id: (intent, story) for story in stories for intent in story.intents}
    times = Counter(call.call_id for call in calls)
    for call in calls:
        if times[call.call_id] > 1:
            yield f"call {call.call_id} was made {times[call.call_id]} times"
        if call.call_id not in intents:
            yield f"call {call.call_id} has no intent in evidence"
            continue
        intent, story = intents[call.call_id]
        if max(intent.at, intent.logged_at) > call.at:
            yield f"call {call.call_id} came at {call.at}, before its intent at {intent.at}: {story}"
        if intent.trace_id != call.trace_id:
            yield f"call {call.call_id} carries trace {call.trace_id}, not its story's: {story}"
    for intent, story in intents.values():
        ends = [event for event in story.events if event.intent_id == intent.event_id and event.kind in CALL_ENDS]
        if len(ends) != 1 or ends[0].sequence < intent.sequence:
            yield f"intent {intent.event_id} has {len(ends)} ends: {story}"
        elif ends[0].kind == "model.completed" and times[intent.event_id] != 1:
            yield f"intent {intent.event_id} is told as answered and was called {times[intent.event_id]} times: {story}"
