"""Approvals: what waits for a person, what the person answered, and the rules for an answer to count. All of it pure.

Three kinds of records lie on `ai.approvals` under one key, the approval's id: the request that waits, the verdicts on
it, and the marker that it is closed. The marker is written in the transaction that releases or ends the request, so
that whoever reads the topic again knows that it was done.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import Enum, auto
from json import JSONDecoder
from typing import Annotated, Final, Literal

import orjson
from pydantic import Field, ValidationError, field_validator

from evidence.errors import RecordError
from evidence.moments import shifted
from evidence.records import ApprovalRef, Position, Record, ShortText, Utc
from evidence.rfc3339 import Moment
from streams.work import LAST_SEQUENCE, person_of

UNSIGNED: Final = "unsigned"
"""Method of an approver who merely says who they are."""

LONGEST_WAIT: Final = timedelta(days=7)
"""How long a request may wait at most: it must end long before its topic, and its evidence's, forget it."""

_LARGEST_BYTES: Final = 1_000_000
"""Largest record that is taken: admission writes no larger one, and an answer makes it somewhat longer."""

_CLOSED_KEPT: Final = 50_000
"""Closed ids that are remembered, to tell a second verdict from one on something that never was."""


class ApprovalRequest(Record):
    """A request that waits for a person; written by admission."""

    record: Literal["request"] = "request"
    """Which of the three kinds of records this is."""
    approval_version: Literal["1.0"] = "1.0"
    """Version of this form."""
    approval_id: ShortText
    """Its id: the intake id of the request."""
    request_id: ShortText
    """The application's id of the request."""
    correlation_id: ShortText | None = None
    """The application's id of the larger task."""
    kind: Literal["approval", "override"]
    """`approval`: policy asks for it. `override`: policy escalates, and a person may decide otherwise."""
    authority: ShortText
    """Whose approval is needed: a role."""
    identity: ShortText
    """How actor and tenant were established."""
    tenant: ShortText
    """For which tenant."""
    actor_ref: ShortText
    """Who asks, as `kind:id`; they cannot approve it themselves."""
    session_ref: ShortText | None = None
    """In which session."""
    subject_ref: ShortText | None = None
    """Whom the data is about, where that is not the actor."""
    task_type: ShortText
    """What kind of work."""
    purpose: ShortText
    """What the data may be used for."""
    deadline_utc: Utc | None = None
    """When the request is of no more use; the approval expires then at the latest."""
    data_class: ShortText
    """What the data is held to be."""
    findings: tuple[str, ...] = ()
    """Kinds that were found in it; never the text."""
    redaction: tuple[str, ...] = ()
    """What would be taken out before it crosses, each `<category>:<style>`."""
    route: ShortText
    """Where it would go."""
    action: ShortText
    """What would be done, such as `cross`."""
    resource: ShortText
    """With what: the destination, as the policy names it."""
    payload_sha256: ShortText
    """Digest of exactly what would cross; the approval is good for nothing else."""
    decision_id: ShortText
    """The decision that asks for it."""
    policy_id: ShortText
    """Which policy decided."""
    policy_version: ShortText
    """Digest of that policy."""
    reasons: tuple[str, ...] = ()
    """Why, as reason codes."""
    requested_at_utc: Utc
    """When it began to wait."""
    expires_at_utc: Utc
    """When it has waited too long, and until when an approval holds."""
    next_sequence: int = Field(ge=0, le=LAST_SEQUENCE)
    """Where the request's story goes on."""
    trace_id: ShortText
    """W3C trace id."""
    parent_span_id: ShortText
    """The request's own span."""
    root_span_id: ShortText | None = None
    """The application's span, where it sent one."""
    trace_state: str = ""
    """W3C tracestate, handed on unchanged."""
    work: str
    """The work record as JSON, sealed; only its place in the story and its approval are filled in here."""
    work_topic: Literal["ai.work.local", "ai.work.hosted"]
    """Where the work goes once it is approved, by the topic's name without a prefix."""
    work_key: ShortText
    """Under which key."""
    receipt: str | None = None
    """The route receipt as a JSON object, for the response where it is not approved; it is handed on as it is."""

    @field_validator("work", "receipt")
    @classmethod
    def _is_object(cls, text: str | None) -> str | None:
        # Found wrong now, it is a dead letter; found wrong when it is needed, it would hold everybody up.
        if text is not None:
            names = [name for name, _ in members(text)]
            if len(set(names)) != len(names):
                raise ValueError("a name stands twice in it")
        return text

    @property
    def person(self) -> str:
        """The person whom the data is about."""
        return person_of(self.subject_ref, self.actor_ref)

    @property
    def expires_at(self) -> datetime:
        """When it has waited too long, all limits together."""
        limits = [self.expires_at_utc, shifted(self.requested_at_utc, LONGEST_WAIT)]
        return min([*limits, self.deadline_utc] if self.deadline_utc is not None else limits)

    def ref(self, *, approver: str | None = None, note: str | None = None) -> ApprovalRef:
        """Give what evidence and work say of it."""
        return ApprovalRef(
            approval_id=self.approval_id,
            authority=self.authority,
            approver=approver,
            payload_sha256=self.payload_sha256,
            expires_at_utc=self.expires_at,
            override=self.kind == "override",
            note=note or None,
        )


