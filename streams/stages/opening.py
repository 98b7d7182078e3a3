"""Opening sealed work: the redacted view of a request, its originals, and what the vault keeps of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final, Protocol

import orjson
from pydantic import ValidationError

from evidence.errors import PermanentError
from inference.backend import Message
from inference.routes import RouteConfig
from inference.rulebook import Rulebook
from policy.engine import Held
from policy.questions import Granted
from policy.retention import AnswerRule, Kind, join_answer_rules
from policy.vault.reveal import pack
from policy.vault.sealing import Vault
from policy.vault.store import SealedObject, seal_object
from streams.processors.cases import Case, from_json, joined
from streams.request import RuntimeRequest
from streams.work import Work


class Keeper(Protocol):
    """Keeps sealed objects for good."""

    async def keep(self, items: Sequence[SealedObject]) -> None:
        """Make them durable; returns only then.

        Raises:
            UnavailableError: it cannot; none of them is kept.
        """
        ...


class BadWorkError(PermanentError):
    """A sealed request is not what admission seals."""


@dataclass(frozen=True, slots=True)
class Opened:
    """A work record with what was sealed in it."""

    request: RuntimeRequest
    """The redacted view of the request."""

    raw: bytes
    """The same, as JSON."""

    originals: dict[str, str] = field(repr=False)
    """What its pseudonyms stand for; never leaves."""

    case: Case
    """What the decision rests on."""

    held: Held
    """The data that goes along."""

    granted: Granted
    """What the decision was granted on, without the approval."""

    redacted: tuple[str, ...]
    """The same redaction, each `<category>:<style>`."""


def open_work(work: Work, vault: Vault, book: Rulebook) -> Opened:
    """Open a work record.

    Raises:
        KeyDestroyed: retention destroyed its key.
        VaultError: it was changed, or belongs to another intake.
        BadWorkError: what was sealed is no request.
    """
    plaintext = vault.open(work.sealed, tenant=work.said.tenant_ref, bound_to=work.intake_id.encode())
    try:
        content = orjson.loads(plaintext)
        raw = orjson.dumps(content["request"])
        request = RuntimeRequest.model_validate_json(raw, strict=True, by_alias=True, by_name=False)
        originals = dict(content.get("originals", {}))
    except (ValidationError, ValueError, KeyError, TypeError):
        raise BadWorkError("what was sealed is no request") from None
    case = from_json(work.policy.inputs or "")
    items = [case.items[place] for place in work.sources]
    held = joined(case.held, items, book.labels.joined) if items else case.held
    redacted = frozenset(one.partition(":")[0] for one in work.policy.redaction)
    return Opened(request, raw, originals, case, held, Granted(redacted=redacted), work.policy.redaction)


def answer_rule(work: Work, route: RouteConfig, book: Rulebook) -> AnswerRule:
    """Give what may not be kept of an answer: by its route, the one first chosen, its waybill, class and purpose."""
    first = book.table.by_name.get(work.routes[0], route)
    rule = join_answer_rules(route.answer, first.answer)
    contract = work.waybills.get(route.name)
    if contract is not None:
        terms = contract.retention
        rule = join_answer_rules(rule, AnswerRule(forbid=terms.forbidden_in_answer, action=terms.action))
    return join_answer_rules(rule, book.retention.rule_for(class_of(work, book), work.said.purpose).answer)


def class_of(work: Work, book: Rulebook) -> str:
    """Give the class that retention goes by; one that the labels do not know any more counts as the highest."""
    effective = work.classification.effective
    return effective if effective in book.labels.classes else book.labels.highest


def kept(work: Work, vault: Vault, book: Rulebook, now: datetime, **payloads: bytes | None) -> list[SealedObject]:
    """Seal what of a request may be kept at all.

    Args:
        work: the request.
        vault: seals.
        book: says what may be kept, and how long.
        now: the time.
        **payloads: contents by kind (`pseudonyms`, `request`, `response`); None for what there is none of.
    """
    items: list[SealedObject] = []
    cls, said = class_of(work, book), work.said
    for name, content in payloads.items():
        kind: Kind = _KINDS[name]
        bucket = book.retention.bucket_for(cls, said.purpose, kind)
        if content is None or bucket is None:
            continue
        items.append(
            seal_object(
                vault,
                content,
                kind=kind,
                intake_id=work.intake_id,
                request_id=said.request_id,
                tenant=said.tenant_ref,
                subject=said.person,
                data_class=cls,
                purpose=said.purpose,
                bucket=bucket,
                now=now,
                requested=work.admitted_at_utc,
            )
        )
    return items


def before_sending(work: Work, opened: Opened, vault: Vault, book: Rulebook, now: datetime) -> list[SealedObject]:
    """Seal what must be kept before a request goes anywhere: originals of its pseudonyms, and itself where allowed."""
    originals = pack(opened.originals) if opened.originals else None
    return kept(work, vault, book, now, pseudonyms=originals, request=opened.raw)


def assemble(request: RuntimeRequest) -> tuple[Message, ...]:
    """Give what the model is told: the context's sources as one system turn, then the conversation."""
    turns = tuple(Message(turn.role, turn.content) for turn in request.input.messages)
    if not request.input.context:
        return turns
    sources = "\n\n".join(f"[{item.source_id}]\n{item.content}" for item in request.input.context)
    return (Message("system", f"Use these sources:\n\n{sources}"), *turns)


_KINDS: Final[dict[str, Kind]] = {"pseudonyms": "pseudonyms", "request": "request", "response": "response"}
