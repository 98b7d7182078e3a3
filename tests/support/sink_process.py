"""The evidence sink as a process of its own, to be killed: `python sink_process.py BOOTSTRAP PREFIX ROOT MAX_ROWS`."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

from evidence_stores import local_store

from streams.kafka import KafkaSettings, producer
from streams.stages.sink import Sink
from streams.stages.sink_partition import RejectedRecord
from streams.topics import DEADLETTER


async def main(bootstrap: str, prefix: str, root: str, max_rows: str) -> None:
    """Store evidence until the process is told to end, rejected records going to the dead-letter topic."""
    settings = KafkaSettings(bootstrap, prefix=prefix, session_timeout_ms=6000)
    letters = producer(settings)
    await letters.start()

    async def dead_letter(rejected: Sequence[RejectedRecord]) -> None:
        for record in rejected:
            text = f"{record.partition}/{record.offset}/{record.code}"
            await letters.send_and_wait(settings.name(DEADLETTER), text.encode())

    store = local_store(Path(root), "home", lock_wait_s=5)
    sink = Sink(
        kafka=settings, store=store, log_id="cluster", dead_letter=dead_letter, freshness_s=0.5, max_rows=int(max_rows)
    )
    task = asyncio.create_task(sink.run())
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
    print("running", flush=True)  # noqa: T201 - the test waits for it
    with contextlib.suppress(asyncio.CancelledError):
        await task
    await letters.stop()


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
