"""The development broker keeps what it was trusted with, or says that it cannot know."""

import asyncio
from pathlib import Path

import psutil
import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition

from evidence.errors import ConfigError
from streams.brokers.noida import DevelopmentBroker

_TOPIC = "kept"


async def _send(bootstrap: str, count: int) -> None:
    async with AIOKafkaProducer(bootstrap_servers=bootstrap, acks="all") as producer:
        for number in range(count):
            await producer.send_and_wait(_TOPIC, str(number).encode(), partition=0)


async def _end_offset(bootstrap: str) -> int:
    async with AIOKafkaConsumer(bootstrap_servers=bootstrap) as consumer:
        if _TOPIC not in await consumer.topics():
            return 0
        where = TopicPartition(_TOPIC, 0)
        return (await consumer.end_offsets([where]))[where]


async def test_an_orderly_restart_keeps_the_log_and_its_id(tmp_path: Path) -> None:
    """After stop and start all records are there, under the same log id and without a note."""
    broker = DevelopmentBroker(tmp_path)
    bootstrap = await broker.start()
    first = broker.log_id
    try:
        await _send(bootstrap, 10)
    finally:
        await broker.stop()
    await broker.stop()

    again = DevelopmentBroker(tmp_path)
    bootstrap = await again.start()
    try:
        assert await _end_offset(bootstrap) == 10
        assert again.log_id == first
        assert len(first) == 12
        assert again.notes == ()
    finally:
        await again.stop()


async def test_a_crash_gives_a_new_log_and_says_so(tmp_path: Path) -> None:
    """Data without the marker of a clean stop are set aside, whole, and the new log has a new id."""
    broker = DevelopmentBroker(tmp_path)
    bootstrap = await broker.start()
    first = broker.log_id
    await _send(bootstrap, 10)
    async with asyncio.timeout(20):
        # Until its snapshot is on disk there is nothing to set aside.
        while not any(broker._data.iterdir()):  # noqa: ASYNC110 - a broker announces nothing
            await asyncio.sleep(0.05)
    broker.kill()

    bootstrap = await broker.start()
    try:
        assert await _end_offset(bootstrap) == 0
        assert broker.log_id != first
        assert len(broker.notes) == 1
        assert "not stopped in order" in broker.notes[0]
        assert str(tmp_path / "broker" / "set-aside") in broker.notes[0]
        assert any((tmp_path / "broker" / "set-aside").iterdir())
    finally:
        await broker.stop()


async def test_an_interrupted_start_leaves_the_log_as_it_was(tmp_path: Path) -> None:
    """Ctrl-C while the broker starts costs no data: the next start goes on with the same log."""
    broker = DevelopmentBroker(tmp_path)
    await _send(await broker.start(), 10)
    first = broker.log_id
    await broker.stop()

    starting = asyncio.create_task(broker.start())
    await asyncio.sleep(0.01)
    starting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await starting
    assert broker.pid is None

    bootstrap = await broker.start()
    try:
        assert await _end_offset(bootstrap) == 10
        assert broker.log_id == first
        assert broker.notes == ()
    finally:
        await broker.stop()


async def test_one_home_has_one_broker(tmp_path: Path) -> None:
    """A second broker on the same home is refused and leaves the first one's data alone."""
    broker = DevelopmentBroker(tmp_path)
    bootstrap = await broker.start()
    try:
        await _send(bootstrap, 3)
        with pytest.raises(ConfigError, match="another development broker is using"):
            await DevelopmentBroker(tmp_path).start()
        with pytest.raises(ConfigError, match="already started"):
            await broker.start()
        assert await _end_offset(bootstrap) == 3
    finally:
        await broker.stop()


async def test_it_listens_on_loopback_only(tmp_path: Path) -> None:
    """Nothing of the broker can be reached from another machine."""
    broker = DevelopmentBroker(tmp_path)
    await broker.start()
    try:
        assert broker.pid is not None
        listening = [it.laddr.ip for it in psutil.Process(broker.pid).net_connections() if it.status == "LISTEN"]
        assert listening
        assert set(listening) == {"127.0.0.1"}
        assert broker.kind.startswith("development broker (noida-db ")
    finally:
        await broker.stop()
