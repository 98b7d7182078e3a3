"""A disk that fails, or ends the process, at one of its steps: before the step, in the middle of it, or behind it."""

from __future__ import annotations

import errno
import os

from evidence.disk import Disk
from evidence.log.keys import PrivateDisk

STEPS = ("make_directory", "write", "sync", "publish", "replace", "read", "entries", "remove")


class FailingDisk(PrivateDisk):
    """Counts the steps of a disk, and does something at one of them."""

    def __init__(self, at=0, act=lambda: None, *, private=False):
        self.at = at
        self.act = act
        self.private = private
        self.names = []

    def _step(self, name):
        self.names.append(name)
        if len(self.names) == self.at:
            self.act()

    def write(self, path, data):
        """A write is three steps: before it, when half of it is there, and the rest."""
        self._step("write")
        if len(self.names) + 1 == self.at:
            (PrivateDisk if self.private else Disk).write(self, path, data[: len(data) // 2])
        self._step("half written")
        (PrivateDisk if self.private else Disk).write(self, path, data)
        self._step("written")

    def make_directory(self, path):
        """Make it."""
        self._step("make_directory")
        (PrivateDisk if self.private else Disk).make_directory(self, path)

    def sync(self, path):
        """Make it durable."""
        self._step("sync")
        Disk.sync(self, path)

    def publish(self, temporary, path):
        """Give it its name; what fails behind that fails with the name given."""
        self._step("publish")
        Disk.publish(self, temporary, path)
        self._step("published")

    def replace(self, temporary, path):
        """Replace; the same."""
        self._step("replace")
        Disk.replace(self, temporary, path)
        self._step("replaced")

    def read(self, path):
        """Read."""
        self._step("read")
        return Disk.read(self, path)

    def entries(self, path):
        """List."""
        self._step("entries")
        return Disk.entries(self, path)

    def remove(self, path):
        """Remove."""
        self._step("remove")
        Disk.remove(self, path)
        self._step("removed")


def full():
    """Fail as a full disk does."""
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "x")


def die():
    """End the process, as kill -9 does: nothing is cleaned up."""
    os._exit(7)
