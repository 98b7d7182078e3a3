"""Apache Kafka runs here as it runs elsewhere: it keeps its log, hides what was aborted, and survives a lost node."""

import asyncio
import shutil
from pathlib import Path

import psutil
import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from kafka_fixtures import KAFKA_CACHE, need_kafka

from evidence.errors import ConfigError
from streams.brokers.apache import ApacheKafka, Missing, server_properties
from streams.brokers.jars import jars_folder, missing_reason
from streams.brokers.probe import cluster_id, log_id_of

pytestmark = pytest.mark.kafka


async def _create(bootstrap: str, topic: str, *, replicas: int = 1) -> None:
    admin = AIOKafkaAdminClient(bootstrap_servers=bootstrap)
    await admin.start()
    try:
        await admin.create_topics([NewTopic(topic, 1, replicas)])
    finally:
        await admin.close()


async def _send(bootstrap: str, topic: str, values: list[bytes]) -> None:
    async with AIOKafkaProducer(bootstrap_servers=bootstrap, acks="all", enable_idempotence=True) as producer:
        for value in values:
            await producer.send_and_wait(topic, value)


async def _read(bootstrap: str, topic: str, *, isolation: str = "read_committed") -> list[bytes]:
    """All values of the topic's one partition, up to its end."""
    where = TopicPartition(topic, 0)
    values: list[bytes] = []
    consumer = AIOKafkaConsumer(
        bootstrap_servers=bootstrap, isolation_level=isolation, auto_offset_reset="earliest", group_id=None
    )
    async with consumer:
        consumer.assign([where])
        end = (await consumer.end_offsets([where]))[where]
        while await consumer.position(where) < end:
            for records in (await consumer.getmany(timeout_ms=200)).values():
                values += [record.value for record in records]
    return values


async def test_aborted_records_stay_hidden(kafka: str, prefix: str) -> None:
    """A read_committed consumer sees the committed transaction only; the aborted records are really in the log."""
    topic = f"{prefix}out"
    await _create(kafka, topic)
    async with AIOKafkaProducer(bootstrap_servers=kafka, transactional_id=f"{prefix}txn") as producer:
        async with producer.transaction():
            await producer.send(topic, b"kept")
        await producer.begin_transaction()
        await producer.send_and_wait(topic, b"aborted")
        await producer.abort_transaction()
        async with producer.transaction():
            await producer.send(topic, b"kept too")
    assert await _read(kafka, topic) == [b"kept", b"kept too"]
    assert b"aborted" in await _read(kafka, topic, isolation="read_uncommitted")


async def test_topics_are_not_made_by_a_typing_mistake(kafka: str, prefix: str) -> None:
    """Writing to a topic that nobody created does not create it."""
    async with AIOKafkaProducer(bootstrap_servers=kafka) as producer:
        await producer.client.force_metadata_update()
        with pytest.raises(asyncio.TimeoutError):
            await asyncio.wait_for(producer.send_and_wait(f"{prefix}nobody-made-me", b"x"), 1)
    async with AIOKafkaConsumer(bootstrap_servers=kafka) as consumer:
        assert f"{prefix}nobody-made-me" not in await consumer.topics()


async def test_stop_and_crash_keep_the_log_and_its_id(tmp_path: Path) -> None:
    """After an orderly stop, and after SIGKILL, all acknowledged records are there under the same log id."""
    need_kafka()
    broker = ApacheKafka(tmp_path, cache=KAFKA_CACHE)
    topic = "kept"
    try:
        bootstrap = await broker.start()
        first = broker.log_id
        assert first == log_id_of(await cluster_id(bootstrap))
        pid = broker.pid()
        assert pid is not None
        listening = [it.laddr.ip for it in psutil.Process(pid).net_connections() if it.status == "LISTEN"]
        assert {ip.removeprefix("::ffff:") for ip in listening} == {"127.0.0.1"}
        await _create(bootstrap, topic)
        await _send(bootstrap, topic, [b"one"])
        await broker.stop()

        await _send(await broker.start(), topic, [b"two"])
        assert broker.log_id == first
        broker.kill()

        assert await _read(await broker.start(), topic) == [b"one", b"two"]
        assert broker.log_id == first
        with pytest.raises(ConfigError, match="already started"):
            await broker.start()
    finally:
        await broker.stop()
    with pytest.raises(ConfigError, match="holds 1 nodes, not 3"):
        await ApacheKafka(tmp_path, cache=KAFKA_CACHE, nodes=3).start()


