"""A worker's place on `ai.workers`: registered before it touches a request, kept while it lives, given up at the end.

The same records show whether the broker takes what a worker writes: `/health` says so within ten seconds.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Collection
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final, Self

from aiokafka import AIOKafkaProducer, TopicPartition
from aiokafka.errors import KafkaError

from evidence.errors import ConfigError, UnavailableError
from streams.conditions import Conditions
from streams.errors import BrokerUnavailable, TopicMismatch
from streams.kafka import KafkaSettings, consumer, partition_counts
from streams.readable import failure_of
from streams.topics import WORKERS
from streams.workers import (
    BEAT_S,
    DEAD_AFTER_S,
    SITE,
    WORKER,
    Claim,
    Difference,
    Facts,
    Roster,
    Seen,
    SiteVault,
    Worker,
    copied_vault,
    differences,
    vault_differs,
)

log = logging.getLogger(__name__)

BROKER: Final = "broker"
"""How `/health` calls what heartbeats show."""

AHEAD_S: Final = 300.0
"""Seconds by which a worker's clock may be ahead of the broker's: Kafka refuses records from an hour ahead."""

ASKEW_S: Final = 5.0
"""Seconds of difference between the clocks that are worth a warning: deadlines and freshness rest on them."""

_ANSWER_S: Final = 4.0
_READ_S: Final = 30.0
_AGAIN_S: Final = 1.0
_LEAVE_S: Final = 3.0
_POLL_MS: Final = 200


class RosterReader:
    """Reads the topic of the workers from its beginning; use `async with`."""

    def __init__(self, kafka: KafkaSettings) -> None:
        self.roster = Roster()
        self._kafka = kafka
        self._partition = TopicPartition(kafka.name(WORKERS), 0)
        self._reader = consumer(kafka, group=None)

    async def __aenter__(self) -> Self:
        """Begin.

        Raises:
            BrokerUnavailable: no broker answers.
            TopicMismatch: there is no such topic.
        """
        counts = await partition_counts(self._kafka, (WORKERS,))
        if WORKERS.name not in counts:
            raise TopicMismatch(
                f"there is no topic {self._partition.topic} at {self._kafka.bootstrap}, on which workers find out that "
                "they belong together; run `waybill topics create`"
            )
        try:
            await self._reader.start()
        except (KafkaError, OSError) as error:
            await self._reader.stop()
            raise BrokerUnavailable(f"no broker answers at {self._kafka.bootstrap}: {error}") from error
        self._reader.assign([self._partition])
        await self._reader.seek_to_beginning(self._partition)
        return self

    async def __aexit__(self, *_: object) -> None:
        """End."""
        await self._reader.stop()

    async def to_end(self) -> Roster:
        """Read what there is by now; a record that cannot be read is skipped.

        Raises:
            BrokerUnavailable: the broker does not answer in time.
        """
        try:
            async with asyncio.timeout(_READ_S):
                end = (await self._reader.end_offsets([self._partition]))[self._partition]
                while await self._reader.position(self._partition) < end:
                    found = await self._reader.getmany(self._partition, timeout_ms=_POLL_MS)
                    for record in found.get(self._partition, ()):
                        self._take(record)
        except (KafkaError, OSError, TimeoutError) as error:
            why = str(error) or f"no answer within {_READ_S:g} s"
            raise BrokerUnavailable(f"{self._partition.topic} cannot be read: {why}") from error
        return self.roster

    def _take(self, record: Any) -> None:
        if failure_of(record) is not None:
            self.roster.unreadable += 1
        else:
            self.roster.take(record.key, record.value, record.offset, record.timestamp)


@dataclass(frozen=True, slots=True)
class Registered:
    """How a registration went."""

    roster: Roster
    """Who is there."""
    others: tuple[Seen, ...]
    """The other workers that live."""
    ahead_s: float
    """Seconds by which this machine's clock is ahead of the broker's; negative where it is behind."""


class Registry:
    """The registration of one worker.

    Args:
        kafka: how to reach the broker.
        worker: what is registered.
        present: returns the ids of the workers that have left their mark in this worker's vault.
        clock: gives the wall time, in UTC.
    """

    def __init__(
        self,
        kafka: KafkaSettings,
        worker: Worker,
        *,
        present: Callable[[], Collection[str]],
        clock: Callable[[], datetime],
    ) -> None:
        self._kafka = kafka
        self._worker = worker
        self._present = present
        self._clock = clock
        self._topic = kafka.name(WORKERS)

    async def register(self) -> Registered:
        """Register, or find out that this worker must not run here: then nothing of it is left on the topic.

        Of two that start at the same moment, the one whose record comes first runs. A worker that differs from another
        one waits until that one shows that it lives, ends, or counts as dead.

        Raises:
            ConfigError: a setting differs from the site's or another worker's, or this machine's clock is far ahead.
            BrokerUnavailable: no broker answers.
            TopicMismatch: the topic is missing.
        """
        async with RosterReader(self._kafka) as reader:
            roster = await reader.to_end()
            if roster.unreadable:
                log.warning("%s: %d records say nothing about workers, and are ignored", self._topic, roster.unreadable)
            before = frozenset(roster.workers)
            if roster.vault is not None:
                _refuse(vault_differs(self._worker.facts, roster.vault))
            made = _producer(self._kafka)
            try:
                try:
                    await made.start()
                    return await self._join(made, reader, before)
                except (KafkaError, OSError) as error:
                    raise BrokerUnavailable(f"{self._topic} cannot be written: {error}") from error
            finally:
                await _close(made)

    async def _join(self, made: AIOKafkaProducer, reader: RosterReader, before: frozenset[str]) -> Registered:
        facts, key = self._worker.facts, SITE + self._worker.worker
        claimed = reader.roster.vault is None and facts.vault is not None
        if claimed and facts.vault is not None:
            mine = SiteVault(vault=facts.vault, host=self._worker.host, pid=self._worker.pid)
            await made.send_and_wait(self._topic, mine.to_json(), key=key.encode(), partition=0)
        try:
            place = await self._send(made, self._worker)
            moment = datetime.fromtimestamp(place.timestamp / 1000, UTC)
            ahead_s = (self._clock() - moment).total_seconds()
            _refuse(_clock_differs(ahead_s))
            roster = await reader.to_end()
            if roster.vault is not None:
                _refuse(vault_differs(facts, roster.vault))
            await self._agree(made, reader, place.offset, before)
        except BaseException:
            with suppress(KafkaError, OSError):
                await self._leave(made, also=[key] if claimed else [])
            raise
        if claimed and roster.vault is not None and roster.vault.key != key:
            await made.send_and_wait(self._topic, None, key=key.encode(), partition=0)
        others = [seen for seen in roster.alive(self._clock() - timedelta(seconds=ahead_s)) if not self._is_me(seen)]
        return Registered(roster, tuple(others), ahead_s)

    async def _agree(self, made: AIOKafkaProducer, reader: RosterReader, offset: int, before: frozenset[str]) -> None:
        """Wait until no worker that was here before this one, and lives, differs from it.

        Raises:
            ConfigError: one does, and has shown that it lives.
        """
        while True:
            roster = await reader.to_end()
            # Asking for it costs a record, and is the one way to learn the broker's time.
            place = await self._send(made, self._worker)
            now = datetime.fromtimestamp(place.timestamp / 1000, UTC)
            against = [
                (seen, found)
                for seen in roster.alive(now)
                if not self._is_me(seen) and (seen.first < offset or WORKER + seen.worker.worker in before)
                for found in self._against(seen.worker)
            ]
            for seen, found in against:
                if seen.worker.running and seen.last > offset:  # else it may have died, or be refused itself
                    _refuse(found)
            if not against:
                return
            await asyncio.sleep(_AGAIN_S)

    def _against(self, other: Worker) -> list[Difference]:
        found = list(differences(self._worker.facts, other))
        if copy := copied_vault(self._worker.facts, other, self._present()):
            found.append(copy)
        return found

    def _is_me(self, seen: Seen) -> bool:
        return seen.worker.worker == self._worker.worker

    async def _send(self, made: AIOKafkaProducer, worker: Worker) -> Any:
        key = WORKER + worker.worker
        async with asyncio.timeout(_ANSWER_S):
            return await made.send_and_wait(self._topic, worker.to_json(), key=key.encode(), partition=0)

    async def _leave(self, made: AIOKafkaProducer, *, also: Collection[str] = ()) -> None:
        for key in (WORKER + self._worker.worker, *also):
            async with asyncio.timeout(_LEAVE_S):
                await made.send_and_wait(self._topic, None, key=key.encode(), partition=0)

    async def keep(self, facts: Callable[[], Facts], conditions: Conditions, ready: Callable[[], None]) -> None:
        """Show that this worker lives, again and again, until cancelled; then say that it has ended.

        Args:
            facts: returns what the worker is set up with now (keys are rotated beside running workers).
            conditions: is told whether the broker answers.
            ready: called when it does for the first time.
        """
        self._worker = self._worker.model_copy(update={"running": True})
        since: datetime | None = None
        while True:
            made = _producer(self._kafka)
            try:
                async with asyncio.timeout(_ANSWER_S):
                    await made.start()
                while True:
                    await self._beat(made, facts)
                    ready()
                    if conditions.good(BROKER) and since is not None:
                        log.info(
                            "the broker answers again, after %s", duration((self._clock() - since).total_seconds())
                        )
                    since = None
                    await asyncio.sleep(BEAT_S)
            except asyncio.CancelledError:
                with suppress(KafkaError, OSError, TimeoutError):
                    await self._leave(made)
                raise
            except (KafkaError, OSError, TimeoutError) as error:
                since = since or self._clock()
                why = f"no answer from {self._kafka.bootstrap} ({str(error) or type(error).__name__})"
                if conditions.bad(BROKER, why):
                    log.warning("the broker does not take records: %s", why)
            finally:
                await _close(made)
            await asyncio.sleep(_AGAIN_S)

    async def _beat(self, made: AIOKafkaProducer, facts: Callable[[], Facts]) -> None:
        # A key that cannot be read in this moment is no reason to look dead.
        with suppress(ConfigError, UnavailableError):
            self._worker = self._worker.model_copy(update={"facts": await asyncio.to_thread(facts)})
        await self._send(made, self._worker)


async def roster_of(kafka: KafkaSettings) -> tuple[Roster, datetime]:
    """Return who is registered, and the broker's time.

    Raises:
        BrokerUnavailable: no broker answers.
        TopicMismatch: the topic is missing.
    """
    async with RosterReader(kafka) as reader:
        now = await broker_time(kafka)
        return await reader.to_end(), now


async def broker_time(kafka: KafkaSettings) -> datetime:
    """Return the broker's time: that of an empty record, which is compacted away.

    Raises:
        BrokerUnavailable: the broker does not take it.
    """
    made = _producer(kafka)
    try:
        await made.start()
        place = await made.send_and_wait(kafka.name(WORKERS), None, key=b"clock", partition=0)
    except (KafkaError, OSError) as error:
        raise BrokerUnavailable(f"the broker at {kafka.bootstrap} takes no record: {error}") from error
    finally:
        await _close(made)
    return datetime.fromtimestamp(place.timestamp / 1000, UTC)


async def adopt(kafka: KafkaSettings, old: Collection[Claim], new: SiteVault, key: str) -> None:
    """Make a vault the site's, in place of what was.

    Raises:
        BrokerUnavailable: the broker does not take it.
    """
    made = _producer(kafka)
    try:
        await made.start()
        await made.send_and_wait(kafka.name(WORKERS), new.to_json(), key=(SITE + key).encode(), partition=0)
        for claim in old:
            await made.send_and_wait(kafka.name(WORKERS), None, key=claim.key.encode(), partition=0)
    except (KafkaError, OSError) as error:
        raise BrokerUnavailable(f"the broker at {kafka.bootstrap} does not take it: {error}") from error
    finally:
        await _close(made)


def duration(seconds: float) -> str:
    """Return a time span for people."""
    seconds = abs(seconds)
    if seconds < 120:  # noqa: PLR2004 - two minutes
        return f"{seconds:.0f} s"
    if seconds < 7200:  # noqa: PLR2004 - two hours
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h"


def _producer(kafka: KafkaSettings) -> AIOKafkaProducer:
    # Not idempotent: a record twice says the same, and one that is late says less than the next one.
    return AIOKafkaProducer(
        **kafka.client_options(), acks="all", request_timeout_ms=int(_ANSWER_S * 1000), retry_backoff_ms=100
    )


async def _close(made: AIOKafkaProducer) -> None:
    with suppress(KafkaError, OSError, TimeoutError):
        async with asyncio.timeout(_ANSWER_S * 2):
            await made.stop()


def _clock_differs(ahead_s: float) -> str | None:
    if ahead_s <= AHEAD_S:
        return None
    return (
        f"this machine's clock is {duration(ahead_s)} ahead of the broker's: set it (NTP); Kafka refuses records from "
        "the future"
    )


def _refuse(why: Difference | str | None) -> None:
    if why is not None:
        raise ConfigError(why.sentence if isinstance(why, Difference) else why)


__all__ = ["DEAD_AFTER_S", "Registered", "Registry", "RosterReader", "adopt", "broker_time", "duration", "roster_of"]
