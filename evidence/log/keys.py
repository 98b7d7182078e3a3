"""The keys of a site, as files: a folder with `<n>.pem`, of which the one with the highest number signs.

A key that signed is needed until the log says, signed by it, which key follows; after that its file may be removed.
A file is made in steps of which each is durable before the next, so that a key is there whole or not at all, and never
in another's place.
"""

from __future__ import annotations

import os
import re
import stat
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from evidence.disk import Disk, Lock, PartitionHeld, make_directories
from evidence.errors import ConfigError, UnavailableError
from evidence.log.notes import NotSignedError, Signer, Verifier, open_note

_PEM: Final = re.compile(r"([1-9]\d{0,8})\.pem")
_FORBIDDEN: Final = stat.S_IRWXG | stat.S_IRWXO
_MOST_BYTES: Final = 4096
_UNFINISHED: Final = ".unfinished"
_LOCK: Final = ".lock"
_LOCK_WAIT_S: Final = 10.0


class PrivateDisk(Disk):
    """The real file system, whose new files and folders are for their owner only."""

    def make_directory(self, path: Path) -> None:
        """Make a directory; fine if it is there already."""
        path.mkdir(mode=0o700, exist_ok=True)

    def write(self, path: Path, data: memoryview) -> None:
        """Write a new file; an existing one is an error."""
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        try:
            while data:
                data = data[os.write(descriptor, data) :]
        finally:
            os.close(descriptor)


def key_name(site: str) -> str:
    """Give the name of a site's keys."""
    return f"waybill/{site}"


@contextmanager
def alone_in(folder: Path) -> Iterator[None]:
    """Be the only one that changes a folder of keys; it ends with the process however that ends.

    Raises:
        UnavailableError: somebody else does, and did not end within some seconds.
    """
    try:
        lock = Lock(folder / _LOCK, wait_s=_LOCK_WAIT_S)
    except PartitionHeld:
        raise UnavailableError(f"{folder}: another process makes changes there and does not end") from None
    except OSError as error:
        raise UnavailableError(f"{folder} cannot be locked: {error.strerror}") from error
    try:
        yield
    finally:
        lock.release()


def make_folder(folder: Path, disk: PrivateDisk) -> None:
    """Make a folder that only its owner can use; fine if it is there.

    Raises:
        UnavailableError: the disk does not take it.
    """
    try:
        make_directories(disk, folder, Path(folder.anchor))
    except OSError as error:
        raise UnavailableError(f"{folder} cannot be made: {error.strerror}") from error


def create_key(path: Path, disk: PrivateDisk | None = None) -> Ed25519PrivateKey:
    """Make a key and its file, readable for the owner only.

    The folder has to be there, and nobody else may make a key in it at the same time (see `KeyRing`).

    Args:
        path: the file.
        disk: the file system; None takes the real one.

    Raises:
        ConfigError: there is a file of that name; it is left as it is.
        UnavailableError: the disk does not take it.
    """
    disk = disk or PrivateDisk()
    unfinished = path.with_name(_UNFINISHED)
    key = Ed25519PrivateKey.generate()
    pem = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    try:
        disk.remove(unfinished)  # of somebody who died here; that key never signed
        disk.write(unfinished, memoryview(pem))
        disk.sync(unfinished)
        disk.publish(unfinished, path)
        disk.sync(path.parent)
        disk.remove(unfinished)
    except FileExistsError:
        raise ConfigError(f"{path} is there already; a key is never replaced") from None
    except OSError as error:
        raise UnavailableError(f"{path} cannot be made: {error.strerror}") from error
    return key


