"""What admission lets go on: the sources that are needed, without what must not stay, sealed; and who may ask."""

from __future__ import annotations

from typing import Any

import orjson
import pytest
from bad_tokens import NOW, Issuer
from decisions import (
    Consents,
    all_bytes,
    asked,
    dead_letters,
    incoming,
    on,
    rules,
    told,
    unsealed,
    utc_now,
    work_of,
)
from hypothesis import given
from hypothesis import strategies as st
from requests_made import (
    APPROVING,
    CLOSED,
    CONFIDENTIAL_HOSTED,
    LABELS,
    NAMES_WANTED,
    ROUTES,
    book,
    encoded,
    headers,
    redacting,
    request,
    source,
    with_context,
)

from policy.detection.detectors import Finding
from policy.identity.verify import HEADER, Verifier
from streams.approvals import ApprovalRequest
from streams.processors.cases import from_json
from streams.processors.classification import NAMES_FAILED
from streams.stages.admit import admit, read_request
from streams.topics import APPROVALS, RESPONSES, WORK_HOSTED, WORK_LOCAL

MAIL, PHONE = "anna@example.org", "+49 30 901820"
TOKEN = "ghp_" + "a1B2c3D4e5" * 3 + "f6G7h8"
MARK = "Zq7planted"
HOSTED_ONLY = {"modelPolicy": {"placement": "hosted"}}
LOCAL_RESTRICTED = ROUTES.replace("[public, internal, confidential]", "[public, internal, confidential, restricted]")

SOURCES = (
    source("needed", f"Zq7needed from {MAIL} today"),
    source("nice", "Zq7nice", "useful"),
    source(f"mail {MAIL} note", "Zq7more", "background"),
    source("high", "Zq7high", "useful", "confidential"),
)


def admitted(by: Any = None, **changes: Any) -> Any:
    """What admission makes of a request."""
    return admit(asked(**changes), rules(by), utc_now())


def test_only_what_is_needed_goes_along_and_evidence_says_why():
    """Sources that the route does not take, or may not have, are in no sealed request; each is named with why."""
    routes = ROUTES.replace('contract: "1.1"', 'contract: "1.1"\n    context: useful')
    made = admitted(book(routes=routes, policy=redacting()), input=with_context("Go.", *SOURCES))
    sealed = unsealed(work_of(made))
    assert [item["sourceId"] for item in sealed["request"]["input"]["context"]] == ["needed", "nice"]
    assert not any(word in orjson.dumps(sealed).decode() for word in ("Zq7more", "Zq7high"))
    (event,) = told(made.records, "context.selected")
    assert event["context"] == {
        "selected": ["needed", "nice"], "left": ["mail [EMAIL_1] note:not_required", "high:class"],
    }  # fmt: skip
    assert work_of(made).sources == (0, 1)
    assert on(made.records, WORK_HOSTED)


def test_on_this_side_everything_goes_along():
    """A local route that takes all gets all, as it came; evidence still repeats no finding of a source's name."""
    made = admitted(input=with_context("Go.", *SOURCES), modelPolicy={"placement": "local"})
    sealed = unsealed(work_of(made))
    assert [item["sourceId"] for item in sealed["request"]["input"]["context"]] == [
        "needed", "nice", f"mail {MAIL} note", "high",
    ]  # fmt: skip
    (event,) = told(made.records, "context.selected")
    assert event["context"] == {"selected": ["needed", "nice", "mail [EMAIL] note", "high"], "left": []}
    assert MAIL.encode() not in all_bytes(made.records)


def test_a_required_source_that_is_too_high_stops_the_crossing():
    """What the task requires is not left behind: the hosted route cannot serve, and its reason is the class."""
    made = admitted(input=with_context("Go.", source("top", "x", "required", "restricted")), **HOSTED_ONLY)
    assert made.result == "denied"
    (decided,) = told(made.records, "policy.decided")
    assert decided["policy"]["reasons"] == ["no_route", "hosted-general:class", "local-small:placement"]


