"""Evidence in a bucket: a file is created by a conditional put, `If-None-Match: *`.

The answer to a put can be lost after the put has happened, and a repeated put then hears that the file is there. So
each creation carries a mark of its own in the object's metadata, and whoever hears "already there" looks whose it is.
A server that ignores the condition would let two writers overwrite each other: it is found out before the first file.

Works with Amazon S3 and with servers that speak its protocol, conditional puts included (`conditional` below).
"""

from __future__ import annotations

import io
import os
import re
import secrets
import threading
import time
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any, Final

import pyarrow as pa
from obstore.exceptions import AlreadyExistsError, BaseError
from obstore.store import S3Store

from evidence.errors import ConfigError, UnavailableError
from evidence.files.access import CredentialsFile, checked_endpoint, checked_place
from evidence.files.seam import OWN, AlreadyThere, Entry, NotThere, checked, checked_folder

_MARK: Final = "waybill-write"
_PROBE: Final = "tmp/conditional-put"
_CODE: Final = re.compile(r"<Code>([A-Za-z0-9]{1,64})</Code>")
_STATUS: Final = re.compile(r"status code: (\d{3})")
_ATTEMPTS: Final = 4
_SIDE_BY_SIDE: Final = 8
_TAIL: Final = 256 * 1024
"""Bytes at a file's end that are read when it is opened: the whole of most files, and the footer of all."""


