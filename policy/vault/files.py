"""The file-system steps of the vault, each by itself so that a test can fail it, and the lock between processes."""

from __future__ import annotations

import fcntl
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from evidence.errors import ConfigError

TEMPORARY: Final = ".new-"
"""How a file begins that has not got its name yet; one that a killed process left is removed by the next writer."""


class Files:
    """The real file system; every step is complete when it returns."""

    def write(self, path: Path, data: bytes) -> None:
        """Write a new file that only its owner may read, durably; an existing one is an error."""
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        try:
            view = memoryview(data)
            while view:
                view = view[os.write(descriptor, view) :]
            os.fsync(descriptor)
        finally:
            os.close(descriptor)

    def publish(self, temporary: Path, path: Path) -> None:
        """Give a file its name in one step, and never over another file."""
        os.link(temporary, path)

    def replace(self, temporary: Path, path: Path) -> None:
        """Give a file its name in one step, in the place of the one that is there."""
        temporary.replace(path)

    def overwrite(self, path: Path) -> None:
        """Put random bytes in the place of a file's content, durably."""
        descriptor = os.open(path, os.O_WRONLY)
        try:
            os.write(descriptor, secrets.token_bytes(os.fstat(descriptor).st_size))
            os.fsync(descriptor)
        finally:
            os.close(descriptor)

    def remove(self, path: Path) -> None:
        """Remove a file; fine if it is gone already."""
        path.unlink(missing_ok=True)

    def sync(self, folder: Path) -> None:
        """Make a folder's entries durable."""
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def check_ours(*paths: Path) -> None:
    """See that files and folders are of the user that runs this: workers could not read what another one writes there.

    Raises:
        ConfigError: one of them, that is there, belongs to somebody else.
    """
    for path in paths:
        if path.exists() and path.stat().st_uid != os.geteuid():
            raise ConfigError(
                f"{path} belongs to another user, whose workers could not read what you write: run this as that user"
            )


def make_folder(files: Files, folder: Path) -> None:
    """Make a folder that only its owner may enter, and those above it, durably."""
    missing = [each for each in (folder, *folder.parents) if not each.is_dir()]
    for each in reversed(missing):
        each.mkdir(mode=0o700, exist_ok=True)
        files.sync(each.parent)


def create(files: Files, path: Path, data: bytes) -> bool:
    """Make a file whole and durable, or leave nothing under its name; False where it was there already.

    Of several processes that try, exactly one makes it, and the others find that one's content.
    """
    temporary = _written(files, path, data)
    try:
        files.publish(temporary, path)
    except FileExistsError:
        return False
    finally:
        files.remove(temporary)
    files.sync(path.parent)
    return True


def replace(files: Files, path: Path, data: bytes) -> None:
    """Change a file's content in one step, durably: a reader finds the old content or the new."""
    files.replace(_written(files, path, data), path)
    files.sync(path.parent)


def _written(files: Files, path: Path, data: bytes) -> Path:
    temporary = path.parent / f"{TEMPORARY}{secrets.token_hex(8)}"
    try:
        files.write(temporary, data)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    return temporary


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold an exclusive lock on a file, among all processes of this machine; it ends with the process."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


@contextmanager
def alone(path: Path) -> Iterator[bool]:
    """Hold such a lock if nobody else does; say whether it is held."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
        else:
            yield True
    finally:
        os.close(descriptor)
