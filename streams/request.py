"""The runtime request: what an application asks, on `ai.requests`.

A field that this version cannot honour is refused rather than ignored, because a field that is ignored is a promise
that is broken in silence.
"""

from __future__ import annotations

import json
import re
from typing import Annotated, Final, Literal

import orjson
from pydantic import AfterValidator, Field, ValidationError, model_validator
from pydantic_core import PydanticCustomError

from evidence.canonical import sha256_hex
from evidence.errors import RecordError
from evidence.faults import Fault, faults
from evidence.records import Record, ShortText
from evidence.rfc3339 import Moment
from inference.backend import Role
from inference.routes import RiskName

CONTRACT_MAJOR: Final = "1"
"""The major version of the request contract that this program speaks."""

_MAX_ERRORS: Final = 8
"""More broken fields than this are only counted in a rejection."""

_NAME: Final = re.compile(r"[A-Za-z][A-Za-z_]{0,31}[0-9]{0,2}")
"""What a field's name looks like; anything else that stands in its place may be data, or a key, and is not repeated."""

_UUID: Final = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")

_UUID_LENGTH: Final = 36

_JSON_PLACE: Final = re.compile(r"at line \d+ column \d+")


def _version(value: str) -> str:
    major, dot, minor = value.partition(".")
    if not (dot and value.isascii() and major.isdigit() and minor.isdigit()):
        raise PydanticCustomError("invalid_version", "must be MAJOR.MINOR, such as 1.0")
    if major != CONTRACT_MAJOR:
        raise PydanticCustomError("unsupported_version", "this program speaks version 1.x of the request contract")
    return value


def _plain(value: str) -> str:
    if not value.isprintable() or value != value.strip():
        raise PydanticCustomError("invalid_id", "must be printable and without blanks at its ends")
    return value


Id = Annotated[str, Field(min_length=1, max_length=128), AfterValidator(_plain)]
"""An application's id of something."""


class Actor(Record):
    """On whose behalf."""

    id: Id
    """Who, as the application's identity system names them."""
    kind: Literal["user", "service"] = "user"
    """A person or a program."""


class Tenant(Record):
    """For which tenant."""

    id: Id
    """Which one."""


class Turn(Record):
    """One turn of a conversation."""

    role: Role
    """Who speaks."""
    content: Annotated[str, Field(min_length=1)]
    """What is said."""


class ContextItem(Record):
    """A source that may go along with the conversation."""

    source_id: Id
    """Where it comes from."""
    content: Annotated[str, Field(min_length=1)]
    """Its text."""
    classification: ShortText | None = None
    """What the application holds it to be; the request's own class if absent."""
    need: Literal["required", "useful", "background"] = "required"
    """Whether the task can be done without it: only what a route takes goes along."""


class Input(Record):
    """What the model is asked."""

    messages: tuple[Turn, ...] = Field(min_length=1)
    """The conversation so far; the last turn is the user's."""
    context: tuple[ContextItem, ...] = Field(default=(), max_length=1000)
    """Sources that go along."""

    @model_validator(mode="after")
    def _ends_with_user(self) -> Input:
        if self.messages[-1].role != "user":
            raise PydanticCustomError("last_turn", "the last message must be the user's")
        return self


class ModelPolicy(Record):
    """What the application wants of the route; it can narrow what policy allows, never widen it."""

    placement: Literal["any", "local", "hosted"] = "any"
    """Which side of the boundary may answer."""
    regions: tuple[ShortText, ...] = Field(default=(), max_length=32)
    """Regions in which it may be processed; empty leaves it to policy."""
    max_tokens: int | None = Field(default=None, ge=1, le=100_000)
    """Upper bound of generated tokens; the route's own bound holds too."""
    temperature: float | None = Field(default=None, ge=0, le=2)
    """Sampling temperature; where it is absent, a local model takes 0 and a hosted one its own default."""


class Consent(Record):
    """Why the data may cross to a hosted destination."""

    basis: Literal["consent", "contract", "legal-obligation", "public-task", "legitimate-interest"]
    """The basis."""
    reference: Id | None = None
    """Where it is written down."""
    subject: Id | None = None
    """The person whom the data is about; the actor if absent. Consent is looked up for them and the purpose."""


class Budget(Record):
    """What an answer may cost at most."""

    max_cost_usd: float = Field(gt=0)
    """In US dollars, all attempts together."""


