"""Sends requests and follows what becomes of them on `ai.responses` and `ai.deadletter`."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from types import TracebackType
from typing import Any, Final, Self
from uuid import uuid4

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer
from aiokafka.errors import KafkaError
from aiokafka.structs import ConsumerRecord

from policy.identity.verify import HEADER
from streams import envelope
from streams.errors import BrokerUnavailable
from streams.kafka import KafkaSettings, producer
from streams.topics import DEADLETTER, REQUESTS, RESPONSES
from waybill.cli.awaited import DUPLICATE, STANDING, Awaited
from waybill.cli.lines import Line
from waybill.cli.reading import read_through, tail

SOURCE: Final = "/waybill/cli"
_POLL_MS: Final = 500
Answers = Sequence[dict[str, Any]]


@dataclass(slots=True)
class Progress:
    """What has become of the lines that were sent."""

    total: int
    """How many there are."""
    sent: int = 0
    """How many the broker has acknowledged."""
    outcomes: Counter[str] = field(default_factory=Counter)
    """How many ended how."""
    responses: dict[str, dict[str, Any]] = field(default_factory=dict)
    """Responses as they travel, by request id; none where they are handed on instead."""
    dead: dict[str, dict[str, Any]] = field(default_factory=dict)
    """Dead letters of lines whose request id cannot be read, by the key that they were sent under."""

    @property
    def ended(self) -> int:
        """How many have ended."""
        return self.outcomes.total()


class Traffic:
    """One sending: opens its reader before the first record goes out, so that no answer is missed."""

    def __init__(
        self,
        kafka: KafkaSettings,
        lines: Sequence[Line],
        *,
        token: str | None = None,
        hand_on: Callable[[Answers], None] | None = None,
        progress: Progress | None = None,
    ) -> None:
        """Prepare a sending.

        Args:
            kafka: how to reach the broker.
            lines: what is sent.
            token: who sends, as a signed token.
            hand_on: gets the answers as they come; they are kept in `progress` if None.
            progress: what became of further lines before.
        """
        self._token = token
        self._kafka = kafka
        self._lines = tuple(lines)
        self._hand_on = hand_on
        self._reader: AIOKafkaConsumer | None = None
        self._producer: AIOKafkaProducer | None = None
        self._places: dict[tuple[int, int], str] = {}
        self._unreadable = {line.request_id for line in lines if line.raw and not line.own_id}
        self._awaited = Awaited(line.request_id for line in lines)
        self._early: list[dict[str, Any]] = []
        self._all_sent = not self._lines
        self.progress = progress or Progress(total=len(lines))

    async def __aenter__(self) -> Self:
        """Connect, and read from where the topics end now.

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

    async def look_back(self, changed: Callable[[Progress], None], since: datetime | None = None) -> None:
        """Take the answers that stand already, and send those requests no more.

        Args:
            changed: gets the progress.
            since: before this moment there are none; None reads all that the topic holds.

        Raises:
            BrokerUnavailable: the broker does not answer.
        """
        before = self._awaited.open
        await self._search(changed, since)
        found = before - self._awaited.open
        self._lines = tuple(line for line in self._lines if line.request_id not in found)
        self._all_sent = not self._lines
        self.progress.sent += len(found)
        changed(self.progress)

    @property
    def lines(self) -> tuple[Line, ...]:
        """What is to be sent."""
        return self._lines

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
        self._all_sent = True

    async def follow(self, changed: Callable[[Progress], None], timeout_s: float | None = None) -> bool:
        """Take what comes until every line has ended; False where nothing came for `timeout_s` seconds.

        Raises:
            BrokerUnavailable: the broker does not answer.
        """
        if self._reader is None:
            raise RuntimeError("follow is called inside `async with`")
        news, heard = (0, 0), time.monotonic()
        while self._awaited or not self._all_sent:
            found = await self._poll(self._reader)
            if not found and (wanted := self._awaited.to_search()):
                await self._search(changed, None, wanted)
            self._take(found)
            changed(self.progress)
            if news != (state := (self.progress.sent, self.progress.ended)):
                news, heard = state, time.monotonic()
            if timeout_s is not None and time.monotonic() - heard > timeout_s:
                return False
        return True

    async def _poll(self, reader: AIOKafkaConsumer) -> list[ConsumerRecord]:
        try:
            found = await reader.getmany(timeout_ms=_POLL_MS)
        except KafkaError as error:
            raise BrokerUnavailable(f"the broker at {self._kafka.bootstrap} does not answer: {error}") from error
        return [record for records in found.values() for record in records]

    def _take(self, records: Sequence[ConsumerRecord]) -> None:
        answers: list[dict[str, Any]] = []
        for record in records:
            if record.topic != self._kafka.name(RESPONSES):
                letter = envelope.content(record.value, objects=("failure", "source"))
                if letter is not None and "requestId" not in letter:
                    self._early.append(letter)
            elif self._awaited.concerns(record.key):
                response = envelope.content(record.value, "requestId", "outcome")
                if response is not None:
                    answers += self._awaited.take(response)
        self._settle(answers)
        self._sort_early()

    def _settle(self, answers: Answers) -> None:
        self.progress.outcomes.update(str(answer["outcome"]) for answer in answers)
        if self._hand_on is None:
            self.progress.responses.update((answer["requestId"], answer) for answer in answers)
        elif answers:
            self._hand_on(answers)

    def _sort_early(self) -> None:
        # A dead letter can be read before the acknowledgement of its own record says where that lies.
        rest: list[dict[str, Any]] = []
        for value in self._early:
            source = value["source"]
            key = self._places.get((source.get("partition"), source.get("offset")))
            ours = source.get("topic") == self._kafka.name(REQUESTS)
            if ours and key is not None and key in self._unreadable and key in self._awaited:
                self._awaited.end(key)
                self.progress.dead[key] = value
                self.progress.outcomes["rejected"] += 1
                if self._hand_on is not None:
                    failure = {"failure": value["failure"], "deadLetter": value}
                    self._hand_on([{"requestId": key, "outcome": "rejected", **failure}])
            elif not self._all_sent:
                rest.append(value)
        self._early = rest

    async def _search(
        self, changed: Callable[[Progress], None], since: datetime | None, wanted: Collection[str] | None = None
    ) -> None:
        """Read through the responses that are there already, for the answers of all lines or of those wanted."""
        keys = None if wanted is None else {each.encode() for each in wanted}

        def take(record: ConsumerRecord) -> None:
            if record.key in keys if keys is not None else self._awaited.concerns(record.key):
                response = envelope.content(record.value, "requestId", "outcome")
                if response is not None:
                    self._settle([*self._awaited.take(response, earlier=True)])
                    changed(self.progress)

        await read_through(self._kafka, RESPONSES, take, None, since=since)

    async def _close(self) -> None:
        parts = [part for part in (self._producer, self._reader) if part is not None]
        self._producer = self._reader = None
        await asyncio.gather(*(part.stop() for part in parts), return_exceptions=True)