class ApprovalVerdict(Record):
    """What a person answered."""

    record: Literal["verdict"] = "verdict"
    """Which of the three kinds of records this is."""
    approval_version: Literal["1.0"] = "1.0"
    """Version of this form."""
    approval_id: ShortText
    """What it is about."""
    verdict: Literal["approved", "denied"]
    """The answer."""
    override: bool = False
    """Whether the approver means to override a decision; required where the request asks for that, and only there."""
    approver: ShortText
    """Who they say they are."""
    roles: tuple[ShortText, ...] = ()
    """What they say that they may do; where identity is signed, the token says it and not this."""
    note: Annotated[str, Field(max_length=512)] = ""
    """Why; never a text of the request."""
    payload_sha256: ShortText
    """Digest of what they saw."""
    decided_at_utc: Moment
    """When, by their own clock; what counts is when it is read."""


class ApprovalClosed(Record):
    """The marker that a request waits no longer."""

    record: Literal["closed"] = "closed"
    """Which of the three kinds of records this is."""
    approval_version: Literal["1.0"] = "1.0"
    """Version of this form."""
    approval_id: ShortText
    """What was closed."""
    request_id: ShortText
    """The application's id of the request."""
    result: Literal["approved", "denied", "expired"]
    """How."""
    approver: ShortText | None = None
    """Who answered."""
    event_id: ShortText
    """The evidence of it."""
    closed_at_utc: Utc
    """When."""


ApprovalRecord = ApprovalRequest | ApprovalVerdict | ApprovalClosed

_FORMS: Final[dict[str, type[ApprovalRecord]]] = {
    "request": ApprovalRequest,
    "verdict": ApprovalVerdict,
    "closed": ApprovalClosed,
}


def read(key: bytes | None, value: bytes | None) -> ApprovalRecord:
    """Read a record of `ai.approvals`.

    Raises:
        RecordError: `bad_approval`: it is none of the three, or lies under another key than its own.
    """
    try:
        said = orjson.loads(value or b"")
        form = _FORMS[said["record"]]
        found = form.model_validate_json(value or b"")
    except ValidationError as error:
        wrong = sorted({str(problem["loc"][0]) for problem in error.errors(include_input=False) if problem["loc"]})
        raise RecordError("bad_approval", f"these fields are wrong: {', '.join(wrong)[:500]}") from None
    except (ValueError, KeyError, TypeError, RecursionError):
        raise RecordError(
            "bad_approval", "not a record of ai.approvals: `record` is request, verdict or closed"
        ) from None
    if len(value or b"") > _LARGEST_BYTES:
        raise RecordError("bad_approval", f"more than {_LARGEST_BYTES} bytes: what follows from it would fit no topic")
    if key != found.approval_id.encode():
        raise RecordError("bad_approval", "the key is not the record's approval id")
    return found


@dataclass(frozen=True, slots=True)
class Approver:
    """Who answered, as far as it is established."""

    id: str
    """Who."""

    roles: frozenset[str]
    """What they may decide."""

    method: str
    """How that was established: `unsigned`, or how it was signed."""

    tenant: str | None = None
    """For which tenant alone they may answer; None is for any."""


Authenticate = Callable[[Sequence[tuple[str, bytes | None]], ApprovalVerdict], Approver]
"""Says who sent a verdict, from its headers and itself.

A RecordError: it cannot be established, and the verdict is void. A RetryableError: not now, and the verdict waits.
"""


def unsigned(headers: Sequence[tuple[str, bytes | None]], verdict: ApprovalVerdict) -> Approver:
    """Take approvers at their word; for `waybill dev` alone, and evidence shows it."""
    del headers
    return Approver(verdict.approver, frozenset(verdict.roles), UNSIGNED)


class Ruling(Enum):
    """What a verdict comes to."""

    APPROVE = auto()
    """The request goes on."""

    DENY = auto()
    """The request ends."""

    LATE = auto()
    """It had waited too long already; the clock ends it, not the verdict."""

    REPEATED = auto()
    """It was answered before; that stands."""

    VOID = auto()
    """The verdict does not count; the request waits on."""


@dataclass(frozen=True, slots=True)
class Judgement:
    """A ruling with its reason."""

    ruling: Ruling
    """What it comes to."""

    code: str = ""
    """Why a verdict is void, as a stable code."""

    message: str = ""
    """The same, as a sentence."""


