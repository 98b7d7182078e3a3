"""Scanning without holding the event loop: long texts are scanned by a thread of their own, one after the other.

The work of a scan is linear in the length of the text, and still a hostile text of 250 kB takes seconds of processor
time. The thread gives way to the event loop at least every 5 ms (the interpreter's switch interval; RE2 itself runs
without the interpreter's lock), so that other requests, heartbeats and the health page go on meanwhile. There is one
thread for the process: several would only take turns, and make the event loop wait for all of them.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from time import perf_counter
from typing import Final

from policy.detection.detectors import ScanResult
from streams.processors.classification import Scanner

SHORT: Final = 2_000
"""Characters up to which a text is scanned at once: 20 ms at worst, some microseconds for ordinary text."""

_TURN_S: Final = 0.005

_THREAD: Final = ThreadPoolExecutor(max_workers=1, thread_name_prefix="waybill-scan")


async def scan(scanner: Scanner, text: str) -> ScanResult:
    """Return what was found in a text; like `scan_closed`, it never raises for a text."""
    if len(text) <= SHORT:
        return scanner.scan_closed(text)
    return await asyncio.get_running_loop().run_in_executor(_THREAD, scanner.scan_closed, text)


async def scan_all(scanner: Scanner, texts: Sequence[str]) -> list[ScanResult]:
    """Return what was found in each text, in order; other tasks get their turn between two of them."""
    results, pace = list[ScanResult](), Pace()
    for text in texts:
        await pace.pause()
        results.append(await scan(scanner, text))
    return results


class Pace:
    """Lets the event loop have its turn between pieces of work, once they have taken `_TURN_S` together."""

    def __init__(self) -> None:
        self._began = perf_counter()

    async def pause(self) -> None:
        """Give way to other tasks if it is time to."""
        if perf_counter() - self._began > _TURN_S:
            await asyncio.sleep(0)
            self._began = perf_counter()
