"""Admission and serving without a broker: what goes in, and what came out, by topic."""

from __future__ import annotations

import tempfile
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any

import orjson
from requests_made import ROUTES, book, encoded, headers, request

from evidence.records import Position
from inference.backend import Completion, ModelCall
from inference.credentials import Credentials
from inference.rulebook import Rulebook, Shelf
from inference.testing import echo
from policy.detection.detectors import Detectors, ScanResult
from policy.vault.erased import Erased, nobody
from policy.vault.sealing import Vault
from policy.vault.store import SealedObject, VaultStore, open_object
from streams.consent import ConsentState
from streams.ledger import Finding, Standing
from streams.metrics import Metrics
from streams.stages.account import Kitchen, Served
from streams.stages.admit import Incoming, Rules, admit
from streams.stages.admitted import Admitted
from streams.stages.opening import Keeper
from streams.stages.serve import Serving
from streams.topics import DEADLETTER, EVIDENCE, LEDGER, RESPONSES, WORK_HOSTED, WORK_LOCAL, Topic
from streams.transactions import Outgoing
from streams.work import Work
from waybill.parts import StoreKeeper

SCANNER = Detectors()
"""The real detectors; compiled once."""

_FOLDER = tempfile.TemporaryDirectory(prefix="waybill-tests-")


@cache
def vault() -> Vault:
    """Give a real vault, the same for all tests of a process that destroy no keys."""
    made = Vault(Path(_FOLDER.name) / "vault")
    made.prepare()
    return made


@cache
def store() -> VaultStore:
    """Give the store of that vault."""
    return VaultStore(vault().ring.folder)


class Broken:
    """Detectors that cannot run."""

    def scan_closed(self, text: str) -> ScanResult:
        """Fail."""
        del text
        return ScanResult((), failed=True)


class Consents:
    """A register of consents that answers what a test says."""

    def __init__(self, said: Mapping[tuple[str, str, str], str] | None = None) -> None:
        self.said = dict(said or {})
        self.changes = 0

    def say(self, state: str, subject: str = "ada", purpose: str = "support", tenant: str = "acme") -> None:
        """Say what holds from now on."""
        self.said[tenant, subject, purpose] = state
        self.changes += 1

    def state(self, tenant: str, subject: str, purpose: str, now: datetime) -> ConsentState:
        """Give what holds; `none` where nobody said anything."""
        del now
        found: Any = self.said.get((tenant, subject, purpose))
        return ConsentState(found or "none", f"0:{self.changes}" if found else None)


def utc_now() -> datetime:
    """The time."""
    return datetime.now(UTC)


