"""Watching other processes work: whether one is busy, and when it stops."""

from __future__ import annotations

import asyncio
import time

import psutil

BUSY_S = 0.2
"""CPU seconds that count as being at work."""


def cpu_s(process: psutil.Process) -> float:
    """CPU seconds that a process has used."""
    times = process.cpu_times()
    return float(times.user + times.system)


async def until_busy(process: psutil.Process, timeout_s: float = 20.0) -> None:
    """Wait until the process has worked for a while since now."""
    start, end = cpu_s(process), time.monotonic() + timeout_s
    while cpu_s(process) - start < BUSY_S:
        assert time.monotonic() < end, "the process never got busy"
        await asyncio.sleep(0.02)


async def until_idle(process: psutil.Process, timeout_s: float = 10.0) -> None:
    """Wait until half a second passes in which the process does nothing."""
    end = time.monotonic() + timeout_s
    while True:
        before = cpu_s(process)
        await asyncio.sleep(0.5)
        if cpu_s(process) - before < 0.05:
            return
        assert time.monotonic() < end, "the process is still busy"
