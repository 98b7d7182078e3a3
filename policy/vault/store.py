"""What the vault keeps: sealed objects in one SQLite file, for several processes of one machine.

A transaction is on the disk when a method returns, and a process that is killed leaves either all of a call or nothing.
The rows hold ciphertext, so removing one ends it here; destroying its key ends its copies too.
"""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final, Literal, Never

import orjson

from evidence.errors import UnavailableError
from policy.retention import Group, Kept, Kind, bounds
from policy.vault.files import Files, locked, make_folder
from policy.vault.keys import KeyInfo
from policy.vault.sealing import Bucket, KeyDestroyed, KeyId, Vault, VaultError, key_of

FILE: Final = "objects.db"
APPLICATION_ID: Final = 0x57_42_56_31
"""`WBV1`: how the file is told from another program's."""

_BUSY_S: Final = 10.0
_CHUNK: Final = 5_000
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_SCHEMA: Final = """
CREATE TABLE objects (
    intake_id TEXT NOT NULL, kind TEXT NOT NULL, request_id TEXT NOT NULL, tenant TEXT NOT NULL, subject TEXT,
    class TEXT NOT NULL, purpose TEXT NOT NULL, key_id TEXT NOT NULL, sealed TEXT NOT NULL, created INTEGER NOT NULL,
    keep_until_min INTEGER NOT NULL, keep_until_max INTEGER NOT NULL, legal_hold INTEGER NOT NULL,
    PRIMARY KEY (intake_id, kind), CHECK (keep_until_min <= keep_until_max)
);
CREATE INDEX objects_by_request ON objects (request_id);
CREATE INDEX objects_by_key ON objects (key_id);
CREATE INDEX objects_by_expiry ON objects (keep_until_max);
CREATE TABLE removed (
    key_id TEXT NOT NULL, class TEXT NOT NULL, kind TEXT NOT NULL, objects INTEGER NOT NULL,
    PRIMARY KEY (key_id, class, kind)
);
CREATE TABLE destructions (
    key_id TEXT PRIMARY KEY, id TEXT NOT NULL UNIQUE, tenant TEXT NOT NULL, counts TEXT NOT NULL,
    planned INTEGER NOT NULL, destroyed INTEGER NOT NULL, begun INTEGER NOT NULL, told INTEGER NOT NULL
);
"""
_COLUMNS: Final = (
    "kind, intake_id, request_id, tenant, subject, class, purpose, created, keep_until_min, keep_until_max, "
    "legal_hold, sealed"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class SealedObject(Kept):
    """An object of the store."""

    sealed: str
    """What `Vault.seal` gave, bound to `bound_to(kind, intake_id)`."""


def bound_to(kind: Kind, intake_id: str) -> bytes:
    """Give what an object is sealed bound to: it can stand for no other kind and for no other intake."""
    return f"{kind}\0{intake_id}".encode()


def seal_object(
    vault: Vault,
    plaintext: bytes,
    *,
    kind: Kind,
    intake_id: str,
    request_id: str,
    tenant: str,
    subject: str | None,
    data_class: str,
    purpose: str,
    bucket: Bucket,
    now: datetime,
    legal_hold: bool = False,
) -> SealedObject:
    """Seal an object for the store, with the bounds of its term; the fields are those of `Kept`.

    Raises:
        KeyDestroyed, VaultError, ConfigError, UnavailableError: as `Vault.seal`.
    """
    low, high = bounds(bucket, now)
    return SealedObject(
        kind=kind,
        intake_id=intake_id,
        request_id=request_id,
        tenant=tenant,
        subject=subject,
        data_class=data_class,
        purpose=purpose,
        created=now,
        keep_until_min=low,
        keep_until_max=high,
        legal_hold=legal_hold,
        sealed=vault.seal(tenant, plaintext, now=now, bound_to=bound_to(kind, intake_id), bucket=bucket),
    )


def open_object(vault: Vault, item: SealedObject) -> bytes:
    """Open an object of the store.

    Raises:
        KeyDestroyed, VaultError, ConfigError, UnavailableError: as `Vault.open`.
    """
    return vault.open(item.sealed, tenant=item.tenant, bound_to=bound_to(item.kind, item.intake_id))


@dataclass(frozen=True, slots=True)
class Destruction:
    """A key that retention has decided to destroy, and how far that has come."""

    id: str
    """Its own id, 32 hex digits; evidence of it carries this, however often it is told."""
    key: KeyId
    """Which key."""
    tenant: str
    """Whose."""
    classes: Mapping[str, int]
    """How many objects of which class there were under it."""
    kinds: Mapping[str, int]
    """How many objects of which kind."""
    planned: datetime
    """When it was decided."""
    destroyed: bool
    """Whether the key is gone."""
    begun: bool
    """Whether telling it was begun; where it was begun and not ended, evidence may have it."""


class VaultStore:
    """The sealed objects of one vault folder. Threads may share one."""

    def __init__(self, folder: Path) -> None:
        """Touch nothing yet; the file is made with the first object."""
        self._folder = folder
        self._path = folder / FILE
        self._lock = threading.Lock()
        self._connection: sqlite3.Connection | None = None

    def close(self) -> None:
        """Close the file; the next call opens it again."""
        with self._lock:
            self._drop()

    def put(self, item: SealedObject) -> None:
        """Keep one object; see `put_many`."""
        self.put_many((item,))

    def put_many(self, items: Sequence[SealedObject]) -> None:
        """Keep objects, all or none; durable when this returns.

        An object of the same intake and kind is replaced, so that work can be done again; a legal hold stays.

        Raises:
            ValueError: an object must be kept longer than it may be.
            KeyDestroyed: retention has destroyed the key of one.
            VaultError: what an object holds is not sealed, or the store is damaged.
            UnavailableError: the disk does not let us; nothing was kept.
        """
        rows = []
        for item in items:
            if item.keep_until_min > item.keep_until_max:
                raise ValueError(f"the {item.kind} of {item.intake_id} must be kept longer than it may be")
            rows.append(_row(item))
        keys = {str(key_of(item.sealed)) for item in items}
        with self._transaction(make=True) as database:
            for key in keys:
                if database.execute("SELECT 1 FROM destructions WHERE key_id = ?", (key,)).fetchone():
                    raise KeyDestroyed(f"the data key {key} was destroyed by retention: nothing can be kept under it")
            database.executemany(
                """INSERT INTO objects VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
                ON CONFLICT (intake_id, kind) DO UPDATE SET
                request_id = excluded.request_id, tenant = excluded.tenant, subject = excluded.subject,
                class = excluded.class, purpose = excluded.purpose, key_id = excluded.key_id, sealed = excluded.sealed,
                created = excluded.created, keep_until_min = excluded.keep_until_min,
                keep_until_max = excluded.keep_until_max, legal_hold = max(legal_hold, excluded.legal_hold)""",
                rows,
            )

    def get(self, intake_id: str, kind: Kind) -> SealedObject | None:
        """Give what is kept of an intake; None where nothing is."""
        found = self._read(f"SELECT {_COLUMNS} FROM objects WHERE intake_id = ? AND kind = ?", (intake_id, kind))  # noqa: S608 - a constant
        return _object(found[0]) if found else None

    def of_request(self, request_id: str, kind: Kind | None = None) -> tuple[SealedObject, ...]:
        """Give what is kept of a request, the newest first; several where it arrived several times."""
        found = self._read(
            f"SELECT {_COLUMNS} FROM objects WHERE request_id = ? AND kind = coalesce(?, kind) "  # noqa: S608 - a constant
            "ORDER BY created DESC, intake_id, kind",
            (request_id, kind),
        )
        return tuple(map(_object, found))

    def hold(self, request_id: str, *, on: bool) -> int:
        """Put everything that is kept of a request under legal hold, or release it; give how many objects that are."""
        with self._transaction() as database:
            cursor = database.execute("UPDATE objects SET legal_hold = ? WHERE request_id = ?", (int(on), request_id))
            return int(cursor.rowcount)

    def groups(self, now: datetime) -> tuple[Group, ...]:
        """Give what is kept, counted by key, class, purpose and kind."""
        found = self._read(
            """SELECT key_id, tenant, class, purpose, kind, count(*), sum(legal_hold), min(created),
            min(keep_until_max), max(keep_until_max), sum(keep_until_max <= ? AND NOT legal_hold)
            FROM objects GROUP BY key_id, tenant, class, purpose, kind ORDER BY tenant, key_id, class, purpose, kind""",
            (_stamp(now),),
        )
        return tuple(
            Group(
                KeyId.parse(key),
                tenant,
                cls,
                purpose,
                kind,
                count,
                held,
                _time(oldest),
                _time(first),
                _time(last),
                late,
            )
            for key, tenant, cls, purpose, kind, count, held, oldest, first, last, late in found
        )

    def remove_expired(self, now: datetime) -> int:
        """Remove some thousand objects that have reached their maximum and are not held; 0 where none is left."""
        with self._transaction() as database:
            rows = database.execute(
                "DELETE FROM objects WHERE rowid IN (SELECT rowid FROM objects WHERE keep_until_max <= ? "
                "AND keep_until_min <= ? AND NOT legal_hold LIMIT ?) RETURNING key_id, class, kind",
                (_stamp(now), _stamp(now), _CHUNK),
            ).fetchall()
            database.executemany(
                "INSERT INTO removed VALUES (?, ?, ?, 1) "
                "ON CONFLICT (key_id, class, kind) DO UPDATE SET objects = objects + 1",
                rows,
            )
            return len(rows)

    def plan(self, info: KeyInfo, *, new_id: str, now: datetime) -> bool:
        """Decide to destroy a key; False where objects are still under it.

        From here on nothing is kept under it any more, and nobody can hold what was. A key that was destroyed before
        and is back (from a backup) is destroyed again, under the same decision.
        """
        key = str(info.key)
        with self._transaction(make=True) as database:
            if database.execute("SELECT 1 FROM objects WHERE key_id = ? LIMIT 1", (key,)).fetchone():
                return False
            counts = database.execute("SELECT class, kind, objects FROM removed WHERE key_id = ?", (key,)).fetchall()
            database.execute(
                "INSERT INTO destructions VALUES (?, ?, ?, ?, ?, 0, 0, 0) "
                "ON CONFLICT (key_id) DO UPDATE SET destroyed = 0",
                (key, new_id, info.tenant, orjson.dumps(counts).decode(), _stamp(now)),
            )
            database.execute("DELETE FROM removed WHERE key_id = ?", (key,))
            return True

    def destructions(self) -> tuple[Destruction, ...]:
        """Give the destructions that are not both done and told, the oldest first."""
        found = self._read(
            "SELECT id, key_id, tenant, counts, planned, destroyed, begun FROM destructions "
            "WHERE NOT (destroyed AND told) ORDER BY planned, key_id",
            (),
        )
        return tuple(
            Destruction(each, KeyId.parse(key), tenant, *_counted(counts), _time(planned), bool(done), bool(begun))
            for each, key, tenant, counts, planned, done, begun in found
        )

    def mark(self, ids: Sequence[str], step: Literal["destroyed", "begun", "told"]) -> None:
        """Note that these destructions have come so far: the key is gone, its telling was begun, evidence has it."""
        with self._transaction() as database:
            statement = f"UPDATE destructions SET {step} = 1 WHERE id = ?"  # noqa: S608 - one of three words
            database.executemany(statement, [(each,) for each in ids])

    def tidy(self) -> None:
        """Empty the write-ahead log, so that removed rows are gone from it too."""
        with self._lock, _told(self._path):
            database = self._open(make=False)
            if database is not None:
                database.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()

    def _read(self, statement: str, values: Sequence[Any]) -> list[Any]:
        with self._lock, _told(self._path):
            database = self._open(make=False)
            return [] if database is None else database.execute(statement, values).fetchall()

    @contextmanager
    def _transaction(self, *, make: bool = False) -> Iterator[sqlite3.Connection]:
        with self._lock, _told(self._path):
            database = self._open(make=make) or _empty()
            database.execute("BEGIN IMMEDIATE")
            try:
                yield database
                database.execute("COMMIT")
            except BaseException:
                if database.in_transaction:  # a full disk has rolled back by itself
                    database.execute("ROLLBACK")
                raise

    def _open(self, *, make: bool) -> sqlite3.Connection | None:
        if self._connection is None:
            if not self._path.exists():
                if not make:
                    return None
                make_folder(Files(), self._folder)
            # One at a time: a file that two processes make at once is refused to one of them.
            with locked(self._folder / "lock"):
                self._connection = _connect(self._path)
        return self._connection

    def _drop(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None


def _connect(path: Path) -> sqlite3.Connection:
    database = sqlite3.connect(path, timeout=_BUSY_S, isolation_level=None, check_same_thread=False)
    try:
        path.chmod(0o600)
        database.execute("PRAGMA journal_mode = WAL").fetchall()
        database.execute("PRAGMA synchronous = FULL")
        database.execute("PRAGMA secure_delete = ON").fetchall()
        _prepare(database, path)
    except BaseException:
        database.close()
        raise
    return database


def _prepare(database: sqlite3.Connection, path: Path) -> None:
    """Make the tables where the file is new; refuse a file that is another program's."""
    database.execute("BEGIN IMMEDIATE")
    try:
        (application,) = database.execute("PRAGMA application_id").fetchone()
        (tables,) = database.execute("SELECT count(*) FROM sqlite_master").fetchone()
        if application == 0 and tables == 0:
            for statement in _SCHEMA.split(";"):
                database.execute(statement)
            database.execute(f"PRAGMA application_id = {APPLICATION_ID}")
        elif application != APPLICATION_ID:
            _refuse(path)
        database.execute("COMMIT")
    except BaseException:
        if database.in_transaction:
            database.execute("ROLLBACK")
        raise


def _refuse(path: Path) -> Never:
    raise VaultError(f"{path} is another program's database: move it out of the vault's folder")


def _empty() -> sqlite3.Connection:
    """Give a store in memory: what is asked of a vault that has kept nothing yet."""
    database = sqlite3.connect(":memory:", isolation_level=None)
    database.executescript(_SCHEMA)
    return database


@contextmanager
def _told(path: Path) -> Iterator[None]:
    try:
        yield
    except sqlite3.OperationalError as error:
        raise UnavailableError(f"the vault's store {path} does not take this now: {error}") from error
    except sqlite3.DatabaseError as error:
        raise VaultError(f"the vault's store {path} is damaged, restore it from its backup: {error}") from error
    except OSError as error:
        raise UnavailableError(f"the vault's store {path} cannot be reached: {error.strerror}") from error


def _row(item: SealedObject) -> tuple[Any, ...]:
    times = map(_stamp, (item.created, item.keep_until_min, item.keep_until_max))
    who = item.intake_id, item.kind, item.request_id, item.tenant, item.subject
    what = item.data_class, item.purpose, str(key_of(item.sealed)), item.sealed
    return *who, *what, *times, int(item.legal_hold)


def _object(row: Sequence[Any]) -> SealedObject:
    kind, intake, request, tenant, subject, cls, purpose, created, low, high, held, sealed = row
    return SealedObject(
        kind=kind,
        intake_id=intake,
        request_id=request,
        tenant=tenant,
        subject=subject,
        data_class=cls,
        purpose=purpose,
        created=_time(created),
        keep_until_min=_time(low),
        keep_until_max=_time(high),
        legal_hold=bool(held),
        sealed=sealed,
    )


def _counted(text: str) -> tuple[dict[str, int], dict[str, int]]:
    classes: dict[str, int] = {}
    kinds: dict[str, int] = {}
    for name, kind, objects in orjson.loads(text):
        classes[name] = classes.get(name, 0) + objects
        kinds[kind] = kinds.get(kind, 0) + objects
    return classes, kinds


def _stamp(moment: datetime) -> int:
    return (moment - _EPOCH) // timedelta(microseconds=1)


def _time(stamp: int) -> datetime:
    return _EPOCH + timedelta(microseconds=stamp)
