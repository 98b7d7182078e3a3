"""Where the store's bytes come from: a folder, or any other place that whoever calls the checker knows how to read.

What such a place gives is not believed: it is hashed and compared like the files of a folder.
"""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, BinaryIO, Final, Protocol

import pyarrow as pa
import pyarrow.parquet as pq

MOST_AT_ONCE: Final = 256 * 1024 * 1024
"""Files other than Parquet that are larger are refused."""

_CHUNK: Final = 1024 * 1024
_IN_MEMORY: Final = 64 * 1024 * 1024
_BOUNDS: Final = {
    "thrift_string_size_limit": 64 * 1024 * 1024,
    "thrift_container_size_limit": 1_000_000,
    "page_checksum_verification": True,
}
_MANY_ROWS: Final = 4096
_SIDE_BY_SIDE: Final = 8
_MOST_AHEAD: Final = 64 * 1024  # a tile has 8 KiB; what is larger is not read before it is needed


class ReadError(Exception):
    """A file cannot be read; the text says why."""


class MissingError(ReadError):
    """There is no such file."""


@dataclass(frozen=True, slots=True)
class Entry:
    """Something that lies in the store."""

    path: str
    """Where, relative to the store."""

    size: int
    """Bytes."""

    odd: str | None = None
    """What it is, if it is no plain file."""


class Store(Protocol):
    """What the checker asks of a store. It goes to other processes with each piece of work."""

    def exists(self) -> bool:
        """Tell whether there is such a place at all."""
        ...

    def list(self, prefix: str) -> Iterator[Entry]:
        """Give all that lies below a folder (`""`, or a path that ends in `/`), in no order.

        Raises:
            ReadError: a folder cannot be read.
        """
        ...

    def ahead(self, paths: Sequence[str]) -> None:
        """Hear which files will be read soon, in this order; those of before are not wanted any more."""
        ...

    def read(self, path: str) -> bytes:
        """Give a file's bytes.

        Raises:
            MissingError: there is none.
            ReadError: it cannot be read, is no plain file, or is too large.
        """
        ...

    def digest(self, path: str) -> tuple[int, str]:
        """Give a file's size and SHA-256.

        Raises:
            MissingError: there is none.
            ReadError: it cannot be read.
        """
        ...

    def open_parquet(self, path: str) -> Parquet:
        """Open a Parquet file and hash its bytes; its content is looked at later.

        Raises:
            MissingError: there is none.
            ReadError: it cannot be read.
        """
        ...


class Place(Protocol):
    """What the caller of the checker brings for a store that is no folder. It must be possible to pickle it.

    Each call raises FileNotFoundError where there is no such file, and any other OSError where it cannot be read.
    """

    def __str__(self) -> str:
        """Give its name, for the report."""
        ...

    def list(self, prefix: str) -> Iterable[tuple[str, int]]:
        """Give path and size of all files below a folder (`""`, or a path that ends in `/`)."""
        ...

    def open(self, path: str) -> IO[bytes]:
        """Open a file that can be read in parts, seekable; safe in threads."""
        ...


