"""A store in a bucket, as the checker reads one: it knows nothing of buckets, and is handed these few calls."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO, cast

from evidence.errors import WaybillError
from evidence.files.places import BucketAccess, open_files
from evidence.files.seam import Files, NotThere


class BucketPlace:
    """A bucket's files for `evidence.verify`; goes to its workers, which open the bucket anew."""

    def __init__(self, url: str, access: BucketAccess) -> None:
        """Name the bucket; nothing is read yet.

        Args:
            url: `s3://BUCKET/PREFIX`.
            access: how it is reached.
        """
        self._url = url
        self._access = access
        self._opened: Files | None = None

    def __str__(self) -> str:
        return self._url

    def __reduce__(self) -> tuple[type[BucketPlace], tuple[str, BucketAccess]]:
        return BucketPlace, (self._url, self._access)

    def list(self, prefix: str) -> Iterator[tuple[str, int]]:
        """Give path and size of all files below a folder.

        Raises:
            OSError: the bucket cannot be read.
        """
        with _told():
            for entry in self._files().list(prefix):
                yield entry.path, entry.size

    def open(self, path: str) -> IO[bytes]:
        """Open a file that is read in parts.

        Raises:
            FileNotFoundError: there is none.
            OSError: the bucket cannot be read.
        """
        with _told():
            return cast("IO[bytes]", self._files().reader(path))

    def _files(self) -> Files:
        self._opened = self._opened or open_files(self._url, self._access)
        return self._opened


@contextmanager
def _told() -> Iterator[None]:
    try:
        yield
    except NotThere as error:
        raise FileNotFoundError(str(error)) from None
    except WaybillError as error:
        raise OSError(str(error)) from None
