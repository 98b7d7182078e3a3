"""Erasure of what is kept about a person: the keys of their payloads are destroyed, and it is told before and after.

The steps, each durable before the next, and each safe to do again:

    1. that it was asked for is noted, and told (`erasure.requested`)
    2. what may go is decided in one transaction with the holds: objects leave the store, and their keys are listed;
       before it ends, it is noted that the person is erased, so that what is under way about them ends too
    3. the keys are destroyed, and that is noted
    4. that its telling begins is noted, it is told (`subject.erased`), and that is noted

Under a hold nothing is decided. What has not reached its minimum stays, unless its rule says otherwise. In both cases
the request stays open, and every later run of retention carries it out as far as it may.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final, Literal

import orjson

from policy.holds import Hold, Holds
from policy.retention import Kept, RetentionRules
from policy.vault.files import check_ours
from policy.vault.store import VaultStore, moment_of, stamp

_MOST: Final = 6
_NAME: Final = 60
_REASON: Final = 300
"""How many classes and purposes one event names, and how much of each and of the reason: its detail has a bound."""


@dataclass(frozen=True, slots=True)
class Erasure:
    """A request for erasure that is not carried out as a whole."""

    id: str
    """Its id, 32 hex digits."""
    tenant: str
    """Whose data."""
    subject: str
    """About whom."""
    reason: str
    """Why, with what detectors find masked."""
    actor: str
    """Who asked, as `kind:name`."""
    asked: datetime
    """When."""
    begun: bool = False
    """Whether telling that it was asked for was begun; where it did not end, evidence may have it."""
    told: bool = False
    """Whether evidence has it."""


@dataclass(frozen=True, slots=True)
class Step:
    """Payloads of a person that it was decided to erase, and how far that has come."""

    id: str
    """Its own id, 32 hex digits; evidence of it carries this, however often it is told."""
    erasure: str
    """Id of the request that it carries out."""
    tenant: str
    """Whose data."""
    subject: str
    """About whom."""
    reason: str
    """Why."""
    actor: str
    """Who asked."""
    counts: Mapping[str, Mapping[str, int]]
    """How many payloads, by kind and by class."""
    decided: datetime
    """When it was decided."""
    destroyed: bool
    """Whether the keys are gone."""
    begun: bool
    """Whether telling it was begun."""

    @property
    def keys(self) -> int:
        """How many payloads lose their key."""
        return sum(self.counts["kinds"].values())


@dataclass(frozen=True, slots=True)
class Waiting:
    """Payloads of a person that have to stay for now, under one rule."""

    data_class: str
    """Their class."""
    purpose: str
    """Their purpose."""
    objects: int
    """How many."""
    until: datetime
    """When the last of them reaches its minimum."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """What may be done with a request for erasure now."""

    found: int
    """Payloads of the person in the store."""
    held: tuple[Hold, ...] = ()
    """Holds that forbid it; then nothing is erased."""
    waits: tuple[Waiting, ...] = ()
    """What has to stay until its minimum."""
    goes: tuple[Kept, ...] = ()
    """What may go."""

    @property
    def refused(self) -> bool:
        """Whether something stays."""
        return bool(self.held or self.waits)


@dataclass(frozen=True, slots=True)
class Gone:
    """That something of a request was erased."""

    kinds: tuple[str, ...]
    """What it was."""
    at: datetime
    """When it was decided."""


class Erasures:
    """The requests for erasure of one vault."""

    def __init__(self, store: VaultStore, clock: Callable[[], datetime] = lambda: datetime.now(UTC)) -> None:
        """Touch nothing yet.

        Args:
            store: the vault's store.
            clock: gives the time at which a person is erased, in UTC: what was asked before it ends.
        """
        self._store = store
        self._clock = clock

    def tenants(self, subject: str) -> tuple[str, ...]:
        """Give the tenants under which something is kept of a person, or erasure was asked for.

        Raises:
            VaultError: the store is damaged.
            UnavailableError: the disk does not let us.
        """
        found = self._store.database.read(
            "SELECT tenant FROM objects WHERE subject = ? UNION SELECT tenant FROM erasures WHERE subject = ? "
            "UNION SELECT tenant FROM erasure_steps WHERE subject = ? ORDER BY tenant",
            (subject, subject, subject),
        )
        return tuple(each for (each,) in found)

    def ask(self, erasure: Erasure) -> Erasure:
        """Note that erasure was asked for; where it was before and is not carried out, give that request.

        Where that one waits, it reaches from now on what was asked since, too.

        Raises:
            ConfigError: the vault is another user's, whose workers could not read what is written.
            VaultError: the store is damaged.
            UnavailableError: the disk does not let us.
        """
        check_ours(self._store.people.folder.parent)
        with self._store.database.transaction(make=True) as database:
            database.execute(
                "INSERT INTO erasures VALUES (?, ?, ?, ?, ?, ?, 0, 0) ON CONFLICT (tenant, subject) "
                "DO UPDATE SET asked = max(asked, excluded.asked) WHERE told",
                (erasure.id, erasure.tenant, erasure.subject, erasure.reason, erasure.actor, stamp(erasure.asked)),
            )
            wanted = "SELECT * FROM erasures WHERE tenant = ? AND subject = ?"
            return _erasure(database.execute(wanted, (erasure.tenant, erasure.subject)).fetchone())

    def again(self, tenant: str, subject: str, asked: datetime) -> Erasure | None:
        """Let a request that is begun reach what was asked since, of which nothing is kept; give it.

        It may be one that is done and not told yet. None where there is none.

        Raises:
            VaultError: the store is damaged.
            UnavailableError: the disk does not let us.
        """
        with self._store.database.transaction() as database:
            database.execute(
                "INSERT INTO erasures SELECT erasure, tenant, subject, reason, actor, ?, 1, 1 FROM erasure_steps "
                "WHERE tenant = ? AND subject = ? AND NOT told ORDER BY decided DESC LIMIT 1 ON CONFLICT DO NOTHING",
                (stamp(asked), tenant, subject),
            )
            found = database.execute(
                "UPDATE erasures SET asked = CASE WHEN told THEN max(asked, ?) ELSE asked END "
                "WHERE tenant = ? AND subject = ? RETURNING *",
                (stamp(asked), tenant, subject),
            ).fetchall()
            return _erasure(found[0]) if found else None

    def open(self) -> tuple[Erasure, ...]:
        """Give the requests that are not carried out as a whole, the oldest first.

        Raises:
            VaultError: the store is damaged.
            UnavailableError: the disk does not let us.
        """
        return tuple(map(_erasure, self._store.database.read("SELECT * FROM erasures ORDER BY asked, id")))

    def people(self) -> frozenset[tuple[str, str]]:
        """Give tenant and subject of everything that is begun and not done and told.

        Raises:
            VaultError: the store is damaged.
            UnavailableError: the disk does not let us.
        """
        return frozenset({(each.tenant, each.subject) for each in self.open()}) | {
            (each.tenant, each.subject) for each in self.steps()
        }

    def look(
        self, tenant: str, subject: str, *, now: datetime, holds: Callable[[], Holds], rules: RetentionRules
    ) -> Verdict:
        """Say what may be erased of a person now; nothing is changed.

        Raises:
            HoldError: a hold is damaged.
            VaultError: the store is damaged.
            UnavailableError: the disk does not let us.
        """
        rows = self._store.database.read(_OBJECTS, (tenant, subject))
        items = [_kept(row, tenant, subject) for row in rows]
        return _verdict(items, now, holds(), rules, person=(tenant, subject))

    def decide(
        self,
        erasure: Erasure,
        *,
        now: datetime,
        new_id: Callable[[], str],
        holds: Callable[[], Holds],
        rules: RetentionRules,
    ) -> Verdict:
        """Decide what of a person goes now: from here on nobody can hold it. A request that is done is closed.

        What is under way about them ends too (`ErasedPeople`), unless they are held. Done again for what had to wait,
        it leaves alone what the person asked after the first time.

        Args:
            erasure: the request.
            now: the time, in UTC.
            new_id: gives an id for the step, 32 hex digits.
            holds: gives the holds in force; asked once nobody else can remove anything.
            rules: says what may go before its minimum.

        Raises:
            HoldError: a hold is damaged; nothing is erased.
            VaultError: the store is damaged.
            UnavailableError: the disk does not let us; nothing is decided.
        """
        with self._store.database.transaction(make=True) as database:
            person, people = (erasure.tenant, erasure.subject), self._store.people
            since = people.moment(*person, erasure.id, erasure.asked)
            items = [_kept(row, *person) for row in database.execute(_OBJECTS, person).fetchall()]
            # What was kept since, was asked since: `VaultStore` keeps nothing else.
            items = [item for item in items if since is None or item.created <= since]
            verdict = _verdict(items, now, holds(), rules, person=person)
            if verdict.held:
                return verdict
            if since is None:
                # Within the transaction: whoever keeps something does so before it, and it is found here, or after it,
                # and knows of this.
                people.close(*person, erasure.id, self._clock)
            untold = database.execute(_UNTOLD, (erasure.id,)).fetchone()
            if verdict.goes or not (verdict.waits or untold):  # where nothing is there, its end is told all the same
                step = new_id()
                database.execute(
                    "INSERT INTO erasure_steps VALUES (?, ?, ?, ?, ?, ?, ?, ?, 0, 0, 0)",
                    (
                        *(step, erasure.id, erasure.tenant, erasure.subject, erasure.reason, erasure.actor),
                        *(orjson.dumps(_counts(verdict.goes)).decode(), stamp(now)),
                    ),
                )
                database.executemany(
                    "INSERT OR REPLACE INTO erased VALUES (?, ?, ?, ?, ?, ?)",
                    [
                        (item.intake_id, item.kind, item.request_id, step, stamp(now), stamp(item.keep_until_max))
                        for item in verdict.goes
                    ],
                )
                database.executemany(
                    "DELETE FROM objects WHERE intake_id = ? AND kind = ?",
                    [(item.intake_id, item.kind) for item in verdict.goes],
                )
            if not verdict.waits:
                database.execute("DELETE FROM erasures WHERE id = ?", (erasure.id,))
            return verdict

    def steps(self) -> tuple[Step, ...]:
        """Give the steps that are not both done and told, the oldest first.

        Raises:
            VaultError: the store is damaged.
            UnavailableError: the disk does not let us.
        """
        found = self._store.database.read(
            "SELECT id, erasure, tenant, subject, reason, actor, counts, decided, destroyed, begun FROM erasure_steps "
            "WHERE NOT told ORDER BY decided, id"
        )
        return tuple(
            Step(
                *(row[0], row[1], row[2], row[3], row[4], row[5]),
                counts=orjson.loads(row[6]),
                decided=moment_of(row[7]),
                destroyed=bool(row[8]),
                begun=bool(row[9]),
            )
            for row in found
        )

    def destroy(self, step: Step) -> None:
        """Destroy the keys of a step; what they sealed can never be read again. Doing it twice is the same as once.

        Raises:
            VaultError: the store is damaged.
            UnavailableError: the disk does not let us; do it again.
        """
        listed = self._store.database.read("SELECT intake_id, kind FROM erased WHERE step = ?", (step.id,))
        self._store.keys.destroy_of(listed)
        self._store.database.tidy()
        with self._store.database.transaction() as database:
            database.execute("UPDATE erasure_steps SET destroyed = 1 WHERE id = ?", (step.id,))

    def mark(self, ids: Sequence[str], mark: Literal["begun", "told"]) -> None:
        """Note that these steps are being told, or are told; what is told is forgotten, its person too.

        Raises:
            VaultError: the store is damaged.
            UnavailableError: the disk does not let us.
        """
        statement = (
            "DELETE FROM erasure_steps WHERE id = ? AND destroyed"
            if mark == "told"
            else "UPDATE erasure_steps SET begun = 1 WHERE id = ?"
        )
        with self._store.database.transaction() as database:
            database.executemany(statement, [(each,) for each in ids])

    def mark_asked(self, ids: Sequence[str], mark: Literal["begun", "told"]) -> None:
        """Note that these requests are being told, or are told.

        Raises:
            VaultError: the store is damaged.
            UnavailableError: the disk does not let us.
        """
        with self._store.database.transaction() as database:
            statement = f"UPDATE erasures SET {mark} = 1 WHERE id = ?"  # noqa: S608 - one of two words
            database.executemany(statement, [(each,) for each in ids])

    def of_request(self, request_id: str) -> Gone | None:
        """Say whether something of a request was erased; None where nothing was.

        Raises:
            VaultError: the store is damaged.
            UnavailableError: the disk does not let us.
        """
        found = self._store.database.read(
            "SELECT kind, at FROM erased WHERE request_id = ? ORDER BY at, kind", (request_id,)
        )
        return Gone(tuple(dict.fromkeys(kind for kind, _ in found)), moment_of(found[-1][1])) if found else None


def carry_out(
    erasures: Erasures,
    *,
    now: datetime,
    new_id: Callable[[], str],
    holds: Callable[[], Holds],
    rules: RetentionRules,
) -> tuple[Step, ...]:
    """Do what may be done of all open requests that evidence has; give the steps that have to be told.

    Raises:
        HoldError: a hold is damaged; nothing more is erased.
        VaultError: the store is damaged.
        UnavailableError: the disk does not let us; run it again.
    """
    for erasure in erasures.open():
        if erasure.told:
            erasures.decide(erasure, now=now, new_id=new_id, holds=holds, rules=rules)
    for step in erasures.steps():
        if not step.destroyed:
            erasures.destroy(step)
    return erasures.steps()


def requested(erasure: Erasure) -> str:
    """Give what the event `erasure.requested` says, as JSON."""
    return _json({"erasure": erasure.id, "reason": erasure.reason[:_REASON]})


def refused(erasure: Erasure, verdict: Verdict) -> str:
    """Give what the event `erasure.refused` says, as JSON: which holds, or which minimum, and until when."""
    content: dict[str, Any] = {"erasure": erasure.id, "stays": verdict.found - len(verdict.goes)}
    if verdict.held:
        content["holds"] = [hold.id for hold in verdict.held[:_MOST]]
    else:
        content["minimum"] = [
            {
                "class": each.data_class[:_NAME],
                "purpose": each.purpose[:_NAME],
                "objects": each.objects,
                "until": each.until,
            }
            for each in verdict.waits[:_MOST]
        ]
    return _json(content)


def detail(step: Step) -> str:
    """Give what the event `subject.erased` says of a step, as JSON."""
    largest = {
        name: {key[:_NAME]: count for key, count in sorted(counts.items(), key=_largest_first)[:_MOST]}
        for name, counts in step.counts.items()
    }
    content = {"erasure": step.erasure, "step": step.id, "keys": step.keys, **largest}
    return _json({**content, "reason": step.reason[:_REASON]})


def _largest_first(counted: tuple[str, int]) -> tuple[int, str]:
    return -counted[1], counted[0]


_UNTOLD: Final = "SELECT 1 FROM erasure_steps WHERE erasure = ? AND NOT told"
_OBJECTS: Final = (
    "SELECT kind, intake_id, request_id, class, purpose, created, keep_until_min, keep_until_max FROM objects "
    "WHERE tenant = ? AND subject = ? ORDER BY created, intake_id, kind"
)


def _kept(row: Sequence[Any], tenant: str, subject: str) -> Kept:
    kind, intake, request, data_class, purpose, created, low, high = row
    return Kept(
        kind=kind,
        intake_id=intake,
        request_id=request,
        tenant=tenant,
        subject=subject,
        data_class=data_class,
        purpose=purpose,
        created=moment_of(created),
        keep_until_min=moment_of(low),
        keep_until_max=moment_of(high),
    )


def _verdict(
    items: Sequence[Kept], now: datetime, holds: Holds, rules: RetentionRules, *, person: tuple[str, str]
) -> Verdict:
    # The person themselves too: of what is under way nothing is in the store yet.
    tenant, subject = person
    found = list(holds.covering(tenant=tenant, subject=subject, request=None))
    for item in items:
        found += holds.covering(tenant=item.tenant, subject=item.subject, request=item.request_id)
    held = {hold.id: hold for hold in found}
    if held:
        return Verdict(len(items), held=tuple(held.values()))
    goes = tuple(item for item in items if _may_go(item, now, rules))
    stays: dict[tuple[str, str], list[Kept]] = {}
    for item in items:
        if not _may_go(item, now, rules):
            stays.setdefault((item.data_class, item.purpose), []).append(item)
    waits = tuple(
        Waiting(*names, len(each), max(item.keep_until_min for item in each)) for names, each in sorted(stays.items())
    )
    return Verdict(len(items), waits=waits, goes=goes)


def _may_go(item: Kept, now: datetime, rules: RetentionRules) -> bool:
    # What has no minimum never waits, even where it was kept a moment after `now` was taken.
    return item.keep_until_min <= item.created or rules.erasable(item, now)


def _counts(items: Sequence[Kept]) -> dict[str, dict[str, int]]:
    return {
        "kinds": dict(Counter(str(item.kind) for item in items)),
        "classes": dict(Counter(item.data_class for item in items)),
    }


def _erasure(row: Sequence[Any]) -> Erasure:
    identity, tenant, subject, reason, actor, asked, begun, told = row
    return Erasure(identity, tenant, subject, reason, actor, moment_of(asked), bool(begun), bool(told))


def _json(content: Mapping[str, Any]) -> str:
    return orjson.dumps(content).decode()
