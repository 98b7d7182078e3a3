"""All topics that a worker needs: those of the pipeline, and the one behind Faust's table."""

from __future__ import annotations

from typing import Final

from streams.app import CHANGELOG
from streams.kafka import KafkaSettings, create_topics, partition_counts
from streams.topics import DAY_MS, DEADLETTER, Topic

TABLE: Final = Topic(CHANGELOG, "Counts of dead letters, behind Faust's table.", 7 * DAY_MS, compacted=True)
"""Faust would name it so itself; it must have as many partitions as `ai.deadletter`."""


async def make_topics(
    kafka: KafkaSettings, *, partitions: int, replication: int, retention_ms: int | None = None
) -> tuple[str, ...]:
    """Create what is missing of our topics and of the one behind Faust's table; give the names of those created.

    Raises:
        UnavailableError: no broker answers.
        TopicMismatch: the broker refuses one.
    """
    made = await create_topics(kafka, partitions=partitions, replication=replication, retention_ms=retention_ms)
    # The table's topic follows `ai.deadletter`, which may have been there before with another number of partitions.
    counts = await partition_counts(kafka)
    more = await create_topics(
        kafka, partitions=counts[DEADLETTER.name], replication=replication, topics=[TABLE], retention_ms=retention_ms
    )
    return made + more