class RuntimeRequest(Record):
    """One request."""

    contract_version: Annotated[str, Field(json_schema_extra={"pattern": r"^1\.[0-9]+$"}), AfterValidator(_version)]
    """Version of this contract, such as `1.0`."""
    request_id: Id
    """The application's id; responses and evidence carry it."""
    correlation_id: Id | None = None
    """The larger task that this belongs to."""
    idempotency_key: Id | None = None
    """Two requests of one actor, tenant and task type with one key are one piece of work; the request id if absent."""
    timestamp_utc: Moment
    """When it was made."""
    deadline_utc: Moment | None = None
    """When an answer is of no more use."""
    actor: Actor
    """On whose behalf."""
    tenant: Tenant
    """For which tenant."""
    session: Id | None = None
    """In which session."""
    task_type: ShortText
    """What kind of work; a route serves it or not."""
    purpose: ShortText
    """What the data may be used for."""
    risk_level: RiskName = "low"
    """How much harm a wrong answer can do."""
    classification: ShortText
    """What the application holds the data to be; detection can raise it, nothing lowers it."""
    data_categories: tuple[ShortText, ...] = Field(default=(), max_length=32)
    """Families of data that it holds, as the application knows; detection can add some."""
    data_regulations: tuple[ShortText, ...] = Field(default=(), max_length=32)
    """Regulations that it falls under, as the application knows; categories can add some."""
    input: Input
    """What the model is asked."""
    model_policy: ModelPolicy = ModelPolicy()
    """What the application wants of the route."""
    consent: Consent | None = None
    """Why the data may cross; without it, it stays local."""
    budget: Budget | None = None
    """What an answer may cost."""
    trace_mode: Literal["metadata"] = "metadata"
    """What traces may hold; nothing but metadata."""
    allowed_tools: tuple[ShortText, ...] = Field(default=(), max_length=0)
    """Not served by this version: must be empty."""

    def ids(self) -> str:
        """Give every word of the sender's that evidence will repeat, as one text for the detectors."""
        found = [
            self.request_id,
            self.actor.id,
            self.tenant.id,
            self.correlation_id,
            self.idempotency_key,
            self.session,
            self.task_type,
            self.purpose,
            *self.model_policy.regions,
        ]
        if self.consent is not None:
            found += self.consent.reference, self.consent.subject
        # A UUID is no credential that detectors know of, and much of it looks like account numbers to them at first.
        return " \x1f ".join(
            [word if len(word) != _UUID_LENGTH or not _UUID.fullmatch(word) else "-" for word in found if word]
        )

    def parts(self) -> list[str]:
        """Give everything that could cross, piece by piece: each turn, then id and text of each source."""
        parts = [turn.content for turn in self.input.messages]
        for item in self.input.context:
            parts += item.source_id, item.content
        return parts

    @property
    def subject(self) -> str:
        """The person whom the data is about."""
        return (self.consent.subject if self.consent else None) or self.actor.id

    def scope(self) -> str:
        """Give the idempotency scope: a digest of tenant, actor, task type and key (32 hex digits)."""
        key = self.idempotency_key or self.request_id
        parts = (self.tenant.id, self.actor.kind, self.actor.id, self.task_type, key)
        return sha256_hex("\x00".join(parts).encode())[:32]

    def fingerprint(self) -> str:
        """Give a digest of the payload (32 hex digits): what a retry repeats, without ids and times."""
        return sha256_hex(self.__pydantic_serializer__.to_json(self, include=_PAYLOAD))[:32]


_PAYLOAD: Final = {
    "task_type", "purpose", "risk_level", "classification", "data_categories", "data_regulations", "input",
    "model_policy", "consent", "budget",
}  # fmt: skip


def parse(value: bytes | None) -> RuntimeRequest:
    """Read a request.

    Raises:
        RecordError: it breaks the contract; the code is one of `empty`, `not_json`, `unsupported_version`,
            `no_identity`, `unknown_field`, `unsupported_field`, `invalid_field`, `duplicate_field`. The text names the
            fields and never repeats the input.
    """
    if not value:
        raise RecordError("empty", "the record has no value; a request is a JSON object")
    try:
        # Strict, and by the names of the wire only: a number in quotes or a name in snake_case is no part of it.
        request = RuntimeRequest.model_validate_json(value, strict=True, by_alias=True, by_name=False)
    except ValidationError as error:
        if value.startswith(_BOM):
            raise RecordError("not_json", "the value begins with a byte order mark: send UTF-8 without one") from None
        raise _reason(error) from None
    _refuse_twice(value, request)
    return request


def _refuse_twice(value: bytes, request: RuntimeRequest) -> None:
    """Refuse a request in which a field stands twice: others may read the first of them, and this program the last.

    A quotation mark and a colon end each name, perhaps with blanks between them; inside a text the mark is escaped.
    Where there are more than fields that were read, one was dropped, and each object is looked at.
    """
    bare = value.translate(None, b" \n\r\t")
    names = bare.count(b'":') - (bare.count(b'\\":') if b"\\" in bare else 0)
    if names != _fields(request):
        json.loads(value, object_pairs_hook=_once, parse_int=_no_number, parse_float=_no_number)


def _fields(request: RuntimeRequest) -> int:
    """Count the fields that were given, of the request and of all in it."""
    asked = request.input
    parts = request, request.actor, request.tenant, asked, request.model_policy, request.consent, request.budget
    found = sum([len(part.__pydantic_fields_set__) for part in parts if part is not None])
    found += sum([len(turn.__pydantic_fields_set__) for turn in asked.messages])
    return found + sum([len(item.__pydantic_fields_set__) for item in asked.context])


