"""Who was erased, and when: what was asked about a person before that moment is served, sent and kept no more.

A file for each person in the folder `erased` of the vault, named by a digest of tenant and reference. It stays: it is
what keeps a request erased that lies in a queue, or is sent again. It is looked up at each use, so that all workers of
the machine know of it at once.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import orjson

from evidence.canonical import sha256_hex
from evidence.errors import UnavailableError
from policy.vault import files as vault_files
from policy.vault.files import Files

FOLDER: Final = "erased"
EVERYTHING: Final = datetime.max.replace(tzinfo=UTC)
"""The moment of somebody who is being erased just now, or whose file is damaged: all that they asked lies before it."""

Erased = Callable[[str, str], datetime | None]
"""Says when a person, by tenant and reference, was erased; None where they never were."""


def nobody(tenant: str, subject: str) -> None:
    """Know of no erasure."""
    del tenant, subject


class ErasedPeople:
    """The people of one vault who were erased. Threads and processes may share its folder."""

    def __init__(self, vault: Path, files: Files | None = None) -> None:
        """Touch nothing yet.

        Args:
            vault: the vault's folder.
            files: the file system, for tests that fail its steps.
        """
        self.folder: Final = vault / FOLDER
        self._files = files or Files()
        self._prefix = f"{self.folder}{os.sep}"

    def when(self, tenant: str, subject: str) -> datetime | None:
        """Say when a person was erased; some 3 µs where they never were, which is nearly always.

        Raises:
            UnavailableError: the disk does not say.
        """
        found = self._read(tenant, subject)
        return found[1] if found else None

    def moment(self, tenant: str, subject: str, erasure: str, asked: datetime) -> datetime | None:
        """Say since when an erasure counts for a person; None where it does not, as it was last asked for, yet.

        Raises:
            UnavailableError: the disk does not say.
        """
        found = self._read(tenant, subject)
        return found[1] if found and found[0] == erasure and asked <= found[1] != EVERYTHING else None

    def close(self, tenant: str, subject: str, erasure: str, clock: Callable[[], datetime]) -> None:
        """Note that a person is erased from now on.

        Two steps: first everything that they ever asked counts as erased, and then all that came before this moment.
        So whoever did not see the first step has asked for the time before it, and lies before the moment too.

        Args:
            tenant: of which tenant.
            subject: whom.
            erasure: the id of the request for it.
            clock: gives the time, in UTC.

        Raises:
            ConfigError: the vault is another user's, whose workers could not read it.
            UnavailableError: the disk does not let us; do it again.
        """
        path = Path(self._path(tenant, subject))
        try:
            vault_files.check_ours(self.folder.parent, self.folder)
            vault_files.make_folder(self._files, self.folder)
            vault_files.replace(self._files, path, _text(erasure, None))
            vault_files.replace(self._files, path, _text(erasure, clock()))
        except OSError as error:
            raise UnavailableError(f"{self.folder} cannot be written: {error.strerror}") from error

    def _read(self, tenant: str, subject: str) -> tuple[str | None, datetime] | None:
        # Plain functions of `os`: a path object would take longer than all the rest.
        try:
            descriptor = os.open(self._path(tenant, subject), os.O_RDONLY)
        except FileNotFoundError:
            return None
        except OSError as error:
            raise UnavailableError(f"{self.folder} cannot be read: {error.strerror}") from error
        with os.fdopen(descriptor, "rb") as file:
            try:
                said = orjson.loads(file.read())
                moment = said["at"]
                at = EVERYTHING if moment is None else datetime.fromisoformat(moment)
                return str(said["erasure"]), at.astimezone(UTC) if at is not EVERYTHING else at
            except OSError as error:
                raise UnavailableError(f"{self.folder} cannot be read: {error.strerror}") from error
            except (orjson.JSONDecodeError, KeyError, TypeError, ValueError):
                return None, EVERYTHING

    def _path(self, tenant: str, subject: str) -> str:
        return f"{self._prefix}{digest_of(tenant, subject)}"


def digest_of(tenant: str, subject: str) -> str:
    """Give the name of a person's file: a digest of tenant and reference (64 hex digits)."""
    return sha256_hex(orjson.dumps((tenant, subject)))


def _text(erasure: str, at: datetime | None) -> bytes:
    return orjson.dumps({"erasure": erasure, "at": at.isoformat() if at is not None else None})
