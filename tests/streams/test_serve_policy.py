"""Policy at the moment of sending: what changed since admission counts, and what cannot be proved is not sent."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import orjson
import pytest
from decisions import Consents, Rig, all_bytes, told, utc_now
from pydantic import SecretStr
from requests_made import (
    APPROVING,
    CONFIDENTIAL_HOSTED,
    ENDPOINTS,
    FORBIDDING,
    LABELS,
    POLICY,
    RETENTION,
    ROUTES,
    TWO_HOSTED,
    book,
    redacting,
    source,
    with_context,
)

from evidence.errors import UnavailableError
from inference.backend import Completion, Tokens
from inference.credentials import Authorization, Crossing, KeyCredentials, MintedCredentials
from inference.errors import NotSent, Unavailable
from policy.identity.jws import SigningKey
from policy.identity.workload import Minter
from policy.vault.sealing import Vault, key_of
from policy.vault.store import SealedObject
from streams.approvals import ApprovalRequest
from streams.work import Work

MAIL = "anna@example.org"
TOKEN = "ghp_" + "a1B2c3D4e5" * 3 + "f6G7h8"
BY_CONSENT = {"consent": {"basis": "consent", "reference": "form-7"}}
HOSTED_ONLY = {"modelPolicy": {"placement": "hosted"}}


def answer(text: str = "Hello.", **changes: Any) -> Completion:
    """What a model says."""
    return Completion(**{
        "text": text, "finish_reason": "stop", "provider": "stand-in", "model": "gpt-test", "response_id": "resp-1",
        "tokens": Tokens(10, 5), **changes,
    })  # fmt: skip


def nothing_sent(rig: Rig, outcome: str, code: str) -> None:
    """The request ended so, and no call was made and none intended."""
    assert (rig.response["outcome"], rig.response["failure"]["code"]) == (outcome, code)
    assert rig.calls == []
    assert rig.events("model.intended") == []
    assert [entry["state"] for entry in rig.ledger] == ["ended"]
    assert rig.response["receipt"]["leftTheSite"] is False


def denied(rig: Rig) -> dict[str, Any]:
    """The one decision that dispatch wrote."""
    (event,) = rig.events("policy.decided")
    assert event["policy"]["decision"] == "deny"
    return event


@pytest.mark.parametrize("state", ["withdrawn", "none", "unknown"])
async def test_consent_that_ends_in_the_queue_stops_the_request(state):
    """Consent is looked up again at the moment of sending; what was granted at admission is not enough."""
    rig = Rig(consents=Consents({("acme", "ada", "support"): "granted"}))
    work = rig.admit(**BY_CONSENT)
    assert work.routes[0] == "hosted-general"
    rig.consents.say(state)
    await rig.serve(work)
    nothing_sent(rig, "denied", "denied")
    event = denied(rig)
    assert event["policy"]["reasons"] == ["hosted-general:consent_not_granted"]
    assert (event["consent"]["state"], event["consent"].get("revision")) == (state, "0:1")
    assert work.consent.state == "granted"
    assert rig.response["receipt"]["consent"]["state"] == state


async def test_consent_is_that_of_the_person_whom_the_data_is_about():
    """The subject's consent counts, not the actor's, in admission and at the moment of sending."""
    rig = Rig(consents=Consents({("acme", "patient-7", "support"): "granted", ("acme", "ada", "support"): "withdrawn"}))
    basis = {"consent": {"basis": "consent", "subject": "patient-7"}}
    await rig.serve(rig.admit(**basis))
    assert rig.response["outcome"] == "completed"
    (intent,) = rig.events("model.intended")
    assert (intent["consent"]["state"], intent["subjectRef"]) == ("granted", "patient-7")
    assert rig.response["output"]["provenance"]["waybillHash"] == intent["waybillHash"]


async def test_a_rulebook_that_forbids_now_stops_what_another_one_allowed():
    """A rulebook that was put on the shelf meanwhile counts, and both revisions are in evidence."""
    first, second = book(), book(policy=FORBIDDING)
    rig = Rig(book=first, book_now=second)
    await rig.serve()
    nothing_sent(rig, "denied", "denied")
    versions = [event["policy"]["policyVersion"] for event in rig.story if "policy" in event]
    assert versions == [first.version, second.version]
    assert denied(rig)["policy"]["reasons"] == ["hosted-general:nothing-crosses"]
    assert "nothing-crosses" in rig.response["failure"]["message"]


async def test_both_revisions_are_recorded_where_the_answer_is_the_same():
    """Asked again by another rulebook that still allows it, the intent names that one, and the answer too."""
    first, second = book(), book(policy=f"// newer\n{POLICY}")
    rig = Rig(book=first, book_now=second, hosted=[answer()])
    await rig.serve()
    (admitted,) = told(rig.admitted.records, "policy.decided")
    (intent,) = rig.events("model.intended")
    assert admitted["policy"]["policyVersion"] == first.version
    assert intent["policy"]["policyVersion"] == second.version
    assert rig.response["output"]["provenance"]["policyVersion"] == second.version
    assert rig.response["receipt"]["policy"]["policyVersion"] == first.version


async def test_what_changes_while_a_credential_is_made_counts():
    """Policy is asked once more after what takes time: a rulebook that forbids by then stops the request."""
    rig = Rig()

    class Slow(KeyCredentials):
        async def authorize(self, crossing: Crossing) -> Authorization:
            rig.shelf.current = book(policy=FORBIDDING)
            return await super().authorize(crossing)

    rig.credentials = {"hosted": Slow(SecretStr("sk-own"), "hosted")}
    await rig.serve()
    nothing_sent(rig, "denied", "denied")
    assert denied(rig)["policy"]["reasons"] == ["hosted-general:nothing-crosses"]


@pytest.mark.parametrize(
    ("now", "outcome"),
    [
        (book(routes=ROUTES.replace("hosted-general", "renamed")), "completed"),
        (book(routes=ROUTES.replace("hosted-general", "a").replace("local-small", "b")), "denied"),
    ],
)
async def test_a_route_that_is_gone_is_not_taken(now, outcome):
    """A route that is no longer in the table is not used; what else was granted may still serve."""
    rig = Rig(book_now=now)
    await rig.serve()
    assert rig.response["outcome"] == outcome
    assert [call.model for call in rig.calls] == ["smollm2"] * (outcome == "completed")
    assert rig.events("model.intended") == []


LONGER = LABELS.replace("{name: public}", "{name: public, handling: {destination_days: 9}}").replace(
    "{name: internal}", "{name: internal, handling: {destination_days: 9}}"
)
OUTDATED = {
    "model": book(routes=ROUTES.replace("gpt-test", "gpt-next")),
    "region": book(routes=ROUTES.replace("region: eu", "region: us")),
    "retention": book(
        routes=ROUTES.replace('contract: "1.1"', 'contract: "1.1"\n    retention_days: 1'), labels=LONGER
    ),
    "provider": book(endpoints={**ENDPOINTS, "hosted": replace(ENDPOINTS["hosted"], provider="someone-else")}),
    "encryption": book(endpoints={**ENDPOINTS, "hosted": replace(ENDPOINTS["hosted"], encryption="loopback")}),
}


@pytest.mark.parametrize("change", OUTDATED)
async def test_a_route_that_is_another_one_now_has_no_waybill(change):
    """Where provider, model, region, protection or retention changed, the contract does not cover the crossing."""
    rig = Rig(book_now=OUTDATED[change])
    await rig.serve()
    nothing_sent(rig, "denied", "denied")
    assert denied(rig)["policy"]["reasons"] == ["hosted-general:waybill_outdated"]


async def test_without_a_waybill_nothing_crosses():
    """A work record whose route has no contract is not sent."""
    rig = Rig()
    await rig.serve(rig.admit().model_copy(update={"waybills": {}}))
    nothing_sent(rig, "denied", "denied")
    assert denied(rig)["policy"]["reasons"] == ["hosted-general:no_waybill"]


def released(rig: Rig, **changes: Any) -> Work:
    """What waited for the privacy office, as it goes on once somebody has approved it."""
    with pytest.raises(ValueError, match="not enough values"):
        rig.admit(classification="confidential", **HOSTED_ONLY)
    (value,) = [record.value for record in rig.admitted.records if record.topic == "ai.approvals"]
    request = ApprovalRequest.model_validate_json(value)
    approval = request.ref(approver="user:bea").model_copy(update=changes)
    return Work.model_validate_json(request.work).model_copy(update={"approval": approval})


def approving() -> Rig:
    """A deployment in which confidential data waits for the privacy office."""
    return Rig(book=book(routes=CONFIDENTIAL_HOSTED, policy=APPROVING), hosted=[answer()])


async def test_what_was_approved_is_sent_and_says_by_whom():
    """With an approval that holds, the request crosses; intent and receipt name it."""
    rig = approving()
    await rig.serve(released(rig))
    assert rig.response["outcome"] == "completed"
    (intent,) = rig.events("model.intended")
    assert (intent["approval"]["authority"], intent["approval"]["approver"]) == ("privacy-office", "user:bea")
    assert intent["policy"]["approvalId"] == intent["approval"]["approvalId"]
    assert rig.response["receipt"]["approval"] == intent["approval"]


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"expires_at_utc": utc_now() - timedelta(seconds=1)}, "approval_expired"),
        ({"payload_sha256": "0" * 64}, "approval_of_another_payload"),
        (None, "no_approval"),
    ],
)
async def test_an_approval_that_does_not_hold_now_is_none(changes, reason):
    """An approval that has expired, of another payload, or that is not there stops the request."""
    rig = approving()
    work = released(rig, **(changes or {}))
    await rig.serve(work if changes else work.model_copy(update={"approval": None}))
    nothing_sent(rig, "denied", "denied")
    assert denied(rig)["policy"]["reasons"] == [f"hosted-general:{reason}"]


async def test_an_approval_is_no_override():
    """What escalates now needs an override: an approval of before does not lift a forbid that came later."""
    escalating = (
        APPROVING
        + """
