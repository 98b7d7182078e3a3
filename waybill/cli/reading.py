"""Readers of whole topics, with positions of their own."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Any, Final

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.errors import KafkaError

from streams.errors import BrokerUnavailable, TopicMismatch
from streams.kafka import KafkaSettings, consumer, partition_counts
from streams.topics import Topic

_POLL_MS: Final = 500
_STALL_S: Final = 60.0
"""Seconds without a record after which a reader without a time limit gives up."""
_SLACK_MS: Final = 3_600_000
"""How far the clocks of this machine and of the broker may differ, in milliseconds."""


async def read_through(
    kafka: KafkaSettings,
    topic: Topic,
    take: Callable[[Any], object],
    timeout_s: float | None,
    *,
    since: datetime | None = None,
) -> None:
    """Hand each committed record of a topic to `take`, in order within a partition.

    Args:
        kafka: how to reach the broker.
        topic: which topic.
        take: gets each record.
        timeout_s: time limit in seconds; None reads on as long as records come.
        since: where to begin; None begins at the beginning.

    Raises:
        BrokerUnavailable: no broker answers, or not in time.
        TopicMismatch: the topic is not there.
    """
    reader = await tail(kafka, (topic,), from_start=True)
    try:
        async with asyncio.timeout(timeout_s):
            ends = await reader.end_offsets(list(reader.assignment()))
            if since is not None:
                await _seek(reader, since, ends)
            heard = time.monotonic()
            # Not by the offset of the last record: a transaction's own marker can be the last thing there.
            while open_ := [place for place, end in ends.items() if await reader.position(place) < end]:
                found = await reader.getmany(*open_, timeout_ms=_POLL_MS)
                for records in found.values():
                    for record in records:
                        take(record)
                if found:
                    heard = time.monotonic()
                elif timeout_s is None and time.monotonic() - heard > _STALL_S:
                    raise TimeoutError  # noqa: TRY301 - the handler tells both limits in one sentence
    except (KafkaError, TimeoutError) as error:
        within = _STALL_S if timeout_s is None else timeout_s
        raise BrokerUnavailable(
            f"{topic.name} at {kafka.bootstrap} could not be read within {within:g} s: {error or 'too slow'}"
        ) from None
    finally:
        await reader.stop()


async def _seek(reader: AIOKafkaConsumer, since: datetime, ends: dict[TopicPartition, int]) -> None:
    at = int(since.timestamp() * 1000) - _SLACK_MS
    starts = await reader.offsets_for_times(dict.fromkeys(ends, at))
    for partition, end in ends.items():
        place = starts.get(partition)
        reader.seek(partition, place.offset if place else end)


async def tail(kafka: KafkaSettings, topics: Sequence[Topic], *, from_start: bool = False) -> AIOKafkaConsumer:
    """Return a reader of all partitions of these topics, at their ends or their beginnings.

    Raises:
        BrokerUnavailable: no broker answers.
        TopicMismatch: a topic is not there.
    """
    counts = await partition_counts(kafka, topics)
    if missing := [kafka.name(topic) for topic in topics if topic.name not in counts]:
        raise TopicMismatch(f"there is no topic {missing[0]}; run `waybill topics create`, or start `waybill dev`")
    partitions = [TopicPartition(kafka.name(topic), number) for topic in topics for number in range(counts[topic.name])]
    reader = consumer(kafka, group=None, follower=True)
    try:
        await reader.start()
        reader.assign(partitions)
        if from_start:
            await reader.seek_to_beginning(*partitions)
        else:
            await reader.seek_to_end(*partitions)
        # The position is fetched when it is first asked for: it must be known before anything is sent.
        for partition in partitions:
            await reader.position(partition)
    except (KafkaError, OSError) as error:
        await reader.stop()
        raise BrokerUnavailable(f"no broker answers at {kafka.bootstrap}: {error}") from error
    except BaseException:
        await reader.stop()
        raise
    return reader