class LocalStore:
    """A store in a folder. Links are never followed."""

    def __init__(self, root: str) -> None:
        """Name the folder; nothing is read yet."""
        self.root = os.path.realpath(root)
        self._plain = ""  # the last folder that was found to have no link on the way to it

    def __str__(self) -> str:
        return self.root

    def exists(self) -> bool:
        """Tell whether there is such a folder at all."""
        return Path(self.root).is_dir()

    def list(self, prefix: str) -> Iterator[Entry]:
        """Give all that lies below a folder; see `Store.list`."""
        folders = [prefix]
        while folders:
            folder = folders.pop()
            try:
                with os.scandir(Path(self.root, folder)) as found:
                    entries = list(found)
            except FileNotFoundError:
                continue
            except (OSError, ValueError) as error:
                raise ReadError(f"{folder or self.root}: {_reason(error)}") from error
            for entry in entries:
                path = folder + entry.name
                try:
                    if entry.is_symlink():
                        yield Entry(path, 0, "a link")
                    elif entry.is_dir(follow_symlinks=False):
                        folders.append(f"{path}/")
                    elif entry.is_file(follow_symlinks=False):
                        yield Entry(path, entry.stat(follow_symlinks=False).st_size)
                    else:
                        yield Entry(path, 0, "no plain file")
                except FileNotFoundError:
                    continue  # gone since the folder was read
                except OSError as error:
                    yield Entry(path, 0, _reason(error))

    def ahead(self, paths: Sequence[str]) -> None:
        """Do nothing: the machine reads a folder soon enough."""

    def read(self, path: str) -> bytes:
        """Give a file's bytes; see `Store.read`."""
        with self._open(path) as file:
            try:
                size = os.fstat(file.fileno()).st_size
                # No more is asked for than there should be: as much memory is taken as is asked for.
                data = file.read(min(size, MOST_AT_ONCE) + 1)
            except OSError as error:
                raise ReadError(_reason(error)) from error
        if len(data) > MOST_AT_ONCE:
            raise ReadError(f"larger than {MOST_AT_ONCE} bytes")
        if len(data) > size:
            raise ReadError("grows while it is read")
        return data

    def digest(self, path: str) -> tuple[int, str]:
        """Give a file's size and SHA-256; see `Store.digest`."""
        with self._open(path) as file:
            return _digest(file)

    def open_parquet(self, path: str) -> Parquet:
        """Open a Parquet file and hash its bytes; see `Store.open_parquet`."""
        file = self._open(path)
        try:
            size = os.fstat(file.fileno()).st_size
            if size <= _IN_MEMORY:
                with file:
                    data = file.read(_IN_MEMORY + 1)
                return Parquet(pa.BufferReader(data), len(data), hashlib.sha256(data).hexdigest())
            size, sha256 = _digest(file)
            file.seek(0)
            return Parquet(file, size, sha256)
        except OSError as error:
            file.close()
            raise ReadError(_reason(error)) from error

    def _open(self, path: str) -> BinaryIO:
        full = os.path.join(self.root, path)  # noqa: PTH118 - names that are not UTF-8 or hold NUL are judged below
        folder, _, name = full.rpartition("/")
        try:
            if folder != self._plain and os.path.realpath(folder) == folder:
                self._plain = folder
            kind = os.lstat(full).st_mode
            if folder != self._plain or name in {"", ".", ".."} or stat.S_ISLNK(kind):
                raise ReadError("a link, or a path that goes through one, where a file should be")
            if not stat.S_ISREG(kind):
                raise ReadError("no plain file")
            return open(os.open(full, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC), "rb")  # noqa: PTH123 - the caller closes it
        except (FileNotFoundError, NotADirectoryError) as error:
            raise MissingError("missing") from error
        except (OSError, ValueError) as error:
            raise ReadError(_reason(error)) from error