def judge(request: ApprovalRequest, verdict: ApprovalVerdict, approver: Approver, now: datetime) -> Judgement:
    """Decide what a verdict on a request that waits comes to.

    Args:
        request: what waits.
        verdict: what was answered.
        approver: who answered.
        now: the time; what the verdict says of its own time does not count.
    """
    if request.expires_at <= now:
        return Judgement(Ruling.LATE)
    if verdict.payload_sha256 != request.payload_sha256:
        return _void("payload_mismatch", "the verdict is on another payload than the one that waits; look at it anew")
    if approver.tenant is not None and approver.tenant != request.tenant:
        return _void("other_tenant", "the approver answers for another tenant")
    if _same_person(approver.id, request.actor_ref):
        return _void("self_approval", "whoever asks cannot answer: a second person has to")
    if request.authority not in approver.roles:
        return _void("role_missing", f"the role {request.authority} is needed, and the approver does not have it")
    if verdict.verdict == "denied":
        return Judgement(Ruling.DENY)
    if verdict.override != (request.kind == "override"):
        told = "an override, and the verdict does not say so" if request.kind == "override" else "no override"
        return _void("override_mismatch", f"what is asked for is {told}")
    return Judgement(Ruling.APPROVE)


def _void(code: str, message: str) -> Judgement:
    return Judgement(Ruling.VOID, code, message)


def _same_person(approver: str, actor_ref: str) -> bool:
    """Compare strictly: a second spelling of one name is no second person."""
    known = {actor_ref.casefold(), actor_ref.partition(":")[2].casefold()}
    said = {approver.casefold(), approver.partition(":")[2].casefold()}
    return not known.isdisjoint(said - {""})


@dataclass(frozen=True, slots=True)
class Waiting:
    """A request that waits, and where it lies."""

    request: ApprovalRequest
    """What waits."""

    place: Position
    """Its record."""


class Approvals:
    """What waits and what is closed, as the records say, in any order of request and marker."""

    def __init__(self) -> None:
        self._waiting: dict[str, Waiting] = {}
        self._closed: dict[str, ApprovalClosed] = {}

    def park(self, request: ApprovalRequest, place: Position) -> bool:
        """Take a request; False where it waits already or was closed."""
        if request.approval_id in self._waiting or request.approval_id in self._closed:
            return False
        self._waiting[request.approval_id] = Waiting(request, place)
        return True

    def close(self, marker: ApprovalClosed) -> Waiting | None:
        """Take a marker; give what it closes, where that waits here."""
        self._closed[marker.approval_id] = marker
        if len(self._closed) > _CLOSED_KEPT:
            del self._closed[next(iter(self._closed))]
        return self._waiting.pop(marker.approval_id, None)

    def waiting(self, approval_id: str) -> Waiting | None:
        """Give what waits under an id."""
        return self._waiting.get(approval_id)

    def closed(self, approval_id: str) -> ApprovalClosed | None:
        """Give how it was closed."""
        return self._closed.get(approval_id)

    def due(self, now: datetime) -> list[Waiting]:
        """Give what has waited too long."""
        return [one for one in self._waiting.values() if one.request.expires_at <= now]

    def next_due(self) -> datetime | None:
        """Say when the next one will have waited too long."""
        return min((one.request.expires_at for one in self._waiting.values()), default=None)

    def __iter__(self) -> Iterator[Waiting]:
        return iter(self._waiting.values())

    def __len__(self) -> int:
        return len(self._waiting)


def released(work: str, *, next_sequence: int, approval: ApprovalRef) -> bytes:
    """Give a work record with its place in the story and its approval filled in; every other value stays as written."""
    filled = {
        **dict(members(work)),
        "nextSequence": str(next_sequence),
        "approval": approval.to_json().decode(),
    }
    return ("{" + ",".join(f"{orjson.dumps(name).decode()}:{text}" for name, text in filled.items()) + "}").encode()


def members(text: str) -> Iterator[tuple[str, str]]:
    """Give name and value of each member of a JSON object, the value as it is written: parsing could change it.

    Raises:
        ValueError: it is no JSON object.
    """
    orjson.loads(text)  # what follows may take for granted that it is JSON
    place = _skip(text, 0)
    if text[place] != "{":
        raise ValueError("not a JSON object")
    place = _skip(text, place + 1)
    while text[place] != "}":
        name, place = _DECODER.raw_decode(text, place)
        place = _skip(text, _skip(text, place) + 1)  # over the colon
        _, end = _DECODER.raw_decode(text, place)
        yield name, text[place:end]
        place = _skip(text, end)
        if text[place] == ",":
            place = _skip(text, place + 1)


def _skip(text: str, place: int) -> int:
    while text[place] in " \t\r\n":
        place += 1
    return place


_DECODER: Final = JSONDecoder()
"""Only finds where a value ends."""
