"""The development broker: the `noida-db` binary with only Kafka enabled, on loopback, its data under the run's home.

It is for trying and developing on one machine. Its log and its transactions are right; after `kill -9` it may have lost
about the last second of what it acknowledged. A log that has silently lost its end is worse than none: offsets would be
given out twice. So the data carry a marker of a clean stop, and data without it are set aside: the broker then starts
with a new, empty log under a new `log_id`, and says so in `notes`.
"""

from __future__ import annotations

import fcntl
import os
import shutil
from collections.abc import Callable
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from typing import BinaryIO
from uuid import uuid4

from evidence.errors import ConfigError, UnavailableError
from streams.brokers.probe import listening, node_count
from streams.brokers.process import Child, ChildError, free_port

_READY_S = 30.0
_STARTS = 3  # another process may take the port between the choice and the use


class DevelopmentBroker:
    """One noida-db with Kafka only.

    Attributes:
        kind: what it is, with its version, for the first line that a user sees.
        log_id: names this incarnation of the log (12 hex digits); "" before the first start. A new one means that
            offsets begin anew.
    """

    def __init__(self, home: Path, port: Callable[[], int] = free_port) -> None:
        """Describe the broker of one home.

        Args:
            home: the run's folder; the data lie in `broker/`, the log in `logs/broker.log`.
            port: returns the port to listen on; asked again where another process takes it in between.

        Raises:
            ConfigError: noida-db is not installed.
        """
        self.kind = f"development broker (noida-db {_installed_version()})"
        self.log_id = ""
        self._notes: tuple[str, ...] = ()
        self._root = home / "broker"
        self._port = port
        self._log = home / "logs" / "broker.log"
        self._child: Child | None = None
        self._lock: BinaryIO | None = None

    @property
    def notes(self) -> tuple[str, ...]:
        """What a user must know about this start, one sentence each; empty when there is nothing."""
        return self._notes

    @property
    def pid(self) -> int | None:
        """The broker's process id, or None while it is not running."""
        return None if self._child is None else self._child.pid

    async def start(self) -> str:
        """Start it; returns its bootstrap address `127.0.0.1:PORT` once it answers.

        Raises:
            ConfigError: another broker uses this home, or it is already started.
            ChildError: it ended or did not answer in time; its log's last lines are in the text.
        """
        if self._child is not None:
            raise ConfigError("the development broker is already started; stop it before starting it again")
        self._acquire()
        try:
            self._open_log()
            try:
                return await self._launch()
            except BaseException:
                # Nobody was told the address, so nothing was written: what was complete before still is.
                _write_durably(self._clean, self.log_id)
                raise
        except BaseException:
            self._release()
            raise

    async def stop(self) -> None:
        """Stop it and mark its data as complete. Idempotent."""
        if self._child is None:
            return
        child, self._child = self._child, None
        try:
            await child.stop()
            # Only an orderly end writes everything out; a stop that had to kill, or a crash before, leaves no marker.
            if child.returncode == 0:
                _write_durably(self._clean, self.log_id)
        finally:
            self._release()

    def kill(self) -> None:
        """End it at once, as a crash would: the next start sets its data aside."""
        if self._child is not None:
            self._child.kill()
            self._child = None
            self._release()

    async def wait(self) -> int:
        """Wait until the process ends by itself, and return its exit status."""
        if self._child is None:
            raise ConfigError("the development broker is not started, so there is no end to wait for")
        return await self._child.wait()

    @property
    def _data(self) -> Path:
        return self._root / "data"

    @property
    def _clean(self) -> Path:
        return self._root / "clean-stop"

    async def _launch(self) -> str:
        binary = _binary()
        for attempt in range(_STARTS):
            port = self._port()
            bootstrap = f"127.0.0.1:{port}"
            argv = [str(binary), "start", "--only", "kafka", "--host", "127.0.0.1", "--kafka-port", str(port)]
            child = Child("development broker", [*argv, "--data-dir", str(self._data)], log=self._log)
            try:
                await child.start()
                await child.wait_ready(partial(_answers, bootstrap), _READY_S)
            except ChildError as error:
                child.kill()
                if "in use" in error.tail and attempt + 1 < _STARTS:
                    continue
                raise
            except BaseException:
                child.kill()
                raise
            self._child = child
            return bootstrap
        raise AssertionError("unreachable: the last attempt returns or raises")

    def _open_log(self) -> None:
        """Decide whether the data that are there can be gone on with, and take the marker away until the next stop."""
        self._notes = ()
        present = self._data.is_dir() and any(self._data.iterdir())
        marked = self._clean.read_text().strip() if self._clean.is_file() else ""
        if present and not marked:
            aside = self._root / "set-aside"
            shutil.rmtree(aside, ignore_errors=True)
            self._data.rename(aside)
            note = (
                "The development broker was not stopped in order last time and may have lost its last second, so it "
                f"starts with an empty log; what it had is in {aside}."
            )
            self._notes = (note,)
        self.log_id = marked if present and marked else uuid4().hex[:12]
        self._data.mkdir(parents=True, exist_ok=True)
        self._clean.unlink(missing_ok=True)
        _sync_folder(self._root)

    def _acquire(self) -> None:
        self._root.mkdir(parents=True, exist_ok=True)
        lock = (self._root / "lock").open("ab")
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            lock.close()
            raise ConfigError(
                f"another development broker is using {self._root}; stop it, or choose another home",
            ) from None
        self._lock = lock

    def _release(self) -> None:
        if self._lock is not None:
            self._lock.close()
            self._lock = None


async def _answers(bootstrap: str) -> bool:
    if not await listening(bootstrap):
        return False
    try:
        return await node_count(bootstrap) > 0
    except UnavailableError:
        return False


def _binary() -> Path:
    """The program itself: the `noida-db` script only starts it as a child of its own, out of reach of signals."""
    spec = find_spec("noida_db")
    binary = None if spec is None or spec.origin is None else Path(spec.origin).with_name("noida-db")
    if binary is None or not binary.is_file():
        raise ConfigError("the development broker is missing: install the package noida-db, or use --kafka HOST:PORT")
    if not os.access(binary, os.X_OK):
        binary.chmod(0o755)  # some installers drop the permission
    return binary


def _installed_version() -> str:
    try:
        return version("noida-db")
    except PackageNotFoundError:
        raise ConfigError(
            "the development broker is missing: install the package noida-db, or use --kafka HOST:PORT",
        ) from None


def _write_durably(path: Path, text: str) -> None:
    temporary = path.with_suffix(".new")
    with temporary.open("w") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)
    _sync_folder(path.parent)


def _sync_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
