"""One server for all processes of a test run, started by the first that asks and stopped behind the last.

The process that starts it is the server's parent, so that it ends with it. The others hold a lock that the system takes
from them however they end, and the parent waits for it before it stops the server.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from pathlib import Path

import pytest


@contextmanager
def shared(folder: Path, name: str, start: Callable[[], AbstractContextManager[str]]) -> Iterator[str]:
    """Yield the address of a server that the processes of a run share.

    Args:
        folder: a folder of the run, the same for each of its processes.
        name: of the server.
        start: starts it, and stops it when the block is left.
    """
    place = folder / f"{name}.address"
    with ExitStack() as stack:
        with _locked(folder / f"{name}.lock", fcntl.LOCK_EX):
            if place.exists():
                users, address = place.read_text(encoding="utf-8").splitlines()
                stack.enter_context(_locked(Path(users), fcntl.LOCK_SH))
            else:
                address = stack.enter_context(start())
                users = str(folder / f"{name}.{os.getpid()}.users")
                place.write_text(f"{users}\n{address}\n", encoding="utf-8")
                stack.callback(_wait_for_users, folder / f"{name}.lock", place, Path(users))
        yield address


def run_folder(factory: pytest.TempPathFactory) -> Path:
    """Return a folder that is the same for all processes of a test run, and no other run's."""
    base = factory.getbasetemp()
    return base.parent if "PYTEST_XDIST_WORKER" in os.environ else base


def _wait_for_users(lock: Path, place: Path, users: Path) -> None:
    """Let nobody new in, and wait for those that are."""
    with _locked(lock, fcntl.LOCK_EX):
        place.unlink()
    with _locked(users, fcntl.LOCK_EX):
        pass


@contextmanager
def _locked(path: Path, how: int) -> Iterator[None]:
    with path.open("ab") as file:
        fcntl.flock(file, how)
        yield
