"""Sends requests and follows what becomes of them on `ai.responses` and `ai.deadletter`."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from types import TracebackType
from typing import Any, Final, Self
from uuid import uuid4

import orjson
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.errors import KafkaError

from evidence.errors import RecordError
from policy.identity.verify import HEADER
from streams import envelope
from streams.errors import BrokerUnavailable, TopicMismatch
from streams.kafka import KafkaSettings, consumer, partition_counts, producer
from streams.request import readable_request_id
from streams.topics import DEADLETTER, REQUESTS, RESPONSES, Topic
from waybill.cli.lines import Line

SOURCE: Final = "/waybill/cli"
_POLL_MS: Final = 500


@dataclass(slots=True)
class Progress:
    """What has become of the lines that were sent."""

    total: int
    """How many are to be sent."""
    sent: int = 0
    """How many the broker has acknowledged."""
    responses: dict[str, dict[str, Any]] = field(default_factory=dict)
    """Responses as they travel, by request id."""
    dead: dict[str, dict[str, Any]] = field(default_factory=dict)
    """Dead letters of lines whose request id cannot be read, by the key that they were sent under."""
    rejected: dict[str, dict[str, Any]] = field(default_factory=dict)
    """Dead letters of the others, by request id."""

    @property
    def ended(self) -> int:
        """How many have ended."""
        return len(self.responses) + len(self.dead)

    @property
    def outcomes(self) -> Counter[str]:
        """How many ended how."""
        counts = Counter(str(response["outcome"]) for response in self.responses.values())
        if self.dead:
            counts["rejected"] += len(self.dead)
        return counts


class Traffic:
    """One sending: opens its reader at the topics' ends before the first record goes out."""

    def __init__(self, kafka: KafkaSettings, lines: Sequence[Line], *, token: str | None = None) -> None:
        self._token = token
        self._kafka = kafka
        self._lines = lines
        self._reader: AIOKafkaConsumer | None = None
        self._producer: AIOKafkaProducer | None = None
        self._places: dict[tuple[int, int], str] = {}
        self._unreadable = {line.request_id for line in lines if readable_request_id(line.value) is None}
        self._ids = {readable_request_id(line.value) or line.request_id for line in lines}
        self._early: list[dict[str, Any]] = []
        self.progress = Progress(total=len(lines))

    async def __aenter__(self) -> Self:
        """Connect.

        Raises:
            BrokerUnavailable: no broker answers.
            TopicMismatch: the topics are not there.
        """
        self._reader = await tail(self._kafka, (RESPONSES, DEADLETTER))
        self._producer = producer(self._kafka)
        try:
            await self._producer.start()
        except (KafkaError, OSError) as error:
            await self._close()
            raise BrokerUnavailable(f"no broker answers at {self._kafka.bootstrap}: {error}") from error
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Disconnect."""
        await self._close()

    @property
    def positions(self) -> dict[tuple[int, int], str]:
        """Which line lies where on `ai.requests`: its request id by partition and offset."""
        return dict(self._places)

    async def send(self, changed: Callable[[Progress], None]) -> None:
        """Send all lines and wait until the broker has acknowledged them.

        Raises:
            BrokerUnavailable: it does not.
        """
        if self._producer is None:
            raise RuntimeError("send is called inside `async with`")
        topic = self._kafka.name(REQUESTS)
        try:
            waiting = [
                (
                    line,
                    await self._producer.send(
                        topic, line.value, key=line.request_id.encode(), headers=_headers(line, self._token)
                    ),
                )
                for line in self._lines
            ]
            for line, future in waiting:
                place = await future
                self._places[(place.partition, place.offset)] = line.request_id
                self.progress.sent += 1
                changed(self.progress)
        except KafkaError as error:
            raise BrokerUnavailable(f"the broker at {self._kafka.bootstrap} did not take a request: {error}") from error

    async def follow(self, changed: Callable[[Progress], None], timeout_s: float | None = None) -> bool:
        """Take what comes until every line has ended; False where time ran out before."""
        if self._reader is None:
            raise RuntimeError("follow is called inside `async with`")
        end = None if timeout_s is None else time.monotonic() + timeout_s
        while self.progress.ended < self.progress.total or self.progress.sent < self.progress.total:
            if end is not None and time.monotonic() > end:
                return False
            try:
                found = await self._reader.getmany(timeout_ms=_POLL_MS)
            except KafkaError as error:
                raise BrokerUnavailable(f"the broker at {self._kafka.bootstrap} does not answer: {error}") from error
            for partition, records in found.items():
                for record in records:
                    self._take(partition.topic, orjson.loads(record.value))
            self._sort_early()
            changed(self.progress)
        return True

    def _take(self, topic: str, value: dict[str, Any]) -> None:
        if topic == self._kafka.name(RESPONSES):
            if value["requestId"] in self._ids:
                self.progress.responses[value["requestId"]] = value
        elif value.get("requestId") in self._ids:
            self.progress.rejected[value["requestId"]] = value
        elif "requestId" not in value:
            self._early.append(value)

    def _sort_early(self) -> None:
        # A dead letter can be read before the acknowledgement of its own record says where that lies.
        rest: list[dict[str, Any]] = []
        for value in self._early:
            source = value["source"]
            key = self._places.get((source["partition"], source["offset"]))
            if source["topic"] == self._kafka.name(REQUESTS) and key in self._unreadable:
                self.progress.dead[key] = value
            elif self.progress.sent < self.progress.total:
                rest.append(value)
        self._early = rest

    async def _close(self) -> None:
        parts = [part for part in (self._producer, self._reader) if part is not None]
        self._producer = self._reader = None
        await asyncio.gather(*(part.stop() for part in parts), return_exceptions=True)


async def tail(kafka: KafkaSettings, topics: Sequence[Topic], *, from_start: bool = False) -> AIOKafkaConsumer:
    """Give a reader of all partitions of these topics, at their ends or their beginnings.

    Raises:
        BrokerUnavailable: no broker answers.
        TopicMismatch: a topic is not there.
    """
    counts = await partition_counts(kafka, topics)
    if missing := [kafka.name(topic) for topic in topics if topic.name not in counts]:
        raise TopicMismatch(f"there is no topic {missing[0]}; run `waybill topics create`, or start `waybill dev`")
    partitions = [TopicPartition(kafka.name(topic), number) for topic in topics for number in range(counts[topic.name])]
    reader = consumer(kafka, group=None)
    try:
        await reader.start()
        reader.assign(partitions)
        if from_start:
            await reader.seek_to_beginning(*partitions)
        else:
            await reader.seek_to_end(*partitions)
        # The position is fetched when it is first asked for: it must be known before anything is sent.
        for partition in partitions:
            await reader.position(partition)
    except (KafkaError, OSError) as error:
        await reader.stop()
        raise BrokerUnavailable(f"no broker answers at {kafka.bootstrap}: {error}") from error
    except BaseException:
        await reader.stop()
        raise
    return reader


def _headers(line: Line, token: str | None) -> list[tuple[str, bytes]]:
    trace, span = uuid4().hex, uuid4().hex[:16]
    hop = envelope.Hop(source=SOURCE, subject=line.request_id, traceparent=f"00-{trace}-{span}-01")
    headers = hop.headers(envelope.REQUEST_TYPE, line.request_id, datetime.now(UTC))
    return headers if token is None else [*headers, (HEADER, f"Bearer {token}".encode())]


_ANSWERED: Final = frozenset({"completed", "refused", "withheld"})
"""Outcomes of work that a model answered: later arrivals of the same id change nothing of it."""

_NO_WORK: Final = frozenset({"rejected", "duplicate"})
"""Outcomes of arrivals that were not taken as work of their own."""


def standing(responses: Sequence[dict[str, Any]]) -> dict[str, Any] | None:
    """Return the response that stands among those of one request id, in their order; None where there is none.

    It is the first that a model answered. Where none did, the same id may be sent again, and the newest of what was
    taken as work stands; where nothing was taken, the newest rejection, and last the newest duplicate.
    """
    answered = [one for one in responses if one["outcome"] in _ANSWERED]
    worked = [one for one in responses if one["outcome"] not in _NO_WORK]
    rejected = [one for one in responses if one["outcome"] == "rejected"]
    return next((found for found in (*answered[:1], *worked[-1:], *rejected[-1:], *responses[-1:])), None)


async def find_response(kafka: KafkaSettings, request_id: str, timeout_s: float) -> dict[str, Any] | None:
    """Look through `ai.responses` for the response of a request that stands (`standing`), or None.

    Raises:
        BrokerUnavailable: no broker answers, or not in time.
        TopicMismatch: the topic is not there.
    """
    return standing(await find_responses(kafka, request_id, timeout_s))


async def find_responses(kafka: KafkaSettings, request_id: str, timeout_s: float) -> list[dict[str, Any]]:
    """Look through `ai.responses` for all responses of a request, in their order.

    Raises:
        BrokerUnavailable: no broker answers, or not in time.
        TopicMismatch: the topic is not there.
    """
    reader = await tail(kafka, (RESPONSES,), from_start=True)
    found: list[dict[str, Any]] = []
    key = request_id.encode()
    try:
        async with asyncio.timeout(timeout_s):
            ends = await reader.end_offsets(list(reader.assignment()))
            open_ = {partition for partition, end in ends.items() if await reader.position(partition) < end}
            while open_:
                batch = await reader.getmany(*open_, timeout_ms=_POLL_MS)
                for record in (record for records in batch.values() for record in records if record.key == key):
                    response = _response(record.value, request_id)
                    if response is not None:
                        found.append(response)
                # Not by the offset of the last record: a transaction's own marker can be the last thing there.
                open_ = {partition for partition in open_ if await reader.position(partition) < ends[partition]}
    except TimeoutError:
        raise BrokerUnavailable(
            f"the responses at {kafka.bootstrap} could not be looked through within {timeout_s:g} s"
        ) from None
    finally:
        await reader.stop()
    return found


def _response(value: bytes, request_id: str) -> dict[str, Any] | None:
    try:
        content = orjson.loads(value)
    except orjson.JSONDecodeError as error:
        raise RecordError("not_json", f"a record on ai.responses is not JSON: {error}") from None
    return content if content.get("requestId") == request_id else None
