"""The few file-system steps that files of evidence are made of, each by itself so that a test can fail it."""

from __future__ import annotations

import fcntl
import os
import time
from contextlib import suppress
from pathlib import Path

from evidence.errors import StoreError, UnavailableError


class PartitionHeld(StoreError):  # noqa: N818 - named as the condition that operators search for
    """Another process writes this partition; it may go away."""


class Disk:
    """The real file system; every step is complete when it returns."""

    def make_directory(self, path: Path) -> None:
        """Make a directory whose parent is there; fine if it is there already."""
        path.mkdir(exist_ok=True)

    def write(self, path: Path, data: memoryview) -> None:
        """Write a new file; an existing one is an error."""
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644)
        try:
            while data:
                data = data[os.write(descriptor, data) :]
        finally:
            os.close(descriptor)

    def sync(self, path: Path) -> None:
        """Make a file's content durable, or a directory's entries."""
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)

    def publish(self, temporary: Path, path: Path) -> None:
        """Give a file its name, in one step, and never over another file.

        A hard link is the one portable way of doing so; `rename` would replace silently.
        """
        os.link(temporary, path)

    def replace(self, temporary: Path, path: Path) -> None:
        """Give a file its name, in one step, over another file or none."""
        temporary.replace(path)

    def read(self, path: Path) -> bytes:
        """Give a file's content; a symbolic link is an error."""
        with open(os.open(path, os.O_RDONLY | os.O_NOFOLLOW), "rb") as file:  # noqa: PTH123 - Path.open takes no flags
            return file.read()

    def entries(self, path: Path) -> list[os.DirEntry[str]]:
        """Give what a directory holds, in no order; nothing if it is not there."""
        try:
            with os.scandir(path) as found:
                return list(found)
        except (FileNotFoundError, NotADirectoryError):
            return []

    def remove(self, path: Path) -> None:
        """Remove a file; fine if it is gone already."""
        path.unlink(missing_ok=True)


def make_directories(disk: Disk, path: Path, below: Path) -> None:
    """Make a directory and those above it up to `below`, each durable in its parent."""
    missing = []
    while not path.is_dir() and path != below:
        missing.append(path)
        path = path.parent
    for directory in reversed(missing):
        disk.make_directory(directory)
        disk.sync(directory.parent)


class Lock:
    """An exclusive lock on a file, which ends with the process however that ends.

    It is `flock`: on a file system shared by several hosts it holds only if that file system passes locks on.
    """

    def __init__(self, path: Path, *, wait_s: float) -> None:
        """Take the lock.

        Args:
            path: the lock file; made if it is not there, and left there afterwards.
            wait_s: seconds to wait for another holder.

        Raises:
            PartitionHeld: another process still holds it after that time.
        """
        self._path = path
        self._descriptor: int | None = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o644)
        deadline = time.monotonic() + wait_s
        while True:
            try:
                fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() >= deadline:
                    holder = os.pread(self._descriptor, 32, 0).decode(errors="replace").strip() or "unknown"
                    self.release()
                    raise PartitionHeld(
                        f"{path} is held by process {holder}: two writers on one partition would store events twice; "
                        "stop the other one, or wait until it has ended"
                    ) from None
                time.sleep(0.02)
            except OSError as error:
                self.release()
                raise UnavailableError(f"{path} cannot be locked: {error.strerror}") from error
        # Who holds it is for people. On a full disk that stays untold: a lock that was taken and is given to nobody
        # would be held, by this very process, until it ends.
        with suppress(OSError):
            os.ftruncate(self._descriptor, 0)
            os.pwrite(self._descriptor, f"{os.getpid()}\n".encode(), 0)

    def release(self) -> None:
        """Give the lock back; safe to call twice."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None
