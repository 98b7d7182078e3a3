"""The seam between evidence and where its bytes lie: `Files`.

    implementation   where                            exclusive creation by
    LocalFiles       a folder (evidence/files/local)  a hard link, which never replaces a file
    S3Files          a bucket (evidence/files/s3)     a conditional put, `If-None-Match: *`

All that the store relies on is here: a file is whole or not there, whoever creates it second is told, and what was
written is durable when the call returns. `tests/evidence/test_files.py` holds every implementation to it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Final, Protocol

from evidence.errors import StoreError

OWN: Final = ("tmp", "locks")
"""Folders of the implementations' own, directly below the root: no path leads there, and no list shows them."""

_LONGEST: Final = 900  # S3 allows 1,024 bytes with the prefix
_LONGEST_NAME: Final = 255


class AlreadyThere(StoreError):  # noqa: N818 - named as the condition; for a commit it means that another writer was first
    """A file of that name is there already, and was made by somebody else."""


class NotThere(StoreError):  # noqa: N818 - named as the condition; some callers expect it
    """There is no file of that name."""


@dataclass(frozen=True, slots=True)
class Entry:
    """A file in a list."""

    path: str
    """Its path, relative to the store's root."""

    size: int
    """Its size in bytes."""

    modified: float
    """When it was written, in seconds since 1970, by the clock of where it lies; whole seconds in a bucket."""


class Held(Protocol):
    """A lock that is held."""

    def release(self) -> None:
        """Give the lock back; safe to call twice."""
        ...


class Files(Protocol):
    """Files below one root. Paths are relative and written with `/`. Every call blocks; all are safe in threads.

    Each call raises `UnavailableError` when the place does not answer or refuses. After that a write may have
    happened or not: only reading tells. A path that leaves the root, or a symbolic link on the way, is a `StoreError`.
    """

    def create(self, path: str, data: bytes | memoryview) -> None:
        """Write a file that is not there yet; it is durable when this returns, and never there in part.

        Raises:
            AlreadyThere: there is one that this call did not make, even if it holds the same.
        """
        ...

    def replace(self, path: str, data: bytes | memoryview) -> None:
        """Write a file in one step, over an old one or none; it is durable when this returns."""
        ...

    def replace_many(self, items: Iterable[tuple[str, bytes | memoryview]]) -> None:
        """Do `replace` for several files, cheaper than one by one; after a failure some may be the new ones."""
        ...

    def read(self, path: str) -> bytes:
        """Give a file's content.

        Raises:
            NotThere: there is none.
        """
        ...

    def reader(self, path: str) -> Any:
        """Open a file for `pyarrow.parquet`: seekable, read in parts, to be closed; its reads raise OSError.

        Raises:
            NotThere: there is none.
        """
        ...

    def list(self, prefix: str) -> Iterator[Entry]:
        """Give all files below a folder and the folders in it, by path.

        Args:
            prefix: the folder, with `/` at its end; "" is the root.
        """
        ...

    def folders(self, prefix: str) -> tuple[str, ...]:
        """Give the names of the folders directly in a folder, in order; a folder that no file is in may be missing."""
        ...

    def delete(self, path: str) -> None:
        """Remove a file; fine if it is gone. After a loss of power it may be back."""
        ...

    def lock(self, name: str, wait_s: float) -> Held:
        """Keep other writers away as far as the place can: it spares work, and safety never rests on it.

        Args:
            name: what is locked; a single name.
            wait_s: seconds to wait for another holder.

        Raises:
            PartitionHeld: another process still holds it after that time.
        """
        ...

    def url(self, path: str) -> str:
        """Give a name for people and for other programs: a path of this machine, or `s3://bucket/key`."""
        ...


def checked(path: str) -> str:
    """Give a file's path back if it stays below the root and lies outside the implementations' own folders.

    Raises:
        StoreError: it does not.
    """
    names = path.split("/")
    if (
        not path.isprintable()
        or "\\" in path
        or not path
        or len(path.encode()) > _LONGEST
        or names[0] in OWN
        or any(name in ("", ".", "..") or len(name.encode()) > _LONGEST_NAME for name in names)
    ):
        raise StoreError(f"{path[:200]!r} is no path of a file in an evidence store")
    return path


def checked_folder(prefix: str) -> str:
    """Give a folder's path back if it is "" or ends with `/` and stays below the root.

    Raises:
        StoreError: it does not.
    """
    if prefix:
        if not prefix.endswith("/"):
            raise StoreError(f"{prefix[:200]!r} is no folder in an evidence store: it does not end with /")
        checked(prefix[:-1])
    return prefix