class S3Files:
    """Files below a prefix of a bucket; see `evidence.files.seam.Files`."""

    def __init__(
        self,
        url: str,
        *,
        endpoint: str | None = None,
        region: str | None = None,
        credentials_file: Path | None = None,
        profile: str = "default",
        allow_plaintext: bool = False,
        timeout_s: float = 30.0,
        retry_s: float = 60.0,
    ) -> None:
        """Name the place; nothing is read or written yet.

        Args:
            url: `s3://bucket/prefix`.
            endpoint: URL of an S3-compatible server; None takes AWS_ENDPOINT_URL_S3, AWS_ENDPOINT_URL, or Amazon's.
            region: the bucket's region; None takes AWS_REGION, or us-east-1.
            credentials_file: an AWS credentials file, read again every five minutes. None takes what AWS's own
                programs take: the variables AWS_*, a web identity, the container's or the machine's role.
            profile: section of that file.
            allow_plaintext: whether an endpoint off this machine may be spoken to without TLS.
            timeout_s: seconds that one request may take.
            retry_s: seconds until a call that fails again and again is given up.

        Raises:
            ConfigError: the URL, the endpoint or the credentials file is wrong.
        """
        self._bucket, self._prefix = checked_place(url)
        endpoint = endpoint or os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL")
        config: dict[str, Any] = {"conditional_put": "etag", "disable_bulk_delete": True}
        if endpoint:
            config["aws_endpoint_url_s3"] = checked_endpoint(endpoint, allow_plaintext=allow_plaintext)
        if region:
            config["region"] = region
        provider = None
        if credentials_file is not None:
            provider = CredentialsFile(credentials_file, profile)
            provider()
        self._store = S3Store(
            self._bucket,
            prefix=self._prefix or None,
            client_options={
                "allow_http": bool(endpoint and endpoint.startswith("http://")),
                "timeout": timedelta(seconds=timeout_s),
                "connect_timeout": timedelta(seconds=min(5.0, timeout_s)),
            },
            retry_config={"max_retries": 8, "retry_timeout": timedelta(seconds=retry_s)},
            credential_provider=provider,
            config=config,  # type: ignore[arg-type] # a plain dict, whose keys are the typed one's
        )
        self._retry_s = retry_s
        self._pool = ThreadPoolExecutor(_SIDE_BY_SIDE, "evidence-s3")  # a thread begins with the first need of it
        self._probing = threading.Lock()
        self._conditional = False

    def __repr__(self) -> str:
        return f"S3Files({self.url('')!r})"

    def create(self, path: str, data: bytes | memoryview) -> None:
        """Write a file that is not there yet; see `Files.create`.

        Raises:
            ConfigError: the server ignores the condition of a conditional put.
        """
        checked(path)
        self._probe()
        if not self._created(path, data):
            raise AlreadyThere(f"{self.url(path)} is there already")

    def replace(self, path: str, data: bytes | memoryview) -> None:
        """Write a file over an old one or none; see `Files.replace`."""
        with self._told(checked(path)):
            self._store.put(path, _octets(data), mode="overwrite", use_multipart=False)

    def replace_many(self, items: Iterable[tuple[str, bytes | memoryview]]) -> None:
        """Replace several files side by side; see `Files.replace_many`."""
        waiting = [self._pool.submit(self.replace, path, data) for path, data in items]
        wait(waiting)  # all of them, so that nothing is under way any more when this fails
        for done in waiting:
            done.result()

    def read(self, path: str) -> bytes:
        """Give a file's content; see `Files.read`."""
        with self._told(checked(path)):
            return bytes(self._store.get(path).bytes())

    def reader(self, path: str) -> pa.NativeFile:
        """Open a file for pyarrow, which then asks for the parts that it needs; see `Files.reader`."""
        with self._told(checked(path)):
            return pa.PythonFile(_Parts(self._store, path, self.url(path)), mode="r")

    def list(self, prefix: str) -> Iterator[Entry]:
        """Give the files below a folder, by path; see `Files.list`."""
        folder = checked_folder(prefix).rstrip("/")
        with self._told(prefix):
            found = [
                Entry(item["path"], item["size"], item["last_modified"].timestamp())
                for batch in self._store.list(folder or None)
                for item in batch
                if item["path"].split("/", maxsplit=1)[0] not in OWN
            ]
        return iter(sorted(found, key=lambda entry: entry.path))

    def folders(self, prefix: str) -> tuple[str, ...]:
        """Give the names of the folders in a folder; see `Files.folders`."""
        folder = checked_folder(prefix).rstrip("/")
        with self._told(prefix):
            paths = self._store.list_with_delimiter(folder or None)["common_prefixes"]
        names = sorted(path.rstrip("/").rsplit("/", maxsplit=1)[-1] for path in paths)
        return tuple(name for name in names if prefix or name not in OWN)

    def delete(self, path: str) -> None:
        """Remove a file; see `Files.delete`."""
        try:
            with self._told(checked(path)):
                self._store.delete(path)
        except NotThere:
            pass

    def lock(self, name: str, wait_s: float) -> NotHeld:
        """Do nothing: a bucket has no locks that end with their holder. Writers exclude each other by commits."""
        del wait_s
        checked(name)
        return NotHeld()

    def url(self, path: str) -> str:
        """Give `s3://bucket/key`; "" is the root."""
        return "s3://" + "/".join(part for part in (self._bucket, self._prefix, path) if part)

    def _created(self, path: str, data: bytes | memoryview) -> bool:
        """Create a file, through lost answers; False if another's is there."""
        mark = secrets.token_hex(8)
        deadline = time.monotonic() + self._retry_s
        for attempt in range(1, _ATTEMPTS + 1):
            last = attempt == _ATTEMPTS or time.monotonic() >= deadline
            try:
                self._store.put(path, _octets(data), mode="create", attributes={_MARK: mark}, use_multipart=False)
            except AlreadyExistsError:
                ours = self._ours(path, mark, data)
                if ours is not None:
                    return ours
                # The server saw a second put at the same time, and neither has succeeded: it asks for another try.
                if last:
                    raise UnavailableError(f"{self.url(path)}: the server cannot decide who creates it") from None
            except (BaseError, OSError) as error:
                if last or not _may_pass(error):
                    raise self._unavailable(path, error) from None
            else:
                return True
            time.sleep(0.05 * 2**attempt)
        raise AssertionError("unreachable")

    def _ours(self, path: str, mark: str, data: bytes | memoryview) -> bool | None:
        """Tell whether the file that is there was made by this call; None if there is none."""
        try:
            with self._told(path):
                found = self._store.get(path, options={"head": True})
                there = {str(name).lower(): value for name, value in found.attributes.items()}
                if _MARK in there:
                    return there[_MARK] == mark
                # A server that keeps no metadata, or a file that somebody copied here.
                return bytes(self._store.get(path).bytes()) == bytes(data)
        except NotThere:
            return None

    def _probe(self) -> None:
        """See once that the server keeps the condition of a conditional put."""
        if self._conditional:
            return
        with self._probing:
            if not self._conditional and self._created(_PROBE, b"first") and self._created(_PROBE, b"second"):
                raise ConfigError(
                    f"{self.url('')}: the server ignores `If-None-Match` when it writes, so two writers could "
                    "overwrite each other's evidence; use a server or a version that has conditional writes"
                )
            self._conditional = True

    def _unavailable(self, path: str, error: Exception) -> UnavailableError:
        # The library's own text holds the server's answer, in which some servers repeat the access key.
        return UnavailableError(f"{self.url(path)}: {_told(error)}")

    @contextmanager
    def _told(self, path: str) -> Iterator[None]:
        try:
            yield
        except FileNotFoundError as error:
            if _said(_CODE, error) == "NoSuchBucket":
                raise UnavailableError(f"{self.url(path)}: there is no bucket {self._bucket}") from None
            raise NotThere(f"{self.url(path)} is not there") from None
        except (BaseError, OSError) as error:
            raise self._unavailable(path, error) from None


