"""Reads a whole topic, from its beginning to where it ends now."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, Final

from aiokafka.errors import KafkaError

from streams.errors import BrokerUnavailable
from streams.kafka import KafkaSettings
from streams.topics import Topic
from waybill.cli.traffic import tail

_POLL_MS: Final = 500


async def read_through(kafka: KafkaSettings, topic: Topic, take: Callable[[Any], object], timeout_s: float) -> None:
    """Hand each committed record of a topic to `take`, in order within a partition.

    Args:
        kafka: how to reach the broker.
        topic: which topic.
        take: gets each record.
        timeout_s: time limit in seconds.

    Raises:
        BrokerUnavailable: no broker answers, or not in time.
        TopicMismatch: the topic is not there.
    """
    reader = await tail(kafka, (topic,), from_start=True)
    try:
        async with asyncio.timeout(timeout_s):
            ends = await reader.end_offsets(list(reader.assignment()))
            # Not by the offset of the last record: a transaction's own marker can be the last thing there.
            while open_ := [place for place, end in ends.items() if await reader.position(place) < end]:
                for records in (await reader.getmany(*open_, timeout_ms=_POLL_MS)).values():
                    for record in records:
                        take(record)
    except (KafkaError, TimeoutError) as error:
        raise BrokerUnavailable(
            f"{topic.name} at {kafka.bootstrap} could not be read within {timeout_s:g} s: {error or 'too slow'}"
        ) from None
    finally:
        await reader.stop()
