"""The master key's file: one key, and while it is rotated the one before it too.

A line is a key, 32 bytes in base64. The first line wraps, and what any of them wrapped can be read. So the file is
never between two states: it is replaced whole, first by the new key above the old one, in the end by the new one alone.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import os
import secrets
import stat
from collections.abc import Sequence
from contextlib import suppress
from functools import cached_property
from pathlib import Path
from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from evidence.errors import ConfigError
from policy.vault.files import Files

KEY_BYTES: Final = 32
NONCE_BYTES: Final = 12
_MOST: Final = 8
_READ: Final = 4096
_TRIES: Final = 20
"""Times that a file is read which is replaced all the time."""


class MasterKeys:
    """The keys of one file, the wrapping one first."""

    def __init__(self, keys: Sequence[bytes]) -> None:
        self.keys: Final = tuple(keys)
        self._ciphers = tuple(AESGCM(key) for key in self.keys)

    @cached_property
    def ids(self) -> tuple[str, ...]:
        """Names of the keys by which people and evidence tell them apart: hashes, 16 hex digits each."""
        return tuple(key_id(key) for key in self.keys)

    def wrap(self, plain: bytes, bound: bytes) -> str:
        """Encrypt a key under the first one; give base64."""
        nonce = secrets.token_bytes(NONCE_BYTES)
        return base64.b64encode(nonce + self._ciphers[0].encrypt(nonce, plain, bound)).decode()

    def unwrap(self, wrapped: str, bound: bytes) -> tuple[int, bytes] | None:
        """Decrypt a key; give which of the keys wrapped it, and the plain key. None where none of them did."""
        try:
            blob = base64.b64decode(wrapped, validate=True)
        except ValueError:
            return None
        for place, cipher in enumerate(self._ciphers):
            try:
                return place, cipher.decrypt(blob[:NONCE_BYTES], blob[NONCE_BYTES:], bound)
            except (InvalidTag, ValueError):
                continue
        return None

    def hashing(self) -> bytes:
        """Give the key that keyed hashes are derived from in a vault whose master key was never rotated.

        A key of its own for hashes, so that the master key does nothing but wrap. Of several keys the oldest counts,
        which is the last: whoever puts a new one above it changes no hash.
        """
        return hmac.digest(self.keys[-1], b"waybill vault hash keys 1", "sha256")


def key_id(key: bytes) -> str:
    """Give a key's name: a hash of it, 16 hex digits."""
    return hashlib.sha256(b"waybill vault master key\0" + key).hexdigest()[:16]


def text(keys: Sequence[bytes]) -> bytes:
    """Give a file's content."""
    return b"".join(base64.b64encode(key) + b"\n" for key in keys)


def read(path: Path) -> MasterKeys:
    """Read a file.

    Raises:
        ConfigError: it is missing, malformed, or readable by others than its owner.
        OSError: the disk does not let us.
    """
    for _ in range(_TRIES):
        content, current = _content(path)
        if current:
            break
    keys = [_key(line) for line in content.split()]
    if not keys or len(keys) > _MOST or any(len(key) != KEY_BYTES for key in keys):
        raise ConfigError(
            f"the master key {path} is not 32 bytes in base64 (a line for each key, at most {_MOST}): restore it from "
            "its backup"
        )
    if len(set(keys)) < len(keys):
        raise ConfigError(f"the master key {path} holds a key twice: a new key stands above the old one, once each")
    return MasterKeys(keys)


def swap(files: Files, path: Path, keys: Sequence[bytes]) -> None:
    """Replace a file's keys in one step, and destroy the bytes that were there.

    Killed at any moment, the file holds the old keys or the new ones, and the next call destroys what was left.

    Raises:
        OSError: the disk does not let us; the file holds the old keys or the new ones.
    """
    target = path.resolve()  # a symbolic link stays one
    clear(files, target)
    new, old = (target.parent / f".{target.name}.{what}-{secrets.token_hex(8)}" for what in ("new", "old"))
    try:
        files.publish(target, old)  # else its bytes could not be reached any more
        files.write(new, text(keys))
        files.replace(new, target)
    except OSError:
        with suppress(OSError):
            if not replaced(target):  # else a later call could not tell that there is something to destroy
                clear(files, target)
        raise
    clear(files, target)


def replaced(path: Path) -> bool:
    """Say whether there are bytes that `swap` has replaced and not destroyed yet."""
    target = path.resolve()
    return any(each.stat().st_nlink == 1 for each in target.parent.glob(f".{target.name}.old-*"))


def clear(files: Files, path: Path) -> None:
    """Destroy what `swap` has replaced, or a killed one has left.

    Raises:
        OSError: the disk does not let us; do it again.
    """
    target = path.resolve()
    left = sorted([*target.parent.glob(f".{target.name}.new-*"), *target.parent.glob(f".{target.name}.old-*")])
    if left:
        files.sync(target.parent)  # before that, a loss of power could bring back the name of what is destroyed here
    for each in left:
        if each.stat().st_nlink == 1:  # else these bytes are the file's own
            files.overwrite(each)
        files.remove(each)
    files.sync(target.parent)


def _content(path: Path) -> tuple[bytes, bool]:
    """Read a file, and say whether it is the current one: of one that was replaced, the bytes may be destroyed."""
    try:
        descriptor = os.open(path, os.O_RDONLY)
    except FileNotFoundError:
        raise ConfigError(
            f"there is no master key {path}: mount it, or make one with `head -c 32 /dev/urandom | base64 > FILE` and "
            "`chmod 600 FILE`"
        ) from None
    with os.fdopen(descriptor, "rb") as file:
        opened = os.fstat(descriptor)
        mode = stat.S_IMODE(opened.st_mode)
        if mode & 0o077:
            raise ConfigError(f"others may read the master key {path} (mode {mode:04o}): run `chmod 600 {path}`")
        content = file.read(_READ)
    return content, os.path.samestat(opened, path.stat())


def _key(line: bytes) -> bytes:
    try:
        return base64.b64decode(line, validate=True)
    except binascii.Error:
        return b""
