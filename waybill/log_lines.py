"""Log lines of a worker: times in UTC, and what is said again and again said once, with a count."""

from __future__ import annotations

import logging
import logging.config
import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Final

from evidence.visible import VisibleFormatter

QUIET: Final = ("aiokafka", "faust", "mode", "kafka", "asyncio", "opentelemetry", "streams.app")
"""Libraries that tell of ordinary life at INFO, and the services that log as they do."""

EVERY_S: Final = 30.0
"""Seconds for which a repeated line is counted and not written."""

_NOISE: Final = ("Crashed reason=", "We experienced a crash!", "Error: %r")
"""How Faust tells that a worker ends; its reason is told once, in a sentence, by the program."""

_MOST: Final = 1000
"""Different lines that are remembered."""


class UtcFormatter(VisibleFormatter):
    """Writes times as RFC 3339 in UTC, to the millisecond."""

    def formatTime(self, record: logging.LogRecord, datefmt: str | None = None) -> str:  # noqa: N802 - logging's name
        """Return the time of a record."""
        del datefmt
        return datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


class Repeats(logging.Filter):
    """Lets the same line pass once in a while, and counts it in between: a broker that is away fills no disk.

    A library's lines are the same where logger, level and template are, whatever is filled in. Of the project's own
    lines, those are that say the same to the letter.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__()
        self._clock = clock
        self._counted: dict[tuple[str, int, str], tuple[float, int]] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        """Return whether a line is written; the count of those that were not is added to it."""
        library = record.name.partition(".")[0] in QUIET
        template = str(record.msg) if library else record.getMessage()
        if library and template.startswith(_NOISE):
            return False
        key, now = (record.name, record.levelno, template), self._clock()
        last, count = self._counted.get(key, (-EVERY_S, 0))
        if now - last < EVERY_S:
            self._counted[key] = last, count + 1
            return False
        if len(self._counted) >= _MOST:
            self._counted.clear()
        self._counted[key] = now, 0
        if count:
            record.msg, record.args = f"{record.getMessage()} ({count} times more in the last {now - last:.0f} s)", ()
        if library:  # a stack shows nothing but the library's inside
            record.exc_info = record.exc_text = record.stack_info = None
        return True


def log_to_stderr() -> None:
    """Have this process log to standard error, one line each."""
    logging.config.dictConfig(
        {
            "version": 1,
            "disable_existing_loggers": False,
            "filters": {"repeats": {"()": Repeats}},
            "formatters": {"line": {"()": UtcFormatter, "format": "%(asctime)s %(levelname)s %(name)s: %(message)s"}},
            "handlers": {"stderr": {"class": "logging.StreamHandler", "formatter": "line", "filters": ["repeats"]}},
            "root": {"level": "INFO", "handlers": ["stderr"]},
            "loggers": {name: {"level": "WARNING"} for name in QUIET},
        }
    )
