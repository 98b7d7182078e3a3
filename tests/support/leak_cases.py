"""What is sent in the search for leaks: one case for each way that a request can take, each with markers of its own."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from markers import Markers
from requests_made import encoded, headers, request

from streams.envelope import Headers

ACTOR, TENANT = "ada", "acme"
"""Who asks, as the tokens say."""

OFFICE = "privacy-office"
"""Whose approval is asked for."""

ROUTES = """
version: 1
policy_id: leak-search
routes:
  - name: hosted-general
    placement: hosted
    endpoint: hosted
    model: gpt-test
    region: eu
    capabilities: [question, translation, summary]
    classes: [public, internal, confidential]
    purposes: ["*"]
    max_tokens: 64
    timeout_s: 20
    contract: "1.1"
    context: required
    price: {input_per_million_usd: 1.0, output_per_million_usd: 2.0}
    answer: {forbid: [personal, financial, secret], action: mask}
  - name: hosted-careless
    placement: hosted
    endpoint: careless
    model: careless-1
    region: eu
    capabilities: [drafting]
    classes: [public, internal]
    purposes: ["*"]
    max_tokens: 64
    timeout_s: 20
    contract: "1.1"
    price: {input_per_million_usd: 1.0, output_per_million_usd: 2.0}
    answer: {forbid: [personal, financial, secret], action: drop}
  - name: hosted-again
    placement: hosted
    endpoint: hosted
    model: gpt-test
    region: eu
    capabilities: [instruction]
    classes: [public, internal]
    purposes: ["*"]
    max_tokens: 64
    timeout_s: 20
    contract: "1.1"
    price: {input_per_million_usd: 1.0, output_per_million_usd: 2.0}
    answer: {forbid: [personal, financial, secret], action: refuse}
    on_ambiguous: resend
  - name: local-small
    placement: local
    endpoint: local
    model: smollm2
    region: on-site
    capabilities: ["*"]
    context: all
    classes: [public, internal, confidential, restricted]
    purposes: ["*"]
    max_tokens: 4
    timeout_s: 120
    price: {input_per_million_usd: 0, output_per_million_usd: 0}
    answer: {forbid: [personal, financial, secret], action: mask}
"""
"""Three hosted routes, one of them to a provider without care, and a local one."""

_STYLES = {
    "customer-support": "pseudonym",
    "product-research": "mask",
    "internal-productivity": "hash",
    "personal-use": "drop",
}

_OPEN = '[Class::"public", Class::"internal"].contains(context.class)'
_CALL = 'permit(principal, action == Action::"model-call", resource)'

_BY_PURPOSE = """
@id("{style}-for-{purpose}") @redact("personal, financial") @style("{style}")
{call} when {{ context.purpose == Purpose::"{purpose}" && {open} }};
"""
_ALWAYS = f"""
@id("stay-inside") permit(principal, action == Action::"local-call", resource);
@id("ordinary") {_CALL} when {{ {_OPEN} }};
@id("by-approval") @approval("{OFFICE}") @redact("personal, financial") @style("pseudonym")
{_CALL} when {{ context.class == Class::"confidential" && context.task == Task::"translation" }};
"""

POLICIES = _ALWAYS + "".join(
    _BY_PURPOSE.format(style=style, purpose=purpose, call=_CALL, open=_OPEN) for purpose, style in _STYLES.items()
)
"""What personal data is taken out of, by purpose and in every style; translations that a person has to approve."""

LOCAL = {"placement": "local"}
HOSTED = {"placement": "hosted"}


@dataclass(frozen=True)
class Case:
    """One record and what has to become of it; without that, nothing was proved about its way."""

    name: str
    """Its request id, where it has one that can be read."""
    value: bytes
    """The record's value."""
    headers: Headers
    """Its headers, without a token."""
    outcome: str | None
    """How it ends; None where it waits for ever."""
    code: str = ""
    """The code of its failure, where it has one."""
    placement: str = ""
    """Where it was answered, where it was."""
    answered: bool = True
    """Whether there is a response: a record whose id cannot be read or repeated has a dead letter alone."""
    token: str | None = None
    """The header `authorization`; None for a good token."""
    key: bytes = b""
    """The record's key; its name if empty."""