@pytest.mark.parametrize(
    ("style", "left"), [("pseudonym", "[EMAIL_1]"), ("mask", "[EMAIL]"), ("hash", "[EMAIL:"), ("drop", "Ask  or")]
)
def test_what_goes_on_is_redacted_and_sealed(style, left):
    """What a policy wants out is in no record; what is sealed is the view, and of pseudonyms what they stand for."""
    made = admitted(book(policy=redacting(style)), prompt=f"Ask {MAIL} or {PHONE} {MARK} now")
    work = work_of(made)
    for raw in (MAIL, PHONE, MARK):
        assert raw.encode() not in all_bytes(made.records)
    sealed = unsealed(work)
    text = sealed["request"]["input"]["messages"][0]["content"]
    assert left in text
    assert MARK in text
    assert MAIL not in text
    assert PHONE not in text
    assert sealed.get("originals", {}) == ({"[EMAIL_1]": MAIL, "[PHONE_1]": PHONE} if style == "pseudonym" else {})
    (event,) = told(made.records, "data.redacted")
    assert event["redaction"] == {"applied": [f"personal:{style}"], "removed": ["email:1", "phone:1"]}
    assert work.redaction.removed == ("email:1", "phone:1")
    assert work.waybills["hosted-general"].redaction == (f"personal:{style}",)
    assert work.waybills["hosted-general"].data_classification == "public"
    assert work.classification.effective == "confidential"


def test_a_part_of_which_nothing_is_left_still_makes_a_request():
    """Where a drop leaves nothing of a turn, a source or its name, the view still reads as a request."""
    sources = (source(MAIL, MAIL), source(f"{MAIL} note", "x"))
    made = admitted(book(policy=redacting("drop")), input=with_context(MAIL, *sources))
    view = unsealed(work_of(made))["request"]
    assert view["input"]["messages"][0]["content"] == "[REMOVED]"
    assert [(item["sourceId"], item["content"]) for item in view["input"]["context"]] == [
        ("[REMOVED]", "[REMOVED]"), ("note", "x"),
    ]  # fmt: skip
    record = incoming(encoded(view))
    assert read_request(record, rules(), utc_now()).request.input.context[1].source_id == "note"
    (event,) = told(made.records, "context.selected")
    assert event["context"]["selected"] == ["[REMOVED]", "note"]


def test_one_person_has_one_name_in_all_parts():
    """Turns and sources share their pseudonyms, so that the model still sees who is who."""
    made = admitted(
        book(policy=redacting()), input=with_context(f"Is {MAIL} right?", source("s", f"{MAIL} asks, {PHONE} calls."))
    )
    view = unsealed(work_of(made))["request"]["input"]
    assert view["messages"][0]["content"] == "Is [EMAIL_1] right?"
    assert view["context"][0]["content"] == "[EMAIL_1] asks, [PHONE_1] calls."


def test_hashes_are_a_tenants_own():
    """The same value has the same hash in two requests of one tenant, and another one in another tenant's."""
    by = book(policy=redacting("hash"))
    views = [
        unsealed(work_of(admitted(by, request_id=name, prompt=f"Ask {MAIL} now", tenant={"id": tenant})))["request"]
        for name, tenant in (("r1", "acme"), ("r2", "acme"), ("r3", "globex"))
    ]
    one, again, other = (view["input"]["messages"][0]["content"] for view in views)
    assert one == again != other


def test_a_secret_is_masked_on_the_way_inside_too():
    """A credential in a text is taken out wherever the request goes, and is in no record and in no seal."""
    made = admitted(LOCAL_RESTRICTED, prompt=f"Why does {TOKEN} fail?")
    work = work_of(made)
    assert on(made.records, WORK_LOCAL)
    assert unsealed(work)["request"]["input"]["messages"][0]["content"] == "Why does [GITHUB] fail?"
    assert TOKEN.encode() not in all_bytes(made.records)
    assert (work.redaction.applied, work.redaction.removed) == (("secret:mask",), ("github_token:1",))


def test_a_policy_cannot_have_a_secret_kept():
    """A policy that wants secrets out as pseudonyms gets masks: no original is sealed, and evidence says mask."""
    made = admitted(book(policy=redacting("pseudonym", "personal, secret")), prompt=f"Why does {TOKEN} of {MAIL} fail?")
    assert on(made.records, WORK_HOSTED)
    sealed = unsealed(work_of(made))
    assert sealed["originals"] == {"[EMAIL_1]": MAIL}
    assert TOKEN not in orjson.dumps(sealed).decode()
    assert work_of(made).policy.redaction == ("personal:pseudonym", "secret:mask")


IDS = {
    "requestId": TOKEN, "correlationId": TOKEN, "idempotencyKey": TOKEN, "session": TOKEN, "purpose": TOKEN,
    "taskType": TOKEN, "actor": {"id": TOKEN}, "tenant": {"id": TOKEN},
    "consent": {"basis": "consent", "subject": TOKEN}, "modelPolicy": {"regions": [TOKEN]},
}  # fmt: skip


