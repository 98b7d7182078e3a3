"""Moments as people write them."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from typing import Final

_AGO: Final = re.compile(r"(\d{1,6})([hd])")

HOW: Final = "write a time such as 2026-04-01T00:00:00Z, or how long ago, such as 12h or 30d"
"""What errors say about it."""


def moment(text: str, now: datetime) -> datetime:
    """Return the moment that a text means: RFC 3339 (UTC unless it says otherwise), or how long ago.

    Raises:
        ValueError: it means none.
    """
    try:
        if ago := _AGO.fullmatch(text):
            return now - timedelta(hours=int(ago[1]) * (24 if ago[2] == "d" else 1))
        found = datetime.fromisoformat(text)
    except (ValueError, OverflowError):
        raise ValueError(f"{text!r} is not a time: {HOW}") from None
    return found if found.tzinfo else found.replace(tzinfo=UTC)
