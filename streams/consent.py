"""Consent: what a person allows, by subject and purpose, and the register that every worker holds of it in memory.

The topic `ai.consent` is the truth: the last record of a key counts, a tombstone forgets it. A worker follows all of
it, without a consumer group, and answers from memory. It fails closed: what has not been read to the end, or may be
out of date, is `unknown`, and no policy takes that for a yes.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final, Literal, NamedTuple
from urllib.parse import quote, unquote

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.errors import KafkaError
from prometheus_client import CollectorRegistry, Counter, Gauge
from pydantic import ValidationError, model_validator

from evidence.errors import RecordError, UnavailableError
from evidence.records import Record, ShortText
from evidence.rfc3339 import Moment
from policy.vault.erased import Erased, nobody
from streams.errors import BrokerUnavailable, TopicMismatch
from streams.kafka import KafkaSettings, consumer, partition_counts
from streams.readable import failure_of
from streams.topics import CONSENT

log = logging.getLogger(__name__)

NAME: Final = "consent"

EVERYTHING: Final = "*"
"""As a purpose: every purpose. It can be withdrawn, never granted: consent is for something."""

State = Literal["granted", "withdrawn", "none", "unknown"]

_NEVER: Final = -float("inf")
_LONG_AGO: Final = datetime.min.replace(tzinfo=UTC)

_POLL_MS: Final = 200
_PROVE_EVERY_S: Final = 1.0
_PROVE_WITHIN_S: Final = 5.0
_COUNT_EVERY_S: Final = 10.0
_REBUILD_AFTER_S: Final = 3600.0
"""After so long without a word everything is read anew: a tombstone that was missed may be compacted away by then."""


class ConsentEntry(Record):
    """What is known of one subject and purpose."""

    consent_version: Literal["1.0"] = "1.0"
    """Version of this form."""
    tenant: ShortText
    """For which tenant."""
    subject: ShortText
    """Whom the data is about: a reference of the tenant's own, never a name or an address."""
    purpose: ShortText
    """What the data may be used for; `*` withdraws every purpose."""
    state: Literal["granted", "withdrawn"]
    """What the person said."""
    reference: ShortText | None = None
    """Where they said it: a form, a contract, a ticket."""
    recorded_at_utc: Moment
    """When it was written down."""
    recorded_by: ShortText
    """Who wrote it down, as `kind:id`."""
    expires_at_utc: Moment | None = None
    """Until when a grant holds; None is until it is withdrawn."""

    @model_validator(mode="after")
    def _sensible(self) -> ConsentEntry:
        if self.purpose == EVERYTHING and self.state == "granted":
            raise ValueError("consent is for a purpose: `*` can be withdrawn, not granted")
        if self.state == "withdrawn" and self.expires_at_utc is not None:
            raise ValueError("a withdrawal does not expire")
        return self

    @property
    def scope(self) -> Scope:
        """Give what it is about."""
        return Scope(self.tenant, self.subject, self.purpose)


class Scope(NamedTuple):
    """What consent is about."""

    tenant: str
    """For which tenant."""

    subject: str
    """Whom the data is about."""

    purpose: str
    """What for; `*` is everything."""

    @property
    def key(self) -> str:
        """Give the key on the topic: `tenant/subject/purpose`, each part percent-encoded."""
        return "/".join(quote(part, safe="*") for part in self)

    @classmethod
    def of_key(cls, key: bytes | None) -> Scope:
        """Read a key.

        Raises:
            RecordError: `bad_consent`: it is not one of ours.
        """
        try:
            parts = [unquote(part, errors="strict") for part in (key or b"").decode("ascii").split("/")]
            scope = cls(*parts)
        except (UnicodeDecodeError, TypeError):
            raise RecordError("bad_consent", "the key is not `tenant/subject/purpose`") from None
        if not all(scope) or scope.key.encode() != key:
            raise RecordError("bad_consent", "the key is not `tenant/subject/purpose`, each part percent-encoded")
        return scope


class ConsentState(NamedTuple):
    """The register's answer."""

    state: State
    """`granted`, `withdrawn`, `none` (nobody said anything, or it has expired) or `unknown` (do not rely on it)."""

    revision: str | None
    """Where the topic says so: `<partition>:<offset>`."""


UNKNOWN: Final = ConsentState("unknown", None)
"""The answer of a register that cannot say."""

NONE: Final = ConsentState("none", None)
"""The answer where nobody said anything."""


@dataclass(frozen=True, slots=True)
class Held:
    """What the register holds of one scope."""

    answer: ConsentState
    """What counts while it has not expired."""

    expires_at: datetime | None
    """When it does."""

    entry: ConsentEntry | None
    """The record; None where it could not be read."""


