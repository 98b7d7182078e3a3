"""Log lines of a worker: UTC, and one line for what is repeated."""

from __future__ import annotations

import io
import logging

from waybill.log_lines import EVERY_S, Repeats, UtcFormatter


class Clock:
    """A clock that stands still until it is set."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        """Return the time."""
        return self.now


def lines(name: str, said: list[tuple[float, str, tuple[object, ...]]]) -> list[str]:
    """Return what a logger's lines become; each is said at a time."""
    clock, out = Clock(), io.StringIO()
    handler = logging.StreamHandler(out)
    handler.setFormatter(UtcFormatter("%(asctime)s %(message)s"))
    handler.addFilter(Repeats(clock))
    for at, text, args in said:
        clock.now = at
        record = logging.LogRecord(name, logging.ERROR, "x.py", 1, text, args, None)
        record.created = 1_795_953_807.193
        handler.handle(record)
    return out.getvalue().splitlines()


def test_a_library_says_the_same_once_in_a_while_with_a_count():
    """A thousand lines within 30 s are one, and the next one says how many were not written."""
    many = [(n * 0.01, "Unable connect to node with id %s: %s", (n, "refused")) for n in range(1000)]
    found = lines("aiokafka", [*many, (EVERY_S + 1, "Unable connect to node with id %s: %s", (7, "refused"))])
    assert found == [
        "2026-11-29T12:03:27.193Z Unable connect to node with id 0: refused",
        "2026-11-29T12:03:27.193Z Unable connect to node with id 7: refused (999 times more in the last 31 s)",
    ]


def test_different_lines_of_a_library_all_pass():
    """Another template is another line."""
    assert len(lines("aiokafka.client", [(0, "one %s", (1,)), (0, "two %s", (1,)), (0, "one %s", (2,))])) == 2


def test_lines_of_our_own_pass_unless_they_say_the_same():
    """The name of another stage is news; the same sentence each second is not."""
    assert len(lines("streams.consent", [(0, "stage %s", (name,)) for name in "abca"])) == 3
