"""A broken connection is told as one, on every event loop.

A connection can break between two steps of a program that is about to write to it. asyncio's own transports take that
write and drop it; uvloop's refuse it with a RuntimeError. aiokafka expects an OSError and nothing else there, so that
the RuntimeError ends its background tasks: a client whose metadata task has ended so waits for ever, without a word in
the log, long after the broker is back. Seen after `kill -9` of a broker under load.
"""

from __future__ import annotations

from typing import Any

from aiokafka.conn import AIOKafkaConnection, CloseReason
from aiokafka.errors import KafkaConnectionError

_send = AIOKafkaConnection.send


def send(self: AIOKafkaConnection, request: Any, expect_response: bool = True) -> Any:  # noqa: FBT001, FBT002 - aiokafka's
    """Send as aiokafka does; a write that the transport refuses means that the connection is broken.

    Raises:
        KafkaConnectionError: the connection is broken, whichever way that shows.
    """
    try:
        return _send(self, request, expect_response)
    except RuntimeError as error:
        self.close(reason=CloseReason.CONNECTION_BROKEN, exc=error)
        raise KafkaConnectionError(f"the connection to {self.host}:{self.port} is broken: {error}") from error


def mend() -> None:
    """Have every connection of this process send so; calling it again changes nothing."""
    AIOKafkaConnection.send = send
