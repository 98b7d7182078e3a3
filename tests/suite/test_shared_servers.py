"""Processes of a test run share a server: it is started once, and stopped when nobody uses it any more."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

SUPPORT = Path(__file__).resolve().parents[1] / "support"

USER = """
import sys
from contextlib import contextmanager
from pathlib import Path
from shared_servers import shared

folder = Path(sys.argv[1])

@contextmanager
def server():
    with (folder / "log").open("a") as log:
        log.write("started\\n")
    yield "here"
    with (folder / "log").open("a") as log:
        log.write("stopped\\n")

with shared(folder, "it", server) as address:
    print(address, flush=True)
    sys.stdin.read()
"""


def user(folder: Path) -> subprocess.Popen[str]:
    """Start a process that uses the server until its input ends; return when it has the address."""
    made = subprocess.Popen(
        [sys.executable, "-c", USER, str(folder)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        env={**os.environ, "PYTHONPATH": str(SUPPORT)},
    )  # fmt: skip
    assert made.stdout is not None
    assert made.stdout.readline() == "here\n"
    return made


def log(folder: Path) -> list[str]:
    """Return what happened to the server."""
    return (folder / "log").read_text(encoding="utf-8").split()


@pytest.mark.parametrize("end", ["in order", "killed"])
def test_the_first_to_ask_starts_it_and_the_last_to_leave_lets_it_stop(tmp_path, end):
    """The process that started it waits for the others, however they end; who asks later gets a new one."""
    with user(tmp_path) as first, user(tmp_path) as second:
        assert log(tmp_path) == ["started"]
        first.stdin.close()
        while (tmp_path / "it.address").exists():
            time.sleep(0.01)
        with user(tmp_path) as third:
            assert log(tmp_path) == ["started", "started"]
            third.stdin.close()
            third.wait(30)
        assert first.poll() is None
        assert log(tmp_path) == ["started", "started", "stopped"]
        if end == "killed":
            second.send_signal(signal.SIGKILL)
        else:
            second.stdin.close()
        assert first.wait(30) == 0
    assert log(tmp_path) == ["started", "started", "stopped", "stopped"]
