"""From what people write to `Files`: a folder's path, or `s3://bucket/prefix`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from evidence.errors import ConfigError
from evidence.files.local import LocalFiles
from evidence.files.seam import Files


@dataclass(frozen=True, slots=True)
class BucketAccess:
    """How buckets are reached; see `S3Files` for what each says."""

    endpoint: str | None = None
    """URL of an S3-compatible server."""

    region: str | None = None
    """The bucket's region."""

    credentials_file: Path | None = None
    """An AWS credentials file; None takes what AWS's own programs take."""

    profile: str = "default"
    """Section of that file."""

    allow_plaintext: bool = False
    """Whether an endpoint off this machine may be spoken to without TLS."""


def open_files(place: str | Path, access: BucketAccess = BucketAccess()) -> Files:
    """Give the files at a place; nothing is read or written yet.

    Args:
        place: a folder's path, or `s3://bucket/prefix`.
        access: how buckets are reached.

    Raises:
        ConfigError: the place or the access is wrong.
    """
    if isinstance(place, Path) or "://" not in place:
        if str(place).startswith("s3:"):
            raise ConfigError(f"{place}: a bucket is written s3://BUCKET/PREFIX, with two slashes")
        return LocalFiles(Path(place))
    if place.startswith("file://"):
        raise ConfigError(f"{place}: write a folder's path as it is, or s3://BUCKET/PREFIX")
    from evidence.files.s3 import S3Files  # noqa: PLC0415 - its library takes a while to load, and few need it

    return S3Files(
        place,
        endpoint=access.endpoint,
        region=access.region,
        credentials_file=access.credentials_file,
        profile=access.profile,
        allow_plaintext=access.allow_plaintext,
    )
