"""A key for each payload: what is kept of one request can be ended by itself, in every copy, before its term is over.

The payload is encrypted under a key of its own, which is sealed under the key of its tenant, period and term. So the
end of either is the end of the payload: retention destroys the one, the erasure of a person's data the other. The keys
lie in a file of their own, apart from what they open.
"""

from __future__ import annotations

import binascii
import hashlib
import os
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Final

import orjson
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from policy.vault.database import Database
from policy.vault.keys import KEY_BYTES, NONCE_BYTES, VaultError
from policy.vault.sealing import PAYLOAD, Bucket, Vault, key_of

FILE: Final = "payload-keys.db"
APPLICATION_ID: Final = 0x57_42_50_31
"""`WBP1`: how the file is told from another program's."""

_SCHEMA: Final = """
CREATE TABLE payload_keys (
    id TEXT PRIMARY KEY, intake_id TEXT NOT NULL, kind TEXT NOT NULL, wrapped TEXT NOT NULL, put INTEGER NOT NULL
);
CREATE INDEX payload_keys_by_intake ON payload_keys (intake_id, kind)
"""
_WRAP: Final = b"payload key\0"
_CHUNK: Final = 2_000
_NOW: Final = "CAST(strftime('%s', 'now') AS INTEGER)"
_OLD: Final = f"put < {_NOW} - 86400"
"""A key of this age has its object, or will never have one: the one is put right after the other."""


def seal(
    vault: Vault, plaintext: bytes, *, tenant: str, now: datetime, bound_to: bytes, bucket: Bucket
) -> tuple[str, str]:
    """Encrypt a payload under a new key; give it and its key, sealed.

    Raises:
        KeyDestroyed, VaultError, ConfigError, UnavailableError: as `Vault.seal`.
    """
    key, nonce = os.urandom(KEY_BYTES), os.urandom(NONCE_BYTES)
    wrapped = vault.seal(tenant, key, now=now, bound_to=_WRAP + bound_to, bucket=bucket)
    head = f"{PAYLOAD}{key_of(wrapped)}."
    body = nonce + AESGCM(key).encrypt(nonce, plaintext, f"{head}\0".encode() + bound_to)
    return head + binascii.b2a_base64(body, newline=False).decode("ascii"), wrapped


def open_sealed(vault: Vault, sealed: str, wrapped: str, *, tenant: str, bound_to: bytes) -> bytes:
    """Decrypt a payload.

    Raises:
        KeyDestroyed: retention destroyed the key of its term; it is gone for good.
        VaultError: it was changed, is another tenant's, or belongs to something else.
        ConfigError, UnavailableError: as `Vault.open`.
    """
    key = vault.open(wrapped, tenant=tenant, bound_to=_WRAP + bound_to)
    head, dot, body = sealed.rpartition(".")
    try:
        blob = binascii.a2b_base64(body, strict_mode=True)
        return AESGCM(key).decrypt(blob[:NONCE_BYTES], blob[NONCE_BYTES:], f"{head}{dot}\0".encode() + bound_to)
    except (InvalidTag, ValueError):
        raise VaultError("this sealed text was changed, or it belongs to another request") from None


def payload_id(sealed: str) -> str:
    """Give the id of the key that a payload is sealed under: a hash of the sealed text, 32 hex digits."""
    return hashlib.sha256(sealed.encode()).hexdigest()[:32]


class PayloadKeys:
    """The keys of payloads, each sealed. Threads may share one."""

    def __init__(self, folder: Path) -> None:
        """Touch nothing yet; the file is made with the first key."""
        self._database = Database(folder / FILE, APPLICATION_ID, _SCHEMA)

    def close(self) -> None:
        """Close the file; the next call opens it again."""
        self._database.close()

    def put(self, rows: Sequence[tuple[str, str, str, str]]) -> None:
        """Keep keys, each with its id, intake and kind; durable when this returns.

        Raises:
            VaultError: the file is damaged.
            UnavailableError: the disk does not let us.
        """
        with self._database.transaction(make=True) as database:
            database.executemany(f"INSERT OR REPLACE INTO payload_keys VALUES (?, ?, ?, ?, {_NOW})", rows)  # noqa: S608 - a constant

    def get(self, ids: Iterable[str]) -> Mapping[str, str]:
        """Give the sealed keys of these ids, as far as they are there.

        Raises:
            VaultError: the file is damaged.
            UnavailableError: the disk does not let us.
        """
        found = self._database.read(
            "SELECT id, wrapped FROM payload_keys WHERE id IN (SELECT value FROM json_each(?))", (_json(ids),)
        )
        return dict(found)

    def old(self, after: str) -> list[str]:
        """Give the ids of some keys that were put a day ago or earlier, and follow an id, in order.

        Raises:
            VaultError: the file is damaged.
            UnavailableError: the disk does not let us.
        """
        question = f"SELECT id FROM payload_keys WHERE id > ? AND {_OLD} ORDER BY id LIMIT ?"  # noqa: S608 - a constant
        return [each for (each,) in self._database.read(question, (after, _CHUNK))]

    def destroy_old(self, ids: Iterable[str]) -> None:
        """Destroy those of these keys that were put a day ago or earlier.

        Raises:
            VaultError: the file is damaged.
            UnavailableError: the disk does not let us.
        """
        statement = f"DELETE FROM payload_keys WHERE {_OLD} AND id IN (SELECT value FROM json_each(?))"  # noqa: S608 - a constant
        with self._database.transaction() as database:
            database.execute(statement, (_json(ids),))

    def destroy(self, ids: Iterable[str]) -> None:
        """Destroy keys by their ids; what they sealed can never be read again. Doing it twice is the same as once.

        Raises:
            VaultError: the file is damaged.
            UnavailableError: the disk does not let us; do it again.
        """
        with self._database.transaction() as database:
            database.execute("DELETE FROM payload_keys WHERE id IN (SELECT value FROM json_each(?))", (_json(ids),))

    def destroy_of(self, payloads: Iterable[tuple[str, str]]) -> None:
        """Destroy every key of these payloads, each an intake and a kind, also one that was replaced.

        Raises:
            VaultError: the file is damaged.
            UnavailableError: the disk does not let us; do it again.
        """
        with self._database.transaction() as database:
            database.executemany("DELETE FROM payload_keys WHERE intake_id = ? AND kind = ?", payloads)
        self.tidy()

    def tidy(self) -> None:
        """Empty the write-ahead log, so that destroyed keys are gone from it too."""
        self._database.tidy()


def _json(ids: Iterable[str]) -> str:
    return orjson.dumps(list(ids)).decode()
