"""A connection that breaks under uvloop, which the worker runs on, is an error that aiokafka knows how to survive."""

from __future__ import annotations

import asyncio

import pytest
from aiokafka.conn import AIOKafkaConnection, create_conn
from aiokafka.errors import KafkaConnectionError
from aiokafka.protocol.metadata import MetadataRequest

from streams.kafka import KafkaSettings, consumer

uvloop = pytest.importorskip("uvloop", reason="uvloop does not exist on Windows")


async def break_unseen(connection: AIOKafkaConnection) -> None:
    """Close the transport and leave the connection in the belief that it lives, as in the moment after a reset."""
    connection._read_task.cancel()
    await asyncio.sleep(0)
    connection._reader.feed_data(b"unread")
    connection._writer.transport.abort()
    await asyncio.sleep(0.05)
    assert connection.connected()


def test_a_write_to_a_broken_connection_is_a_connection_error(dev_broker):
    """The transport's RuntimeError becomes the error that aiokafka expects, and the connection is closed."""

    async def write() -> None:
        host, port = dev_broker.split(":")
        connection = await create_conn(host, int(port))
        await break_unseen(connection)
        with pytest.raises(KafkaConnectionError, match="is broken"):
            await connection.send(MetadataRequest([]))
        assert not connection.connected()

    uvloop.run(write())


def test_a_client_outlives_a_connection_that_breaks_under_it(dev_broker):
    """After a write to a broken connection the client still learns what the cluster is: it does not wait for ever."""

    async def survive() -> None:
        reader = consumer(KafkaSettings(dev_broker), group=None)
        await reader.start()
        try:
            client = reader._client
            await client.force_metadata_update()
            for connection in list(client._conns.values()):
                await break_unseen(connection)
            async with asyncio.timeout(10):
                await client.force_metadata_update()
                assert await client.force_metadata_update()
        finally:
            await reader.stop()

    uvloop.run(survive())
