"""One SQLite file of the vault, for several processes of one machine.

A transaction is on the disk when it ends, and a process that is killed leaves either all of it or nothing.
"""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final, Never

from evidence.errors import UnavailableError
from policy.vault.files import Files, locked, make_folder
from policy.vault.keys import VaultError

_BUSY_S: Final = 30.0


class Database:
    """A file with tables. Threads may share one."""

    def __init__(self, path: Path, application: int, schema: str) -> None:
        """Touch nothing yet; the file is made with the first change.

        Args:
            path: the file.
            application: SQLite's `application_id`, by which the file is told from another program's.
            schema: statements that make what is missing, separated by semicolons.
        """
        self.path = path
        self._application = application
        self._schema = schema
        self._lock = threading.RLock()
        self._connection: sqlite3.Connection | None = None

    def close(self) -> None:
        """Close the file; the next call opens it again."""
        with self._lock:
            if self._connection is not None:
                self._connection.close()
                self._connection = None

    def read(self, statement: str, values: Sequence[Any] = ()) -> list[Any]:
        """Give the rows of a question; none where there is no file yet.

        Raises:
            VaultError: the file is damaged, or another program's.
            UnavailableError: the disk does not let us.
        """
        with self._lock, self._told():
            database = self._open(make=False)
            return [] if database is None else database.execute(statement, values).fetchall()

    @contextmanager
    def transaction(self, *, make: bool = False) -> Iterator[sqlite3.Connection]:
        """Change something, all or nothing; nobody else changes the file meanwhile.

        Args:
            make: whether the file is made; without one, the change is made to nothing and forgotten.

        Raises:
            VaultError: the file is damaged, or another program's.
            UnavailableError: the disk does not let us; nothing was changed.
        """
        with self._lock, self._told():
            database = self._open(make=make) or self._empty()
            database.execute("BEGIN IMMEDIATE")
            try:
                yield database
                database.execute("COMMIT")
            except BaseException:
                if database.in_transaction:  # a full disk has rolled back by itself
                    database.execute("ROLLBACK")
                raise

    def tidy(self) -> None:
        """Empty the write-ahead log, so that removed rows are gone from it too.

        Raises:
            VaultError: the file is damaged, or another program's.
            UnavailableError: the disk does not let us.
        """
        with self._lock, self._told():
            database = self._open(make=False)
            if database is not None:
                database.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()

    def _open(self, *, make: bool) -> sqlite3.Connection | None:
        if self._connection is None:
            if not self.path.exists():
                if not make:
                    return None
                make_folder(Files(), self.path.parent)
            # One at a time: a file that two processes make at once is refused to one of them.
            with locked(self.path.parent / "lock"):
                self._connection = self._connect()
        return self._connection

    def _connect(self) -> sqlite3.Connection:
        database = sqlite3.connect(self.path, timeout=_BUSY_S, isolation_level=None, check_same_thread=False)
        try:
            self.path.chmod(0o600)
            database.execute("PRAGMA journal_mode = WAL").fetchall()
            database.execute("PRAGMA synchronous = FULL")
            database.execute("PRAGMA secure_delete = ON").fetchall()
            self._prepare(database)
        except BaseException:
            database.close()
            raise
        return database

    def _prepare(self, database: sqlite3.Connection) -> None:
        """Make the tables where the file is new; refuse a file that is another program's."""
        database.execute("BEGIN IMMEDIATE")
        try:
            (application,) = database.execute("PRAGMA application_id").fetchone()
            (tables,) = database.execute("SELECT count(*) FROM sqlite_master").fetchone()
            if application == 0 and tables == 0:
                for statement in self._schema.split(";"):
                    database.execute(statement)
                database.execute(f"PRAGMA application_id = {self._application}")
            elif application != self._application:
                self._refuse()
            database.execute("COMMIT")
        except BaseException:
            if database.in_transaction:
                database.execute("ROLLBACK")
            raise

    def _refuse(self) -> Never:
        raise VaultError(f"{self.path} is another program's database: move it out of the vault's folder")

    def _empty(self) -> sqlite3.Connection:
        """Give a file in memory: what is asked of a vault that has kept nothing yet."""
        database = sqlite3.connect(":memory:", isolation_level=None)
        database.executescript(self._schema)
        return database

    @contextmanager
    def _told(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.OperationalError as error:
            raise UnavailableError(f"the vault's store {self.path} does not take this now: {error}") from error
        except sqlite3.DatabaseError as error:
            raise VaultError(
                f"the vault's store {self.path} is damaged, restore it from its backup: {error}"
            ) from error
        except OSError as error:
            raise UnavailableError(f"the vault's store {self.path} cannot be reached: {error.strerror}") from error