def _once(pairs: list[tuple[str, object]]) -> None:
    names = [name for name, _ in pairs]
    for name in names:
        if names.count(name) > 1:
            raise RecordError("duplicate_field", f"{_shown(name)}: stands twice in one object; send it once")


def _no_number(text: str) -> None:
    """Leave a number unread: only names are looked at."""
    del text


_BOM: Final = b"\xef\xbb\xbf"


def _reason(error: ValidationError) -> RecordError:
    found = faults(error, RuntimeRequest, _HINTS)
    code = min(map(_code, found), key=_ORDER.index)
    if code == "not_json":
        place = _JSON_PLACE.search(error.errors(include_url=False, include_input=False)[0]["msg"])
        return RecordError(code, f"the value is not JSON{f' ({place[0]})' if place else ''}")
    told = [f"{_where(fault)}: {_said(fault)}" for fault in found[:_MAX_ERRORS]]
    if len(found) > _MAX_ERRORS:
        told.append(f"and {len(found) - _MAX_ERRORS} more")
    return RecordError(code, "; ".join(told))


def _said(fault: Fault) -> str:
    if fault.place == _TOOLS and fault.kind == "too_long":
        return f"{_NO_TOOLS}; leave it empty"
    if fault.kind == "string_type" and fault.place[-1] == "content":
        return f"{fault.text}; {_ONLY_TEXT}, and no parts such as images"
    return fault.text


_TOOLS: Final = ("allowedTools",)

_NO_TOOLS: Final = "tools are not supported by this version"
_NO_SAMPLING: Final = "of sampling, only modelPolicy.temperature can be set"
_NO_FORMAT: Final = "formats of answers are not supported"
_NO_STREAM: Final = "streaming is not supported; an answer comes as a whole"
_ONLY_TEXT: Final = "only texts are supported"
_HINTS: Final = {
    "stream": _NO_STREAM, "streamoptions": _NO_STREAM, "streaming": _NO_STREAM,
    "tools": _NO_TOOLS, "toolchoice": _NO_TOOLS, "functions": _NO_TOOLS, "functioncall": _NO_TOOLS,
    "toolcalls": _NO_TOOLS, "paralleltoolcalls": _NO_TOOLS, "mcpservers": _NO_TOOLS,
    "model": "the route table chooses the model", "route": "the route table chooses the route",
    "responseformat": _NO_FORMAT, "outputschema": _NO_FORMAT, "jsonschema": _NO_FORMAT,
    "topp": _NO_SAMPLING, "topk": _NO_SAMPLING, "seed": _NO_SAMPLING, "stop": _NO_SAMPLING, "n": _NO_SAMPLING,
    "presencepenalty": _NO_SAMPLING, "frequencypenalty": _NO_SAMPLING, "logprobs": _NO_SAMPLING,
    "image": _ONLY_TEXT, "images": _ONLY_TEXT, "files": _ONLY_TEXT, "attachments": _ONLY_TEXT, "audio": _ONLY_TEXT,
    "user": "on whose behalf it is asked is in actor", "prompt": "what is asked is in input.messages",
}  # fmt: skip
"""What users of other interfaces send, and why it is not there."""


_ORDER: Final = (
    "not_json",
    "unsupported_version",
    "no_identity",
    "unknown_field",
    "unsupported_field",
    "invalid_field",
)


def _code(fault: Fault) -> str:
    kind, where = fault.kind, fault.place
    if kind == "json_invalid":
        return "not_json"
    if kind == "unsupported_version":
        return kind
    if kind == "extra_forbidden":
        return "unknown_field"
    if where and where[0] in {"actor", "tenant"}:
        return "no_identity"
    if where == _TOOLS:
        return "unsupported_field"
    return "invalid_field"


def _where(fault: Fault) -> str:
    # An unknown field's name is the sender's text: it is shown where it looks like a name.
    return ".".join(map(_shown, fault.place)) or "(the record)"


def _shown(part: str | int) -> str:
    return str(part) if isinstance(part, int) or _NAME.fullmatch(part) else "(no name)"


def readable_request_id(value: bytes | None) -> str | None:
    """Give the request id of a record that is no valid request, where one can be read."""
    if not value:
        return None
    try:
        content = orjson.loads(value)
    except orjson.JSONDecodeError:
        try:
            # What is no JSON for a small fault, such as half of a character or a byte order mark, still has its id.
            content = json.loads(value.decode("utf-8-sig"), parse_int=_no_number, parse_float=_no_number)
        except (ValueError, RecursionError):
            return None
    found = content.get("requestId") if isinstance(content, dict) else None
    return found if isinstance(found, str) and is_readable_id(found) else None


def is_readable_id(text: str) -> bool:
    """Say whether a text can be repeated as an id: printable, 1 to 128 characters."""
    return 0 < len(text) <= 128 and text.isprintable()  # noqa: PLR2004 - as Id
