"""Patience for brokers that answer an empty fetch at once instead of holding it open, as the development broker does.

Against such a broker an idle aiokafka consumer makes thousands of fetches a second and keeps a core busy. There is no
option for it in the library, so that its fetcher is wrapped, once, for the whole process.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import Any

from aiokafka.consumer.fetcher import Fetcher

_plain = Fetcher._proc_fetch_request  # noqa: SLF001 - the one place where an answer and the next question meet


def wait_after_empty_fetches(seconds: float) -> None:
    """Make every consumer of this process wait so long after a fetch that brought nothing; 0 takes it back."""
    if seconds <= 0:
        Fetcher._proc_fetch_request = _plain  # noqa: SLF001 - as above
        return

    async def patient(self: Fetcher, assignment: Any, node_id: int, request: Any) -> Any:
        brought = await _plain(self, assignment, node_id, request)
        if not brought:
            with suppress(asyncio.CancelledError):  # the fetcher ends such a task so, and expects it to end quietly
                await asyncio.sleep(seconds)
        return brought

    Fetcher._proc_fetch_request = patient  # noqa: SLF001 - as above
