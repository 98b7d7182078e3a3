"""Admission and serving without a broker: what goes in, and what came out, by topic."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any

import orjson
from requests_made import ROUTES, encoded, headers, request, table

from evidence.records import Position
from inference.backend import Completion, ModelCall
from inference.routes import RouteTable
from inference.testing import echo
from policy.detectors import Detectors, ScanResult
from streams.ledger import Finding, Standing
from streams.metrics import Metrics
from streams.processors.routing import Endpoint
from streams.stages.account import Kitchen, Served
from streams.stages.admit import Admitted, Incoming, Rules, admit
from streams.stages.serve import Serving
from streams.topics import DEADLETTER, EVIDENCE, LEDGER, RESPONSES, WORK_HOSTED, WORK_LOCAL, Topic
from streams.transactions import Outgoing
from streams.work import Work

SCANNER = Detectors()
"""The real detectors; compiled once."""


class Broken:
    """Detectors that cannot run."""

    def scan_closed(self, text: str) -> ScanResult:
        """Fail."""
        del text
        return ScanResult((), failed=True)


ENDPOINTS = {
    "hosted": Endpoint("hosted", "acme-ai", "tls"),
    "other": Endpoint("other", "other-ai", "tls"),
    "local": Endpoint("local", "triton", "loopback"),
}
"""Where the routes of test tables lead."""

TWO_HOSTED = ROUTES.replace("fallback: [local-small]", "fallback: [hosted-second, local-small]").replace(
    "  - name: local-small",
    """  - name: hosted-second
    placement: hosted
    endpoint: other
    model: gpt-other
    region: eu
    capabilities: ["*"]
    classes: [public]
    purposes: ["*"]
    max_tokens: 64
    timeout_s: 5
    price: {input_per_million_usd: 1.0, output_per_million_usd: 2.0}
    answer: {forbid: [personal, financial, secret], action: mask}
  - name: local-small""",
)
"""A table with a hosted fallback between the hosted route and the local one."""

RESEND = ROUTES.replace("    fallback: [local-small]", "    on_ambiguous: resend\n    fallback: [local-small]")
"""A table whose hosted route accepts a second disclosure."""


def utc_now() -> datetime:
    """The time."""
    return datetime.now(UTC)


def rules(routes: str | RouteTable | None = None, **changes: Any) -> Rules:
    """Give what admission decides by."""
    made = table(routes or ROUTES) if not isinstance(routes, RouteTable) else routes
    found = Rules(
        table=made,
        endpoints=ENDPOINTS,
        scanner=SCANNER,
        site="here",
        log_id="log",
        max_bytes=20_000,
        name=lambda topic: topic.name,
    )
    return replace(found, **changes)


def incoming(value: bytes | None, given: Any = None, *, offset: int = 0) -> Incoming:
    """Give a record of `ai.requests`."""
    position = Position(topic="ai.requests", partition=0, offset=offset)
    return Incoming(position, 1_700_000_000_000, value, headers("h") if given is None else given)


def asked(request_id: str = "r1", prompt: str = "Say hello.", *, offset: int = 0, **changes: Any) -> Incoming:
    """Give a valid request's record; a change of None removes the field."""
    return incoming(encoded(request(request_id, prompt, **changes)), offset=offset)


def on(records: Iterable[Outgoing], topic: Topic) -> list[dict[str, Any]]:
    """Give the values that were written to a topic."""
    return [orjson.loads(record.value) for record in records if record.topic == topic.name]


def told(records: Iterable[Outgoing]) -> list[dict[str, Any]]:
    """Give the evidence events among records."""
    return on(records, EVIDENCE)


def all_bytes(records: Iterable[Outgoing]) -> bytes:
    """Give everything that is in records."""
    return b"\n".join(
        b"".join([record.key, record.value, *(value for _, value in record.headers)]) for record in records
    )


