"""Live progress: one moving display on a terminal, plain lines elsewhere."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final, Protocol

from rich.console import Group, RenderableType
from rich.live import Live
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from queries.terminal import Terminal, Text
from waybill.cli import traffic

_EVERY_S: Final = 2.0

COLOURS: Final = {
    "completed": "green",
    "refused": "yellow",
    "withheld": "yellow",
    "denied": "yellow",
    "rejected": "yellow",
    "duplicate": "yellow",
    "expired": "yellow",
    "unknown": "magenta",
    "failed": "red",
}
"""How outcomes look on a terminal."""


class Display(Protocol):
    """Shows how far a sending has come."""

    def changed(self, progress: traffic.Progress) -> None:
        """Requests were sent, or have ended."""

    def stories(self, complete: int) -> None:
        """So many stories are complete in evidence."""


def counting(console: Terminal) -> Progress:
    """Give a bar that counts, with its rate and what is left; nothing where there is no terminal."""
    return Progress(
        TextColumn("{task.description:<18}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        console=console,
        transient=True,
        disable=not console.is_terminal,
    )


@contextmanager
def display(console: Terminal, total: int, *, evidence: bool) -> Iterator[Display]:
    """Show progress on `console` while the block runs; `evidence` shows a third bar for complete stories."""
    if not console.is_terminal:
        yield _Plain(console, total)
        return
    bars = Progress(
        TextColumn("{task.description:<22}", markup=False), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn()
    )
    moving = _Moving(bars, total, evidence=evidence)
    with Live(moving, console=console, refresh_per_second=8, transient=False):
        yield moving


class _Moving:
    def __init__(self, bars: Progress, total: int, *, evidence: bool) -> None:
        self._bars = bars
        self._sent: TaskID = bars.add_task("sent", total=total)
        self._ended: TaskID = bars.add_task("ended", total=total)
        self._stories: TaskID | None = bars.add_task("complete in evidence", total=total) if evidence else None
        self._outcomes: RenderableType = Text("")

    def __rich__(self) -> Group:
        return Group(self._bars, self._outcomes)

    def changed(self, progress: traffic.Progress) -> None:
        self._bars.update(self._sent, completed=progress.sent)
        self._bars.update(self._ended, completed=progress.ended)
        self._outcomes = Text("  ").join(
            Text(f"{outcome} {count}", COLOURS.get(outcome, "")) for outcome, count in progress.outcomes.most_common()
        )

    def stories(self, complete: int) -> None:
        if self._stories is not None:
            self._bars.update(self._stories, completed=complete)


class _Plain:
    def __init__(self, console: Terminal, total: int) -> None:
        self._console = console
        self._total = total
        self._said: tuple[int, int] | None = None
        self._at = 0.0

    def changed(self, progress: traffic.Progress) -> None:
        state = (progress.sent, progress.ended)
        last = progress.ended == self._total or (progress.sent == self._total and progress.ended == 0)
        if state == self._said or (not last and time.monotonic() - self._at < _EVERY_S):
            return
        self._said, self._at = state, time.monotonic()
        how = ", ".join(f"{outcome} {count}" for outcome, count in progress.outcomes.most_common())
        self._console.print(
            f"sent {progress.sent}/{self._total}, ended {progress.ended}" + (f" ({how})" if how else "")
        )

    def stories(self, complete: int) -> None:
        if complete == self._total:
            self._console.print(f"complete in evidence {complete}/{self._total}")