@id("only-the-officer")
@escalate("officer")
forbid(principal, action in Action::"cross", resource)
when { context.class == Class::"confidential" } unless { context.overridden };
"""
    )
    rig = approving()
    work = released(rig)
    rig.book_now = book(routes=CONFIDENTIAL_HOSTED, policy=escalating)
    await rig.serve(work)
    nothing_sent(rig, "denied", "denied")
    rig = approving()
    work = released(rig, override=True)
    rig.book_now = book(routes=CONFIDENTIAL_HOSTED, policy=escalating)
    await rig.serve(work)
    assert rig.response["outcome"] == "completed"


def own_vault(folder: Path) -> Vault:
    """A vault whose keys a test may destroy."""
    made = Vault(folder / "vault", revalidate_s=0)
    made.prepare()
    return made


async def test_what_retention_destroyed_cannot_be_sent(tmp_path):
    """Once its key is destroyed, a queued request ends as expired, and nothing of it goes anywhere."""
    rig = Rig(vault=own_vault(tmp_path))
    work = rig.admit()
    rig.vault.destroy(key_of(work.sealed), now=utc_now(), reason="a test")
    await rig.serve(work)
    nothing_sent(rig, "expired", "retention_expired")


@pytest.mark.parametrize("change", ["flipped", "of another intake", "of another tenant", "of another vault", "no seal"])
async def test_a_seal_that_was_tampered_with_is_not_opened(change, tmp_path):
    """What was changed, or belongs to another request, tenant or vault, ends as failed, and nothing is sent."""
    rig = Rig()
    work = rig.admit()
    other = rig.admit(request_id="r2", tenant={"id": "globex"} if "tenant" in change else {"id": "acme"}, offset=9)
    if change == "flipped":
        place = work.sealed.rindex(".") + 40
        sealed = work.sealed[:place] + ("A" if work.sealed[place] != "A" else "B") + work.sealed[place + 1 :]
    elif change == "no seal":
        sealed = "Zm9v"
    elif change == "of another vault":
        sealed = own_vault(tmp_path).seal("acme", b"{}", now=utc_now(), bound_to=work.intake_id.encode())
    else:
        sealed = other.sealed
    rig.admitted = None
    await rig.serve(work.model_copy(update={"sealed": sealed}))
    nothing_sent(rig, "failed", "bad_seal")


class Full:
    """A keeper whose disk is full."""

    async def keep(self, items: Sequence[SealedObject]) -> None:
        """Fail, where there is something to keep."""
        if items:
            raise UnavailableError("no space left")


@pytest.mark.parametrize(("policy", "changes"), [(redacting(), {}), (POLICY, {"purpose": "archive"})])
async def test_what_cannot_be_kept_is_not_sent(policy, changes):
    """Originals of pseudonyms, and a request that has to be kept, are durable before anything leaves."""
    rig = Rig(book=book(policy=policy), keeper=Full())
    prompt = f"Write to {MAIL} now" if policy != POLICY else "hello"
    await rig.serve(prompt=prompt, **HOSTED_ONLY, **changes)
    nothing_sent(rig, "failed", "not_kept")
    (attempt,) = rig.response["receipt"]["attempts"]
    assert (attempt["outcome"], attempt.get("intentId")) == ("not_kept", None)
    assert MAIL.encode() not in all_bytes(rig.written)


async def test_originals_are_kept_before_the_intent():
    """The order of a redacted crossing is keep, commit, call, commit; what is kept are the originals alone."""
    rig = Rig(book=book(policy=redacting()), hosted=[answer("Ask [EMAIL_1].")])
    await rig.serve(prompt=f"Write to {MAIL} now")
    assert [kind for kind, _ in rig.journal] == ["keep", "commit", "call", "commit"]
    assert {kind: orjson.loads(content) for kind, content in rig.kept.items()} == {"pseudonyms": {"[EMAIL_1]": MAIL}}
    assert [message.content for message in rig.calls[0].messages] == ["Write to [EMAIL_1] now"]
    assert rig.response["output"]["text"] == "Ask [EMAIL_1]."
    assert MAIL.encode() not in all_bytes([*rig.admitted.records, *rig.written])


async def test_payloads_are_kept_only_where_a_rule_lets_them():
    """For a purpose whose rule keeps payloads, the redacted request and the filtered answer are kept, sealed."""
    rig = Rig(book=book(policy=redacting()), hosted=[answer(f"Ask {MAIL} now")])
    await rig.serve(prompt=f"Write to {MAIL} now", purpose="archive")
    kept = rig.kept
    assert set(kept) == {"pseudonyms", "request", "response"}
    assert MAIL.encode() not in kept["request"] + kept["response"]
    assert kept["response"] == b"Ask [EMAIL] now"


async def test_an_answer_that_cannot_be_kept_is_still_given():
    """An answer that is there is not thrown away because it cannot be kept; evidence says so."""

    class Late(Full):
        async def keep(self, items):
            await super().keep([item for item in items if item.kind == "response"])

    rig = Rig(keeper=Late(), hosted=[answer()])
    await rig.serve(purpose="archive")
    assert rig.response["outcome"] == "completed"
    assert "could not be kept" in rig.story[-1]["detail"]


class NoToken:
    """Credentials that are not to be had."""

    async def authorize(self, crossing: Crossing) -> Authorization:
        """Fail."""
        del crossing
        raise NotSent("no_credential", "the token endpoint is down")

    async def close(self) -> None:
        """Nothing to give back."""


async def test_without_a_credential_nothing_is_sent_and_nothing_intended():
    """Where no credential can be had, no intent is said, and the local route serves."""
    rig = Rig(credentials={"hosted": NoToken()})
    await rig.serve()
    assert rig.response["outcome"] == "completed"
    assert [call.model for call in rig.calls] == ["smollm2"]
    assert rig.events("model.intended") == []
    failed = rig.events("model.failed")
    assert [(event["failure"]["code"], event.get("intentId")) for event in failed] == [("no_credential", None)]
    assert rig.response["receipt"]["leftTheSite"] is False
    rig = Rig(credentials={"hosted": NoToken()})
    await rig.serve(**HOSTED_ONLY)
    nothing_sent(rig, "failed", "no_credential")


async def test_a_minted_token_is_for_this_crossing_and_in_no_record():
    """The token of a call names its intent, route and contract; evidence has its id, and nobody has the token."""
    minter = Minter(SigningKey.generate(), trust_domain="example.org")
    rig = Rig(credentials={"hosted": MintedCredentials(minter)}, hosted=[answer()])
    await rig.serve()
    (intent,) = rig.events("model.intended")
    (call,) = rig.calls
    token = call.authorization.get_secret_value()
    assert token.startswith("Bearer ey")
    assert (intent["credential"]["method"], intent["credential"]["audience"]) == ("minted", "https://acme-ai.example")
    assert "hosted-general" in intent["credential"]["scope"]
    assert token.partition(" ")[2].encode() not in all_bytes(rig.written)
    assert rig.calls[0].call_id == intent["eventId"]


async def test_a_local_call_carries_no_credential():
    """Whatever credentials there are, a call on this side of the boundary carries none."""
    rig = Rig(credentials={"local": NoToken()}, local=[answer(provider="triton")])
    await rig.serve(modelPolicy={"placement": "local"})
    assert (rig.response["outcome"], rig.calls[0].authorization) == ("completed", None)


TWO_RULES = TWO_HOSTED.replace(
    "answer: {forbid: [personal, financial, secret], action: mask}", "answer: {forbid: [financial], action: drop}", 1
).replace("answer: {forbid: [personal, financial, secret], action: mask}",
          "answer: {forbid: [personal, financial], action: drop}", 1)  # fmt: skip
IBAN = "DE89 3704 0044 0532 0130 00"


@pytest.mark.parametrize(
    ("changes", "steps", "text"),
    [
        # Its own route's rule: nothing but accounts, dropped; a secret is always taken out.
        ({"routes": TWO_RULES}, {"hosted": "say"}, f"{MAIL} pays from  with "),
        # The stand-in's rule and the first one's: accounts and personal data.
        ({"routes": TWO_RULES}, {"other": "say"}, " pays from  with "),
        # The local route has no rule of its own: the first one's holds.
        ({"routes": TWO_RULES}, {"local": "say"}, f"{MAIL} pays from  with "),
        # The rule of class and purpose: the severer action of all.
        ({"retention": RETENTION.replace("action: mask", "action: refuse")}, {"hosted": "say"}, None),
        ({"retention": RETENTION.replace("forbid: [secret], action: mask", "forbid: [personal], action: drop")},
         {"hosted": "say"}, " pays from  with "),
    ],
)  # fmt: skip
async def test_the_strictest_rule_of_all_counts(changes, steps, text):
    """What route, first route or retention forbids is taken out of an answer, by the severest of their actions."""
    busy = Unavailable("http_429", "too many", provider="p")
    saying = answer(f"{MAIL} pays from {IBAN} with {TOKEN}")
    rig = Rig(book=book(**changes))
    for name in ("hosted", "other", "local"):
        setattr(rig, name, [saying if name in steps else busy])
    await rig.serve()
    assert rig.response.get("output", {}).get("text") == text
    assert rig.response["outcome"] == ("completed" if text else "withheld")
    written = all_bytes(rig.written)
    assert TOKEN.encode() not in written
    assert IBAN.encode() not in written


async def test_a_waybill_keeps_its_word_on_answers():
    """A rulebook that forbids less meanwhile changes nothing for what crossed under an older contract."""
    lax = ROUTES.replace("    answer: {forbid: [personal, financial, secret], action: mask}\n", "")
    rig = Rig(routes_now=lax, hosted=[answer(f"Ask {MAIL} now")])
    await rig.serve()
    assert rig.response["output"]["text"] == "Ask [EMAIL] now"
    assert rig.response["receipt"]["waybill"]["retention"]["forbiddenInAnswer"] == ["financial", "personal", "secret"]


async def test_every_answer_says_where_it_comes_from():
    """Hosted, local, redacted and refused answers each carry route, class, purpose, decision and contract."""
    for rig, changes in (
        (Rig(hosted=[answer()]), {}),
        (Rig(local=[answer()]), {"modelPolicy": {"placement": "local"}}),
        (Rig(book=book(policy=redacting()), hosted=[answer()]), {"prompt": f"Write to {MAIL} now"}),
        (Rig(hosted=[answer("No.", refused=True)]), {}),
    ):
        await rig.serve(**changes)
        found, receipt = rig.response["output"]["provenance"], rig.response["receipt"]
        intents = rig.events("model.intended")
        assert found["route"] == receipt["servedBy"]
        assert found["classification"] == receipt["classification"]["effective"]
        assert (found["purpose"], found["policyVersion"]) == ("support", rig.at_first.version)
        assert found["decisionId"] == receipt["policy"]["decisionId"]
        assert found.get("waybillHash") == (receipt["waybillHash"] if intents else None)
        assert found.get("intentId") == (intents[0]["eventId"] if intents else None)
        assert bool(intents) is receipt["leftTheSite"]


async def test_a_refusal_or_a_block_never_falls_back():
    """Neither a model that declines nor a policy that forbids now makes the next route's turn."""
    rig = Rig(book=book(routes=TWO_HOSTED), hosted=[answer("I will not.", refused=True)])
    await rig.serve()
    assert (rig.response["outcome"], len(rig.calls)) == ("refused", 1)
    forbid = POLICY + '\n@id("not-there") forbid(principal, action, resource == Route::"hosted-general");\n'
    rig = Rig(book=book(routes=TWO_HOSTED), book_now=book(routes=TWO_HOSTED, policy=forbid))
    await rig.serve()
    nothing_sent(rig, "denied", "denied")