@dataclass
class Book:
    """All cases, and what the stand-in and the careless provider say."""

    markers: Markers
    cases: list[Case] = field(default_factory=list)
    rules: list[dict[str, Any]] = field(default_factory=list)
    words: dict[str, str] = field(default_factory=dict)

    def ask(self, name: str, prompt: str, outcome: str | None, **more: Any) -> None:
        """Add a request that keeps the contract."""
        about = {
            key: more.pop(key) for key in ("code", "placement", "answered", "token", "key", "heads") if key in more
        }
        content = request(
            name,
            prompt,
            **{"actor": {"id": ACTOR}, "tenant": {"id": TENANT}, "purpose": "support", "taskType": "question", **more},
        )
        heads = [*headers(name), *about.pop("heads", [])]
        self.cases.append(Case(name, encoded(content), heads, outcome, **about))

    def put(self, name: str, value: bytes, code: str, *, answered: bool, heads: Headers | None = None) -> None:
        """Add a record that is rejected."""
        self.cases.append(Case(name, value, heads or headers(name), "rejected", code, answered=answered))


def book(markers: Markers) -> Book:
    """Give all cases."""
    made = Book(markers)
    for part in (_answers, _redacted, _inside, _people, _trouble, _careless, _ids, _broken, _labels, _heads, _tokens):
        part(made)
    made.rules.append({"do": {"text": "Fine."}})
    return made


def _sources(m: Markers, where: str) -> list[dict[str, Any]]:
    return [
        {"sourceId": m.email(f"{where}: source id"), "content": m.personal(f"{where}: source"), "need": "required"},
        {"sourceId": "left", "content": m.secret(f"{where}: a source that stays"), "need": "background"},
    ]


def _answers(made: Book) -> None:
    """Answers that hold everything, masked, refused and withheld."""
    m = made.markers
    full = (
        f"{m.plain('answer', answered=True)}. {m.personal('answer', answered=True)} {m.secret('answer', answered=True)}"
    )
    made.rules.append({"contains": "(say it all)", "do": {"text": full}})
    made.rules.append({"contains": "(refuse)", "do": {"refusal": f"No. {m.personal('refusal', answered=True)}"}})
    made.rules.append({"contains": "(withhold)", "do": {"text": m.secret("withheld answer", answered=True)}})
    made.ask("plain", f"(say it all) {m.plain('hosted prompt')}", "completed", placement="hosted", purpose="support")
    made.ask("refused", f"(refuse) {m.plain('refused prompt')}", "refused", placement="hosted")
    made.ask("withheld", f"(withhold) {m.plain('withheld prompt')}", "withheld", taskType="instruction")


def _redacted(made: Book) -> None:
    """Requests that cross without what is personal in them, in each style."""
    m = made.markers
    for purpose, style in _STYLES.items():
        prompt = f"{m.personal(f'{style} prompt')} About {m.plain(f'{style} prompt')}."
        context = {"input": {"messages": [{"role": "user", "content": prompt}], "context": _sources(m, style)}}
        made.ask(f"with-{style}", "", "completed", placement="hosted", purpose=purpose, **context)


def _inside(made: Book) -> None:
    """Requests that stay: for what they hold, or because they ask to; and those that may not even do that."""
    m = made.markers
    made.ask("with-secrets", f"Log in with {m.secret('local prompt')}", "completed", placement="local")
    made.ask("at-home", m.personal("local prompt"), "completed", placement="local", modelPolicy=LOCAL)
    made.ask("no-way", m.secret("denied prompt") + m.personal("denied prompt"), "denied", modelPolicy=HOSTED)
    late = f"{datetime.now(UTC) - timedelta(minutes=1):%Y-%m-%dT%H:%M:%SZ}"
    made.ask("late", m.personal("late prompt"), "rejected", code="expired_deadline", deadlineUtc=late)


def _people(made: Book) -> None:
    """Requests that a person is asked about."""
    m = made.markers
    parked = {"taskType": "translation", "classification": "confidential", "modelPolicy": HOSTED}
    parked["purpose"] = "customer-support"
    for name, outcome in (("approve-me", "completed"), ("deny-me", "denied"), ("leave-me", None)):
        made.ask(name, f"{m.personal(f'{name} prompt')} {m.plain(f'{name} prompt')}", outcome, **parked)


