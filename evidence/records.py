"""The evidence event: one thing that happened to one request, in a form that travels, is stored and is queried.

An event is JSON with camelCase names on `ai.evidence` and a row with snake_case names in the table `events`; the
mapping is `evidence.schema`. Prompts and answers are never in it: sizes and SHA-256 hashes stand for them.
"""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum
from typing import Annotated, Any, Final

import orjson
from pydantic import BaseModel, ConfigDict, Field, GetCoreSchemaHandler
from pydantic.alias_generators import to_camel
from pydantic_core import core_schema

from evidence.canonical import sha256_hex

MAX_INPUTS: Final = 65_536
"""Characters of what a decision was made on."""

EVIDENCE_VERSION: Final = "1.1"
"""Version of the event's form; the major part changes when an old reader would misread a new event."""


MOST_TOKENS: Final = 10**12
"""More than any call or request can have; sums of columns with such values stay far from 64 bits."""

_INT32: Final = 2**31 - 1
_INT64: Final = 2**63 - 1


class _MustBeUtc:
    """Checked where pydantic parses, which costs nothing; a function of ours would be called for each event."""

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> core_schema.CoreSchema:
        del source, handler
        return core_schema.datetime_schema(tz_constraint=0)


Utc = Annotated[datetime, _MustBeUtc()]
"""A moment in UTC; a naive or shifted time is an error."""

ShortText = Annotated[str, Field(min_length=1, max_length=256)]
"""A name or an id: never empty, never a document."""


class Record(BaseModel):
    """Base of every record that crosses a topic: frozen, closed, camelCase outside and snake_case inside."""

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        alias_generator=to_camel,
        populate_by_name=True,
        serialize_by_alias=True,
        hide_input_in_errors=True,  # an error text reaches logs and dead letters; the input must not
        allow_inf_nan=False,  # JSON has neither: such a number would be written as null and could not be read again
    )

    def to_json(self) -> bytes:
        """Give the record's bytes as they travel: camelCase, fields that are None left out."""
        return self.__pydantic_serializer__.to_json(self, by_alias=True, exclude_none=True)

    def digest(self) -> str:
        """Give the SHA-256, in hex, of the record's canonical form (RFC 8785, fields that are None left out)."""
        # What `canonical_json` checks, a record's form guarantees: names are ASCII, and only records without floats
        # are hashed (a test walks their fields).
        return sha256_hex(orjson.dumps(orjson.loads(self.to_json()), option=orjson.OPT_SORT_KEYS))


class EventType(StrEnum):
    """What happened, in the order of a request's way."""

    REQUEST_ADMITTED = "request.admitted"
    REQUEST_REJECTED = "request.rejected"
    DATA_CLASSIFIED = "data.classified"
    POLICY_DECIDED = "policy.decided"
    ROUTE_SELECTED = "route.selected"
    MODEL_INTENDED = "model.intended"
    MODEL_COMPLETED = "model.completed"
    MODEL_FAILED = "model.failed"
    RESPONSE_FILTERED = "response.filtered"
    REQUEST_ENDED = "request.ended"
    CONTEXT_SELECTED = "context.selected"
    DATA_REDACTED = "data.redacted"
    APPROVAL_REQUESTED = "approval.requested"
    APPROVAL_APPROVED = "approval.approved"
    APPROVAL_DENIED = "approval.denied"
    APPROVAL_EXPIRED = "approval.expired"
    CONSENT_CHANGED = "consent.changed"
    POLICY_ACTIVATED = "policy.activated"
    PSEUDONYM_REVEALED = "pseudonym.revealed"
    RETENTION_APPLIED = "retention.applied"
    HOLD_PLACED = "hold.placed"
    HOLD_RELEASED = "hold.released"
    ERASURE_REQUESTED = "erasure.requested"
    ERASURE_REFUSED = "erasure.refused"
    SUBJECT_ERASED = "subject.erased"
    EVIDENCE_EXPIRED = "evidence.expired"
    EVIDENCE_EXPORTED = "evidence.exported"
    VAULT_REKEYED = "vault.rekeyed"


class Stage(StrEnum):
    """Which part of the pipeline says so."""

    ADMISSION = "admission"
    DISPATCH = "dispatch"
    CORRELATION = "correlation"
    APPROVALS = "approvals"
    OPERATOR = "operator"
    """A person at the command line."""


class Outcome(StrEnum):
    """How a request ended; each request ends in exactly one of these."""

    COMPLETED = "completed"
    """A model answered."""
    REFUSED = "refused"
    """The model or its provider declined; that is an answer, and is not routed around."""
    WITHHELD = "withheld"
    """The answer held what retention forbids, and the rule is to refuse it."""
    DENIED = "denied"
    """Policy allows no route for it."""
    REJECTED = "rejected"
    """The request broke its contract."""
    DUPLICATE = "duplicate"
    """The same work was already taken under this idempotency key; the first one's response stands."""
    EXPIRED = "expired"
    """Its deadline passed before a model was asked."""
    FAILED = "failed"
    """Every allowed attempt failed."""
    UNKNOWN = "unknown"
    """A hosted call may have been accepted and its answer is lost; reconciled later, never blindly repeated."""


