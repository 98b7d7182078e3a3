"""Moments as people write them on the command line."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from typing import Final

from evidence.errors import ConfigError
from evidence.moments import shifted
from evidence.rfc3339 import parse_moment

_AGO: Final = re.compile(r"(\d{1,6})([hd])")
_BARE: Final = re.compile(r"([0-9-]{10})(T[0-9:.]+)?")
_OFFSET: Final = re.compile(r"(.+T.+)[+-](?:[01][0-9]|2[0-3]):[0-5][0-9]")


def stated(text: str, option: str) -> datetime:
    """Read a moment in the form of the contracts; a person may also name another time zone, such as `+02:00`.

    Raises:
        ConfigError: it has another form; the text names the option and says which is right.
    """
    zoned = _OFFSET.fullmatch(text)
    try:
        found = parse_moment(f"{zoned[1]}Z" if zoned else text)
        return datetime.fromisoformat(text).astimezone(UTC) if zoned else found
    except (ValueError, OverflowError) as error:
        raise ConfigError(f"{option}: {text[:40]!r} {error}") from None


def moment(text: str, now: datetime) -> datetime:
    """Read a moment: RFC 3339, a time without a zone or a day alone (in UTC), or how long ago, as `12h` or `30d`.

    Raises:
        ConfigError: it is neither.
    """
    if ago := _AGO.fullmatch(text):
        return shifted(now, -timedelta(hours=int(ago[1]) * (24 if ago[2] == "d" else 1)))
    bare = _BARE.fullmatch(text)
    try:
        return stated(f"{bare[1]}{bare[2] or 'T00:00:00'}Z" if bare else text, "--since")
    except ConfigError as error:
        raise ConfigError(f"{error}, or 12h or 30d ago") from None
