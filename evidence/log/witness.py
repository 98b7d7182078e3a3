"""A witness: somebody who remembers what a log said, and signs what it says next only if that goes on from there.

Who sees a checkpoint with a witness's signature knows that the log showed nobody another history: the witness would
have had to sign both.
"""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from evidence.disk import make_directories
from evidence.errors import ConfigError, StoreError, UnavailableError
from evidence.log.checkpoints import Checkpoint, checkpoint
from evidence.log.keys import PrivateDisk, alone_in, create_key, load_key, make_folder
from evidence.log.notes import WITNESS_KEY, NoteError, Signer, Verifier, open_note
from evidence.log.proofs import ProofError, check_consistency, consistency, root_at
from evidence.log.tiles import ReadTile

_SEEN: Final = re.compile(r"\d{20}")
_KEY: Final = "key.pem"


class LogForked(StoreError):  # noqa: N818 - named as the condition that operators search for
    """A log shows another history than it showed before."""


class LogShrunk(StoreError):  # noqa: N818 - the same reason
    """A log has fewer rows than it had before."""


@dataclass(frozen=True, slots=True)
class Seen:
    """The last that a witness signed of a log."""

    size: int
    """Leaves of its tree."""

    root: bytes
    """Root of its tree."""


class Witness:
    """A witness with its key and its memory, in a folder of its own; keep that away from the logs that it watches.

    <folder>/key.pem
    <folder>/logs/<SHA-256 of the origin>/<size>     origin, size and root: the newest counts
    """

    def __init__(self, folder: Path, name: str, *, disk: PrivateDisk | None = None) -> None:
        """Read the key.

        Args:
            folder: where the witness keeps its own.
            name: the witness's name in its signatures; without blanks and `+`.
            disk: the file system; None takes the real one.

        Raises:
            ConfigError: there is no key, it cannot be used, or the name cannot be a key's.
        """
        self._folder = folder
        self._disk = disk or PrivateDisk()
        self._signer = Signer(name, load_key(folder / _KEY), WITNESS_KEY)

    @classmethod
    def create(cls, folder: Path, name: str, *, disk: PrivateDisk | None = None) -> Witness:
        """Make a witness with a new key, and the folder if it is not there.

        Raises:
            ConfigError: there is a key already.
            UnavailableError: the disk does not take it.
        """
        disk = disk or PrivateDisk()
        make_folder(folder, disk)
        with alone_in(folder):
            create_key(folder / _KEY, disk)
        return cls(folder, name, disk=disk)

    @property
    def vkey(self) -> str:
        """The witness's verifier key."""
        return self._signer.vkey

    def seen(self, origin: str) -> Seen | None:
        """Give what the witness remembers of a log.

        Raises:
            ConfigError: its memory is damaged.
        """
        newest = self._newest(origin)
        return None if newest is None else _read(newest, origin)

    def cosign(
        self, note: bytes, known: Iterable[Verifier], read: ReadTile, *, at: int, stored: int | None = None
    ) -> bytes:
        """Sign a checkpoint that goes on from the last one.

        It is remembered, durably, before it is signed: a witness that forgot would sign two histories. The first
        checkpoint of a log that it sees is believed if the tiles give its root.

        Args:
            note: the log's signed checkpoint.
            known: the keys of logs that this witness watches.
            read: gives the log's tiles.
            at: the moment, in seconds since 1970.
            stored: leaves of the tree whose tiles there are; None says that it is the checkpoint's.

        Returns:
            The note with the witness's signature behind the others.

        Raises:
            NoteError: it is no checkpoint, or none that a known key of this log signed.
            LogShrunk: the log has fewer rows than at the last checkpoint.
            LogForked: the log is no continuation of the last checkpoint.
            StoreError: a tile is damaged.
            ConfigError: the witness's memory is damaged.
            UnavailableError: the memory cannot be written.
        """
        opened = open_note(note, known)
        stated = checkpoint(opened.text)
        if not any(f"{stated.origin}/".startswith(f"{signature.name}/") for signature in opened.signatures):
            raise NoteError(f"{stated.origin}: signed by {opened.signatures[0].vkey}, which is not a key of this log")
        with alone_in(self._folder):
            last = self.seen(stated.origin)
            if last is None:
                _check_first(stated, read, stored)
            else:
                _check(last, stated, read, stored)
            self._remember(stated)
        return self._signer.cosign(note, at=at)

    def _remember(self, stated: Checkpoint) -> None:
        folder = self._log(stated.origin)
        path = folder / f"{stated.size:020d}"
        before = self._newest(stated.origin)
        unfinished = folder / ".unfinished"
        text = f"{stated.origin}\n{stated.size}\n{base64.b64encode(stated.root).decode()}\n"
        try:
            make_directories(self._disk, folder, self._folder)
            self._disk.remove(unfinished)
            if before != path:
                self._disk.write(unfinished, memoryview(text.encode()))
                self._disk.sync(unfinished)
                self._disk.publish(unfinished, path)
            # Also where nothing is new: who made it may have died before these steps.
            for directory in (folder, folder.parent, self._folder):
                self._disk.sync(directory)
            self._disk.remove(unfinished)
            for older in self._memories(stated.origin):
                if older < path:
                    self._disk.remove(older)
        except OSError as error:
            raise UnavailableError(f"{path} cannot be written: {error.strerror}; nothing was signed") from error

    def _newest(self, origin: str) -> Path | None:
        return max(self._memories(origin), default=None)

    def _memories(self, origin: str) -> list[Path]:
        try:
            return [path for path in self._log(origin).iterdir() if _SEEN.fullmatch(path.name)]
        except FileNotFoundError:
            return []
        except OSError as error:
            raise UnavailableError(f"{self._log(origin)} cannot be read: {error.strerror}") from error

    def _log(self, origin: str) -> Path:
        return self._folder / "logs" / hashlib.sha256(origin.encode()).hexdigest()


def _read(path: Path, origin: str) -> Seen:
    try:
        found = checkpoint(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, NoteError):
        found = None
    if found is None or found.origin != origin or f"{found.size:020d}" != path.name:
        raise ConfigError(
            f"{path}: the witness's memory of {origin} is damaged; restore it from a backup, or ask the log's owners "
            "before you remove it: without it a rewritten history is not noticed"
        )
    return Seen(found.size, found.root)


def _check_first(stated: Checkpoint, read: ReadTile, stored: int | None) -> None:
    """Check that the tiles are those of the first checkpoint that is seen."""
    root = root_at(stated.size, read, stored=stored)
    if root != stated.root:
        raise LogForked(f"{stated.origin}: FORK: the tiles do not give the root that is signed for {stated.size} rows")


def _check(last: Seen, stated: Checkpoint, read: ReadTile, stored: int | None) -> None:
    """Check that a checkpoint goes on from the last one."""
    if stated.size < last.size:
        raise LogShrunk(f"{stated.origin}: SHRUNK: it had {last.size} rows, and now states {stated.size}")
    if stated.size == last.size and stated.root != last.root:
        raise LogForked(f"{stated.origin}: FORK: two roots are signed for the same {last.size} rows")
    proof = consistency(last.size, stated.size, read, stored=stored)
    try:
        check_consistency(last.size, stated.size, last.root, stated.root, proof)
    except ProofError as error:
        raise LogForked(
            f"{stated.origin}: FORK: its {stated.size} rows do not begin with the {last.size} that it had: {error}"
        ) from None