class Placement(StrEnum):
    """Which side of the boundary a model runs on."""

    LOCAL = "local"
    HOSTED = "hosted"


class Classification(Record):
    """What the data is held to be."""

    declared: ShortText
    """The label that the request carries."""
    detected: ShortText | None = None
    """The class that the detectors' findings imply; None where they found nothing."""
    effective: ShortText
    """The higher of the two: what policy decides on."""
    findings: tuple[str, ...] = ()
    """Kinds that were found, sorted, each once; never the text itself."""
    detector: ShortText = "ok"
    """`ok`, or which detector could not run (`failed`, `names_failed`), so that the highest class was assumed."""
    categories: tuple[str, ...] = ()
    """Families of data that were declared or found, sorted, each once."""
    regulations: tuple[str, ...] = ()
    """Regulations that were declared or follow from the categories, sorted, each once."""


class RouteRef(Record):
    """Where a request goes, or went."""

    name: ShortText
    """The route's name in the route table."""
    placement: Placement
    """Local or hosted."""
    provider: ShortText
    """Who runs the model; a stand-in is always `stand-in`."""
    model: ShortText
    """The model's name as the destination knows it."""
    region: ShortText
    """Where the destination is."""


class PolicyRef(Record):
    """A decision on what may happen: the decision record."""

    decision: ShortText
    """`allow`, `deny`, `transform`, `require-approval` or `escalate`."""
    policy_id: ShortText
    """Which policy document decided."""
    policy_version: ShortText
    """Digest of that document."""
    reasons: tuple[str, ...] = ()
    """Reason codes, the deciding one first, each `<route>:<code>`; the code is a check's name or a policy's id."""
    decision_id: ShortText | None = None
    """This decision's own id."""
    scope: ShortText | None = None
    """What it is about: `<action>:<route>`."""
    inputs: Annotated[str, Field(max_length=MAX_INPUTS)] | None = None
    """What it was decided on, as JSON: labels and facts, never content; enough to decide it again."""
    required_approvals: tuple[str, ...] = ()
    """Who has to approve."""
    approval_id: ShortText | None = None
    """The approval that it rests on."""
    expires_at_utc: Utc | None = None
    """Until when it holds; asked again in any case before data crosses."""
    overrides: ShortText | None = None
    """The decision that this one overrides, which stays as it was."""
    redaction: tuple[str, ...] = ()
    """What has to be taken out first, each `<category>:<style>`."""
    review_path: ShortText | None = None
    """Who is asked where the decision is disputed."""


class Usage(Record):
    """What an answer cost."""

    input_tokens: int = Field(ge=0, le=MOST_TOKENS)
    """Tokens read, as the destination counts them."""
    output_tokens: int = Field(ge=0, le=MOST_TOKENS)
    """Tokens generated, as the destination counts them."""
    cost_usd: float = Field(default=0.0, ge=0)
    """Price of both in US dollars, by the route's price list."""


class Failure(Record):
    """Why something did not work."""

    code: ShortText
    """Stable, lower-case reason code."""
    message: Annotated[str, Field(max_length=2000)]
    """A sentence for a person; never holds input."""
    retryable: bool = False
    """Whether the same input may succeed later."""


class Retained(Record):
    """What the retention filter did to an answer before it was written anywhere."""

    action: ShortText
    """`keep`, `mask`, `drop` or `refuse`."""
    removed: tuple[str, ...] = ()
    """Kinds that were removed, sorted, each once."""


class Redaction(Record):
    """What was taken out of a request before it went on."""

    applied: tuple[str, ...]
    """What was done, each `<category>:<style>`, sorted."""
    removed: tuple[str, ...] = ()
    """Kinds that were taken out, each `<kind>:<count>`, sorted; never the values."""


class ContextUse(Record):
    """Which of the request's sources went along, and which stayed."""

    selected: tuple[str, ...] = ()
    """Source ids that went along, in order."""
    left: tuple[str, ...] = ()
    """Those that stayed, each `<source id>:<reason>`."""


class ConsentRef(Record):
    """What is known of consent at the moment of a decision."""

    basis: ShortText
    """The basis that the request states, or `none`."""
    state: ShortText
    """What the consent register says: `granted`, `withdrawn`, `none`, or `unknown` where it could not be asked."""
    revision: ShortText | None = None
    """Where the register says so: `<partition>:<offset>`."""


