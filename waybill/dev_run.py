"""What a running `waybill dev` tells the other commands: `run.json` in its home, valid while the run holds its lock.

The lock, not the process id, says whether the run lives: an id can be given to another process, and a lock goes with
its holder, however that ends. There are no secrets in the file.
"""

from __future__ import annotations

import fcntl
import os
from datetime import datetime
from pathlib import Path
from typing import BinaryIO, Final, Literal, Self

from pydantic import BaseModel, ConfigDict, ValidationError

from evidence.errors import ConfigError

FILE: Final = "run.json"
LOCK: Final = "run.lock"


class Place(BaseModel):
    """An endpoint of the run, without its key."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: Literal["triton", "in-process", "openai"]
    """What it speaks."""
    url: str = ""
    """Where it is."""
    provider: str = ""
    """Who runs it."""


class Run(BaseModel):
    """One run of `waybill dev`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    pid: int
    """Process id of the supervisor."""
    started_at: datetime
    """When it started, in UTC."""
    broker: str
    """What kind of broker it uses."""
    kafka: str
    """The broker's address."""
    kafka_prefix: str = ""
    """What stands before the names of topics."""
    log_id: str | None = None
    """Which log the offsets belong to; None: the cluster's own id."""
    web_port: int
    """Port of health and metrics on 127.0.0.1."""
    endpoints: dict[str, Place]
    """Where models answer."""


def read(home: Path) -> Run | None:
    """Give the run that lives in this home; None where there is none.

    Raises:
        ConfigError: the file is not what a run writes.
    """
    path = home / FILE
    if not path.is_file() or not _held(home / LOCK):
        return None
    try:
        return Run.model_validate_json(path.read_bytes())
    except FileNotFoundError:
        return None  # it ended in this moment
    except (OSError, ValidationError) as error:
        raise ConfigError(f"{path} cannot be read ({type(error).__name__}); stop `waybill dev` and remove it") from None


def stale(home: Path) -> bool:
    """Say whether a run left its file behind without living any more."""
    return (home / FILE).is_file() and not _held(home / LOCK)


class Claim:
    """The right to run in a home; one at a time."""

    def __init__(self, home: Path) -> None:
        self._home = home
        self._lock: BinaryIO | None = None

    def __enter__(self) -> Self:
        """Take it.

        Raises:
            ConfigError: another run has it, or the folder cannot be made.
        """
        try:
            self._home.mkdir(parents=True, exist_ok=True)
            lock = (self._home / LOCK).open("ab")
        except OSError as error:
            raise ConfigError(f"cannot write to {self._home}: {error.strerror}; choose another --home") from error
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            lock.close()
            raise ConfigError(
                f"`waybill dev` already runs in {self._home}; stop it, or choose another --home"
            ) from None
        self._lock = lock
        (self._home / FILE).unlink(missing_ok=True)
        return self

    def publish(self, run: Run) -> None:
        """Tell the other commands."""
        temporary = self._home / f"{FILE}.new"
        temporary.write_text(run.model_dump_json(indent=2) + "\n", encoding="utf-8")
        temporary.replace(self._home / FILE)

    def __exit__(self, *_: object) -> None:
        """Give it back."""
        (self._home / FILE).unlink(missing_ok=True)
        if self._lock is not None:
            self._lock.close()
            self._lock = None


def _held(path: Path) -> bool:
    """Say whether another process holds this lock (or another handle of this one)."""
    try:
        handle = os.open(path, os.O_RDONLY)
    except OSError:
        return False
    try:
        fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError:
        return True
    finally:
        os.close(handle)
    return False
