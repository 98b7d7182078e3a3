"""`waybill dev` as a user runs it: a process of its own, watched from outside with everything that it started."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
from warm_start import run_program

from waybill import dev_run

ROOT = Path(__file__).resolve().parents[2]
READY_S = 90.0
GONE_S = 40.0


def environment(**changes: str) -> dict[str, str]:
    """The environment without settings of the one who runs the tests."""
    return {name: value for name, value in os.environ.items() if not name.startswith("WAYBILL_")} | changes


def waybill(*arguments: str, timeout_s: float = 120, **changes: str) -> subprocess.CompletedProcess[str]:
    """Run a command to its end."""
    return run_program("waybill", *arguments, env=environment(**changes), timeout=timeout_s)


class DevRun:
    """A `waybill dev` that runs."""

    def __init__(self, home: Path, *arguments: str, **changes: str) -> None:
        self.home = home
        self.output = home.parent / f"{home.name}.out"
        with self.output.open("wb") as output:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "waybill", "dev", "--home", str(home), *arguments],
                cwd=ROOT,
                env=environment(**changes),
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                # A shell that runs the tests in the background has SIGINT ignored, and its children inherit that.
                preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # noqa: PLW1509 - no threads here
            )

    def said(self) -> str:
        """Give what it has printed so far."""
        return self.output.read_text(encoding="utf-8")

    def until(self, condition: Callable[[], object], timeout_s: float = READY_S) -> None:
        """Wait until something holds; fails where the process ends before, or time runs out."""
        end = time.monotonic() + timeout_s
        while not condition():
            assert self.process.poll() is None, f"waybill dev ended with {self.process.returncode}:\n{self.said()}"
            assert time.monotonic() < end, f"waited in vain:\n{self.said()}"
            time.sleep(0.05)

    def until_ready(self) -> dev_run.Run:
        """Wait until everything runs; give what it tells the other commands."""
        self.until(lambda: dev_run.read(self.home))
        found = dev_run.read(self.home)
        assert found is not None
        return found

    def family(self) -> list[psutil.Process]:
        """Give every process that it has started, and what those have started."""
        return psutil.Process(self.process.pid).children(recursive=True)

    def worker(self) -> psutil.Process:
        """Give its worker."""
        return next(child for child in self.family() if child.cmdline()[-2:] == ["waybill", "worker"])

    def signal(self, number: signal.Signals) -> None:
        """Send the supervisor, and it alone, a signal."""
        self.process.send_signal(number)

    def wait(self, timeout_s: float = GONE_S) -> int:
        """Wait until it ends; give the exit code."""
        return self.process.wait(timeout_s)


@contextmanager
def running(home: Path, *arguments: str, **changes: str) -> Iterator[DevRun]:
    """Run it for the length of a block; whatever is left afterwards is killed."""
    run = DevRun(home, *arguments, **changes)
    try:
        yield run
    finally:
        left = run.family() if run.process.poll() is None else []
        run.process.kill()
        run.process.wait()
        for process in left:
            try:
                process.kill()
            except psutil.NoSuchProcess:
                continue


def left_of(family: list[psutil.Process], timeout_s: float = 5.0) -> list[str]:
    """Give the command lines of the processes that still run after a moment."""
    _, alive = psutil.wait_procs(family, timeout=timeout_s)
    return [" ".join(process.cmdline()) for process in alive if process.status() != psutil.STATUS_ZOMBIE]