async def test_a_fallback_is_asked_like_the_first_route():
    """After a failure the next route is checked at that moment too: consent that ended meanwhile stops it."""
    rig = Rig(book=book(routes=TWO_HOSTED), consents=Consents({("acme", "ada", "support"): "granted"}))

    async def withdrawn(call: Any) -> Completion:
        rig.consents.say("withdrawn")
        raise Unavailable("http_429", "too many", provider="acme-ai")

    rig.hosted = [withdrawn]
    await rig.serve(**BY_CONSENT)
    assert [call.model for call in rig.calls] == ["gpt-test"]
    assert denied(rig)["policy"]["reasons"] == ["hosted-second:consent_not_granted"]
    assert rig.response["outcome"] == "failed"


async def test_the_model_gets_what_was_chosen_and_nothing_else():
    """Sources that stayed behind are in no call, those that went are redacted, and the receipt names both."""
    rig = Rig(book=book(policy=redacting()), hosted=[answer()])
    sources = (source("mail", f"from {MAIL} today"), source("extra", "Zq7planted", "useful"))
    await rig.serve(input=with_context(f"Ask {MAIL} now", *sources))
    texts = [message.content for message in rig.calls[0].messages]
    assert texts == ["Use these sources:\n\n[mail]\nfrom [EMAIL_1] today", "Ask [EMAIL_1] now"]
    assert rig.response["receipt"]["context"] == {"selected": ["mail"], "left": ["extra:not_required"]}
    (intent,) = rig.events("model.intended")
    assert intent["context"] == rig.response["receipt"]["context"]
    assert (intent["policy"]["decision"], intent["redaction"]["removed"]) == ("transform", ["email:2"])
