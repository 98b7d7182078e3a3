"""Where the store's bytes come from: one small class, so that another kind of place needs only these calls."""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Final

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


class LocalStore:
    """A store in a folder. Links are never followed."""

    def __init__(self, root: str) -> None:
        """Name the folder; nothing is read yet."""
        self.root = os.path.realpath(root)

    def __str__(self) -> str:
        return self.root

    def exists(self) -> bool:
        """Tell whether there is such a folder at all."""
        return Path(self.root).is_dir()

    def list(self, prefix: str) -> Iterator[Entry]:
        """Give all that lies below a folder (`""`, or a path that ends in `/`), in no order.

        Raises:
            ReadError: a folder cannot be read.
        """
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

    def read(self, path: str) -> bytes:
        """Give a file's bytes.

        Raises:
            MissingError: there is none.
            ReadError: it cannot be read, is no plain file, or is too large.
        """
        with self._open(path) as file:
            try:
                data = file.read(MOST_AT_ONCE + 1)
            except OSError as error:
                raise ReadError(_reason(error)) from error
        if len(data) > MOST_AT_ONCE:
            raise ReadError(f"larger than {MOST_AT_ONCE} bytes")
        return data

    def digest(self, path: str) -> tuple[int, str]:
        """Give a file's size and SHA-256.

        Raises:
            MissingError: there is none.
            ReadError: it cannot be read.
        """
        with self._open(path) as file:
            return _digest(file)

    def open_parquet(self, path: str) -> Parquet:
        """Open a Parquet file and hash its bytes; its content is looked at later.

        Raises:
            MissingError: there is none.
            ReadError: it cannot be read.
        """
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
        try:
            if os.path.realpath(full) != full:
                raise ReadError("a link, or a path that goes through one, where a file should be")
            if not stat.S_ISREG(os.lstat(full).st_mode):
                raise ReadError("no plain file")
            return open(os.open(full, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC), "rb")  # noqa: PTH123 - the caller closes it
        except (FileNotFoundError, NotADirectoryError) as error:
            raise MissingError("missing") from error
        except (OSError, ValueError) as error:
            raise ReadError(_reason(error)) from error


@dataclass(slots=True)
class Parquet:
    """A Parquet file that is open."""

    file: pa.NativeFile | BinaryIO
    """What pyarrow reads."""

    size: int
    """Its bytes."""

    sha256: str
    """Its SHA-256."""

    def close(self) -> None:
        """Let the file go."""
        self.file.close()

    def read(self) -> pq.ParquetFile:
        """Read the footer, with bounds on what it may make us allocate.

        Raises:
            pa.ArrowException, OSError, ValueError: it is broken.
        """
        file = pq.ParquetFile(self.file, **_BOUNDS)
        if file.metadata.num_rows < _MANY_ROWS:
            return file
        # Text that the file keeps as a dictionary is cheaper to read, and to join, as one.
        words = [name for name in _dictionaries(file.metadata) if ".list." not in name]
        return pq.ParquetFile(self.file, metadata=file.metadata, read_dictionary=words, **_BOUNDS)


def _dictionaries(meta: pq.FileMetaData) -> Iterator[str]:
    group = meta.row_group(0)
    for number in range(group.num_columns):
        column = group.column(number)
        if column.physical_type == "BYTE_ARRAY" and column.has_dictionary_page:
            yield column.path_in_schema


def _digest(file: BinaryIO) -> tuple[int, str]:
    sha, size = hashlib.sha256(), 0
    try:
        while chunk := file.read(_CHUNK):
            sha.update(chunk)
            size += len(chunk)
    except OSError as error:
        raise ReadError(_reason(error)) from error
    return size, sha.hexdigest()


def _reason(error: Exception) -> str:
    return (error.strerror or type(error).__name__) if isinstance(error, OSError) else str(error)