def work_of(admitted: Admitted) -> Work:
    """Give the one work record that admission wrote."""
    values = [record.value for record in admitted.records if record.topic in {WORK_HOSTED.name, WORK_LOCAL.name}]
    (value,) = values
    return Work.model_validate_json(value)


Step = Completion | Exception | Callable[[ModelCall], Awaitable[Completion]]


class Turns:
    """A backend that does one step after another, and echoes when there are none left."""

    def __init__(self, journal: list[tuple[str, Any]], steps: Sequence[Step]) -> None:
        self._journal, self._steps = journal, list(steps)

    async def complete(self, call: ModelCall) -> Completion:
        """Take the next step."""
        self._journal.append(("call", call))
        step = self._steps.pop(0) if self._steps else echo(call)
        if isinstance(step, Exception):
            raise step
        return step if isinstance(step, Completion) else await step(call)

    async def ready(self) -> str:
        """Always."""
        return "scripted"

    async def close(self) -> None:
        """Nothing to give back."""


@dataclass
class Rig:
    """Serves one request the way that dispatch does, and keeps a journal of commits and calls in their order."""

    hosted: Sequence[Step] = ()
    """What the endpoint `hosted` does."""
    other: Sequence[Step] = ()
    """What the endpoint `other` does."""
    local: Sequence[Step] = ()
    """What the endpoint `local` does."""
    routes: str = ROUTES
    """The table of admission and, unless `routes_now` differs, of dispatch."""
    routes_now: str | None = None
    """The table at the moment of sending."""
    clock: Callable[[], datetime] = utc_now
    """Dispatch's time."""
    scanner: Any = SCANNER
    """Dispatch's detectors."""
    journal: list[tuple[str, Any]] = field(default_factory=list)
    """`("commit", records)` and `("call", call)`."""
    admitted: Admitted | None = None
    """What admission wrote."""

    def admit(self, **changes: Any) -> Work:
        """Admit a request; `changes` are those of `asked`."""
        self.admitted = admit(asked(**changes), rules(self.routes), utc_now())
        return work_of(self.admitted)

    async def commit(self, records: Sequence[Outgoing]) -> None:
        """Make records durable."""
        self.journal.append(("commit", list(records)))

    async def serve(self, work: Work | None = None, finding: Finding | None = None, **changes: Any) -> Served:
        """Serve a request, one made by `admit` unless given."""
        kitchen = Kitchen(
            table=table(self.routes_now or self.routes),
            endpoints=ENDPOINTS,
            backends={
                "hosted": Turns(self.journal, self.hosted),
                "other": Turns(self.journal, self.other),
                "local": Turns(self.journal, self.local),
            },
            scanner=self.scanner,
            site="here",
            name=lambda topic: topic.name,
            clock=self.clock,
            metrics=Metrics(),
        )
        work = work or self.admit(**changes)
        place = Position(topic="ai.work.hosted", partition=0, offset=7)
        served = await Serving(kitchen, work, place, self.commit).run(finding or Finding(Standing.NEW))
        assert served is not None
        self.journal.append(("commit", served.records))
        return served

    @property
    def written(self) -> list[Outgoing]:
        """Everything that dispatch made durable, in order."""
        return [record for kind, records in self.journal if kind == "commit" for record in records]

    @property
    def story(self) -> list[dict[str, Any]]:
        """All evidence, admission's and dispatch's."""
        before = self.admitted.records if self.admitted else ()
        return told([*before, *self.written])

    @property
    def calls(self) -> list[ModelCall]:
        """The calls that were made."""
        return [call for kind, call in self.journal if kind == "call"]

    @property
    def response(self) -> dict[str, Any]:
        """The one response."""
        (found,) = on(self.written, RESPONSES)
        return found

    @property
    def ledger(self) -> list[dict[str, Any]]:
        """The ledger entries, in order."""
        return on(self.written, LEDGER)


def dead_letters(records: Iterable[Outgoing]) -> list[dict[str, Any]]:
    """Give the dead letters among records."""
    return on(records, DEADLETTER)
