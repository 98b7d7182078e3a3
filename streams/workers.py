"""Which workers run, and whether they belong together: what lies on `ai.workers`, read as data; pure.

A worker needs the same vault as all others, or it cannot open what they have sealed, and the same keys, store and
identity, or evidence comes apart and requests are let in by two rules. So each one writes on the topic what it was set
up with, and does not run beside others that differ.

    vault/<worker>    which vault the site has: the record of the lowest offset counts, for good
    worker/<worker>   one worker, written again and again while it lives; a tombstone where it has ended

All times are the broker's (the topic stamps records when they are appended), so that clocks of workers do not matter.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Annotated, Final, Literal, NamedTuple

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field
from pydantic.alias_generators import to_camel

BEAT_S: Final = 5.0
"""Seconds between two records of a worker that lives."""

DEAD_AFTER_S: Final = 25.0
"""Seconds without a record after which a worker counts as dead."""

SITE: Final = "vault/"
WORKER: Final = "worker/"

Id = Annotated[str, Field(pattern=r"^[0-9a-f]{8,64}$")]
"""Names something without revealing it."""

Word = Annotated[str, Field(pattern=r"^[A-Za-z0-9._:+/-]{1,128}$")]
"""Text that may stand in a sentence, whoever wrote it."""


Moment = Annotated[AwareDatetime, Field(ge=datetime(2000, 1, 1, tzinfo=UTC), le=datetime(2200, 1, 1, tzinfo=UTC))]
"""A time that can be told in any time zone."""


class _Shared(BaseModel):
    """Base of what is on the topic; fields of a later version are ignored."""

    model_config = ConfigDict(
        frozen=True, extra="ignore", alias_generator=to_camel, populate_by_name=True, hide_input_in_errors=True
    )

    def to_json(self) -> bytes:
        """Return the record's bytes."""
        return self.model_dump_json(by_alias=True, exclude_none=True).encode()


class Facts(_Shared):
    """What a worker was set up with; None where it does not need it, or an older version does not say it."""

    site: Word | None = None
    """Name of the site."""
    vault: Id | None = None
    """Id of the vault's folder."""
    master: Id | None = None
    """Fingerprint of what the vault's hashes are derived from, which tells master keys apart that do not belong."""
    keys: Annotated[tuple[Id, ...], Field(max_length=64)] = ()
    """Fingerprints of the public keys that sign evidence; after a rotation, of several."""
    store: Id | None = None
    """Id of the evidence store."""
    log: Word | None = None
    """Which log offsets belong to."""
    identity: Literal["jwt", "unsigned"] | None = None
    """How actor and tenant of a request are established."""
    hosted: Literal["real", "stand-in"] | None = None
    """Whether hosted routes lead to providers, or to a stand-in that answers without a model."""


class Worker(_Shared):
    """One worker."""

    worker: Id
    """Its id, another one at each start."""
    host: Word
    """Name of its machine or container."""
    pid: Annotated[int, Field(ge=0, le=2**32)]
    """Its process id there."""
    started: Moment
    """When it started, by its own clock."""
    version: Word | None = None
    """Version of the program."""
    running: bool = False
    """Whether it runs; False while it finds out whether it may."""
    facts: Facts
    """What it was set up with."""

    @property
    def place(self) -> str:
        """Return how people find it: `HOST:PID`."""
        return f"{self.host}:{self.pid}"


class SiteVault(_Shared):
    """Which vault the site has."""

    vault: Id
    """Id of the vault's folder."""
    host: Word
    """Machine or container of the worker that was first."""
    pid: Annotated[int, Field(ge=0, le=2**32)]
    """Its process id."""


class Seen(NamedTuple):
    """What is known of a worker."""

    worker: Worker
    """Its last record."""
    first: int
    """Offset of its first record that is still there."""
    last: int
    """Offset of its last one."""
    heard: datetime
    """When the broker got that."""


class Claim(NamedTuple):
    """The record that says which vault the site has."""

    vault: SiteVault
    """What it says."""
    key: str
    """Its key."""
    offset: int
    """Where it lies."""
    written: datetime
    """When the broker got it."""


@dataclass(frozen=True, slots=True)
class Difference:
    """A setting in which a worker differs from the site or from another worker."""

    variable: str
    """The setting."""
    sentence: str
    """What differs, and what to do."""


