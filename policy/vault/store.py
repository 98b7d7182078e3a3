"""What the vault keeps: sealed objects in one SQLite file, and their keys in another, for several processes.

A transaction is on the disk when a method returns, and a process that is killed leaves either all of a call or nothing.
The rows hold ciphertext, so removing one ends it here; destroying its key ends its copies too.

The key of an object is durable before the object is, and removed after it. A key without an object opens nothing, and
`tidy` destroys it once it is a day old.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final, Literal

import orjson

from policy.holds import Hold, Holds, subject_names
from policy.retention import Group, Kept, Kind, bounds
from policy.vault import payload
from policy.vault.database import Database
from policy.vault.erased import ErasedPeople
from policy.vault.keys import KeyInfo
from policy.vault.payload import PayloadKeys, payload_id
from policy.vault.sealing import Bucket, KeyDestroyed, KeyId, Vault, VaultError, key_of

FILE: Final = "objects.db"
APPLICATION_ID: Final = 0x57_42_56_31
"""`WBV1`: how the file is told from another program's."""

_CHUNK: Final = 5_000
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_SCHEMA: Final = """
CREATE TABLE objects (
    intake_id TEXT NOT NULL, kind TEXT NOT NULL, request_id TEXT NOT NULL, tenant TEXT NOT NULL, subject TEXT,
    class TEXT NOT NULL, purpose TEXT NOT NULL, key_id TEXT NOT NULL, sealed TEXT NOT NULL, created INTEGER NOT NULL,
    keep_until_min INTEGER NOT NULL, keep_until_max INTEGER NOT NULL, legal_hold INTEGER NOT NULL,
    payload_id TEXT NOT NULL,
    PRIMARY KEY (intake_id, kind), CHECK (keep_until_min <= keep_until_max)
);
CREATE INDEX objects_by_request ON objects (request_id);
CREATE INDEX objects_by_key ON objects (key_id);
CREATE INDEX objects_by_expiry ON objects (keep_until_max);
CREATE INDEX objects_by_subject ON objects (subject, tenant);
CREATE INDEX objects_by_payload ON objects (payload_id);
CREATE INDEX objects_held ON objects (legal_hold) WHERE legal_hold;
CREATE TABLE removed (
    key_id TEXT NOT NULL, class TEXT NOT NULL, kind TEXT NOT NULL, objects INTEGER NOT NULL,
    PRIMARY KEY (key_id, class, kind)
);
CREATE TABLE destructions (
    key_id TEXT PRIMARY KEY, id TEXT NOT NULL UNIQUE, tenant TEXT NOT NULL, counts TEXT NOT NULL,
    planned INTEGER NOT NULL, destroyed INTEGER NOT NULL, begun INTEGER NOT NULL, told INTEGER NOT NULL
);
CREATE TABLE erasures (
    id TEXT PRIMARY KEY, tenant TEXT NOT NULL, subject TEXT NOT NULL, reason TEXT NOT NULL, actor TEXT NOT NULL,
    asked INTEGER NOT NULL, begun INTEGER NOT NULL, told INTEGER NOT NULL, UNIQUE (tenant, subject)
);
CREATE TABLE erasure_steps (
    id TEXT PRIMARY KEY, erasure TEXT NOT NULL, tenant TEXT NOT NULL, subject TEXT NOT NULL, reason TEXT NOT NULL,
    actor TEXT NOT NULL, counts TEXT NOT NULL, decided INTEGER NOT NULL, destroyed INTEGER NOT NULL,
    begun INTEGER NOT NULL, told INTEGER NOT NULL
);
CREATE TABLE erased (
    intake_id TEXT NOT NULL, kind TEXT NOT NULL, request_id TEXT NOT NULL, step TEXT NOT NULL, at INTEGER NOT NULL,
    until INTEGER NOT NULL, PRIMARY KEY (intake_id, kind)
);
CREATE INDEX erased_by_request ON erased (request_id)
"""
_COLUMNS: Final = (
    "kind, intake_id, request_id, tenant, subject, class, purpose, created, keep_until_min, keep_until_max, "
    "legal_hold, sealed, payload_id"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class SealedObject(Kept):
    """An object of the store."""

    sealed: str
    """What `payload.seal` gave, bound to `bound_to(kind, intake_id)`."""
    payload_key: str | None
    """Its key, sealed; None where that is gone."""
    requested: datetime | None = None
    """When what it belongs to was asked; `created` if absent. It is not stored."""

    def erased(self, people: ErasedPeople) -> bool:
        """Say whether the person was erased after this was asked.

        Raises:
            UnavailableError: the disk does not say.
        """
        at = people.when(self.tenant, self.subject) if self.subject is not None else None
        return at is not None and (self.requested or self.created) <= at


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
    requested: datetime | None = None,
) -> SealedObject:
    """Seal an object for the store, with the bounds of its term; the fields are those of `Kept`.

    Raises:
        KeyDestroyed, VaultError, ConfigError, UnavailableError: as `Vault.seal`.
    """
    low, high = bounds(bucket, now)
    sealed, key = payload.seal(
        vault, plaintext, tenant=tenant, now=now, bound_to=bound_to(kind, intake_id), bucket=bucket
    )
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
        sealed=sealed,
        payload_key=key,
        requested=requested,
    )


