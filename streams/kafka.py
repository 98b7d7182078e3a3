"""Kafka clients, made in one place so that every stage has the same guarantees and the same security."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, Final

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.coordinator.assignors.range import RangePartitionAssignor
from aiokafka.errors import KafkaError, TopicAlreadyExistsError, for_code

from streams import connections, membership, readable
from streams.errors import BrokerUnavailable, TopicMismatch
from streams.topics import ALL, Topic

connections.mend()
membership.mend()
readable.mend()

MAX_RECORD_BYTES: Final = 1_048_588
"""Kafka's own default for the largest record batch; topics and producers agree on it."""


@dataclass(frozen=True, slots=True)
class KafkaSettings:
    """How to reach the broker."""

    bootstrap: str
    """`HOST:PORT`, several separated by commas."""

    client_id: str = "waybill"
    """Shown in the broker's logs and quotas."""

    security_protocol: str = "PLAINTEXT"
    """`PLAINTEXT` (loopback and private networks), `SSL`, `SASL_SSL` or `SASL_PLAINTEXT`."""

    ca_file: str | None = None
    """Certificate authority for `SSL` and `SASL_SSL`; None takes the system's."""

    sasl_mechanism: str = "SCRAM-SHA-512"
    """Used with the SASL protocols."""

    sasl_username: str | None = None
    """User for SASL."""

    sasl_password: str | None = field(default=None, repr=False)
    """Password for SASL; never shown."""

    prefix: str = ""
    """Put before the names of topics, groups and transactions, so that several pipelines share one cluster."""

    session_timeout_ms: int = 30_000
    """After this long without a heartbeat the broker gives a worker's partitions to another one."""

    def name(self, topic: Topic) -> str:
        """Give a topic's name on this broker."""
        return self.prefix + topic.name

    def group(self, stage: str) -> str:
        """Give the consumer group of a stage."""
        return f"{self.prefix}waybill-{stage}"

    def client_options(self) -> dict[str, Any]:
        """Give the options that every aiokafka client takes."""
        options: dict[str, Any] = {
            "bootstrap_servers": self.bootstrap,
            "client_id": self.client_id,
            "security_protocol": self.security_protocol,
        }
        if self.security_protocol.endswith("SSL"):
            options["ssl_context"] = ssl.create_default_context(cafile=self.ca_file)
        if self.security_protocol.startswith("SASL"):
            options["sasl_mechanism"] = self.sasl_mechanism
            options["sasl_plain_username"] = self.sasl_username
            options["sasl_plain_password"] = self.sasl_password
        return options


_NEVER_MS: Final = 10**15
_FOLLOWED_BYTES: Final = 64 * 1024
"""A follower waits for so many bytes, or a tenth of a second: a fetch costs the same, however little it brings."""


_OFFSET_DIGITS: Final = 18
_POLLED: Final = 20_000
"""Records that one poll gives at most, where its caller says nothing else."""


def consumer(
    settings: KafkaSettings,
    *,
    group: str | None,
    from_start: bool = True,
    follower: bool = False,
    drain_s: float = 0,
) -> AIOKafkaConsumer:
    """Make a consumer that sees committed records only and commits nothing by itself.

    Args:
        settings: how to reach the broker.
        group: consumer group, or None for a reader that assigns its own partitions.
        from_start: where a group without a committed position begins.
        follower: nobody waits for what is read, so that it may come in larger pieces.
        drain_s: seconds that a member may take to give its partitions back; the group waits as long for one that lives.
    """
    return AIOKafkaConsumer(
        **settings.client_options(),
        group_id=group,
        enable_auto_commit=False,
        isolation_level="read_committed",
        auto_offset_reset="earliest" if from_start else "latest",
        # Range keeps partition N of the two work topics together, which share ledger partition N.
        partition_assignment_strategy=(RangePartitionAssignor,),
        session_timeout_ms=settings.session_timeout_ms,
        heartbeat_interval_ms=settings.session_timeout_ms // 10,
        # One that is dead is noticed by its session all the same.
        rebalance_timeout_ms=settings.session_timeout_ms + int(drain_s * 1000),
        # Else a member that reads nothing for five minutes, because there is no partition for it, leaves its group
        # unseen, and takes nothing over any more. Whether a member lives, its session tells.
        max_poll_interval_ms=_NEVER_MS,
        max_partition_fetch_bytes=4 * 1024 * 1024,
        max_poll_records=_POLLED,  # a compressed batch may hold millions
        # Else the broker answers as soon as there is a byte; the wait only bounds an idle connection's round trips.
        fetch_min_bytes=_FOLLOWED_BYTES if follower else 1,
        fetch_max_wait_ms=100 if follower else 250,
    )


