"""The stand-in's log of the calls that reached it: what tests and auditors compare with the intents on record.

A call is written down when it has arrived, before anything is done with it, so that a stand-in that is killed has not
forgotten it. Prompts are not kept (their SHA-256 is) unless that is asked for; credentials never are.
"""

from __future__ import annotations

import os
from collections import deque
from dataclasses import dataclass
from hashlib import sha256
from itertools import islice
from pathlib import Path
from typing import Any

import orjson

from evidence.errors import ConfigError

CREDENTIAL_DIGITS = 16
"""Hex digits kept of the SHA-256 of an Authorization header: enough to see which key, too few to be one."""


@dataclass(frozen=True, slots=True)
class ReceivedCall:
    """One chat-completion request, as it arrived."""

    seq: int
    """1 for the first call of this stand-in, then without gaps."""

    arrived_at: float
    """Seconds since the epoch when the call was complete (or was dropped)."""

    call_id: str
    """Its `Idempotency-Key`, "" without one."""

    intent: str
    """Its `X-Waybill-Intent`, "" without one."""

    traceparent: str
    """Its W3C trace context, "" without one."""

    model: str
    """The model that it asked for, "" where the body was not read or is no request."""

    prompt_sha256: str
    """SHA-256 (hex) of its last user message in UTF-8, "" where the body was not read or is no request."""

    bytes_in: int
    """Size of its body, 0 where it was not read."""

    behaviour: str
    """What was done with it, for example `answer`, `status:429`, `drop:after-accept`, `invalid`."""

    rule: int | None
    """The place of the rule that decided, None for the default."""

    credential: str
    """The first digits of the SHA-256 of its Authorization header, "" without one."""

    token: dict[str, Any] | None = None
    """What its token says (`jti`, `sub`, `aud`, `scope`, `act`, `waybill`), only where the stand-in asks for tokens and
    this one holds; never the token."""

    body: str | None = None
    """The whole body, only where the stand-in was told to keep prompts."""


def credential_mark(authorization: str) -> str:
    """Shorten an Authorization header to something that can be compared but not used."""
    return sha256(authorization.encode()).hexdigest()[:CREDENTIAL_DIGITS] if authorization else ""


class CallLog:
    """The newest calls in memory, all of them in a file where one is given.

    Attributes:
        total: how many calls have arrived.
        abandoned: how many clients went away before their answer was written.
    """

    def __init__(self, keep: int, path: Path | None) -> None:
        """Open the log.

        Args:
            keep: how many calls stay in memory; older ones are only counted.
            path: JSON lines are appended here, one `write` for each call; None for no file.

        Raises:
            ConfigError: the file cannot be opened.
        """
        self.total = 0
        self.abandoned = 0
        self._calls: deque[ReceivedCall] = deque(maxlen=keep)
        self._fd: int | None = None
        if path is not None:
            try:
                self._fd = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
            except OSError as exc:
                raise ConfigError(f"the stand-in's call log {path} cannot be opened: {exc.strerror}") from exc

    def add(self, call: ReceivedCall) -> None:
        """Write a call down; it is in the file (if there is one) when this returns."""
        self.total = call.seq
        self._calls.append(call)
        if self._fd is not None:
            line = memoryview(orjson.dumps(call, option=orjson.OPT_APPEND_NEWLINE))
            while line:
                line = line[os.write(self._fd, line) :]

    def since(self, seq: int, limit: int) -> tuple[ReceivedCall, ...]:
        """The calls after number `seq` that are still in memory, at most `limit`, oldest first."""
        if not self._calls:
            return ()
        skip = max(0, seq + 1 - self._calls[0].seq)
        return tuple(islice(self._calls, skip, skip + limit))

    def close(self) -> None:
        """Close the file; safe to call twice."""
        if self._fd is not None:
            os.close(self._fd)
            self._fd = None