class PlaceStore:
    """A store in a place that the caller knows how to read; nothing of it is kept on this machine."""

    def __init__(self, place: Place) -> None:
        """Name the place; nothing is read yet."""
        self.place = place
        self._pool: ThreadPoolExecutor | None = None
        self._coming: dict[str, Future[bytes | None]] = {}

    def __reduce__(self) -> tuple[Any, ...]:
        return PlaceStore, (self.place,)

    def __str__(self) -> str:
        return str(self.place)

    def exists(self) -> bool:
        """Believe it: a place without files has no folders either, and is found to be empty."""
        return True

    def list(self, prefix: str) -> Iterator[Entry]:
        """Give all that lies below a folder; see `Store.list`."""
        try:
            for path, size in self.place.list(prefix):
                yield Entry(path, size)
        except OSError as error:
            raise ReadError(_reason(error)) from error

    def ahead(self, paths: Sequence[str]) -> None:
        """Read several files side by side: each may take as long to answer as it takes to send a hundred."""
        for left in self._coming.values():
            left.cancel()
        self._pool = self._pool or ThreadPoolExecutor(_SIDE_BY_SIDE, "evidence-ahead")
        self._coming = {path: self._pool.submit(self._whole, path, _MOST_AHEAD) for path in paths}

    def read(self, path: str) -> bytes:
        """Give a file's bytes; see `Store.read`."""
        coming = self._coming.pop(path, None)
        try:
            data = None if coming is None else coming.result()
            data = self._whole(path, MOST_AT_ONCE) if data is None else data
        except OSError as error:
            raise _unreadable(error) from error
        if data is None:
            raise ReadError(f"larger than {MOST_AT_ONCE} bytes")
        return data

    def digest(self, path: str) -> tuple[int, str]:
        """Give a file's size and SHA-256; see `Store.digest`."""
        try:
            with closing(self.place.open(path)) as file:
                return _digest(file)
        except OSError as error:
            raise _unreadable(error) from error

    def open_parquet(self, path: str) -> Parquet:
        """Open a Parquet file and hash its bytes; see `Store.open_parquet`."""
        try:
            file = self.place.open(path)
        except OSError as error:
            raise _unreadable(error) from error
        try:
            data = file.read(_IN_MEMORY + 1)
            if len(data) <= _IN_MEMORY:
                file.close()
                return Parquet(pa.BufferReader(data), len(data), hashlib.sha256(data).hexdigest())
            file.seek(0)
            size, sha256 = _digest(file)
            file.seek(0)
        except (OSError, ReadError) as error:
            file.close()
            raise _unreadable(error) from error
        return Parquet(file, size, sha256, in_parts=True)

    def _whole(self, path: str, most: int) -> bytes | None:
        """Give a file's bytes; None where it says that it has more than are wanted."""
        with closing(self.place.open(path)) as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(0)
            return file.read(size) if size <= most else None


@dataclass(slots=True)
class Parquet:
    """A Parquet file that is open."""

    file: pa.NativeFile | IO[bytes]
    """What pyarrow reads."""

    size: int
    """Its bytes."""

    sha256: str
    """Its SHA-256."""

    in_parts: bool = False
    """Whether parts that lie together are asked for together, because each question takes long."""

    def close(self) -> None:
        """Let the file go."""
        self.file.close()

    def read(self) -> pq.ParquetFile:
        """Read the footer, with bounds on what it may make us allocate.

        Raises:
            pa.ArrowException, OSError, ValueError: it is broken.
        """
        bounds = {**_BOUNDS, "pre_buffer": self.in_parts}
        file = pq.ParquetFile(self.file, **bounds)
        if file.metadata.num_rows < _MANY_ROWS:
            return file
        # Text that the file keeps as a dictionary is cheaper to read, and to join, as one.
        words = [name for name in _dictionaries(file.metadata) if ".list." not in name]
        return pq.ParquetFile(self.file, metadata=file.metadata, read_dictionary=words, **bounds)


def _dictionaries(meta: pq.FileMetaData) -> Iterator[str]:
    group = meta.row_group(0)
    for number in range(group.num_columns):
        column = group.column(number)
        if column.physical_type == "BYTE_ARRAY" and column.has_dictionary_page:
            yield column.path_in_schema


def _digest(file: IO[bytes]) -> tuple[int, str]:
    sha, size = hashlib.sha256(), 0
    try:
        while chunk := file.read(_CHUNK):
            sha.update(chunk)
            size += len(chunk)
    except OSError as error:
        raise ReadError(_reason(error)) from error
    return size, sha.hexdigest()


def _unreadable(error: Exception) -> ReadError:
    if isinstance(error, FileNotFoundError):
        return MissingError("missing")
    return error if isinstance(error, ReadError) else ReadError(_reason(error))


def _reason(error: Exception) -> str:
    if isinstance(error, OSError):
        return error.strerror or str(error) or type(error).__name__
    return str(error)