class ConsentTable:
    """What the records say so far; pure."""

    def __init__(self) -> None:
        self.held: dict[Scope, Held] = {}
        self.bad = 0
        """Records that could not be read."""

    def take(self, key: bytes | None, value: bytes | None, partition: int, offset: int) -> bool:
        """Take a record; False where it is broken. What a broken one is about is unknown until the next good one."""
        try:
            scope = Scope.of_key(key)
        except RecordError:
            self.bad += 1  # it names nobody: there is nothing that it could have said
            return False
        if value is None:
            self.held.pop(scope, None)
            return True
        revision = f"{partition}:{offset}"
        try:
            entry = ConsentEntry.model_validate_json(value)
        except ValidationError:
            entry = None
        if entry is None or entry.scope != scope:
            self.bad += 1
            self.held[scope] = Held(ConsentState("unknown", revision), None, None)
            return False
        self.held[scope] = Held(ConsentState(entry.state, revision), entry.expires_at_utc, entry)
        return True

    def state(self, tenant: str, subject: str, purpose: str, now: datetime) -> ConsentState:
        """Say what holds; a withdrawal of everything stands above any grant, whichever came first."""
        # Plain tuples: they are equal to scopes and are made in half the time.
        everything = self.held.get((tenant, subject, EVERYTHING))  # type: ignore[call-overload]
        if everything is not None:
            return everything.answer  # type: ignore[no-any-return]
        found = self.held.get((tenant, subject, purpose))  # type: ignore[call-overload]
        if found is None:
            return NONE
        if found.expires_at is not None and found.expires_at <= now:
            return ConsentState("none", found.answer.revision)
        return found.answer  # type: ignore[no-any-return]

    def recorded(self, tenant: str, subject: str, purpose: str) -> datetime:
        """Say when what is held of a scope was written down; long ago where nothing is."""
        found = self.held.get(Scope(tenant, subject, purpose))
        return found.entry.recorded_at_utc if found is not None and found.entry is not None else _LONG_AGO


