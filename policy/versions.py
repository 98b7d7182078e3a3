"""Versions of policy: every folder of policies that was ever activated here, and which of them is in force.

A version is a copy under its digest, never changed again. `active.json` says which one is in force; it is replaced in
one step, so that whoever reads it sees the one before or the one after. Going back is activating an older one.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Final

from pydantic import BaseModel, ConfigDict, ValidationError

from evidence.errors import ConfigError

_ACTIVE: Final = "active.json"
_HISTORY: Final = "history.jsonl"


class Activation(BaseModel):
    """One time that a version was put in force."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    digest: str
    """Its digest, `sha256:<hex>`."""
    previous: str | None = None
    """The digest of the version before; None where the configured folder was in force."""
    at: datetime
    """When, in UTC."""
    by: str
    """Who, as `kind:id`."""
    reason: str
    """Why."""
    rollback: bool = False
    """Whether it goes back to an older version."""


class Active:
    """The version in force."""

    def __init__(self, activation: Activation, folder: Path) -> None:
        self.activation = activation
        self.folder = folder


class Versions:
    """The versions in one folder."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def active(self) -> Active | None:
        """Give the version in force; None where none was ever activated.

        Raises:
            ConfigError: the record cannot be read, or its version is gone.
        """
        path = self._folder / _ACTIVE
        try:
            text = path.read_text(encoding="utf-8")
        except FileNotFoundError:
            return None
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError(f"cannot read {path}: {type(error).__name__}") from None
        activation = _read(text, str(path))
        folder = self.folder_of(activation.digest)
        if not folder.is_dir():
            raise ConfigError(f"{path} names version {activation.digest}, which is not in {self._folder}")
        return Active(activation, folder)

    def stamp(self) -> int | None:
        """Give something that changes whenever another version is put in force."""
        try:
            found = (self._folder / _ACTIVE).stat()
        except OSError:
            return None
        return hash((found.st_mtime_ns, found.st_ino, found.st_size))

    def history(self) -> tuple[Activation, ...]:
        """Give all activations, the oldest first.

        Raises:
            ConfigError: the record cannot be read.
        """
        path = self._folder / _HISTORY
        try:
            text = path.read_bytes()
        except FileNotFoundError:
            return ()
        except OSError as error:
            raise ConfigError(f"cannot read {path}: {type(error).__name__}") from None
        # What has no end of line was half written when a machine died: that activation never was.
        whole = text.split(b"\n")[:-1]
        return tuple(_read(line, f"{path}:{number}") for number, line in enumerate(whole, start=1))

    def folder_of(self, digest: str) -> Path:
        """Give where a version's files are."""
        return self._folder / digest.removeprefix("sha256:")[:32]

    def add(self, digest: str, files: Sequence[Path]) -> Path:
        """Copy files as a version; one that is there already stays as it is.

        Raises:
            ConfigError: the disk does not let us.
        """
        target = self.folder_of(digest)
        if target.is_dir():
            return target
        temporary = target.with_name(f".{target.name}.{os.getpid()}")
        try:
            temporary.mkdir(parents=True, exist_ok=True)
            for path in files:
                shutil.copyfile(path, temporary / path.name)
                _sync(temporary / path.name)
            temporary.rename(target)
            _sync(self._folder)
        except OSError as error:
            shutil.rmtree(temporary, ignore_errors=True)
            if target.is_dir():
                return target  # somebody else was faster, with the same files
            raise ConfigError(f"cannot write to {self._folder}: {error.strerror}") from error
        return target

    def activate(self, activation: Activation) -> None:
        """Put a version in force.

        Raises:
            ConfigError: the disk does not let us.
        """
        line = activation.model_dump_json() + "\n"
        temporary = self._folder / f".{_ACTIVE}.{os.getpid()}"
        try:
            with (self._folder / _HISTORY).open("ab") as history:
                _drop_half_a_line(self._folder / _HISTORY)
                history.write(line.encode())
                history.flush()
                os.fsync(history.fileno())
            temporary.write_text(line, encoding="utf-8")
            _sync(temporary)
            temporary.replace(self._folder / _ACTIVE)
            _sync(self._folder)
        except OSError as error:
            raise ConfigError(f"cannot write to {self._folder}: {error.strerror}") from error


def _drop_half_a_line(path: Path) -> None:
    """Take away what a machine that died left without an end of line, so that the next line stands for itself."""
    text = path.read_bytes()
    if text and not text.endswith(b"\n"):
        os.truncate(path, text.rfind(b"\n") + 1)


def _read(text: str | bytes, source: str) -> Activation:
    try:
        return Activation.model_validate_json(text)
    except ValidationError:
        raise ConfigError(f"{source} is no record of an activation") from None


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
