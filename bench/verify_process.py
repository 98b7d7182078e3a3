"""The checker as a process of its own: `python -m bench.verify_process STORE VKEY JOBS [parts]`; it prints JSON.

With `parts` it also tells what its CPU time goes to. The checker knows nothing of that: its functions are wrapped here.
"""

from __future__ import annotations

import inspect
import json
import os
import sys
import time
from collections.abc import Callable, Iterator
from functools import wraps
from typing import Any, Final

from evidence.verify import check, files, rows, source, stories, walk

_PARTS: Final[tuple[tuple[object, str, str], ...]] = (
    (source.LocalStore, "open_parquet", "read and hash the files"),
    (files, "_batches", "decode Parquet"),
    (files, "leaf_hashes", "canonical bytes"),
    (rows, "_hashes", "SHA-256 of the rows"),
    (files, "story_columns", "stories"),
    (files, "tell", "stories"),
    (stories.Stories, "take", "stories"),
    (stories.Stories, "end", "stories"),
    (walk, "fold_chunk", "tree"),
    (files, "_differs", "compare with the tiles"),
)
"""Functions, and the part that their own time counts for."""


class _Clock:
    """CPU seconds by part; what a part calls of another counts for that one alone."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._running: list[str] = ["the rest"]
        self._since = time.process_time()

    def enter(self, part: str) -> None:
        self._turn()
        self._running.append(part)

    def leave(self) -> None:
        self._turn()
        self._running.pop()

    def _turn(self) -> None:
        now = time.process_time()
        part = self._running[-1]
        self.seconds[part] = self.seconds.get(part, 0.0) + now - self._since
        self._since = now

    def wrapped(self, function: Callable[..., Any], part: str) -> Callable[..., Any]:
        @wraps(function)
        def plain(*given: Any, **named: Any) -> Any:
            self.enter(part)
            try:
                return function(*given, **named)
            finally:
                self.leave()

        @wraps(function)
        def step_by_step(*given: Any, **named: Any) -> Iterator[Any]:
            going = function(*given, **named)
            while True:
                self.enter(part)
                try:
                    item = next(going)
                except StopIteration:
                    return
                finally:
                    self.leave()
                yield item

        return step_by_step if inspect.isgeneratorfunction(function) else plain


def main(store: str, key: str, jobs: str, *more: str) -> None:
    """Check a store, and print what it took."""
    clock = _Clock()
    for owner, name, part in _PARTS if more else ():
        setattr(owner, name, clock.wrapped(getattr(owner, name), part))
    begun = sum(os.times()[:4])
    report = check.verify(store, [key], jobs=int(jobs))
    clock.enter("the end")
    found = {
        "ok": report.ok,
        "findings": [str(finding) for finding in report.findings[:3]],
        "rows": report.rows,
        "seconds": report.seconds,
        "cpu_s": sum(os.times()[:4]) - begun,
        "parts": clock.seconds,
    }
    print(json.dumps(found))


if __name__ == "__main__":
    main(*sys.argv[1:])