def open_object(vault: Vault, item: SealedObject) -> bytes:
    """Open an object of the store.

    Raises:
        VaultError: its key is gone.
        KeyDestroyed, VaultError, ConfigError, UnavailableError: as `payload.open_sealed`.
    """
    if item.payload_key is None:
        raise VaultError(
            f"the key of the {item.kind} of {item.intake_id} is not there: restore {payload.FILE} from its backup"
        )
    where = bound_to(item.kind, item.intake_id)
    return payload.open_sealed(vault, item.sealed, item.payload_key, tenant=item.tenant, bound_to=where)


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
    """The sealed objects of one vault folder. Threads may share one.

    Attributes:
        database: their file.
        keys: their keys.
        people: who was erased.
    """

    def __init__(self, folder: Path) -> None:
        """Touch nothing yet; the files are made with the first object."""
        self.database: Final = Database(folder / FILE, APPLICATION_ID, _SCHEMA)
        self.keys: Final = PayloadKeys(folder)
        self.people: Final = ErasedPeople(folder)

    def close(self) -> None:
        """Close the files; the next call opens them again."""
        self.database.close()
        self.keys.close()

    def put(self, item: SealedObject) -> None:
        """Keep one object; see `put_many`."""
        self.put_many((item,))

    def put_many(self, items: Sequence[SealedObject]) -> None:
        """Keep objects, all or none; durable when this returns.

        An object of the same intake and kind is replaced, so that work can be done again; a legal hold stays. Of an
        intake that was erased nothing is kept any more, nor of what a person asked before they were erased.

        Raises:
            ValueError: an object must be kept longer than it may be, or has no key.
            KeyDestroyed: retention has destroyed the key of one.
            VaultError: what an object holds is not sealed, or the store is damaged.
            UnavailableError: the disk does not let us; nothing was kept.
        """
        for item in items:
            if item.keep_until_min > item.keep_until_max:
                raise ValueError(f"the {item.kind} of {item.intake_id} must be kept longer than it may be")
            if item.payload_key is None:
                raise ValueError(f"the {item.kind} of {item.intake_id} has no key")
        items = [item for item in items if not item.erased(self.people)]  # looked at again below: now for their keys
        keys = {str(key_of(item.sealed)) for item in items}
        self.keys.put([(payload_id(each.sealed), each.intake_id, each.kind, each.payload_key or "") for each in items])
        with self.database.transaction(make=True) as database:
            for key in keys:
                if database.execute("SELECT 1 FROM destructions WHERE key_id = ?", (key,)).fetchone():
                    raise KeyDestroyed(f"the data key {key} was destroyed by retention: nothing can be kept under it")
            erased = _erased(database, {item.intake_id for item in items})
            left = [item for item in items if item.intake_id not in erased and not item.erased(self.people)]
            database.executemany(
                """INSERT INTO objects VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
                ON CONFLICT (intake_id, kind) DO UPDATE SET
                request_id = excluded.request_id, tenant = excluded.tenant, subject = excluded.subject,
                class = excluded.class, purpose = excluded.purpose, key_id = excluded.key_id, sealed = excluded.sealed,
                created = excluded.created, keep_until_min = excluded.keep_until_min,
                keep_until_max = excluded.keep_until_max, legal_hold = max(legal_hold, excluded.legal_hold),
                payload_id = excluded.payload_id""",
                [_row(item) for item in left],
            )

    def get(self, intake_id: str, kind: Kind) -> SealedObject | None:
        """Give what is kept of an intake; None where nothing is."""
        question = f"SELECT {_COLUMNS} FROM objects WHERE intake_id = ? AND kind = ?"  # noqa: S608 - a constant
        found = self.database.read(question, (intake_id, kind))
        return self._objects(found)[0] if found else None

    def of_request(self, request_id: str, kind: Kind | None = None) -> tuple[SealedObject, ...]:
        """Give what is kept of a request, the newest first; several where it arrived several times."""
        found = self.database.read(
            f"SELECT {_COLUMNS} FROM objects WHERE request_id = ? AND kind = coalesce(?, kind) "  # noqa: S608 - a constant
            "ORDER BY created DESC, intake_id, kind",
            (request_id, kind),
        )
        return self._objects(found)

    def cover(self, holds: Callable[[], Holds]) -> int:
        """Note which objects are under legal hold; give how many are.

        What decides on an object notes it anew first, so that this is for those who look.

        Args:
            holds: gives the holds in force; asked once nobody else can remove anything.

        Raises:
            HoldError: a hold is damaged.
            VaultError: the store is damaged.
            UnavailableError: the disk does not let us.
        """
        with self.database.transaction() as database:
            note_holds(database, holds().active)
            return int(database.execute("SELECT count(*) FROM objects WHERE legal_hold").fetchone()[0])

    def count(self, hold: Hold) -> int:
        """Say how many objects a hold covers."""
        where, values = _where(hold)
        found = self.database.read(f"SELECT count(*) FROM objects WHERE {where}", values)  # noqa: S608 - names of columns
        return int(found[0][0]) if found else 0

    def groups(self, now: datetime) -> tuple[Group, ...]:
        """Give what is kept, counted by key, class, purpose and kind."""
        found = self.database.read(
            """SELECT key_id, tenant, class, purpose, kind, count(*), sum(legal_hold), min(created),
            min(keep_until_max), max(keep_until_max), sum(keep_until_max <= ? AND NOT legal_hold)
            FROM objects GROUP BY key_id, tenant, class, purpose, kind ORDER BY tenant, key_id, class, purpose, kind""",
            (stamp(now),),
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
                moment_of(oldest),
                moment_of(first),
                moment_of(last),
                late,
            )
            for key, tenant, cls, purpose, kind, count, held, oldest, first, last, late in found
        )

    def remove_expired(self, now: datetime, holds: Callable[[], Holds]) -> int:
        """Remove some thousand objects that have reached their maximum and are not held; 0 where none is left.

        Args:
            now: the time, in UTC.
            holds: gives the holds in force; asked once nobody else can remove anything.

        Raises:
            HoldError: a hold is damaged; nothing was removed.
            VaultError: the store is damaged.
            UnavailableError: the disk does not let us.
        """
        with self.database.transaction() as database:
            note_holds(database, holds().active)
            rows = database.execute(
                "DELETE FROM objects WHERE rowid IN (SELECT rowid FROM objects WHERE keep_until_max <= ? "
                "AND keep_until_min <= ? AND NOT legal_hold LIMIT ?) RETURNING key_id, class, kind, payload_id",
                (stamp(now), stamp(now), _CHUNK),
            ).fetchall()
            database.executemany(
                "INSERT INTO removed VALUES (?, ?, ?, 1) "
                "ON CONFLICT (key_id, class, kind) DO UPDATE SET objects = objects + 1",
                [row[:3] for row in rows],
            )
            database.execute(
                "DELETE FROM erased WHERE until <= ? AND step NOT IN (SELECT id FROM erasure_steps)", (stamp(now),)
            )
        self.keys.destroy(row[3] for row in rows)
        return len(rows)

    def plan(self, info: KeyInfo, *, new_id: str, now: datetime) -> bool:
        """Decide to destroy a key; False where objects are still under it.

        From here on nothing is kept under it any more, and nobody can hold what was. A key that was destroyed before
        and is back (from a backup) is destroyed again, under the same decision.
        """
        key = str(info.key)
        with self.database.transaction(make=True) as database:
            if database.execute("SELECT 1 FROM objects WHERE key_id = ? LIMIT 1", (key,)).fetchone():
                return False
            counts = database.execute("SELECT class, kind, objects FROM removed WHERE key_id = ?", (key,)).fetchall()
            database.execute(
                "INSERT INTO destructions VALUES (?, ?, ?, ?, ?, 0, 0, 0) "
                "ON CONFLICT (key_id) DO UPDATE SET destroyed = 0",
                (key, new_id, info.tenant, orjson.dumps(counts).decode(), stamp(now)),
            )
            database.execute("DELETE FROM removed WHERE key_id = ?", (key,))
            return True

    def destructions(self) -> tuple[Destruction, ...]:
        """Give the destructions that are not both done and told, the oldest first."""
        found = self.database.read(
            "SELECT id, key_id, tenant, counts, planned, destroyed, begun FROM destructions "
            "WHERE NOT (destroyed AND told) ORDER BY planned, key_id",
            (),
        )
        return tuple(
            Destruction(each, KeyId.parse(key), tenant, *_counted(counts), moment_of(planned), bool(done), bool(begun))
            for each, key, tenant, counts, planned, done, begun in found
        )

    def mark(self, ids: Sequence[str], step: Literal["destroyed", "begun", "told"]) -> None:
        """Note that these destructions have come so far: the key is gone, its telling was begun, evidence has it."""
        with self.database.transaction() as database:
            statement = f"UPDATE destructions SET {step} = 1 WHERE id = ?"  # noqa: S608 - one of three words
            database.executemany(statement, [(each,) for each in ids])

    def tidy(self) -> None:
        """Destroy keys without an object, and empty the write-ahead logs, so that removed rows are gone there too."""
        place = ""
        wanted = "SELECT payload_id FROM objects WHERE payload_id IN (SELECT value FROM json_each(?))"
        while ids := self.keys.old(place):
            needed = {each for (each,) in self.database.read(wanted, (orjson.dumps(ids).decode(),))}
            self.keys.destroy_old(set(ids) - needed)
            place = ids[-1]
        self.keys.tidy()
        self.database.tidy()

    def _objects(self, rows: Sequence[Any]) -> tuple[SealedObject, ...]:
        keys = self.keys.get(row[-1] for row in rows)
        return tuple(_object(row, keys.get(row[-1])) for row in rows)


