"""The vault: seals texts under keys that retention can destroy, so that proofs stay valid while content is gone.

A sealed text is ASCII: `wv1.<key id>.<base64 of nonce and AES-256-GCM ciphertext>`. It belongs to one tenant and to
what it was bound to (an intake), so that it cannot be passed off as another's.
"""

from __future__ import annotations

import binascii
import os
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from policy.vault.files import Files
from policy.vault.keys import NONCE_BYTES, TRANSIT, Bucket, KeyDestroyed, KeyId, KeyRing, VaultError

__all__ = ["REVALIDATE_S", "TRANSIT", "Bucket", "KeyDestroyed", "KeyId", "Vault", "VaultError", "key_of"]

REVALIDATE_S: Final = 1.0
"""Seconds for which a key may be used from memory before the vault looks whether one was destroyed."""

PAYLOAD: Final = "wp1."
"""How a text begins that is sealed under a key of its own, see `policy.vault.payload`."""

_PREFIX: Final = "wv1."
_MOST_KEYS: Final = 16_384
"""Keys held in memory; beyond that all are forgotten and read again as they are needed."""


@dataclass(frozen=True, slots=True)
class _Key:
    """A data key in use."""

    cipher: AESGCM
    tenant: str
    head: str
    """What its sealed texts begin with."""
    bound: bytes
    """What its associated data begins with."""
    start: datetime
    end: datetime


class Vault:
    """Seals and opens. Threads may share one; processes share the folder.

    A key comes from disk once. After that a call is arithmetic only, except that once in `revalidate_s` seconds a call
    reads the file `generation`: where it has changed, a key was destroyed or the master key rotated, and everything in
    memory is forgotten. So a destroyed key is used for at most that long by processes that had it.
    """

    def __init__(
        self,
        folder: Path,
        key_file: Path | None = None,
        *,
        revalidate_s: float = REVALIDATE_S,
        clock: Callable[[], float] = time.monotonic,
        files: Files | None = None,
    ) -> None:
        """Touch nothing yet.

        Args:
            folder: the vault's folder.
            key_file: where the master key is; `<folder>/master.key`, made on first use, if None.
            revalidate_s: seconds for which a key may be used from memory.
            clock: monotonic seconds.
            files: the file system, for tests that fail its steps.
        """
        self.ring = KeyRing(folder, key_file, files)
        self._revalidate_s = revalidate_s
        self._clock = clock
        self._look_at = float("-inf")
        self._generation = b""
        self._sealing: dict[tuple[str, Bucket], _Key] = {}
        self._opening: dict[str, _Key] = {}
        self._lock = threading.Lock()

    def prepare(self) -> None:
        """Read the master key, or make it: what a worker does when it starts.

        Raises:
            ConfigError: the master key is missing, malformed, or readable by others than its owner.
            UnavailableError: the disk does not let us.
        """
        self.ring.prepare()

    def seal(self, tenant: str, plaintext: bytes, *, now: datetime, bound_to: bytes, bucket: Bucket = TRANSIT) -> str:
        """Encrypt.

        The first call for a tenant, period and bucket makes a key on disk (milliseconds); the others touch no disk.

        Args:
            tenant: whose it is.
            plaintext: what is sealed.
            now: the time, in UTC; it chooses the period.
            bound_to: what it belongs to, such as the intake's id; needed again to open it.
            bucket: how long it may be kept.

        Raises:
            KeyDestroyed: the period is so long over that its key was destroyed.
            VaultError: the vault is damaged.
            ConfigError: as `prepare`.
            UnavailableError: the disk does not let us.
        """
        if self._clock() >= self._look_at:
            self._look()
        key = self._sealing.get((tenant, bucket))
        if key is None or not key.start <= now < key.end:
            key = self._sealing_key(tenant, bucket, now)
        nonce = os.urandom(NONCE_BYTES)
        sealed = nonce + key.cipher.encrypt(nonce, plaintext, key.bound + bound_to)
        return key.head + binascii.b2a_base64(sealed, newline=False).decode("ascii")

    def open(self, sealed: str, *, tenant: str, bound_to: bytes) -> bytes:
        """Decrypt.

        Args:
            sealed: what `seal` gave.
            tenant: whose it must be.
            bound_to: what it must belong to.

        Raises:
            KeyDestroyed: retention destroyed the key; it is gone for good.
            VaultError: it was changed, is another tenant's, belongs to something else, or the vault is damaged.
            ConfigError: as `prepare`.
            UnavailableError: the disk does not let us.
        """
        if self._clock() >= self._look_at:
            self._look()
        head, dot, body = sealed.rpartition(".")
        key = self._opening.get(head + dot)
        if key is None:
            key = self._opening_key(sealed)
        if key.tenant != tenant:
            raise VaultError("this sealed text is another tenant's")
        try:
            blob = binascii.a2b_base64(body, strict_mode=True)
            return key.cipher.decrypt(blob[:NONCE_BYTES], blob[NONCE_BYTES:], key.bound + bound_to)
        except (InvalidTag, ValueError):
            raise VaultError("this sealed text was changed, or it belongs to another request") from None

    def hash_key(self, tenant: str) -> bytes:
        """Give the key for keyed hashes of a tenant's data; retention does not end it, see `KeyRing.hash_key`."""
        return self.ring.hash_key(tenant)

    def destroy(self, key: KeyId, *, now: datetime, reason: str) -> None:
        """Destroy a data key, at once for this process; see `KeyRing.destroy`."""
        self.ring.destroy(key, now=now, reason=reason)
        self._look()

    def _sealing_key(self, tenant: str, bucket: Bucket, now: datetime) -> _Key:
        with self._lock:
            key_id = KeyId.of(tenant, bucket, now)
            # Known already where calls go to and fro over the end of a period.
            known = self._opening.get(f"{_PREFIX}{key_id}.")
            key = known or self._cached(key_id, tenant, self.ring.make(tenant, key_id))
            self._sealing[(tenant, bucket)] = key
            return key

    def _opening_key(self, sealed: str) -> _Key:
        key_id = key_of(sealed)
        with self._lock:
            return self._cached(key_id, *self.ring.read(key_id))

    def _cached(self, key_id: KeyId, tenant: str, plain: bytes) -> _Key:
        if len(self._opening) + len(self._sealing) >= _MOST_KEYS:
            self._forget()
        head = f"{_PREFIX}{key_id}."
        key = _Key(AESGCM(plain), tenant, head, f"{head}\0".encode(), *key_id.span())
        self._opening[head] = key
        return key

    def _look(self) -> None:
        # Under the lock, so that no key read before a destruction is put in memory after it was noticed.
        with self._lock:
            moment = self._clock()
            generation = self.ring.generation()
            if generation != self._generation:
                self._forget()
                self.ring.refresh()
                self._generation = generation
            self._look_at = moment + self._revalidate_s

    def _forget(self) -> None:
        self._sealing.clear()
        self._opening.clear()


def key_of(sealed: str) -> KeyId:
    """Give the id of the key that a text was sealed under.

    Raises:
        VaultError: it is not a sealed text.
    """
    head, dot, _ = sealed.rpartition(".")
    if not dot or not head.startswith((_PREFIX, PAYLOAD)):
        raise VaultError("not a sealed text of this vault")
    return KeyId.parse(head[len(_PREFIX) :])
