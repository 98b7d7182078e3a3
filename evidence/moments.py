"""Arithmetic on times that come from outside: a sum that no calendar holds is the last or the first moment there is.

`9999-12-31T23:59:59Z` is how many programs write "never". What is due a while after it is due never, and is no error.
"""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from typing import Final

NEVER: Final = datetime.max.replace(tzinfo=UTC)
"""Later than any moment: what is due then is never due."""

LONG_AGO: Final = datetime.min.replace(tzinfo=UTC)
"""Earlier than any moment."""

LAST_MS: Final = 253_402_300_799_999
"""The last millisecond that a `datetime` holds, counted from 1970."""


def shifted(at: datetime, by: timedelta) -> datetime:
    """Return a moment some time later, or earlier; where there is none, `NEVER` or `LONG_AGO`."""
    try:
        return at + by
    except OverflowError:
        return NEVER if by > timedelta() else LONG_AGO


def day_after(day: date, days: int) -> date:
    """Return the day so many days later, or earlier; where there is none, the last or the first one."""
    try:
        return day + timedelta(days=days)
    except OverflowError:
        return date.max if days > 0 else date.min


def log_moment(timestamp_ms: int | None, default: datetime) -> datetime:
    """Return the moment of a log's time in milliseconds since 1970; `default` where that is none."""
    if timestamp_ms is None or not 0 <= timestamp_ms <= LAST_MS:
        return default
    return datetime.fromtimestamp(timestamp_ms / 1000, UTC)