def _headers(line: Line, token: str | None) -> list[tuple[str, bytes]]:
    trace, span = uuid4().hex, uuid4().hex[:16]
    hop = envelope.Hop(source=SOURCE, subject=line.request_id, traceparent=f"00-{trace}-{span}-01")
    headers = hop.headers(envelope.REQUEST_TYPE, line.request_id, datetime.now(UTC))
    return headers if token is None else [*headers, (HEADER, f"Bearer {token}".encode())]


_NO_WORK: Final = frozenset({"rejected", DUPLICATE})
"""Outcomes of arrivals that were not taken as work of their own."""


def standing(responses: Sequence[dict[str, Any]]) -> dict[str, Any] | None:
    """Return the response that stands among those of one request id, in their order; None where there is none.

    It is the first whose outcome stands. Where there is none, the same id may be sent again, and the newest of what was
    taken as work is it; where nothing was taken, the newest rejection, and last the newest duplicate.
    """
    stands = [one for one in responses if one["outcome"] in STANDING]
    worked = [one for one in responses if one["outcome"] not in _NO_WORK]
    rejected = [one for one in responses if one["outcome"] == "rejected"]
    return next((found for found in (*stands[:1], *worked[-1:], *rejected[-1:], *responses[-1:])), None)


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
    key, found = request_id.encode(), []

    def take(record: ConsumerRecord) -> None:
        response = envelope.content(record.value, "requestId", "outcome") if record.key == key else None
        if response is not None and response["requestId"] == request_id:
            found.append(response)

    await read_through(kafka, RESPONSES, take, timeout_s)
    return found