class ConsentMetrics:
    """What a register counts; made once for each process."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.bad = Counter("waybill_consent_bad_records", "Consent records that could not be read.", registry=registry)
        self.entries = Gauge("waybill_consent_entries", "Entries in the consent register.", registry=registry)
        self.fresh = Gauge(
            "waybill_consent_fresh", "1 where the consent register is up to date, else 0.", registry=registry
        )


class ConsentRegister:
    """Follows `ai.consent` and answers from memory.

    Args:
        kafka: how to reach the broker.
        deaf_after_s: seconds after which a register that cannot prove that it is up to date answers `unknown`.
        clock: gives the wall time, in UTC.
        metrics: where it counts.
        erased: says who was erased, and when: what they granted before counts no more.
        monotonic: gives seconds that never run backwards.
    """

    def __init__(
        self,
        kafka: KafkaSettings,
        *,
        clock: Callable[[], datetime],
        deaf_after_s: float = 10.0,
        metrics: ConsentMetrics | None = None,
        erased: Erased = nobody,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._kafka = kafka
        self._clock = clock
        self._deaf_after_s = deaf_after_s
        self._metrics = metrics
        self._erased = erased
        self._monotonic = monotonic
        self._table = ConsentTable()
        self._heard = _NEVER
        self._good_until = _NEVER
        self._good_until_at = _LONG_AGO
        self._stop = asyncio.Event()
        self._proved = asyncio.Event()

    def state(self, tenant: str, subject: str, purpose: str, now: datetime) -> ConsentState:
        """Say what a subject allows; some 5 µs, and `unknown` where the register may be out of date.

        Args:
            tenant: for which tenant.
            subject: whom the data is about.
            purpose: what for.
            now: the time, in UTC.

        Raises:
            UnavailableError: the vault's disk does not say who was erased.
        """
        # The steady clock may stand still while a machine sleeps, and the wall clock may be set: both must agree.
        if self._monotonic() > self._good_until or now > self._good_until_at:
            return UNKNOWN
        answer = self._table.state(tenant, subject, purpose, now)
        if answer.state == "granted":
            erased = self._erased(tenant, subject)
            if erased is not None and self._table.recorded(tenant, subject, purpose) <= erased:
                return ConsentState("none", answer.revision)
        return answer

    @property
    def fresh(self) -> bool:
        """Whether it answers at all now."""
        return self.state("", "", "", self._clock()) is not UNKNOWN

    async def caught_up(self) -> None:
        """Wait until it answers; whoever depends on it waits so before taking work, or would refuse what is granted."""
        while not self.fresh:
            self._proved.clear()
            await self._proved.wait()

    def __len__(self) -> int:
        return len(self._table.held)

    @property
    def bad(self) -> int:
        """Records that could not be read since the last start."""
        return self._table.bad

    async def close(self) -> None:
        """Let `run` return; every answer is `unknown` from now on."""
        self._forget()
        self._stop.set()

    async def run(self, ready: Callable[[], None] = lambda: None) -> None:
        """Read everything, call `ready`, and follow until cancelled or closed.

        Raises:
            BrokerUnavailable: no broker answers at the start, or the register has to be built anew.
            KafkaError: the broker refuses to be read; run again.
        """
        self._stop.clear()
        self._forget()
        counts = await partition_counts(self._kafka, (CONSENT,))
        name = self._kafka.name(CONSENT)
        if CONSENT.name not in counts:
            raise TopicMismatch(f"there is no topic {name} at {self._kafka.bootstrap}; run `waybill topics create`")
        partitions = [TopicPartition(name, number) for number in range(counts[CONSENT.name])]
        reader = consumer(self._kafka, group=None)
        try:
            await self._begin(reader, partitions)
            self._table = ConsentTable()
            await self._follow(reader, partitions, ready)
        finally:
            self._forget()
            await reader.stop()

    async def _begin(self, reader: AIOKafkaConsumer, partitions: list[TopicPartition]) -> None:
        try:
            await reader.start()
        except (KafkaError, OSError) as error:
            raise BrokerUnavailable(f"no broker answers at {self._kafka.bootstrap}: {error}") from error
        reader.assign(partitions)
        await reader.seek_to_beginning(*partitions)

    async def _follow(
        self, reader: AIOKafkaConsumer, partitions: list[TopicPartition], ready: Callable[[], None]
    ) -> None:
        proof = _Proof(reader, self._kafka, partitions, self._monotonic)
        began, told = self._monotonic(), False
        proving = asyncio.create_task(proof.run())
        stopping = asyncio.create_task(self._stop.wait())
        tasks: set[asyncio.Future[Any]] = {proving, stopping}
        try:
            while not self._stop.is_set():
                reading = asyncio.ensure_future(reader.getmany(*partitions, timeout_ms=_POLL_MS))
                await asyncio.wait({reading, *tasks}, return_when=asyncio.FIRST_COMPLETED)
                if not reading.done():
                    tasks.add(reading)
                    break
                self._take(reading.result())
                heard = await proof.reached()
                if heard is not None:
                    # As of the moment at which the broker was asked: what it had then is in the table now.
                    self._trust(heard)
                    if not told:
                        told = True
                        log.info("consent: %d entries", len(self))
                        ready()
                self._observe()
                if self._monotonic() - max(self._heard, began) > _REBUILD_AFTER_S:
                    raise BrokerUnavailable("the consent register heard nothing for too long, and is built anew")
            if proving.done():
                proving.result()
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    def _trust(self, heard: float) -> None:
        """Answer until the proof is too old; `heard` is the moment of which it speaks."""
        self._heard, self._good_until = heard, heard + self._deaf_after_s
        self._good_until_at = self._clock() + timedelta(seconds=self._good_until - self._monotonic())
        self._proved.set()

    def _take(self, found: Mapping[TopicPartition, list[Any]]) -> None:
        for partition, records in found.items():
            for record in records:
                value = b"" if failure_of(record) else record.value  # an empty one is broken; None would forget it
                if not self._table.take(record.key, value, partition.partition, record.offset):
                    place = record.topic, record.partition, record.offset
                    log.warning("%s[%d] offset %d is no consent record; what it is about is unknown", *place)
                    if self._metrics is not None:
                        self._metrics.bad.inc()

    def _observe(self) -> None:
        if self._metrics is not None:
            self._metrics.entries.set(len(self))
            self._metrics.fresh.set(1 if self.fresh else 0)

    def _forget(self) -> None:
        self._heard, self._good_until, self._good_until_at = _NEVER, _NEVER, _LONG_AGO
        self._observe()


class _Proof:
    """Asks the broker where the topic ends: an idle topic says nothing, and so does a broken connection."""

    def __init__(
        self,
        reader: AIOKafkaConsumer,
        kafka: KafkaSettings,
        partitions: list[TopicPartition],
        monotonic: Callable[[], float],
    ) -> None:
        self._reader = reader
        self._kafka = kafka
        self._partitions = partitions
        self._monotonic = monotonic
        self._asked: tuple[float, dict[TopicPartition, int]] | None = None
        self._ends: dict[TopicPartition, int] = {}

    async def run(self) -> None:
        """Ask again and again; a broker that does not answer is asked again.

        Raises:
            BrokerUnavailable: the topic is not what it was.
        """
        counted = self._monotonic()
        while True:
            asked = self._monotonic()
            try:
                async with asyncio.timeout(_PROVE_WITHIN_S):
                    if asked - counted >= _COUNT_EVERY_S:
                        counts = await partition_counts(self._kafka, (CONSENT,))
                        if counts.get(CONSENT.name) != len(self._partitions):
                            break  # nobody would read a partition that was added
                        counted = asked
                    ends = await self._reader.end_offsets(self._partitions)
            except (KafkaError, UnavailableError, OSError, TimeoutError) as error:
                log.info("consent: the broker does not say where the topic ends: %s", error or type(error).__name__)
            else:
                if any(end < self._ends.get(partition, 0) for partition, end in ends.items()):
                    raise BrokerUnavailable("the consent topic is shorter than it was, and all is read anew")
                self._ends, self._asked = ends, (asked, ends)
            await asyncio.sleep(_PROVE_EVERY_S)
        raise BrokerUnavailable("the partitions of the consent topic are others now, and all is read anew")

    async def reached(self) -> float | None:
        """Give the latest moment whose records have all been read, once for each answer; None where there is none."""
        if self._asked is None:
            return None
        asked, ends = self._asked
        for partition, end in ends.items():
            if await self._reader.position(partition) < end:
                return None
        self._asked = None
        return asked