def _trouble(made: Book) -> None:
    """Requests that are tried again, elsewhere, or never more; and those that come twice."""
    m = made.markers
    made.rules.append({"contains": "(busy)", "do": {"status": 503}})
    made.rules.append({"contains": "(lose once)", "times": 1, "do": {"drop": "after-accept"}})
    made.rules.append({"contains": "(lose)", "do": {"drop": "after-accept"}})
    mask = {"purpose": "product-research"}
    made.ask("elsewhere", f"(busy) {m.personal('prompt that falls back')}", "completed", placement="local", **mask)
    again = {"taskType": "instruction", "purpose": "customer-support"}
    made.ask("again", f"(lose once) {m.personal('prompt sent twice')}", "completed", placement="hosted", **again)
    made.ask("lost", f"(lose) {m.personal('prompt of an unknown')}", "unknown", **mask)
    twice = {"idempotencyKey": "one-key", **mask}
    prompt = m.personal("prompt that comes twice")
    made.ask("first", prompt, "completed", placement="hosted", **twice)
    made.ask("second", prompt, "duplicate", **twice)
    made.ask("third", m.personal("prompt of a conflict"), "rejected", code="idempotency_conflict", **twice)


def _careless(made: Book) -> None:
    """A provider that repeats what it was asked, and says what nobody should hear, wherever there is room."""
    m = made.markers
    said: list[tuple[str, Callable[..., str], str]] = [
        ("error-400", m.key, "failed"),
        ("error-401", m.github, "failed"),
        ("error-429", m.key, "failed"),
        ("error-500", m.email, "unknown"),
        ("redirect", m.email, "failed"),
        ("not-json", m.personal, "failed"),
        ("half-json", m.personal, "failed"),
        ("wrong-shape", m.secret, "failed"),
        ("names", m.email, "completed"),
        ("finish", m.key, "completed"),
        ("refusal", m.personal, "refused"),
        ("tool-call", m.personal, "failed"),
        ("tool-text", m.email, "completed"),
        ("answer", m.secret, "completed"),
    ]
    for name, make, outcome in said:
        made.words[name] = make(f"careless {name}", answered=True)
        prompt = f"(do {name}) {m.personal(f'careless {name}')} {m.plain(f'careless {name}')}"
        kind = {"taskType": "drafting", "purpose": "personal-use", "modelPolicy": HOSTED}
        made.ask(f"careless-{name}", prompt, outcome, **kind)


def _ids(made: Book) -> None:
    """Credentials in the place of ids."""
    m = made.markers
    basis = {"basis": "contract"}
    made.ask("id-1", "Hi.", "rejected", code="credential_in_id", answered=False, correlationId=m.key("correlationId"))
    made.ask(
        "id-2", "Hi.", "rejected", code="credential_in_id", answered=False, idempotencyKey=m.github("idempotencyKey")
    )
    made.ask("id-3", "Hi.", "rejected", code="credential_in_id", answered=False, session=m.github("session"))
    reference = {**basis, "reference": m.bearer("consent.reference")}
    made.ask("id-4", "Hi.", "rejected", code="credential_in_id", answered=False, consent=reference)
    subject = {**basis, "subject": m.key("consent.subject")}
    made.ask("id-5", "Hi.", "rejected", code="credential_in_id", answered=False, consent=subject)
    made.ask(m.key("requestId"), "Hi.", "rejected", code="credential_in_id", answered=False, key=b"id-6")
    stranger = {"id": m.email("actor.id")}
    made.ask("id-7", "Hi.", "rejected", code="identity_mismatch", actor=stranger)
    made.ask("id-8", "Hi.", "rejected", code="identity_mismatch", tenant={"id": m.key("tenant.id")})


