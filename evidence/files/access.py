"""Who may use a bucket, and how it is reached: what people set, checked before anything is sent."""

from __future__ import annotations

import configparser
import os
import re
import stat
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

from evidence.errors import ConfigError, StoreError
from evidence.files.seam import checked
from evidence.hosts import is_this_machine

if TYPE_CHECKING:
    from obstore.store import S3Credential

_BUCKET: Final = re.compile(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]")
_CREDENTIAL_S: Final = 300


class CredentialsFile:
    """Credentials from a section of an AWS credentials file, which may be written anew at any time."""

    def __init__(self, path: Path, profile: str) -> None:
        self._path = path
        self._profile = profile

    def __repr__(self) -> str:
        return f"CredentialsFile({str(self._path)!r}, {self._profile!r})"

    def __call__(self) -> S3Credential:
        """Read the credentials.

        Raises:
            ConfigError: the file cannot be read, others can read it, or the section is not complete.
        """
        parser = configparser.RawConfigParser()
        try:
            with self._path.open(encoding="utf-8") as file:
                mode = stat.S_IMODE(os.fstat(file.fileno()).st_mode)
                parser.read_file(file)
        except OSError as error:
            raise ConfigError(f"cannot read the credentials file {self._path}: {error.strerror}") from error
        except (configparser.Error, UnicodeDecodeError):
            raise ConfigError(f"{self._path} is no AWS credentials file") from None  # its lines are secrets
        if os.name == "posix" and mode & 0o077:
            raise ConfigError(
                f"{self._path}: others can read these credentials (mode {mode:04o}): run `chmod 600 {self._path}`"
            )
        said = dict(parser[self._profile]) if parser.has_section(self._profile) else {}
        if not said.get("aws_access_key_id") or not said.get("aws_secret_access_key"):
            raise ConfigError(
                f"{self._path}: the section [{self._profile}] must say aws_access_key_id and aws_secret_access_key"
            )
        return {
            "access_key_id": said["aws_access_key_id"],
            "secret_access_key": said["aws_secret_access_key"],
            "token": said.get("aws_session_token"),
            "expires_at": datetime.now(UTC) + timedelta(seconds=_CREDENTIAL_S),
        }


def checked_place(url: str) -> tuple[str, str]:
    """Give bucket and prefix of `s3://bucket/prefix`.

    Raises:
        ConfigError: it is no such URL.
    """
    parts = urlsplit(url)
    prefix = parts.path.strip("/")
    if parts.scheme != "s3":
        raise ConfigError(f"{parts.scheme}://…: evidence lies in a folder or at s3://BUCKET/PREFIX, and nowhere else")
    if "@" in parts.netloc or parts.query or parts.fragment:  # what is shown of it must hold no credential
        raise ConfigError(f"s3://{parts.hostname or ''}…: write s3://BUCKET/PREFIX, and nothing else in it")
    if not _BUCKET.fullmatch(parts.netloc) or ".." in parts.netloc:
        raise ConfigError(
            f"s3://{parts.netloc[:80]}…: {parts.netloc[:80]!r} is no bucket's name; that is 3 to 63 lower-case "
            "letters, digits, hyphens and dots, with a letter or a digit at both ends and no two dots in a row"
        )
    if prefix:
        try:
            checked(prefix)
        except StoreError:
            raise ConfigError(
                f"s3://{parts.netloc}/…: the prefix {prefix[:80]!r} cannot be used: write names with single slashes "
                "between them, and neither `.` nor `..`"
            ) from None
    return parts.netloc, prefix


def checked_endpoint(endpoint: str, *, allow_plaintext: bool) -> str:
    """Give a server's URL back if it may be spoken to: with TLS, on this machine, or because that is allowed.

    Raises:
        ConfigError: it is no URL, holds a credential, or would not be encrypted.
    """
    parts = urlsplit(endpoint)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ConfigError("the endpoint of the evidence bucket is no URL: write https://HOST:PORT")
    if parts.username is not None or parts.password is not None or parts.query or parts.fragment:
        raise ConfigError(f"the endpoint {parts.hostname} has more in it than https://HOST:PORT: leave it out")
    if parts.scheme == "http" and not allow_plaintext and not is_this_machine(parts.hostname):
        raise ConfigError(
            f"the endpoint {parts.hostname} would be spoken to without encryption: use https://, or allow it"
        )
    return endpoint