def rules(by: Rulebook | str | None = None, **changes: Any) -> Rules:
    """Give what admission decides by: a rulebook, or one with this route table.

    Args:
        by: the rulebook, or the text of its routes.
        **changes: fields of `Rules`.
    """
    made = by if isinstance(by, Rulebook) else book(routes=by or ROUTES)
    found = Rules(
        shelf=Shelf(made),
        scanner=SCANNER,
        vault=vault(),
        consents=Consents(),
        verifier=None,
        site="here",
        log_id="log",
        max_bytes=20_000,
        name=lambda topic: topic.name,
        erased=nobody,
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


def told(records: Iterable[Outgoing], event_type: str | None = None) -> list[dict[str, Any]]:
    """Give the evidence events among records, all or those of one type."""
    return [event for event in on(records, EVIDENCE) if event_type in {None, event["eventType"]}]


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


def unsealed(work: Work) -> dict[str, Any]:
    """Give what was sealed with a work record."""
    plaintext = vault().open(work.sealed, tenant=work.said.tenant_ref, bound_to=work.intake_id.encode())
    found: dict[str, Any] = orjson.loads(plaintext)
    return found


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


class Noting:
    """A keeper that writes down what is kept, and when, before the real one keeps it."""

    def __init__(self, journal: list[tuple[str, Any]], keeper: Keeper) -> None:
        self._journal, self._keeper = journal, keeper

    async def keep(self, items: Sequence[SealedObject]) -> None:
        """Keep."""
        await self._keeper.keep(items)
        if items:
            self._journal.append(("keep", list(items)))


@dataclass
class Rig:
    """Serves one request the way that dispatch does, and keeps a journal of all that happens, in its order."""

    hosted: Sequence[Step] = ()
    """What the endpoint `hosted` does."""
    other: Sequence[Step] = ()
    """What the endpoint `other` does."""
    local: Sequence[Step] = ()
    """What the endpoint `local` does."""
    routes: str = ROUTES
    """The table of the rulebook, unless `book` is given."""
    routes_now: str | None = None
    """The table at the moment of sending."""
    book: Rulebook | None = None
    """The rulebook of admission and, unless `book_now` or `routes_now` differs, of dispatch."""
    book_now: Rulebook | None = None
    """The rulebook at the moment of sending."""
    clock: Callable[[], datetime] = utc_now
    """Dispatch's time."""
    scanner: Any = SCANNER
    """Dispatch's detectors."""
    vault: Vault = field(default_factory=vault)
    """Seals and opens."""
    keeper: Keeper | None = None
    """Keeps what may be kept; the real one unless given."""
    consents: Consents = field(default_factory=Consents)
    """What is known of consents, in admission and in dispatch."""
    credentials: Mapping[str, Credentials] = field(default_factory=dict)
    """How endpoints are told who calls."""
    erased: Erased = nobody
    """Says in dispatch who was erased."""
    journal: list[tuple[str, Any]] = field(default_factory=list)
    """`("commit", records)`, `("call", call)` and `("keep", objects)`."""
    admitted: Admitted | None = None
    """What admission wrote."""

    def __post_init__(self) -> None:
        self.at_first = self.book or book(routes=self.routes)
        self.shelf = Shelf(self.at_first)
        """The rulebook of dispatch; what a test puts there counts from then on."""

    def admit(self, **changes: Any) -> Work:
        """Admit a request; `changes` are those of `asked`."""
        by = rules(self.at_first, vault=self.vault, consents=self.consents)
        self.admitted = admit(asked(**changes), by, utc_now())
        return work_of(self.admitted)

    async def commit(self, records: Sequence[Outgoing]) -> None:
        """Make records durable."""
        self.journal.append(("commit", list(records)))

    def kitchen(self) -> Kitchen:
        """Give what serving needs."""
        if self.book_now is not None:
            self.shelf.current = self.book_now
        elif self.routes_now is not None:
            self.shelf.current = book(routes=self.routes_now)
        return Kitchen(
            shelf=self.shelf,
            backends={
                "hosted": Turns(self.journal, self.hosted),
                "other": Turns(self.journal, self.other),
                "local": Turns(self.journal, self.local),
            },
            credentials=self.credentials,
            vault=self.vault,
            keeper=Noting(self.journal, self.keeper or StoreKeeper(store())),
            consents=self.consents,
            erased=self.erased,
            scanner=self.scanner,
            site="here",
            name=lambda topic: topic.name,
            clock=self.clock,
            metrics=Metrics(),
        )

    async def serve(self, work: Work | None = None, finding: Finding | None = None, **changes: Any) -> Served:
        """Serve a request, one made by `admit` unless given."""
        work = work or self.admit(**changes)
        place = Position(topic="ai.work.hosted", partition=0, offset=7)
        served = await Serving(self.kitchen(), work, place, self.commit).run(finding or Finding(Standing.NEW))
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

    def events(self, event_type: str) -> list[dict[str, Any]]:
        """Give the events of one type that dispatch wrote."""
        return told(self.written, event_type)

    @property
    def calls(self) -> list[ModelCall]:
        """The calls that were made."""
        return [call for kind, call in self.journal if kind == "call"]

    @property
    def kept(self) -> dict[str, bytes]:
        """What was kept, opened, by kind."""
        items = [item for kind, found in self.journal if kind == "keep" for item in found]
        return {item.kind: open_object(self.vault, item) for item in items}

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
