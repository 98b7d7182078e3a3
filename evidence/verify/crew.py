"""Work on all cores: in this process where there is little of it, in workers where there is much."""

from __future__ import annotations

import multiprocessing
import os
import signal
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from typing import Any, Final, TypeVar

import pyarrow as pa

_AHEAD: Final = 3  # pieces of work handed out for each worker before the first is asked for

Made = TypeVar("Made")

Item = tuple[Any, ...]
"""What one piece of work is called with."""

Waiting = tuple[Item, Future[Any]]
"""A piece of work that was handed out."""


class Crew:
    """A pool of workers that starts when it is first needed."""

    def __init__(self, jobs: int | None = None) -> None:
        """Say how many workers there may be; None takes the machine's cores."""
        self.jobs = jobs or os.cpu_count() or 1
        self._pool: ProcessPoolExecutor | None = None

    def map(
        self, work: Callable[..., Made], items: Iterable[Item], *, pooled: bool
    ) -> Iterator[tuple[Item, Made | None]]:
        """Do pieces of work; gives each with its result, in order. The result is None where a worker died of it."""
        if self.jobs == 1 or not pooled:
            for item in items:
                yield item, work(*item)
            return
        waiting: deque[Waiting] = deque()
        for item in items:
            waiting.append((item, self._submit(work, item)))
            if len(waiting) >= self.jobs * _AHEAD:
                yield self._result(work, waiting)
        while waiting:
            yield self._result(work, waiting)

    def close(self) -> None:
        """Let the workers go at once."""
        if self._pool is not None:
            for process in list((self._pool._processes or {}).values()):  # noqa: SLF001 - the pool has no call that ends running work
                process.terminate()
            self._pool.shutdown(wait=True, cancel_futures=True)
            self._pool = None

    def _submit(self, work: Callable[..., Made], item: Item) -> Future[Made]:
        if self._pool is None:
            context = multiprocessing.get_context("spawn")
            self._pool = ProcessPoolExecutor(self.jobs, mp_context=context, initializer=_begin)
        try:
            return self._pool.submit(work, *item)
        except BrokenProcessPool as error:
            broken: Future[Made] = Future()
            broken.set_exception(error)
            return broken

    def _result(self, work: Callable[..., Any], waiting: deque[Waiting]) -> tuple[Item, Any]:
        item, future = waiting.popleft()
        try:
            return item, future.result()
        except BrokenProcessPool:
            pass  # what follows finds out which piece it was
        # A worker died, of this piece or of another that ran beside it: each is done again, alone.
        self.close()
        try:
            made = self._submit(work, item).result()
        except BrokenProcessPool:
            self.close()
            made = None
        again = [(other, self._submit(work, other)) for other, _ in waiting]
        waiting.clear()
        waiting.extend(again)
        return item, made


def _begin() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C ends the one who asked, and that one ends the workers
    pa.set_cpu_count(1)
