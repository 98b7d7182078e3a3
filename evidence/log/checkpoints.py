"""C2SP checkpoints: what a signed note states of a log."""

from __future__ import annotations

import base64
import re
from dataclasses import dataclass
from typing import Final

from evidence.log.notes import NoteError
from evidence.log.tiles import HASH_BYTES

_SIZE: Final = re.compile(r"0|[1-9][0-9]{0,18}")


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """The first three lines of a note's text, which state a log."""

    origin: str
    """Name of the log."""

    size: int
    """Leaves of its tree."""

    root: bytes
    """Root of its tree."""


def checkpoint(text: str) -> Checkpoint:
    """Read what a note's text states of a log; lines behind the third are not looked at.

    Raises:
        NoteError: it states nothing.
    """
    try:
        origin, size, root, _ = text.split("\n", maxsplit=3)
        data = base64.b64decode(root, validate=True)
    except ValueError:
        raise NoteError("no checkpoint: it has to begin with a log's name, a size and a root") from None
    if not origin or not _SIZE.fullmatch(size) or len(data) != HASH_BYTES or base64.b64encode(data).decode() != root:
        raise NoteError("no checkpoint: it has to begin with a log's name, a size and a root")
    return Checkpoint(origin, int(size), data)