def _broken(made: Book) -> None:
    """Records that are no requests."""
    m = made.markers
    made.put("bad-1", f'{{"requestId": "bad-1", "input": "{m.key("half a record")}'.encode(), "not_json", answered=True)
    made.put("bad-2", f"no JSON: {m.personal('no JSON')}".encode(), "not_json", answered=True)
    made.put("bad-3", encoded({m.github("unknown name"): m.email("unknown value")}), "no_identity", answered=True)
    made.ask("bad-4", "Hi.", "rejected", code="unknown_field", **{m.key("name of an unknown field"): 1})
    made.ask("bad-5", "Hi.", "rejected", code="unknown_field", notes=m.personal("unknown field"))
    made.ask("bad-6", "Hi.", "rejected", code="unsupported_field", allowedTools=[f"mail {m.email('allowedTools')}"])
    made.ask("bad-7", "Hi.", "rejected", code="invalid_field", contractVersion=m.key("contractVersion"))
    made.ask("bad-8", "Hi.", "rejected", code="invalid_field", timestampUtc=m.email("timestampUtc"))
    made.ask("bad-9", "Hi.", "rejected", code="invalid_field", input={"messages": m.personal("messages")})
    made.ask("bad-10", m.personal("oversized") + "x" * 300_000, "rejected", code="oversized")
    made.ask("bad-11", "Hi.", "rejected", code="invalid_field", modelPolicy={"temperature": m.key("temperature")})
    made.ask("bad-13", "Hi.", "rejected", code="unknown_field", **{m.aws("short name of an unknown field"): 1})
    made.ask("bad-12", "Hi.", "rejected", code="invalid_field", riskLevel=m.email("riskLevel"))


def _labels(made: Book) -> None:
    """Labels that are none."""
    m = made.markers
    for number, (name, value) in enumerate(
        [
            ("classification", m.email("classification")),
            ("purpose", m.key("purpose")),
            ("taskType", m.github("taskType")),
            ("dataCategories", [m.email("dataCategories")]),
            ("dataRegulations", [m.key("dataRegulations")]),
        ]
    ):
        made.ask(f"label-{number}", "Hi.", "rejected", code="unknown_label", **{name: value})
    source = {"sourceId": "one", "content": "Hi.", "classification": m.email("class of a source")}
    given = {"messages": [{"role": "user", "content": "Hi."}], "context": [source]}
    made.ask("label-9", "Hi.", "rejected", code="unknown_label", input=given)
    wish = {**HOSTED, "regions": [m.key("regions")]}
    made.ask("label-10", "Hi.", "rejected", code="credential_in_id", answered=False, modelPolicy=wish)


def _heads(made: Book) -> None:
    """Headers that hold what they should not."""
    m = made.markers
    for number, name in enumerate(("content_type", "ce_specversion", "ce_type")):
        given = headers(f"head-{number}", **{name: m.key(name)})
        made.put(f"head-{number}", encoded(request(f"head-{number}")), "bad_envelope", answered=True, heads=given)
    label = [("ce_dataclassification", m.email("ce_dataclassification").encode())]
    made.ask("head-4", "Hi.", "rejected", code="label_conflict", heads=label)
    parent = ("traceparent", b"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01")
    loose = [
        ("x-api-key", m.key("a header of nobody's").encode()),
        ("ce_note", m.email("ce_note").encode()),
        parent,
        ("tracestate", f"shop={m.key('tracestate')}".encode()),
    ]
    made.ask("head-5", "Hi.", "completed", placement="hosted", heads=loose, key=m.email("record key").encode())
    made.ask("head-6", "Hi.", "completed", heads=[("traceparent", m.key("traceparent").encode())], placement="hosted")
    named = [pair for pair in headers("head-7") if pair[0] not in {"ce_id", "ce_source"}]
    named += [("ce_id", m.key("ce_id").encode()), ("ce_source", f"/{m.github('ce_source')}".encode())]
    value = encoded(request("head-7", actor={"id": ACTOR}, tenant={"id": TENANT}))
    made.cases.append(Case("head-7", value, named, "completed"))
    broken = [parent, ("tracestate", f"shop={m.key('tracestate of a bad record')}".encode())]
    made.ask("head-8", "Hi.", "rejected", code="unknown_field", heads=broken, colour="red")


def _tokens(made: Book) -> None:
    """Tokens that do not hold."""
    m = made.markers
    made.ask("token-1", "Hi.", "rejected", code="bad_token", token=f"Bearer {m.key('a token that is none')}")
    made.ask("token-2", "Hi.", "rejected", code="bad_token", token=f"Bearer {m.jwt('a token of nobody')}")
    made.ask("token-3", "Hi.", "rejected", code="bad_token", token=f"Basic {m.github('no bearer token')}")


def each_answered(cases: list[Case]) -> Iterator[Case]:
    """Give the cases that have a response."""
    return (case for case in cases if case.outcome is not None and case.answered)