def producer(settings: KafkaSettings, *, transactional_id: str | None = None) -> AIOKafkaProducer:
    """Make an idempotent producer whose records are acknowledged by all in-sync replicas.

    Args:
        settings: how to reach the broker.
        transactional_id: the identity that fences its predecessors; None makes a producer without transactions.
    """
    return AIOKafkaProducer(
        **settings.client_options(),
        acks="all",
        enable_idempotence=True,
        transactional_id=transactional_id,
        transaction_timeout_ms=60_000,
        max_batch_size=512 * 1024,
        max_request_size=MAX_RECORD_BYTES,
        linger_ms=0,
        retry_backoff_ms=5,
    )


async def log_identity(settings: KafkaSettings) -> str:
    """Give the cluster's own id: offsets mean something only together with it.

    Raises:
        BrokerUnavailable: no broker answers.
    """
    admin = await _admin(settings)
    try:
        cluster = await admin.describe_cluster()
        return str(cluster.get("cluster_id") or "unknown")
    finally:
        await admin.close()


async def committed_notes(
    settings: KafkaSettings, group: str, partitions: Iterable[TopicPartition]
) -> dict[TopicPartition, str]:
    """Give what a group wrote beside its committed positions, by partition.

    Raises:
        BrokerUnavailable: no broker answers.
        KafkaError: the broker refuses.
    """
    admin = await _admin(settings)
    try:
        found = await admin.list_consumer_group_offsets(group, partitions=list(partitions))
    finally:
        await admin.close()
    return {partition: position.metadata for partition, position in found.items()}


def noted_offset(note: str | None) -> int:
    """Return the offset that a note beside a position is; 0 where it is none: any member of a group may write one."""
    return int(note) if note and note.isascii() and note.isdecimal() and len(note) <= _OFFSET_DIGITS else 0


async def create_topics(
    settings: KafkaSettings,
    *,
    partitions: int,
    replication: int,
    topics: Iterable[Topic] = ALL,
    retention_ms: int | None = None,
) -> tuple[str, ...]:
    """Create the topics that are missing; give the names of those created.

    Args:
        settings: how to reach the broker.
        partitions: number of partitions of each topic.
        replication: copies of each partition; with 3 or more, two of them must have each record.
        topics: which ones.
        retention_ms: upper bound for every topic's retention.

    Raises:
        BrokerUnavailable: no broker answers.
        TopicMismatch: the broker refuses one.
    """
    admin = await _admin(settings)
    created: list[str] = []
    try:
        for topic in topics:
            config = topic.settings(retention_ms=retention_ms)
            if replication >= 3:  # noqa: PLR2004 - the smallest cluster in which one may be down
                config["min.insync.replicas"] = "2"
            new = NewTopic(settings.name(topic), partitions, replication, topic_configs=config)
            try:
                answer = await admin.create_topics([new])
            except TopicAlreadyExistsError:
                continue
            for name, code, *message in answer.topic_errors:
                error = for_code(code)
                if error is TopicAlreadyExistsError:
                    continue
                if code != 0:
                    raise TopicMismatch(f"the broker refuses topic {name}: {error.__name__} {message or ''}".strip())
                created.append(name)
    finally:
        await admin.close()
    return tuple(created)


async def partition_counts(settings: KafkaSettings, topics: Iterable[Topic] = ALL) -> dict[str, int]:
    """Give the number of partitions of each topic that exists.

    Raises:
        BrokerUnavailable: no broker answers.
    """
    admin = await _admin(settings)
    try:
        described = await admin.describe_topics([settings.name(topic) for topic in topics])
    finally:
        await admin.close()
    return {
        entry["topic"].removeprefix(settings.prefix): len(entry["partitions"])
        for entry in described
        if entry["error_code"] == 0
    }


async def check_topics(settings: KafkaSettings) -> dict[str, int]:
    """Give the partition count of every topic, or say which is missing or of the wrong shape.

    Raises:
        BrokerUnavailable: no broker answers.
        TopicMismatch: a topic is missing, or the work topics and the ledger differ in their partition counts.
    """
    counts = await partition_counts(settings)
    missing = [settings.name(topic) for topic in ALL if topic.name not in counts]
    if missing:
        raise TopicMismatch(f"missing on {settings.bootstrap}: {', '.join(missing)}; run `waybill topics create`")
    together = {name: counts[name] for name in ("ai.work.local", "ai.work.hosted", "ai.ledger")}
    if len(set(together.values())) != 1:
        raise TopicMismatch(f"these topics must have the same number of partitions, but have {together}")
    return counts


async def _admin(settings: KafkaSettings) -> AIOKafkaAdminClient:
    admin = AIOKafkaAdminClient(**settings.client_options(), request_timeout_ms=20_000)
    try:
        await asyncio.wait_for(admin.start(), timeout=20)
    except (KafkaError, OSError, TimeoutError) as error:
        await admin.close()
        raise BrokerUnavailable(f"no broker answers at {settings.bootstrap}: {error}") from error
    except BaseException:
        await admin.close()
        raise
    return admin