class ApprovalRef(Record):
    """An approval, bound to one payload."""

    approval_id: ShortText
    """Its id."""
    authority: ShortText
    """Whose approval is needed."""
    approver: ShortText | None = None
    """Who gave or refused it."""
    payload_sha256: ShortText
    """Digest of exactly what was approved; anything else needs a new approval."""
    expires_at_utc: Utc | None = None
    """Until when it holds."""
    override: bool = False
    """Whether it overrides a decision to escalate."""
    note: Annotated[str, Field(max_length=512)] | None = None
    """What the approver wrote, with what detectors find masked."""


class CredentialRef(Record):
    """How a destination was told who calls; never the credential itself."""

    method: ShortText
    """`minted`, `exchanged`, `key` (the workload's own provider key) or `none`."""
    token_id: ShortText | None = None
    """The token's own id (`jti`), where there is one."""
    audience: ShortText | None = None
    """For whom it was made."""
    scope: ShortText | None = None
    """What it is good for."""
    expires_at_utc: Utc | None = None
    """Until when."""


class Position(Record):
    """Where a record lies in its log."""

    topic: ShortText
    """Topic name."""
    partition: int = Field(ge=0, le=_INT32)
    """Partition number."""
    offset: int = Field(ge=0, le=_INT64)
    """Offset within the partition."""


class EvidenceEvent(Record):
    """One thing that happened to one request."""

    evidence_version: ShortText = EVIDENCE_VERSION
    """Version of this form."""
    event_id: ShortText
    """Unique for ever; derived from the intake and the sequence, so that a replay gives the same id."""
    event_type: EventType
    """What happened."""
    request_id: ShortText
    """The application's id of the request; `unreadable` where none could be read."""
    intake_id: ShortText
    """Our id of this arrival of the request: two records with one request id are two intakes."""
    correlation_id: ShortText | None = None
    """The application's id of the larger task."""
    trace_id: ShortText
    """W3C trace id, 32 hex digits."""
    span_id: ShortText
    """W3C span id of the step, 16 hex digits."""
    parent_span_id: ShortText | None = None
    """Span that caused the step."""
    sequence: int = Field(ge=0, le=_INT32)
    """Position in the intake's story: 0, 1, 2, … without a gap."""
    occurred_at_utc: Utc
    """When it happened."""
    stage: Stage
    """Which part says so."""
    site: ShortText
    """Where that part runs."""
    identity: ShortText | None = None
    """How actor and tenant were established: `unsigned` means that the request merely says so."""
    actor_ref: ShortText | None = None
    """On whose behalf."""
    tenant_ref: ShortText | None = None
    """For which tenant."""
    session_ref: ShortText | None = None
    """In which session."""
    task_type: ShortText | None = None
    """What kind of work."""
    purpose: ShortText | None = None
    """What the data may be used for."""
    deadline_utc: Utc | None = None
    """When the request is of no more use."""
    classification: Classification | None = None
    """What the data is held to be."""
    policy: PolicyRef | None = None
    """The decision."""
    route: RouteRef | None = None
    """The route of this step."""
    fallbacks: tuple[str, ...] | None = None
    """Names of the routes that may be tried next within the same grant."""
    waybill_hash: ShortText | None = None
    """SHA-256 of the contract under which data crossed."""
    attempt: int | None = Field(default=None, ge=1, le=_INT32)
    """Which attempt, from 1."""
    intent_id: ShortText | None = None
    """The event id of the intent that this step belongs to."""
    usage: Usage | None = None
    """What the answer cost."""
    retained: Retained | None = None
    """What the retention filter did."""
    outcome: Outcome | None = None
    """How the request ended."""
    failure: Failure | None = None
    """Why something did not work."""
    duplicate_of: ShortText | None = None
    """Intake whose response stands for this one."""
    response_id: ShortText | None = None
    """The provider's own id of its answer; information, never a key."""
    input_sha256: ShortText | None = None
    """Hash of the record or prompt that came in."""
    input_bytes: int | None = Field(default=None, ge=0, le=_INT64)
    """Its size."""
    output_sha256: ShortText | None = None
    """Hash of the answer after filtering."""
    output_bytes: int | None = Field(default=None, ge=0, le=_INT64)
    """Its size."""
    duration_ms: float | None = Field(default=None, ge=0)
    """How long the step took, in milliseconds."""
    first_chunk_ms: float | None = Field(default=None, ge=0)
    """Time to the first generated token, in milliseconds."""
    source: Position | None = None
    """The record that caused the step."""
    subject_ref: ShortText | None = None
    """The person whom the data is about, where that is not the actor."""
    redaction: Redaction | None = None
    """What was taken out before the request went on."""
    context: ContextUse | None = None
    """Which sources went along."""
    consent: ConsentRef | None = None
    """What is known of consent."""
    approval: ApprovalRef | None = None
    """The approval that this step is about or rests on."""
    credential: CredentialRef | None = None
    """How the destination was told who calls."""
    detail: Annotated[str, Field(max_length=2000)] | None = None
    """What an operator did and why, or what else a provider says of its answer, as a sentence or as JSON; no input."""
