"""Connections of Kafka's clients: a broken one is told as one, and none is left open by a client that has ended.

A connection can break between two steps of a program that is about to write to it. asyncio's own transports take that
write and drop it; uvloop's refuse it with a RuntimeError. aiokafka expects an OSError and nothing else there, so that
the RuntimeError ends its background tasks: a client whose metadata task has ended so waits for ever, without a word in
the log, long after the broker is back. Seen after `kill -9` of a broker under load.

A client that is cancelled while it starts or stops leaves connections behind that nobody closes: the one that it asks
for the cluster's nodes belongs to no list yet, and a stop that is cancelled ends before it closes any.
"""

from __future__ import annotations

import weakref
from contextvars import ContextVar
from typing import Any, Final

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, client
from aiokafka.client import AIOKafkaClient
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


_bootstrap = AIOKafkaClient.bootstrap
_close = AIOKafkaClient.close
_get_conn = AIOKafkaClient._get_conn  # noqa: SLF001 - the one place where a client connects to a node
_create_conn = client.create_conn
_stops = {owner: owner.stop for owner in (AIOKafkaConsumer, AIOKafkaProducer)}

_ENDED: Final = weakref.WeakSet[AIOKafkaClient]()
"""Clients that have been closed, and open no connection any more."""


class _Opened:
    """The connections that a client has made so far as it asks for the cluster's nodes."""

    def __init__(self) -> None:
        self.connections: list[AIOKafkaConnection] | None = []


_asking: Final = ContextVar[_Opened | None]("_asking", default=None)


async def create_conn(*arguments: Any, **options: Any) -> AIOKafkaConnection:
    """Connect as aiokafka does, and let a client that starts know of it."""
    made = await _create_conn(*arguments, **options)
    opened = _asking.get()
    if opened is not None and opened.connections is not None:
        opened.connections.append(made)
    return made


async def bootstrap(self: AIOKafkaClient) -> None:
    """Start as aiokafka does; a start that fails, or is cancelled, leaves no connection open."""
    opened = _Opened()
    outside = _asking.set(opened)
    try:
        await _bootstrap(self)
    except BaseException:
        for connection in opened.connections or ():
            connection.close()
        raise
    finally:
        _asking.reset(outside)
        opened.connections = None  # the task that was started has this context, and connects later on


async def close(self: AIOKafkaClient) -> None:
    """Close as aiokafka does, all connections even where that is cancelled."""
    _ENDED.add(self)
    try:
        await _close(self)
    finally:
        cut(self)


async def get_conn(self: AIOKafkaClient, *arguments: Any, **options: Any) -> AIOKafkaConnection | None:
    """Connect to a node as aiokafka does, unless the client was closed meanwhile."""
    made = await _get_conn(self, *arguments, **options)
    if made is not None and self in _ENDED:
        made.close()
        return None
    return made


def cut(ended: AIOKafkaClient) -> None:
    """Close what a client has open, at once."""
    _ENDED.add(ended)
    task = ended._sync_task  # noqa: SLF001 - aiokafka offers no way that cannot be cancelled
    if task is not None:
        task.cancel()
    for connection in list(ended._conns.values()):  # noqa: SLF001 - the same
        connection.close()


def _stopping(owner: type) -> Any:
    """Return a `stop` that closes all connections even where it is cancelled."""

    async def stop(self: Any) -> None:
        try:
            await _stops[owner](self)
        except BaseException:
            cut(self._client if owner is AIOKafkaConsumer else self.client)
            raise

    return stop


def mend() -> None:
    """Have every client of this process do so; calling it again changes nothing."""
    AIOKafkaConnection.send = send
    AIOKafkaClient.bootstrap = bootstrap
    AIOKafkaClient.close = close
    AIOKafkaClient._get_conn = get_conn  # noqa: SLF001 - as above
    client.create_conn = create_conn
    for owner in _stops:
        owner.stop = _stopping(owner)