@pytest.mark.parametrize("field", IDS)
def test_a_credential_in_an_id_is_refused_and_not_repeated(field):
    """Where evidence would repeat a credential the request is refused, with a dead letter that holds none of it."""
    value = encoded({**request("r1"), field: IDS[field]})
    made = admit(incoming(value), rules(), utc_now())
    assert (made.result, made.reason) == ("rejected", "credential_in_id")
    assert TOKEN[:16].encode() not in all_bytes(made.records)
    assert len(dead_letters(made.records)) == 1


def test_a_credential_in_the_id_of_a_broken_request_is_not_repeated():
    """A request that is refused for another reason is not answered by an id that holds a credential."""
    made = admit(asked(TOKEN, extra=1), rules(), utc_now())
    assert made.reason == "unknown_field"
    assert TOKEN.encode() not in all_bytes(made.records)
    assert on(made.records, RESPONSES) == []


@pytest.mark.parametrize(
    "changes",
    [
        {"purpose": MARK},
        {"taskType": MARK},
        {"classification": MARK},
        {"dataCategories": [MARK]},
        {"dataRegulations": [MARK]},
        {"input": with_context("x", source("s", "y", cls=MARK))},
    ],
)
def test_a_word_that_is_no_label_is_refused(changes):
    """A purpose, task, class, category, regulation or class of a source that is not listed is no request's."""
    by = book(labels=CLOSED)
    assert admitted(by).result == "admitted"
    made = admitted(by, **changes)
    assert made.reason == "unknown_label"
    assert MARK.encode() not in all_bytes(made.records)
    (event,) = told(made.records)
    assert "use one of" in event["failure"]["message"]


def test_names_that_could_not_be_looked_for_close_the_way():
    """Where the detector of names is down the text counts as the highest class, and evidence says why."""
    by = rules(book(labels=NAMES_WANTED))
    made = admit(asked(), by, utc_now(), names=NAMES_FAILED)
    assert made.result == "denied"
    (event,) = told(made.records, "data.classified")
    assert (event["classification"]["effective"], event["classification"]["detector"]) == ("restricted", "names_failed")


def test_names_are_taken_out_like_the_rest():
    """What the detector of names found has pseudonyms too, beside what letters tell."""
    by = rules(book(labels=NAMES_WANTED, policy=redacting()))
    made = admit(asked(prompt=f"Anna is {MAIL} now"), by, utc_now(), names=[(Finding("person", 0, 4),)])
    sealed = unsealed(work_of(made))
    assert sealed["request"]["input"]["messages"][0]["content"] == "[PERSON_1] is [EMAIL_1] now"
    assert sealed["originals"] == {"[PERSON_1]": "Anna", "[EMAIL_1]": MAIL}


ISSUING = Issuer()


def signed(verifier: Verifier | None, token: str | None = None, **changes: Any) -> Any:
    """What admission makes of a request under a token."""
    given_headers = headers("h") + ([(HEADER, f"Bearer {token}".encode())] if token else [])
    value = encoded(request("r1", timestampUtc="2026-11-24T12:00:00Z", deadlineUtc=None, **changes))
    return admit(incoming(value, given_headers), rules(verifier=verifier), NOW)


def test_who_asks_is_who_signed():
    """A request under its own token is admitted; evidence says `jwt`, policy sees the roles, nobody the token."""
    token = ISSUING.token()
    made = signed(ISSUING.verifier(), token)
    assert {event["identity"] for event in told(made.records)} == {"jwt"}
    assert from_json(work_of(made).policy.inputs).facts.roles == {"analyst"}
    assert token.encode() not in all_bytes(made.records)
    assert token not in orjson.dumps(unsealed(work_of(made))).decode()


@pytest.mark.parametrize(
    ("changes", "claims", "code"),
    [
        ({"actor": {"id": "mallory"}}, {}, "identity_mismatch"),
        ({"actor": {"id": "ada", "kind": "service"}}, {}, "identity_mismatch"),
        ({"tenant": {"id": "globex"}}, {}, "identity_mismatch"),
        ({"consent": {"basis": "consent", "subject": "mallory"}}, {"data_subject": "bob"}, "identity_mismatch"),
        ({}, {"exp": int(NOW.timestamp()) - 3600, "iat": int(NOW.timestamp()) - 7200}, "expired_token"),
        ({}, {"aud": "another"}, "wrong_audience"),
        ({}, {"iss": "https://evil.example"}, "wrong_issuer"),
    ],
)
def test_a_request_that_its_token_does_not_cover_is_refused(changes, claims, code):
    """What a request says of itself has to be what its token says; the refusal repeats neither."""
    made = signed(ISSUING.verifier(), ISSUING.token(**claims), **changes)
    assert (made.result, made.reason) == ("rejected", code)
    assert not any(word in all_bytes(made.records) for word in (b"mallory", b"globex", b"bob", b"evil"))


