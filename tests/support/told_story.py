"""Stories whose events are read back, as whoever receives them would."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from evidence.records import EventType, EvidenceEvent
from streams.story import Story


class ToldStory(Story):
    """A story that gives its events as records."""

    def event(self, event_type: EventType, at: datetime, **fields: Any) -> EvidenceEvent:
        """Tell the next event and read it back."""
        return EvidenceEvent.model_validate_json(self.tell(event_type, at, **fields).value)
