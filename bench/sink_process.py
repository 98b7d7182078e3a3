"""The evidence sink as a process, to be killed: `python -m bench.sink_process BOOTSTRAP PREFIX STORE KEYS …`.

It says on its standard output when it is ready to read, and when it first has read all that there is to read.
"""

from __future__ import annotations

import asyncio
import contextlib
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

from bench.rig import PARTITIONS
from bench.sink import calm_collector
from evidence.log.keys import KeyRing
from evidence.store.site import EvidenceStore
from streams.kafka import KafkaSettings
from streams.stages.sink import Sink, Unobserved
from streams.stages.sink_partition import RejectedRecord

LOG_ID = "bench"
READY = "ready"
CAUGHT_UP = "caught up"


class _Lag(Unobserved):
    """Says when every partition was once read to its end."""

    def __init__(self) -> None:
        self._behind = set(range(PARTITIONS))

    def lag(self, partition: int, records: int) -> None:
        if records == 0 and self._behind:
            self._behind.discard(partition)
            if not self._behind:
                print(CAUGHT_UP, flush=True)


async def main(bootstrap: str, prefix: str, store: str, keys: str, freshness_s: str, session_ms: str) -> None:
    """Store evidence until the process is told to end."""

    async def none_expected(rejected: Sequence[RejectedRecord]) -> None:
        raise AssertionError(rejected[0])

    sink = Sink(
        kafka=KafkaSettings(bootstrap, prefix=prefix, session_timeout_ms=int(session_ms)),
        store=EvidenceStore(Path(store), LOG_ID, KeyRing(Path(keys), LOG_ID)),
        log_id=LOG_ID,
        dead_letter=none_expected,
        freshness_s=float(freshness_s),
        observe=_Lag(),
    )
    calm_collector()
    task = asyncio.create_task(sink.run(lambda: print(READY, flush=True)))
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
    with contextlib.suppress(asyncio.CancelledError):
        await task


if __name__ == "__main__":
    import uvloop  # it does not exist on Windows, where nothing else here runs either

    uvloop.run(main(*sys.argv[1:]))