class NotHeld:
    """What stands for a lock where there are none."""

    def release(self) -> None:
        """Do nothing."""


class _Parts(io.RawIOBase):
    """A file in a bucket, read in parts; its end is read when it is opened."""

    def __init__(self, store: S3Store, path: str, url: str) -> None:
        found = store.get(path, options={"range": {"suffix": _TAIL}})
        self._store, self._path, self._url = store, path, url
        self._tail = bytes(found.bytes())
        self._size: int = found.meta["size"]
        self._place = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._place

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._place, io.SEEK_END: self._size}[whence]
        self._place = max(0, base + offset)
        return self._place

    def read(self, size: int = -1) -> bytes:
        end = self._size if size < 0 else min(self._size, self._place + size)
        if end <= self._place:
            return b""
        begin = self._size - len(self._tail)
        if self._place >= begin:
            data = self._tail[self._place - begin : end - begin]
        else:
            try:
                data = bytes(self._store.get_range(self._path, start=self._place, end=end))
            except (BaseError, OSError) as error:
                raise OSError(f"{self._url}: {_told(error)}") from None
        self._place += len(data)
        return data

    def readinto(self, buffer: Any) -> int:
        data = self.read(len(buffer))
        buffer[: len(data)] = data
        return len(data)


def _octets(data: bytes | memoryview) -> memoryview:
    return memoryview(data).cast("B")  # pyarrow's buffers count in signed bytes, which the library does not take


def _said(pattern: re.Pattern[str], error: Exception) -> str | None:
    match = pattern.search(str(error))
    return match[1] if match else None


def _told(error: Exception) -> str:
    """Say what went wrong in words that hold nothing of the request or the answer but the server's own short code."""
    code, status = _said(_CODE, error), _said(_STATUS, error)
    if code or status:
        what = f"the server answers {' '.join(part for part in (status, code) if part)}"
    elif "timed out" in str(error).lower() or "timeout" in str(error).lower().replace("retry_timeout", ""):
        what = "the server does not answer in time"
    else:
        what = "the server cannot be reached, or there are no credentials"
    if status in ("401", "403"):
        what += ": check the credentials and what they allow"
    return what


def _may_pass(error: Exception) -> bool:
    """Tell whether the same put may succeed when it is repeated."""
    status = _said(_STATUS, error)
    return status is None or status.startswith("5")