def note_holds(database: sqlite3.Connection, holds: Sequence[Hold]) -> None:
    """Note on each object whether one of these holds covers it."""
    for hold in holds:
        where, values = _where(hold)
        database.execute(f"UPDATE objects SET legal_hold = 1 WHERE NOT legal_hold AND {where}", values)  # noqa: S608 - names of columns
    held = database.execute("SELECT DISTINCT tenant, subject, request_id FROM objects WHERE legal_hold").fetchall()
    database.executemany(
        "UPDATE objects SET legal_hold = 0 WHERE legal_hold AND tenant = ? AND subject IS ? AND request_id = ?",
        [each for each in held if not Holds(tuple(holds)).covering(tenant=each[0], subject=each[1], request=each[2])],
    )


def _where(hold: Hold) -> tuple[str, list[str]]:
    given = {
        "tenant": (hold.tenant,) if hold.tenant is not None else (),
        "subject": subject_names(hold.subject) if hold.subject is not None else (),
        "request_id": (hold.request,) if hold.request is not None else (),
    }
    named = {name: values for name, values in given.items() if values}
    said = [f"{name} IN ({', '.join('?' * len(values))})" for name, values in named.items()]
    return " AND ".join(said), [value for values in named.values() for value in values]


def _erased(database: sqlite3.Connection, intakes: set[str]) -> set[str]:
    wanted = "SELECT intake_id FROM erased WHERE intake_id IN (SELECT value FROM json_each(?))"
    return {each for (each,) in database.execute(wanted, (orjson.dumps(list(intakes)).decode(),))}


