"""Moments as people write them on the command line."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from typing import Final

from evidence.errors import ConfigError
from evidence.moments import shifted

_AGO: Final = re.compile(r"(\d{1,6})([hd])")


def moment(text: str, now: datetime) -> datetime:
    """Read a moment: RFC 3339, or how long ago, as `12h` or `30d`.

    Raises:
        ConfigError: it is neither.
    """
    if ago := _AGO.fullmatch(text):
        return shifted(now, -timedelta(hours=int(ago[1]) * (24 if ago[2] == "d" else 1)))
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        raise ConfigError(f"--since {text!r}: write a time such as 2026-04-01T00:00:00Z, or 12h or 30d") from None
    return found if found.tzinfo else found.replace(tzinfo=UTC)
