"""Moments as people write them."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from typing import Final

from evidence.moments import shifted
from evidence.rfc3339 import parse_moment

_AGO: Final = re.compile(r"(\d{1,6})([hd])")
_BARE: Final = re.compile(r"([0-9-]{10})(T[0-9:.]+)?")
_OFFSET: Final = re.compile(r"(.+T.+)[+-](?:[01][0-9]|2[0-3]):[0-5][0-9]")


def stated(text: str) -> datetime:
    """Return the moment that a text states in the form of the contracts, or in another time zone, such as `+02:00`.

    Raises:
        ValueError: it has another form; the text says which is right.
    """
    zoned = _OFFSET.fullmatch(text)
    try:
        found = parse_moment(f"{zoned[1]}Z" if zoned else text)
        return datetime.fromisoformat(text).astimezone(UTC) if zoned else found
    except (ValueError, OverflowError) as error:
        raise ValueError(f"{text[:40]!r} {error}") from None


def moment(text: str, now: datetime) -> datetime:
    """Return the moment that a text means: RFC 3339, a time without a zone or a day alone (in UTC), or how long ago.

    Raises:
        ValueError: it means none.
    """
    if ago := _AGO.fullmatch(text):
        return shifted(now, -timedelta(hours=int(ago[1]) * (24 if ago[2] == "d" else 1)))
    bare = _BARE.fullmatch(text)
    try:
        return stated(f"{bare[1]}{bare[2] or 'T00:00:00'}Z" if bare else text)
    except ValueError as error:
        raise ValueError(f"{error}; or write how long ago, such as 12h or 30d") from None
