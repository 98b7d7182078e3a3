"""Moments as people write them on the command line."""

from __future__ import annotations

from datetime import datetime

from evidence.errors import ConfigError


def stated(text: str, option: str) -> datetime:
    """Read the moment that an option states, in the form of the contracts or in another time zone.

    Raises:
        ConfigError: it has another form; the text names the option and says which is right.
    """
    from queries import moments  # noqa: PLC0415 - `--help` needs none of it

    try:
        return moments.stated(text)
    except ValueError as error:
        raise ConfigError(f"{option}: {error}") from None


def moment(text: str, now: datetime, option: str = "--since") -> datetime:
    """Read the moment that an option gives: RFC 3339, or how long ago, as `12h` or `30d`.

    Raises:
        ConfigError: it is neither.
    """
    from queries import moments  # noqa: PLC0415 - `--help` needs none of it

    try:
        return moments.moment(text, now)
    except ValueError as error:
        raise ConfigError(f"{option}: {error}") from None
