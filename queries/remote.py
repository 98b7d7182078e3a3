"""Live files of a bucket as DuckDB reads them: in parts, through the evidence's own connection, and no other file.

DuckDB's own S3 extension would have to be downloaded at run time. It takes a Python file system as well; this one
serves the paths that are live, for reading only.
"""

from __future__ import annotations

import datetime as dt
import io
import threading
import time
from collections import OrderedDict
from collections.abc import Mapping
from typing import Any, Final

import fsspec

from evidence.files.seam import Files, NotThere
from evidence.store.upkeep import GRACE_S

SCHEME: Final = "waybill"
"""What the paths begin with, `://` behind it."""

_READERS: Final = 512
"""Files that are kept open; each holds at most its last 256 KiB in memory."""

_SAME_ALWAYS: Final = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)


class LiveFileSystem(fsspec.AbstractFileSystem):  # type: ignore[misc] # the library has no types
    """Serves live files of a store to DuckDB; everything else is not there."""

    protocol = SCHEME
    cachable = False

    def __init__(self, files: Files) -> None:
        super().__init__()
        self._files = files
        self._live: Mapping[str, int] = {}
        self._before: dict[str, tuple[int, float]] = {}  # with the monotonic time at which it was live no longer
        self._lock = threading.Lock()
        self._readers: OrderedDict[str, Any] = OrderedDict()

    def serve(self, sizes: Mapping[str, int]) -> None:
        """Say which files there are, with their sizes in bytes.

        A question under way still finds those of before, for as long as they lie there.
        """
        now = time.monotonic()
        with self._lock:
            if sizes == self._live:
                return
            gone = {path: (size, now) for path, size in self._live.items() if path not in sizes}
            before = self._before | gone
            self._before = {path: (size, at) for path, (size, at) in before.items() if now - at < GRACE_S}
            self._live = dict(sizes)
            for path in self._readers.keys() - self._live.keys() - self._before.keys():
                del self._readers[path]

    @classmethod
    def _strip_protocol(cls, path: str) -> str:
        return path.removeprefix(f"{SCHEME}://")

    def _size(self, path: str) -> int:
        path = self._strip_protocol(path)
        with self._lock:
            size = self._live.get(path)
            if size is None and path in self._before:
                size = self._before[path][0]
        if size is None:
            raise FileNotFoundError(path)
        return size

    def glob(self, path: str, **_: Any) -> list[str]:
        """Give a live file's path back; a pattern matches nothing."""
        return [self._strip_protocol(path)] if self.exists(path) else []

    def info(self, path: str, **_: Any) -> dict[str, Any]:
        """Give a live file's size."""
        return {"name": self._strip_protocol(path), "size": self._size(path), "type": "file"}

    def exists(self, path: str, **_: Any) -> bool:
        """Tell whether a file is live."""
        try:
            self._size(path)
        except FileNotFoundError:
            return False
        return True

    def isfile(self, path: str) -> bool:
        """Tell whether a file is live."""
        return self.exists(path)

    def modified(self, path: str) -> dt.datetime:
        """Give one moment for all: a file of evidence never changes, so what DuckDB remembers of it stays true."""
        self._size(path)
        return _SAME_ALWAYS

    def open(self, path: str, mode: str = "rb", **_: Any) -> _File:
        """Open a live file for reading.

        Raises:
            FileNotFoundError: it is not live, or is to be written.
        """
        if mode != "rb":
            raise FileNotFoundError(path)
        return _File(self, self._strip_protocol(path), self._size(path))

    def reader(self, path: str) -> Any:
        """Give a file's reader; DuckDB opens a file several times for a question, and each opening is a request.

        Raises:
            FileNotFoundError: it is gone.
        """
        with self._lock:
            if (reader := self._readers.get(path)) is not None:
                self._readers.move_to_end(path)
                return reader
        try:
            reader = self._files.reader(path)
        except NotThere:
            raise FileNotFoundError(path) from None
        with self._lock:
            self._readers[path] = reader
            while len(self._readers) > _READERS:
                self._readers.popitem(last=False)
        return reader


class _File(io.RawIOBase):
    """A file that several threads read at the same time: DuckDB seeks and reads, and each thread has its own place.

    Nothing is asked for before the first read: what DuckDB has in mind of a file is often all that it needs.
    """

    def __init__(self, system: LiveFileSystem, path: str, size: int) -> None:
        self._system = system
        self._path = path
        self._bytes = size
        self._here = threading.local()

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return getattr(self._here, "place", 0)

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self.tell(), io.SEEK_END: self._bytes}[whence]
        self._here.place = base + offset
        return base + offset

    def read(self, size: int = -1) -> bytes:
        place = self.tell()
        left = max(0, self._bytes - place)
        data: bytes = self._system.reader(self._path).read_at(left if size < 0 else min(size, left), place)
        self._here.place = place + len(data)
        return data

    def readinto(self, buffer: Any) -> int:
        data = self.read(len(buffer))
        buffer[: len(data)] = data
        return len(data)