async def test_three_nodes_survive_the_loss_of_one(kafka3: ApacheKafka, prefix: str) -> None:
    """With a node killed, acknowledged writes go on and none is lost; the node comes back and serves them."""
    topic = f"{prefix}out"
    await _create(kafka3.bootstrap, topic, replicas=3)
    await _send(kafka3.bootstrap, topic, [b"all three"])
    kafka3.kill_node(2)
    await _send(kafka3.bootstrap, topic, [b"two of three"])
    await kafka3.start_node(2)
    kafka3.kill_node(3)
    assert await _read(kafka3.bootstrap, topic) == [b"all three", b"two of three"]
    with pytest.raises(ConfigError, match="not running"):
        kafka3.kill_node(3)
    await kafka3.start_node(3)


def test_what_is_missing_is_said_in_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without Java, and without Maven where the jars are not there yet, the reason names the program."""
    java = shutil.which("java")
    if java is None:
        need_kafka()
    empty = tmp_path / "bin"
    empty.mkdir()
    monkeypatch.setenv("PATH", str(empty))
    assert "no program `java`" in (missing_reason(tmp_path) or "")
    with pytest.raises(Missing, match="needs Java"):
        asyncio.run(ApacheKafka(tmp_path, cache=tmp_path).start())
    (empty / "java").symlink_to(str(java))
    assert "no program `mvn`" in (missing_reason(tmp_path) or "")
    jars_folder(tmp_path).mkdir()
    assert missing_reason(tmp_path) is None
    (empty / "java").unlink()
    (empty / "java").write_text("#!/bin/sh\necho 'openjdk version \"11.0.2\"' >&2\n")
    (empty / "java").chmod(0o755)
    assert "version 11" in (missing_reason(tmp_path) or "")


def test_an_interrupted_start_can_be_repeated(tmp_path: Path) -> None:
    """Ctrl-C in mid-format leaves no half-formatted data and no process."""
    need_kafka()
    broker = ApacheKafka(tmp_path, cache=KAFKA_CACHE)

    async def interrupted() -> None:
        starting = asyncio.create_task(broker.start())
        while not (tmp_path / "logs" / "kafka-1.log").exists():  # noqa: ASYNC110 - the program makes the file
            await asyncio.sleep(0.01)
        await asyncio.sleep(0.4)
        starting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await starting

    before = set(psutil.Process().children(recursive=True))
    asyncio.run(interrupted())
    assert set(psutil.Process().children(recursive=True)) <= before
    try:
        assert asyncio.run(broker.start())
    finally:
        broker.kill()


@pytest.mark.parametrize("ci", ["true", "false"])
def test_a_missing_kafka_is_a_skip_and_in_ci_a_failure(
    ci: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Without Java the Kafka tests are skipped with the reason; with CI=true that fails."""
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("CI", ci)
    outcome = pytest.fail.Exception if ci == "true" else pytest.skip.Exception
    with pytest.raises(outcome, match="no program `java`"):
        need_kafka()


@pytest.mark.parametrize(("nodes", "replicas", "in_sync"), [(1, "1", "1"), (3, "3", "2")])
def test_internal_topics_are_as_safe_as_the_nodes_allow(nodes: int, replicas: str, in_sync: str) -> None:
    """Internal topics have a replica on each node, and need a majority of them for each write."""
    ports = [(20_000 + number, 21_000 + number) for number in range(nodes)]
    settings = server_properties(1, ports, Path("data"))
    for topic in ("offsets.topic", "transaction.state.log", "share.coordinator.state.topic"):
        assert settings[f"{topic}.replication.factor"] == replicas
    assert settings["transaction.state.log.min.isr"] == settings["min.insync.replicas"] == in_sync
    assert settings["auto.create.topics.enable"] == "false"


def test_an_even_number_of_nodes_is_refused(tmp_path: Path) -> None:
    """Two nodes have no safe majority."""
    with pytest.raises(ConfigError, match="no safe majority"):
        ApacheKafka(tmp_path, cache=tmp_path, nodes=2)
