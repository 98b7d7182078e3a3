"""What freshness and recovery are measured with: evidence that comes at an even rate, and the sink beside it."""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from bench import stories
from bench.rig import PARTITIONS, ROOT
from bench.sink_process import LOG_ID, READY
from evidence.log.keys import KeyRing
from streams import kafka as clients
from streams.kafka import KafkaSettings
from streams.topics import EVIDENCE

_TICK_S: Final = 0.01
_READY_WITHIN_S: Final = 120.0


class Traffic:
    """Writes events at an even rate; their own time is when they are put into a batch."""

    def __init__(self, settings: KafkaSettings, a_second: int) -> None:
        self._settings = settings
        self._a_tick = round(a_second * _TICK_S)
        self._values = stories.values(20_000)
        self._over = asyncio.Event()
        self.sent = [0] * PARTITIONS
        """Events of each partition so far."""

    @property
    def total(self) -> int:
        """Events so far."""
        return sum(self.sent)

    def end(self) -> None:
        """Write no more."""
        self._over.set()

    async def run(self) -> None:
        """Write until `end` is called; returns when the broker has all of it."""
        made = clients.producer(self._settings)
        await made.start()
        waiting: set[asyncio.Future[object]] = set()
        try:
            upcoming = time.perf_counter()
            tick = 0
            while not self._over.is_set():
                partition = tick % PARTITIONS
                batch = made.create_batch()
                for place in range(self._a_tick):
                    value = self._values[(tick * self._a_tick + place) % len(self._values)]
                    assert batch.append(key=None, value=value, timestamp=None)
                asked = await made.send_batch(batch, self._settings.name(EVIDENCE), partition=partition)
                waiting.add(asked)
                asked.add_done_callback(waiting.discard)
                self.sent[partition] += self._a_tick
                tick += 1
                upcoming += _TICK_S
                await asyncio.sleep(max(0.0, upcoming - time.perf_counter()))
            await asyncio.gather(*waiting)
        finally:
            await made.stop()

    @asynccontextmanager
    async def running(self) -> AsyncIterator[asyncio.Task[None]]:
        """Write while something else happens."""
        task = asyncio.create_task(self.run())
        try:
            yield task
        finally:
            self.end()
            await task


@dataclass
class SinkChild:
    """A sink as a process, which may be killed."""

    settings: KafkaSettings
    """The broker."""
    home: Path
    """Holds the store, the keys and the sink's log."""
    freshness_s: float = 5.0
    """As the sink has it."""
    said: dict[str, float] = field(default_factory=dict)
    """What it said, and when, by the monotonic clock."""

    @property
    def store(self) -> Path:
        """Where the evidence lies."""
        return self.home / "evidence"

    async def start(self) -> float:
        """Start it, and give the moment; it is not ready yet."""
        keys = self.home / "keys"
        if not keys.exists():
            KeyRing.create(keys, LOG_ID)
        self.said = {}
        kafka = self.settings
        told = (kafka.bootstrap, kafka.prefix, self.store, keys, self.freshness_s, kafka.session_timeout_ms)
        argv = [sys.executable, "-m", "bench.sink_process", *map(str, told)]
        begun = time.perf_counter()
        with (self.home / "sink.log").open("ab") as log:
            self._process = await asyncio.create_subprocess_exec(
                *argv, stdout=asyncio.subprocess.PIPE, stderr=log, cwd=ROOT
            )
        self._listening = asyncio.create_task(self._listen())
        return begun

    async def wait(self, what: str = READY) -> float:
        """Wait until it says something, and give the moment.

        Raises:
            TimeoutError: it does not.
        """
        async with asyncio.timeout(_READY_WITHIN_S):
            while what not in self.said:
                assert self._process.returncode is None, (self.home / "sink.log").read_text(encoding="utf-8")[-2000:]
                await asyncio.sleep(0.005)
        return self.said[what]

    async def kill(self) -> None:
        """End it at once, as a power cut would."""
        self._process.kill()
        await self._gone()

    async def stop(self) -> None:
        """Ask it to end, and wait for that."""
        with suppress(ProcessLookupError):
            self._process.terminate()
        await self._gone()

    async def _gone(self) -> None:
        await self._process.wait()
        await self._listening

    async def _listen(self) -> None:
        assert self._process.stdout is not None
        async for line in self._process.stdout:
            self.said.setdefault(line.decode().strip(), time.perf_counter())