class Roster:
    """What the records say so far."""

    def __init__(self) -> None:
        self.workers: dict[str, Seen] = {}
        self.claims: dict[str, Claim] = {}
        self.unreadable = 0
        """Records that say nothing that is understood."""

    def take(self, key: bytes | None, value: bytes | None, offset: int, timestamp_ms: int) -> None:
        """Take the next record; one that cannot be read is counted and changes nothing."""
        try:
            name = (key or b"").decode("ascii")
            at = datetime.fromtimestamp(timestamp_ms / 1000, UTC)
            if value is None:
                self.workers.pop(name, None)
                self.claims.pop(name, None)
            elif name.startswith(WORKER):
                worker = Worker.model_validate_json(value)
                if name != WORKER + worker.worker:
                    raise ValueError(name)  # noqa: TRY301 - counted like every other record that says nothing
                before = self.workers.get(name)
                self.workers[name] = Seen(worker, before.first if before else offset, offset, at)
            elif name.startswith(SITE):
                self.claims[name] = Claim(SiteVault.model_validate_json(value), name, offset, at)
            else:
                self.unreadable += 1
        except (ValueError, OverflowError, OSError):  # what pydantic raises is a ValueError too
            self.unreadable += 1

    @property
    def vault(self) -> Claim | None:
        """The record that counts of those that name the site's vault; None where there is none."""
        return min(self.claims.values(), key=lambda claim: claim.offset, default=None)

    def alive(self, now: datetime) -> tuple[Seen, ...]:
        """Return the workers that were heard of lately, the first one first."""
        found = [seen for seen in self.workers.values() if (now - seen.heard).total_seconds() <= DEAD_AFTER_S]
        return tuple(sorted(found, key=lambda seen: seen.first))


def vault_differs(mine: Facts, claim: Claim) -> Difference | None:
    """Return why a worker may not run in this site for good; None where its vault is the site's."""
    if mine.vault is None or mine.vault == claim.vault.vault:
        return None
    return Difference(
        "WAYBILL_VAULT",
        f"this worker's vault {_short(mine.vault)} is not the site's, {_short(claim.vault.vault)}, which worker "
        f"{claim.vault.host}:{claim.vault.pid} registered at {stamp(claim.written)}: set WAYBILL_VAULT to the folder "
        "that all workers of the site share (or WAYBILL_KAFKA_PREFIX, for a site of its own); where that vault is gone "
        "for good, `waybill site adopt` puts this one in its place",
    )


_ALIKE: Final = (
    ("site", "WAYBILL_SITE", "site"),
    ("vault", "WAYBILL_VAULT", "vault"),
    ("master", "WAYBILL_VAULT_KEY_FILE", "vault's master key"),
    ("store", "WAYBILL_EVIDENCE_STORE", "evidence store"),
    ("log", "WAYBILL_LOG_ID", "log id"),
    ("identity", "WAYBILL_IDENTITY__METHOD", "way to establish identity"),
    ("hosted", "WAYBILL_ENDPOINTS__<NAME>__PROVIDER", "hosted provider"),
)
"""Facts that must be equal: field, setting, and what people call it."""


def differences(mine: Facts, other: Worker) -> Iterator[Difference]:
    """Return in what a worker differs from another one that runs."""
    theirs = other.facts
    where = f"worker {other.place}, which runs since {stamp(other.started)}"
    for field, variable, title in _ALIKE:
        ours, their = getattr(mine, field), getattr(theirs, field)
        if ours is not None and their is not None and ours != their:
            yield Difference(
                variable,
                f"this worker's {title} {_short(ours)} is not {_short(their)}, which is that of {where}: "
                f"set {variable} to the same for all workers, or stop that one first",
            )
    if mine.keys and theirs.keys and not set(mine.keys) & set(theirs.keys):
        yield Difference(
            "WAYBILL_EVIDENCE_KEYS",
            f"this worker's evidence is signed by the key {_short(mine.keys[-1])}, and that of {where} by "
            f"{_short(theirs.keys[-1])}: set WAYBILL_EVIDENCE_KEYS to the folder that all workers of the site share",
        )


def copied_vault(mine: Facts, other: Worker, present: Iterable[str]) -> Difference | None:
    """Return why a worker's vault is not the one that another worker uses, although they have the same id.

    Args:
        mine: what the worker was set up with.
        other: the other one, which runs.
        present: ids of the workers that have left their mark in this vault's folder.
    """
    if mine.vault is None or mine.vault != other.facts.vault or other.worker in set(present):
        return None
    return Difference(
        "WAYBILL_VAULT",
        f"this worker's vault {_short(mine.vault)} is a copy: worker {other.place}, which runs since "
        f"{stamp(other.started)}, uses another folder of the same id, and keys made in one are not in the other: set "
        "WAYBILL_VAULT to one folder for all workers",
    )


def stamp(moment: datetime) -> str:
    """Return a time for people: UTC, to the second."""
    return f"{moment.astimezone(UTC):%Y-%m-%dT%H:%M:%SZ}"


def _short(value: str) -> str:
    return value[:12] if len(value) >= 32 else value  # noqa: PLR2004 - ids and fingerprints; names are said whole
