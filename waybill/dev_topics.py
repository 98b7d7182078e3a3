"""All topics that a worker needs: those of the pipeline, that of the workers, and the one behind Faust's table."""

from __future__ import annotations

import asyncio
from collections.abc import Collection
from typing import Final

from evidence.errors import UnavailableError
from streams.app import CHANGELOG
from streams.kafka import KafkaSettings, create_topics, partition_counts
from streams.topics import ALL, DAY_MS, DEADLETTER, WORKERS, Topic

TABLE: Final = Topic(CHANGELOG, "Counts of dead letters, behind Faust's table.", 7 * DAY_MS, compacted=True)
"""Faust would name it so itself; it must have as many partitions as `ai.deadletter`."""

_SEEN_S: Final = 20.0
_AGAIN_S: Final = 0.1


async def make_topics(
    kafka: KafkaSettings, *, partitions: int, replication: int, retention_ms: int | None = None
) -> tuple[str, ...]:
    """Create what is missing of all these topics; give the names of those created.

    Raises:
        UnavailableError: no broker answers, or the topics do not show themselves.
        TopicMismatch: the broker refuses one.
    """
    made = await create_topics(kafka, partitions=partitions, replication=replication, retention_ms=retention_ms)
    counts = await _visible(kafka, ALL)
    # The table's topic follows `ai.deadletter`, which may have been there before with another number of partitions.
    more = await create_topics(
        kafka, partitions=counts[DEADLETTER.name], replication=replication, topics=[TABLE], retention_ms=retention_ms
    )
    more += await create_topics(kafka, partitions=1, replication=replication, topics=[WORKERS])
    if more:
        await _visible(kafka, (TABLE, WORKERS))
    return made + more


async def _visible(kafka: KafkaSettings, topics: Collection[Topic]) -> dict[str, int]:
    """Wait until the broker tells of these topics: it says that it has created one before it knows of it itself."""
    try:
        async with asyncio.timeout(_SEEN_S):
            while True:
                counts = await partition_counts(kafka, topics)
                if len(counts) == len(topics):
                    return counts
                await asyncio.sleep(_AGAIN_S)
    except TimeoutError:
        raise UnavailableError(f"the broker at {kafka.bootstrap} created topics and does not show them") from None
