"""A member of a consumer group as a process of its own, for tests that kill it: BOOTSTRAP GROUP TOPIC.

Prints `assigned N` whenever the group gives it N partitions, and then only polls.
"""

import asyncio
import sys

from aiokafka import AIOKafkaConsumer


async def _main(bootstrap: str, group: str, topic: str) -> None:
    consumer = AIOKafkaConsumer(
        topic,
        bootstrap_servers=bootstrap,
        group_id=group,
        session_timeout_ms=60_000,
        heartbeat_interval_ms=500,
        auto_offset_reset="earliest",
    )
    await consumer.start()
    try:
        said = None
        while True:
            await consumer.getmany(timeout_ms=100)
            assigned = len(consumer.assignment())
            if assigned != said:
                print(f"assigned {assigned}", flush=True)  # noqa: T201 - its output is what the test reads
                said = assigned
    finally:
        await consumer.stop()


if __name__ == "__main__":
    asyncio.run(_main(*sys.argv[1:]))
