"""What can go wrong between a topic and a stage (leaves of the tree in `evidence.errors`).

RecordError                 (evidence.errors) a record breaks its contract
UnavailableError
└── BrokerUnavailable       the broker does not answer; the stage starts again from its committed position
StoreError
└── LogMismatch             the evidence store and the topic do not belong together, or offsets were lost
PermanentError
└── TopicMismatch           a topic is missing or has the wrong shape
"""

from __future__ import annotations

import sqlite3

from evidence.errors import PermanentError, StoreError, UnavailableError
from evidence.errors import kind_and_place as kind_and_place  # noqa: PLC0414 - its users are here


class BrokerUnavailable(UnavailableError):  # noqa: N818 - named as the condition that operators search for
    """The broker does not answer; the stage starts again from its committed position."""


class LogMismatch(StoreError):  # noqa: N818 - the same
    """The evidence store and the topic do not belong together, or offsets between them were lost."""


class TopicMismatch(PermanentError):  # noqa: N818 - the same
    """A topic is missing or has the wrong shape; create it with `waybill topics create` or mend its settings."""


def reason(error: BaseException) -> str:
    """Return what the system said, without paths: the text of what caused an error; its kind where nothing is known."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, OSError) and cause.strerror:
            return cause.strerror
        if isinstance(cause, sqlite3.Error):  # SQLite's own texts name no file
            return str(cause)
        cause = cause.__cause__
    return type(error).__name__
