"""The scribe: gathers the records that one step writes about one request, with their CloudEvents headers."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import Any

from evidence.records import EventType
from streams import envelope
from streams.envelope import Hop
from streams.story import Story
from streams.topics import EVIDENCE, Topic
from streams.transactions import Outgoing


class Scribe:
    """Nothing is sent here: whoever owns the transaction takes what has gathered."""

    def __init__(self, story: Story, hop: Hop, *, name: Callable[[Topic], str], key: str) -> None:
        self.story = story
        self._hop = hop
        self._name = name
        self._key = key.encode()
        self._gathered: list[Outgoing] = []

    def say(self, event_type: EventType, at: datetime, **fields: Any) -> str:
        """Tell the story's next event; give its id."""
        told = self.story.tell(event_type, at, **fields)
        self.write(EVIDENCE, told.value, envelope.EVIDENCE_TYPE, told.event_id, at)
        return told.event_id

    def write(
        self, topic: Topic, value: bytes, ce_type: str, identity: str, at: datetime, *, key: str | None = None
    ) -> None:
        """Add any other record; `key` is the request id unless it is given."""
        self._gathered.append(
            Outgoing(
                self._name(topic),
                self._key if key is None else key.encode(),
                value,
                self._hop.headers(ce_type, identity, at),
            )
        )

    def take(self) -> list[Outgoing]:
        """Give what has gathered, and begin anew."""
        taken, self._gathered = self._gathered, []
        return taken