def _row(item: SealedObject) -> tuple[Any, ...]:
    times = map(stamp, (item.created, item.keep_until_min, item.keep_until_max))
    who = item.intake_id, item.kind, item.request_id, item.tenant, item.subject
    what = item.data_class, item.purpose, str(key_of(item.sealed)), item.sealed
    return *who, *what, *times, int(item.legal_hold), payload_id(item.sealed)


def _object(row: Sequence[Any], key: str | None) -> SealedObject:
    kind, intake, request, tenant, subject, cls, purpose, created, low, high, held, sealed, _ = row
    return SealedObject(
        kind=kind,
        intake_id=intake,
        request_id=request,
        tenant=tenant,
        subject=subject,
        data_class=cls,
        purpose=purpose,
        created=moment_of(created),
        keep_until_min=moment_of(low),
        keep_until_max=moment_of(high),
        legal_hold=bool(held),
        sealed=sealed,
        payload_key=key,
    )


def _counted(text: str) -> tuple[dict[str, int], dict[str, int]]:
    classes: dict[str, int] = {}
    kinds: dict[str, int] = {}
    for name, kind, objects in orjson.loads(text):
        classes[name] = classes.get(name, 0) + objects
        kinds[kind] = kinds.get(kind, 0) + objects
    return classes, kinds


def stamp(moment: datetime) -> int:
    """Give a moment as the store's files have it: microseconds since 1970."""
    return (moment - _EPOCH) // timedelta(microseconds=1)


def moment_of(stamped: int) -> datetime:
    """Give the moment that a number of microseconds since 1970 stands for, in UTC."""
    return _EPOCH + timedelta(microseconds=stamped)
