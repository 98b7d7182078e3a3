"""A process that runs the approvals stage until it is killed: `python approvals_process.py BOOTSTRAP PREFIX`."""

from __future__ import annotations

import asyncio
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime

from aiokafka.errors import KafkaError

from evidence.errors import RetryableError
from policy.vault.erased import nobody
from streams.kafka import KafkaSettings
from streams.metrics import Metrics
from streams.stages import approvals


def desk(**changes: object) -> approvals.Desk:
    """Give what the stage works with."""
    metrics = Metrics()
    fields: dict[str, object] = {
        "site": "here",
        "log_id": "log",
        "clock": lambda: datetime.now(UTC),
        "metrics": metrics,
        "counts": approvals.ApprovalMetrics(metrics.registry),
        "mask": lambda text: text,
        "erased": nobody,
    }
    return approvals.Desk(**{**fields, **changes})  # type: ignore[arg-type]


@contextmanager
def stage_in_thread(kafka: KafkaSettings, **changes: object) -> Iterator[None]:
    """Run the stage in a thread of its own, as a worker does in its process."""
    loop, ready = asyncio.new_event_loop(), threading.Event()

    async def run() -> None:
        with suppress(asyncio.CancelledError):
            await approvals.stage(kafka, desk(**changes)).run(ready.set)

    task = loop.create_task(run())
    thread = threading.Thread(target=lambda: loop.run_until_complete(task))
    thread.start()
    try:
        assert ready.wait(30)
        yield
    finally:
        loop.call_soon_threadsafe(task.cancel)
        thread.join(30)
        loop.close()


async def main(bootstrap: str, prefix: str) -> None:
    """Run the stage, again after each trouble, as the worker's host does."""
    kafka, working = KafkaSettings(bootstrap, prefix=prefix, session_timeout_ms=6000), desk()
    while True:
        try:
            await approvals.stage(kafka, working).run(lambda: print("ready", flush=True))  # noqa: T201 - a test waits for it
        except (KafkaError, RetryableError, OSError):
            await asyncio.sleep(0.2)


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
