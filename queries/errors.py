"""What can go wrong with a question (leaves of the tree in `evidence.errors`).

PermanentError
├── QueryError      the question cannot be answered as it is asked
│   └── TooSlow     it took longer than its time limit
└── OutputError     an answer cannot be written where it should go
    └── OutputClosed    nobody reads it any more
"""

from __future__ import annotations

from evidence.errors import PermanentError


class QueryError(PermanentError):
    """The question cannot be answered as it is asked; the text says why, where it can in the database's words."""


class TooSlow(QueryError):  # noqa: N818 - named as the condition
    """The answer took longer than the time limit; ask for less, or allow more time."""


class OutputError(PermanentError):
    """An answer cannot be written where it should go: the disk is full, or the encoding cannot hold it."""


class OutputClosed(OutputError):  # noqa: N818 - named as the condition
    """The reader of the output has gone, as `head` does; nobody is left to tell."""
