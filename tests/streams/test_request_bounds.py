"""The bounds of the request contract: what its schema accepts is decided or refused, and is never our failure."""

from __future__ import annotations

import json
from functools import cache
from typing import Any

import pytest
from bad_tokens import ISSUER, NOW, claims
from decisions import Rig, incoming, rules, told, utc_now, work_of
from doc_pages import DOCS
from hypothesis import given, settings
from requests_made import APPROVING, LABELS, book, encoded, headers, request, source, with_context
from schema_values import values

from evidence.parsing import parse as parse_events
from evidence.records import MAX_INPUTS
from policy.identity.jwks import KeySet
from policy.identity.jws import SigningKey, public_set
from policy.identity.verify import Verifier
from streams.processors.cases import from_json
from streams.stages.admit import admit
from streams.stages.admitted import Admitted
from streams.topics import EVIDENCE

SCHEMA = json.loads((DOCS / "schemas" / "runtime-request.json").read_bytes())
KEY = SigningKey.generate()
NEEDS = ("required", "useful", "background")


def decided(content: dict[str, Any], **changes: Any) -> Admitted:
    """Admit a request, and check that all events that follow are ones that the evidence store takes."""
    admitted = admit(incoming(encoded(content)), rules(max_bytes=10**6, **changes), utc_now())
    events = [record.value for record in admitted.records if record.topic == EVIDENCE.name]
    parsed = parse_events(events, partition=0, offsets=range(len(events)), timestamps_ms=[0] * len(events))
    assert parsed.rejects == ()
    return admitted


def inputs(admitted: Admitted) -> str:
    """What the decision was made on."""
    (event,) = told(admitted.records, "policy.decided")
    text: str = event["policy"]["inputs"]
    return text


@given(content=values(SCHEMA, SCHEMA))
@settings(max_examples=300)
def test_request_that_the_schema_accepts_is_never_our_failure(content: dict[str, Any]) -> None:
    """Whatever the schema accepts is admitted, denied, or rejected by a code of the contract."""
    decided(content)


@given(content=values(SCHEMA, SCHEMA))
@settings(max_examples=300)
def test_request_with_known_labels_is_taken(content: dict[str, Any]) -> None:
    """With labels that exist and a deadline to come, whatever the schema accepts is admitted or denied."""
    content["input"]["messages"][-1]["role"] = "user"
    for item in content["input"].get("context", ()):
        item.pop("classification", None)
    known = {"classification": "public", "dataCategories": ["personal"], "dataRegulations": [], "deadlineUtc": None}
    admitted = decided({**content, **known})
    assert admitted.result in {"admitted", "denied"} or admitted.reason == "credential_in_id"


SIZES = {
    "1,000 sources of one letter": {
        "input": {"messages": [{"role": "user", "content": "x"}],
                  "context": [source(f"s{number}", "x") for number in range(1000)]},
    },
    "1,000 sources of every need and class": {
        "input": {"messages": [{"role": "user", "content": "x"}],
                  "context": [source(f"s{number}", "x", NEEDS[number % 3], ("public", "internal")[number % 2])
                              for number in range(1000)]},
    },
    "1,000 sources with findings": {
        "input": {"messages": [{"role": "user", "content": "x"}],
                  "context": [source(f"s{number}", "ana@example.com" if number % 2 else "+49 30 901820")
                              for number in range(1000)]},
    },
    "1,000 sources with names of 128 characters": {
        "input": {"messages": [{"role": "user", "content": "x"}],
                  "context": [source(f"{number:0128}", "x", "useful") for number in range(1000)]},
    },
    "32 regions of 256 characters": {"modelPolicy": {"regions": [f"{number:0256}" for number in range(32)]}},
    "32 categories and regulations": {
        "dataCategories": ["personal", "financial"] * 16, "dataRegulations": ["gdpr", "home"] * 16,
    },
    "ids of 128 characters that JSON writes longer": {
        name: {"id": '"' * 128} if name in {"actor", "tenant"} else '\\"' * 64
        for name in ("requestId", "correlationId", "idempotencyKey", "session", "actor", "tenant")
    },
    "ids beyond the first plane": {"requestId": "\U0001d518" * 128, "actor": {"id": "\U0001d518" * 128}},
    "words of 256 characters": {"taskType": "\U0001d518" * 256, "purpose": "\\" * 256},
    "a consent of 128 characters": {
        "consent": {"basis": "legitimate-interest", "reference": "r" * 128, "subject": "\\" * 128}
    },
    "6,000 turns": {"input": {"messages": [{"role": "user", "content": "x"}] * 6000}},
    "the smallest budget": {"budget": {"maxCostUsd": 5e-324}},
    "the largest budget": {"budget": {"maxCostUsd": 1.7976931348623157e308}},
    "the largest limit of tokens": {"modelPolicy": {"maxTokens": 100_000, "temperature": 2}},
    "the first and the last moment": {
        "timestampUtc": "0001-01-01T00:00:00Z", "deadlineUtc": "9999-12-31T23:59:59.999999999Z"
    },
}  # fmt: skip


