"""Long texts that are made to be much work: the event loop goes on, and requests between them are answered."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from itertools import cycle

import pytest
from requests_made import encoded, request
from scan_cost import repeated
from stage_rig import Provider, Reader, Worker, asked, send, topics

from inference.backend import Completion, ModelCall
from inference.testing import ScriptedBackend, echo

HOSTILE = ("fe80::", "token=", "8.1(.)517(.)7 ", "3.(9(. 5-/_3). 6_5_\n)2", "1 ", "4444 ", "tel 1234567;", "a at a.b ")
"""The shapes that cost the most, found by repeating all that detectors look for (`test_scan_cost.py`)."""

LONG = 100_000
HELD_S = 0.25
"""The most that the event loop's own thread may work between two turns; it was minutes, and 20 ms is usual."""


@pytest.fixture(params=[pytest.param("kafka", marks=pytest.mark.kafka), "dev_broker"])
def broker(request: pytest.FixtureRequest) -> str:
    """Each of the brokers in turn."""
    address: str = request.getfixturevalue(request.param)
    return address


class Saying(ScriptedBackend):
    """Answers with one text after the other."""

    def __init__(self, texts: Iterator[str]) -> None:
        super().__init__()
        self._texts = texts

    async def complete(self, call: ModelCall) -> Completion:
        """Answer with the next text."""
        return replace(echo(call), text=next(self._texts))


@asynccontextmanager
async def watched_loop() -> AsyncIterator[list[float]]:
    """Return for how long, in seconds of its thread's processor time, the event loop was kept from a ticking task."""
    held: list[float] = []

    async def tick() -> None:
        last = time.thread_time()
        while True:
            await asyncio.sleep(0.005)
            held.append((now := time.thread_time()) - last)
            last = now

    ticking = asyncio.create_task(tick())
    try:
        yield held
    finally:
        ticking.cancel()
        with suppress(asyncio.CancelledError):
            await ticking


async def test_hostile_requests_do_not_hold_the_event_loop(broker, prefix):
    """One request of 100 kB of each shape, good ones between them: all are answered, and the loop has its turns."""
    kafka = await topics(broker, prefix)
    bad = [(f"bad{n}", encoded(request(f"bad{n}", repeated(shape, LONG)))) for n, shape in enumerate(HOSTILE)]
    good = asked(len(bad), "good")
    sent = [one for pair in zip(bad, good, strict=True) for one in pair]
    async with (
        Provider() as provider,
        Reader(kafka) as reader,
        Worker(kafka, provider.backend),
        watched_loop() as held,
    ):
        await send(kafka, sent)
        await reader.until_responses(len(sent), 160)
    reader.check(name for name, _ in sent)
    outcomes = {response["requestId"]: response["outcome"] for response in reader.responses}
    assert {outcomes[name] for name, _ in good} == {"completed"}
    assert max(held) < HELD_S, sorted(held)[-5:]


async def test_a_hostile_answer_does_not_hold_the_event_loop(broker, prefix):
    """Answers of 100,000 characters that cost the most to look at: other requests are answered meanwhile."""
    kafka = await topics(broker, prefix)
    answers = cycle(repeated(shape, LONG) for shape in HOSTILE)
    sent = asked(len(HOSTILE))
    async with Reader(kafka) as reader, Worker(kafka, Saying(answers)), watched_loop() as held:
        await send(kafka, sent)
        await reader.until_responses(len(sent), 120)
    reader.check(name for name, _ in sent)
    assert max(held) < HELD_S, sorted(held)[-5:]