def load_key(path: Path) -> Ed25519PrivateKey:
    """Read a key's file.

    Raises:
        ConfigError: there is none, others than its owner can use it, or it holds no Ed25519 key.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            mode = os.fstat(descriptor).st_mode  # of what is read, whatever the path names by now
            pem = os.read(descriptor, _MOST_BYTES) if stat.S_ISREG(mode) else b""
        finally:
            os.close(descriptor)
    except OSError as error:
        raise ConfigError(f"{path}: the key cannot be read: {error.strerror}") from None
    if not stat.S_ISREG(mode):
        raise ConfigError(f"{path}: a key is a file")
    if mode & _FORBIDDEN:
        raise ConfigError(
            f"{path}: its group or others can use this private key (mode {stat.S_IMODE(mode):04o}); "
            f"run `chmod 600 {path}`, and think about whether somebody has read it"
        )
    try:
        key = serialization.load_pem_private_key(pem, password=None)
    except (ValueError, TypeError):  # the library's texts may quote the file
        raise ConfigError(f"{path}: not a private key in PEM without a password") from None
    if not isinstance(key, Ed25519PrivateKey):
        raise ConfigError(f"{path}: not an Ed25519 key")
    return key


class KeyRing:
    """The keys of one site; safe to use from threads."""

    def __init__(self, folder: Path, site: str, *, disk: PrivateDisk | None = None) -> None:
        """Read the keys that are there.

        Args:
            folder: where they lie.
            site: whose they are.
            disk: the file system for changes; None takes the real one.

        Raises:
            ConfigError: there is no key, or one cannot be used.
        """
        self._folder = folder
        self._name = key_name(site)
        self._disk = disk or PrivateDisk()
        self._busy = threading.Lock()
        self._signers = self._read()

    @classmethod
    def create(cls, folder: Path, site: str, *, disk: PrivateDisk | None = None) -> KeyRing:
        """Make a site's first key, and the folder if it is not there.

        Raises:
            ConfigError: there is a key already.
            UnavailableError: the disk does not take it.
        """
        disk = disk or PrivateDisk()
        make_folder(folder, disk)
        with alone_in(folder):
            if there := _numbers(folder):
                raise ConfigError(f"{folder / f'{max(there)}.pem'} is there already; rotate the key to get another one")
            create_key(folder / "1.pem", disk)
        return cls(folder, site, disk=disk)

    @property
    def vkeys(self) -> tuple[str, ...]:
        """The verifier keys, the oldest first."""
        with self._busy:
            return tuple(signer.vkey for _, signer in sorted(self._signers.items()))

    @property
    def verifiers(self) -> tuple[Verifier, ...]:
        """The public halves, the oldest first."""
        with self._busy:
            return tuple(signer.verifier for _, signer in sorted(self._signers.items()))

    def newest(self) -> Signer:
        """Give the key that signs; one that another process has made since is found.

        Raises:
            ConfigError: a new key cannot be used.
            UnavailableError: the folder cannot be read.
        """
        with self._busy:
            newest = max(self._signers)
            try:
                there_is_more = (self._folder / f"{newest + 1}.pem").exists()
                if there_is_more:
                    # Its maker may not have come to this step yet; a log must not name a key that can still be lost.
                    self._disk.sync(self._folder)
            except OSError as error:
                raise UnavailableError(f"{self._folder} cannot be read: {error.strerror}") from error
            if there_is_more:
                self._signers = self._signers | self._read()
            return self._signers[max(self._signers)]

    def by_key(self, vkey: str) -> Signer:
        """Give the signer of a verifier key.

        Raises:
            ConfigError: it is not there.
        """
        with self._busy:
            for signer in self._signers.values():
                if signer.vkey == vkey:
                    return signer
        raise ConfigError(f"{self._folder} has no private key of {vkey}; restore it, the log goes on with it")

    def signed(self, note: bytes) -> str:
        """Give the verifier key of the newest key that signed a note.

        Raises:
            ConfigError: none of these keys did.
            NoteError: it is no note, or it was changed.
        """
        try:
            found = open_note(note, self.verifiers)
        except NotSignedError as error:
            raise ConfigError(
                f"{self._folder} has no private key of the log, which goes on with the one that signed it: {error}"
            ) from None
        return next(vkey for vkey in reversed(self.vkeys) if found.signed_by(vkey))

    def rotate(self) -> Signer:
        """Make the next key; logs name it in their next commits, and it signs from then on.

        Raises:
            UnavailableError: the disk does not take it.
        """
        with alone_in(self._folder):
            number = max(_numbers(self._folder), default=0) + 1
            create_key(self._folder / f"{number}.pem", self._disk)
        with self._busy:
            self._signers = self._signers | self._read()
        return self.newest()

    def _read(self) -> dict[int, Signer]:
        numbers = _numbers(self._folder)
        if not numbers:
            raise ConfigError(
                f"{self._folder} holds no key `<n>.pem`; make the site's first one, or name another folder"
            )
        return {number: Signer(self._name, load_key(self._folder / f"{number}.pem")) for number in numbers}


def _numbers(folder: Path) -> list[int]:
    try:
        return sorted(int(match[1]) for path in folder.iterdir() if (match := _PEM.fullmatch(path.name)))
    except OSError as error:
        raise ConfigError(f"{folder}: the folder of the keys cannot be read: {error.strerror}") from None