@pytest.mark.parametrize("name", SIZES)
async def test_each_bound_of_the_contract_is_decided_and_served(name: str) -> None:
    """A request at a bound of the contract is decided, its case reads back, and whoever may serve it answers."""
    content = request("r1", **SIZES[name])  # type: ignore[arg-type] # a request's fields, as they are
    admitted = decided(content)
    assert admitted.result in {"admitted", "denied"}
    case = from_json(inputs(admitted))
    assert len(case.items) == len(content["input"].get("context", ()))
    parked = decided(content, shelf=type(rules().shelf)(book(policy=APPROVING)))
    assert parked.result in {"admitted", "parked", "denied"}
    if admitted.result == "admitted":
        rig = Rig()
        rig.admitted = admitted
        await rig.serve(work_of(admitted))
        assert rig.response["outcome"] in {"completed", "expired"}


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"modelPolicy": {"regions": ["eu"] * 33}}, "modelPolicy.regions"),
        (
            {"input": {"messages": [{"role": "user", "content": "x"}], "context": [source("s", "x")] * 1001}},
            "input.context",
        ),
        ({"dataCategories": ["personal"] * 33}, "dataCategories"),
    ],
)
def test_beyond_a_bound_the_field_is_named(changes: dict[str, Any], field: str) -> None:
    """One more than the contract allows is `invalid_field`, with the field and the bound."""
    admitted = decided(request("r1", **changes))
    assert admitted.reason == "invalid_field"
    (event,) = told(admitted.records)
    assert field in event["failure"]["message"]


@cache
def _verifier() -> Verifier:
    return Verifier(KeySet.parse(public_set(KEY), "x"), issuer=ISSUER, audience="waybill")


@pytest.mark.parametrize(
    ("count", "size", "result"), [(200, 36, "admitted"), (256, 128, "admitted"), (256, 160, "rejected")]
)
def test_roles_of_a_large_token_fit_a_decision(count: int, size: int, result: str) -> None:
    """All groups that a token may list are part of the case; a token that lists too long ones is refused as one."""
    token = KEY.sign(claims(roles=[f"{number:0{size}}" for number in range(count)], actor_kind=None))
    given_headers = [*headers("h"), ("authorization", f"Bearer {token}".encode())]
    record = incoming(encoded(request("r1", deadlineUtc=None)), given_headers)
    admitted = admit(record, rules(verifier=_verifier()), NOW)
    assert admitted.result == result
    if result == "admitted":
        assert len(from_json(inputs(admitted)).facts.roles) == count


def test_case_that_cannot_be_written_is_refused_by_its_own_code() -> None:
    """Where every source has another label, the decision can become too long: the request is refused, and says why."""
    words = ["ana@example.com", "+49 30 901820", "4111 1111 1111 1111", "DE89 3704 0044 0532 0130 00", "10.1.2.3"]
    texts = [" und ".join(word for bit, word in enumerate(words) if number >> bit & 1) or "x" for number in range(32)]
    names = [f"{'c' * 60}{number:03}" for number in range(30)]
    labels = LABELS.replace("  health:", "".join(f"  {name}: {{implies: public}}\n" for name in names) + "  health:")
    content = request(
        "r1",
        dataCategories=names,
        input=with_context("x", *(source(f"s{n}", texts[n // 3], NEEDS[n % 3]) for n in range(96))),
    )
    admitted = decided(content, shelf=type(rules().shelf)(book(labels=labels)))
    assert (admitted.result, admitted.reason) == ("rejected", "case_too_large")
    (event,) = told(admitted.records)
    assert str(MAX_INPUTS) in event["failure"]["message"]