def test_without_a_token_nobody_is_believed():
    """A worker that checks tokens refuses a request without one, and one with somebody else's signature."""
    assert signed(ISSUING.verifier()).reason == "no_identity"
    assert signed(ISSUING.verifier(), Issuer().token()).result == "rejected"


def test_what_waits_is_sealed_and_says_what_it_is_about():
    """A request that needs a person waits on its own topic, sealed and redacted, bound to the payload's digest."""
    policy = APPROVING + redacting().removeprefix(redacting()[: redacting().index('@id("without-them")')])
    by = book(routes=CONFIDENTIAL_HOSTED, policy=policy)
    made = admitted(by, classification="confidential", prompt=f"Ask {MAIL} {MARK} now", **HOSTED_ONLY)
    assert made.result == "parked"
    assert not on(made.records, WORK_HOSTED)
    (value,) = on(made.records, APPROVALS)
    waiting = ApprovalRequest.model_validate_json(orjson.dumps(value))
    assert (waiting.authority, waiting.route, waiting.data_class) == (
        "privacy-office",
        "hosted-general",
        "confidential",
    )
    assert not {MAIL.encode(), MARK.encode()} & set(all_bytes(made.records).split())
    assert MARK.encode() not in all_bytes(made.records)
    (event,) = told(made.records, "approval.requested")
    assert event["approval"]["payloadSha256"] == waiting.payload_sha256
    assert told(made.records)[-1] == event


@pytest.mark.parametrize("state", ["granted", "withdrawn", "none", "unknown"])
def test_consent_is_looked_up_for_the_subject_and_purpose(state):
    """Where consent is the basis, what the register says decides, and evidence says what that was and where."""
    by = rules(consents=Consents({("acme", "patient-7", "support"): state}))
    made = admit(asked(consent={"basis": "consent", "subject": "patient-7"}), by, utc_now())
    assert bool(on(made.records, WORK_HOSTED)) is (state == "granted")
    (event,) = told(made.records, "policy.decided")
    assert (event["consent"]["basis"], event["consent"]["state"]) == ("consent", state)
    assert event["subjectRef"] == "patient-7"
    if state != "granted":
        assert "hosted-general:consent_not_granted" in event["policy"]["reasons"]


def test_what_would_not_fit_the_topics_is_refused():
    """A request that would be too large once it is sealed gets a dead letter; it holds no partition up."""
    made = admit(asked(prompt="x " * 400_000), rules(max_bytes=900_000), utc_now())
    assert (made.result, made.reason) == ("rejected", "oversized")
    made = admit(asked(prompt="x " * 350_000), rules(max_bytes=900_000), utc_now())
    assert made.result == "admitted"
    assert max(len(record.value) for record in made.records) < 1_000_000


def test_a_decision_names_its_rulebook_and_what_it_rests_on():
    """The decision in evidence has the rulebook's version, its own id, its scope, and inputs without any text."""
    made = admitted(prompt=f"{MARK} hello")
    (event,) = told(made.records, "policy.decided")
    policy = event["policy"]
    assert (policy["policyVersion"], policy["scope"]) == (book().version, "model-call:hosted-general")
    assert from_json(policy["inputs"]).facts.actor == "ada"
    assert len(policy["decisionId"]) == 32
    assert MARK not in policy["inputs"]


TEXTS = st.lists(st.sampled_from([MAIL, PHONE, TOKEN, "word", "\U0001f600", "ü", "4111 1111 1111 1111", "."]),
                 min_size=1, max_size=5).map(" ".join)  # fmt: skip


@given(
    prompt=TEXTS,
    sources=st.lists(st.tuples(TEXTS, st.sampled_from(["required", "useful", "background"])), max_size=3),
    style=st.sampled_from(["pseudonym", "mask", "hash", "drop"]),
    cls=st.sampled_from(["public", "internal", "confidential"]),
)
def test_no_record_holds_what_was_found(prompt, sources, style, cls):
    """Whatever is asked and wherever it goes, no value that detectors find is readable in any record."""
    by = book(policy=redacting(style, "personal, financial, secret"), labels=LABELS)
    context = [source(f"s{place}", text, need) for place, (text, need) in enumerate(sources)]
    made = admitted(by, classification=cls, input=with_context(prompt, *context))
    for value in (MAIL, PHONE, TOKEN, "4111 1111 1111 1111"):
        assert value.encode() not in all_bytes(made.records)
    if on(made.records, WORK_HOSTED):
        view = orjson.dumps(unsealed(work_of(made))["request"])
        assert not any(value.encode() in view for value in (MAIL, TOKEN, "4111 1111 1111 1111"))
