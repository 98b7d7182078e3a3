"""Serving: every way that a request can end, in the order that the promises ask for."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any

import orjson
import pytest
from decisions import Broken, Rig, all_bytes, told, utc_now
from requests_made import RESEND, ROUTES, TWO_HOSTED

from evidence.parsing import parse
from evidence.records import EvidenceEvent
from inference.backend import MAX_TOKENS, Completion, ModelCall, Tokens
from inference.errors import Ambiguous, Malformed, NotSent, Rejected, Unavailable
from policy.contract import Waybill
from policy.vault.erased import EVERYTHING
from streams.ledger import Claim, Finding, Standing
from streams.processors.cases import estimate, from_json
from streams.response import Response
from streams.stages.serve import MAX_ANSWER_CHARS
from streams.work import LedgerEntry, Work

MARK = "Zq7planted"
MAIL = "anna@example.org"
LOCAL_ONLY = {"modelPolicy": {"placement": "local"}}
LOST = Ambiguous("disconnected", "the connection broke", provider="acme-ai")
BUSY = Unavailable("http_429", "too many", provider="acme-ai")
BABBLE = Malformed("not_json", "no answer", provider="acme-ai")
ABSENT = NotSent("connect_failed", "nobody there")
WRONG = Rejected("http_400", "wrong", provider="acme-ai")


def answer(text: str = "Hello.", **changes: Any) -> Completion:
    """What a model says."""
    return Completion(**{
        "text": text, "finish_reason": "stop", "provider": "stand-in", "model": "stand-in/gpt-test",
        "response_id": "resp-1", "tokens": Tokens(10, 5), **changes,
    })  # fmt: skip


def check(rig: Rig) -> None:
    """What holds for every request: a whole story, intents before calls, a receipt that agrees with evidence."""
    events = [EvidenceEvent.model_validate_json(orjson.dumps(event)) for event in rig.story]
    response = Response.model_validate_json(orjson.dumps(rig.response))
    receipt = response.receipt
    assert receipt is not None
    assert [event.sequence for event in events] == list(range(len(events)))
    assert len({event.event_id for event in events}) == len(events)
    assert [event.event_type for event in events if event.outcome is not None] == ["request.ended"]
    assert events[-1].outcome == response.outcome
    assert events[-1].failure == response.failure
    intents = {event.event_id: event for event in events if event.event_type == "model.intended"}
    calls = [event for event in events if event.event_type in {"model.completed", "model.failed"}]
    hosted = [event for event in calls if event.route.placement == "hosted"]
    assert {event.intent_id for event in hosted if event.intent_id} == set(intents)
    assert all(event.event_type == "model.failed" for event in hosted if not event.intent_id)
    assert [(attempt.attempt, attempt.intent_id) for attempt in receipt.attempts] == [
        (event.attempt, event.intent_id) for event in calls
    ]
    for attempt, event in zip(receipt.attempts, calls, strict=True):
        assert attempt.route == event.route
        assert attempt.usage == event.usage
        assert attempt.outcome == (event.failure.code if event.failure else attempt.outcome)
    assert receipt.cost_usd == pytest.approx(sum(event.usage.cost_usd for event in calls if event.usage))
    if receipt.waybill is not None:
        last = list(intents.values())[-1] if intents else None
        assert receipt.waybill_hash == receipt.waybill.digest()
        assert last is None or last.waybill_hash == receipt.waybill_hash
    done: set[str] = set()
    for kind, what in rig.journal:
        if kind == "commit":
            done |= {event["eventId"] for event in told(what)}
        elif isinstance(what, ModelCall) and what.model != "smollm2":
            assert what.call_id in done, "a hosted call was made before its intent was durable"
            assert what.call_id in intents
    ids = [(headers["ce_source"], headers["ce_id"]) for headers in (dict(record.headers) for record in rig.written)]
    assert len(set(ids)) == len(ids)


async def served(rig: Rig, **changes: Any) -> Rig:
    """Serve a request by a rig, and check what always holds."""
    await rig.serve(**changes)
    check(rig)
    return rig


def attempts(rig: Rig) -> list[tuple[str, str]]:
    """The attempts of the receipt: route and outcome."""
    return [(attempt["route"]["name"], attempt["outcome"]) for attempt in rig.response["receipt"]["attempts"]]


async def test_a_hosted_answer_is_told_whole():
    """A completed request: intent, call, answer; the receipt names who answered, the contract and the price."""
    rig = await served(Rig(hosted=[answer()]))
    receipt = rig.response["receipt"]
    assert rig.response["outcome"] == "completed"
    assert (rig.response["output"]["text"], rig.response["output"]["finishReason"]) == ("Hello.", "stop")
    assert receipt["servedBy"] == {"name": "hosted-general", "placement": "hosted", "provider": "stand-in",
                                   "model": "stand-in/gpt-test", "region": "eu"}  # fmt: skip
    assert receipt["leftTheSite"] is True
    assert receipt["costUsd"] == pytest.approx((10 * 1.0 + 5 * 2.0) / 1e6)
    assert Waybill.model_validate(receipt["waybill"]).digest() == receipt["waybillHash"]
    assert [entry["state"] for entry in rig.ledger] == ["intended", "ended"]
    assert [event["eventType"] for event in rig.story[4:]] == ["model.intended", "model.completed", "request.ended"]


async def test_the_intent_is_durable_before_the_call():
    """The journal's order is commit, call, commit; the commit before the call holds the intent and its ledger entry."""
    rig = await served(Rig(hosted=[answer()]))
    assert [kind for kind, _ in rig.journal] == ["commit", "call", "commit"]
    first = rig.journal[0][1]
    assert [record.topic for record in first] == ["ai.evidence", "ai.ledger"]
    assert rig.calls[0].call_id == told(first)[0]["eventId"]


async def test_without_a_durable_intent_no_call_is_made():
    """Where the intent cannot be written, the error goes up and the provider hears nothing."""

    class Dead(Rig):
        async def commit(self, records):
            del records
            raise OSError("the broker is gone")

    rig = Dead(hosted=[answer()])
    with pytest.raises(OSError, match="broker is gone"):
        await rig.serve()
    assert rig.calls == []


async def test_a_local_call_needs_no_intent():
    """A local answer has one commit, no intent, no waybill and nothing that left."""
    rig = await served(Rig(local=[answer(provider="triton", model="smollm2")]), **LOCAL_ONLY)
    assert [kind for kind, _ in rig.journal] == ["call", "commit"]
    receipt = rig.response["receipt"]
    assert (receipt["leftTheSite"], receipt.get("waybill"), receipt["servedBy"]["placement"]) == (False, None, "local")
    assert [entry["state"] for entry in rig.ledger] == ["ended"]


async def test_a_refusal_is_an_answer_and_no_reason_to_fall_back():
    """A model that declines ends the request as refused; the local fallback is not asked."""
    rig = await served(Rig(hosted=[answer("I will not.", refused=True, finish_reason="content_filter")]))
    assert (rig.response["outcome"], len(rig.calls)) == ("refused", 1)
    assert rig.response["output"]["text"] == "I will not."


@pytest.mark.parametrize(("action", "outcome"), [("mask", "completed"), ("drop", "completed"), ("refuse", "withheld")])
async def test_what_retention_forbids_is_in_no_record(action, outcome):
    """An answer is filtered before anything is written, and evidence says what was done to it."""
    routes = ROUTES.replace("action: mask", f"action: {action}")
    rig = await served(Rig(routes=routes, hosted=[answer(f"Ask {MAIL} for it.")]))
    assert rig.response["outcome"] == outcome
    assert MAIL.encode() not in all_bytes(rig.written)
    assert rig.response["receipt"]["retained"] == {"action": action, "removed": ["email"]}
    (filtered,) = [event for event in rig.story if event["eventType"] == "response.filtered"]
    assert filtered["retained"]["removed"] == ["email"]
    if outcome == "withheld":
        assert "output" not in rig.response
        assert rig.response["receipt"]["servedBy"]["name"] == "hosted-general"


async def test_an_answer_that_cannot_be_scanned_is_withheld():
    """Broken detectors keep an answer back, and the response says so; its cost is told all the same."""
    rig = await served(Rig(hosted=[answer(MARK)], scanner=Broken()))
    assert "detectors could not finish" in rig.response["failure"]["message"]
    assert (rig.response["outcome"], rig.response["receipt"]["costUsd"] > 0) == ("withheld", True)
    assert MARK.encode() not in all_bytes(rig.written)


async def test_the_answers_size_and_hash_are_those_of_what_was_kept():
    """Evidence describes the filtered answer, never the original."""
    rig = await served(Rig(hosted=[answer(f"Ask {MAIL}.")]))
    (completed,) = [event for event in rig.story if event["eventType"] == "model.completed"]
    assert completed["outputBytes"] == len("Ask [EMAIL].")


@pytest.mark.parametrize(("error", "crossed"), [(ABSENT, False), (BUSY, True), (BABBLE, True)])
async def test_the_next_route_is_tried_where_nothing_was_accepted(error, crossed):
    """Not sent, unavailable and malformed fall back within the grant, and both attempts are in the receipt."""
    rig = await served(Rig(hosted=[error]))
    assert rig.response["outcome"] == "completed"
    assert attempts(rig) == [("hosted-general", error.code), ("local-small", "completed")]
    assert rig.response["receipt"]["leftTheSite"] is crossed
    assert rig.response["receipt"]["servedBy"]["placement"] == "local"


async def test_a_rejected_call_is_not_tried_elsewhere():
    """What the destination calls wrong is wrong: the request fails, and nobody else is asked."""
    rig = await served(Rig(hosted=[WRONG]))
    assert (rig.response["outcome"], rig.response["failure"]["code"], len(rig.calls)) == ("failed", "http_400", 1)
    assert rig.response["failure"]["retryable"] is False


async def test_a_lost_answer_is_unknown_and_nothing_more_is_tried():
    """A call that may have been accepted ends the request as unknown; there is no second disclosure."""
    rig = await served(Rig(hosted=[LOST]))
    assert (rig.response["outcome"], rig.response["failure"]["code"], len(rig.calls)) == ("unknown", "disconnected", 1)
    assert rig.ledger[-1]["outcome"] == "unknown"


async def test_a_lost_local_answer_is_no_ambiguity():
    """Nothing left the site, so that a lost local call simply failed."""
    rig = await served(Rig(local=[LOST]), **LOCAL_ONLY)
    assert rig.response["outcome"] == "failed"


async def test_every_attempt_failing_is_a_failure():
    """When all routes are used up the request fails with the last one's reason."""
    rig = await served(Rig(hosted=[BUSY], local=[ABSENT]))
    assert (rig.response["outcome"], rig.response["failure"]["code"]) == ("failed", "connect_failed")
    assert attempts(rig) == [("hosted-general", "http_429"), ("local-small", "connect_failed")]


@pytest.mark.parametrize(
    ("second", "outcome", "made"),
    [
        (answer(), "completed", 2),
        (LOST, "unknown", 2),
        (WRONG, "unknown", 2),
    ],
)
async def test_a_repeat_that_policy_allows_happens_once(second, outcome, made):
    """With `resend`, a lost answer is asked for once more, and what is still in doubt after it stays unknown."""
    rig = await served(Rig(routes=RESEND, hosted=[LOST, second]))
    assert (rig.response["outcome"], len(rig.calls)) == (outcome, made)
    assert len({call.call_id for call in rig.calls}) == made
    assert [entry.get("resent") for entry in rig.ledger[:2]] == [False, True]


async def test_after_a_repeat_only_local_routes_are_left():
    """A second disclosure was accepted, not one to a third party; a local answer ends the request as completed."""
    routes = TWO_HOSTED.replace('    contract: "1.1"', '    contract: "1.1"\n    on_ambiguous: resend')
    rig = await served(Rig(routes=routes, hosted=[LOST, BUSY]))
    assert rig.admit().routes == ("hosted-general", "hosted-second", "local-small")
    assert rig.response["outcome"] == "completed"
    assert [name for name, _ in attempts(rig)] == ["hosted-general", "hosted-general", "local-small"]


async def test_doubt_outlives_later_failures():
    """Where one call may have been accepted, later certain failures do not turn the request into a failed one."""
    rig = await served(Rig(routes=RESEND, hosted=[LOST, ABSENT], local=[BUSY]))
    assert rig.response["outcome"] == "unknown"


@pytest.mark.parametrize(
    ("routes_now", "outcome", "code"),
    [
        (ROUTES.replace("classes: [public, internal]", "classes: [public]", 1), "denied", "denied"),
        (ROUTES.replace("hosted-general", "a").replace("local-small", "b"), "denied", "no_route"),
    ],
)
async def test_policy_is_asked_again_at_the_moment_of_sending(routes_now, outcome, code):
    """A table that changed between admission and dispatch counts: no call that it does not allow is made."""
    rig = await served(Rig(routes_now=routes_now), classification="internal")
    assert rig.response["outcome"] == outcome
    assert rig.response.get("failure", {}).get("code") == code
    assert all(call.model == "smollm2" for call in rig.calls)
    denials = [event for event in rig.story[4:] if event["eventType"] == "policy.decided"]
    assert len(denials) == (code == "denied")


def at(seconds: float) -> Callable[[], datetime]:
    """A clock that stands still, so many seconds after now."""
    moment = utc_now() + timedelta(seconds=seconds)
    return lambda: moment


async def test_a_request_that_waited_too_long_expires_unasked():
    """After its deadline a request is not sent."""
    rig = await served(Rig(clock=at(3600)))
    assert (rig.response["outcome"], rig.calls) == ("expired", [])


async def test_a_deadline_that_passes_while_the_intent_is_written_stops_the_call():
    """The deadline is looked at again after the intent; the intent is answered by an event that nothing was sent."""
    begun, passed = utc_now(), [0.0]

    class Slow(Rig):
        async def commit(self, records):
            await super().commit(records)
            passed[0] = 3600.0

    rig = await served(Slow(clock=lambda: begun + timedelta(seconds=passed[0])))
    assert (rig.response["outcome"], rig.calls) == ("failed", [])
    assert [event["eventType"] for event in rig.story[4:]] == ["model.intended", "model.failed", "request.ended"]
    assert rig.response["receipt"]["leftTheSite"] is False


async def test_a_call_gets_no_more_time_than_the_request_has():
    """A call's time limit is the lower of the route's and what is left until the deadline."""
    rig = await served(Rig(clock=at(297)))
    assert 0 < rig.calls[0].timeout_s < 3.1
    rig = await served(Rig(), deadlineUtc=None)
    assert rig.calls[0].timeout_s == 5


async def test_the_model_is_told_no_more_than_it_needs():
    """A call holds the conversation, its sources and limits; no identity, no request id, a renewed trace context."""
    given = {"messages": [{"role": "system", "content": "Be kind."}, {"role": "user", "content": "Say it."}],
             "context": [{"sourceId": "doc-1", "content": "Facts."}]}  # fmt: skip
    rig = await served(Rig(), input=given, modelPolicy={"maxTokens": 7, "temperature": 0.5}, session="secret-session")
    (call,) = rig.calls
    assert [message.content for message in call.messages] == [
        "Use these sources:\n\n[doc-1]\nFacts.",
        "Be kind.",
        "Say it.",
    ]
    assert (call.max_tokens, call.temperature) == (7, 0.5)
    text = repr(call)
    assert not any(name in text for name in ("ada", "acme", "r1", "secret-session"))
    (intent,) = [event for event in rig.story if event["eventType"] == "model.intended"]
    assert call.traceparent == f"00-{intent['traceId']}-{intent['spanId']}-01"


async def test_money_that_may_be_spent_counts_against_the_budget():
    """After an unusable answer its estimated price is at risk, and a repeat that could pass the budget is not made."""
    rig = Rig(routes=RESEND, hosted=[LOST, answer()])
    work = rig.admit()
    one = price_of_a_call(rig, work)
    tight = await served(Rig(routes=RESEND, hosted=[LOST, answer()]), budget={"maxCostUsd": one * 1.5})
    assert (tight.response["outcome"], len(tight.calls)) == ("completed", 2)  # the local route costs nothing
    assert [name for name, _ in attempts(tight)] == ["hosted-general", "local-small"]
    roomy = await served(Rig(routes=RESEND, hosted=[LOST, answer()]), budget={"maxCostUsd": one * 2.5})
    assert [name for name, _ in attempts(roomy)] == ["hosted-general", "hosted-general"]


def price_of_a_call(rig: Rig, work: Work) -> float:
    """What a call to the first hosted route is estimated to cost."""
    return estimate(rig.at_first.table.by_name["hosted-general"], from_json(work.policy.inputs or "").wish)


PRICED = ROUTES.replace(
    "output_per_million_usd: 2.0", "output_per_million_usd: 2.0, cached_input_per_million_usd: 0.1, "
    "reasoning_per_million_usd: 4", 1
)  # fmt: skip


async def test_an_answer_of_no_use_costs_what_it_counted():
    """The tokens of an answer without text are priced in receipt and evidence, and not estimated once more."""
    empty = Malformed("empty_answer", "no text", provider="acme-ai", tokens=Tokens(100, 50))
    rig = await served(Rig(hosted=[empty]))
    failed = rig.events("model.failed")[0]
    assert failed["usage"] == {"inputTokens": 100, "outputTokens": 50, "costUsd": pytest.approx(200e-6)}
    assert rig.response["receipt"]["costUsd"] == pytest.approx(200e-6)
    assert rig.response["receipt"]["attempts"][0]["usage"]["outputTokens"] == 50
    assert rig.story[-1]["usage"]["costUsd"] == pytest.approx(200e-6)


async def test_cached_and_reasoning_tokens_have_their_prices():
    """Tokens from a cache and reasoning tokens cost what the price list says of them; evidence has their counts."""
    rig = await served(Rig(routes=PRICED, hosted=[answer(tokens=Tokens(10_000, 100, cached=9_000, reasoning=60))]))
    assert rig.response["receipt"]["costUsd"] == pytest.approx((1_000 + 900 + 40 * 2 + 60 * 4) / 1e6)
    told = orjson.loads(rig.events("model.completed")[0]["detail"])
    assert told == {"cachedTokens": 9_000, "reasoningTokens": 60}


async def test_unknown_usage_is_null_in_evidence():
    """Where the provider counts nothing that can be, evidence has no usage, and the answer is given all the same."""
    for tokens in (Tokens(), Tokens(5, None), Tokens(None, 5)):
        rig = await served(Rig(hosted=[answer(tokens=tokens, stated_reason="eos")]))
        completed = rig.events("model.completed")[0]
        assert (rig.response["outcome"], rig.response["receipt"]["costUsd"]) == ("completed", 0)
        assert "usage" not in completed
        assert orjson.loads(completed["detail"]) == {"finishReason": "eos"}


async def test_a_counted_answer_of_no_use_is_not_estimated():
    """What a provider counted for an answer of no use takes that much of the budget, and no estimate of it."""
    rig = Rig(routes=TWO_HOSTED)
    budget = {"maxCostUsd": price_of_a_call(rig, rig.admit()) * 1.5}
    cheap = Malformed("empty_answer", "no text", provider="acme-ai", tokens=Tokens(1, 1))
    rig = await served(Rig(routes=TWO_HOSTED, hosted=[cheap, answer()]), budget=budget)
    assert [name for name, _ in attempts(rig)] == ["hosted-general", "hosted-second"]


@pytest.mark.parametrize("provider", ["", "p" * 1000])
@pytest.mark.parametrize("model", ["", "m" * 256, "gpt-4o"])
async def test_whatever_an_answer_says_of_itself_evidence_can_be_stored(provider, model):
    """The largest counts and names that the reader of answers lets through become rows of the table."""
    tokens = Tokens(MAX_TOKENS, MAX_TOKENS, cached=MAX_TOKENS, reasoning=MAX_TOKENS)
    said = answer(provider=provider, model=model, response_id="r" * 256, tokens=tokens, stated_reason="x" * 199)
    rig = await served(Rig(hosted=[said]))
    values = [orjson.dumps(event) for event in rig.story]
    parsed = parse(values, partition=0, offsets=range(len(values)), timestamps_ms=[0] * len(values))
    assert parsed.rejects == ()


@pytest.mark.parametrize("model", ["4111111111111111", "DE89370400440532013000"])
async def test_a_number_of_an_account_is_no_name_of_a_model(model):
    """A provider that gives such a number as its model's name or its answer's id gets neither into evidence."""
    rig = await served(Rig(hosted=[answer(model=model, response_id=model)]))
    assert model.encode() not in b"".join(orjson.dumps(event) for event in rig.story)


async def test_a_busy_provider_costs_nothing():
    """A call that was declined leaves the budget as it was."""
    rig = Rig(routes=TWO_HOSTED)
    one = price_of_a_call(rig, rig.admit())
    rig = await served(Rig(routes=TWO_HOSTED, hosted=[BUSY]), budget={"maxCostUsd": one * 1.5})
    assert [name for name, _ in attempts(rig)] == ["hosted-general", "hosted-second"]
    rig = await served(Rig(routes=TWO_HOSTED, hosted=[BABBLE]), budget={"maxCostUsd": one * 1.5})
    assert [name for name, _ in attempts(rig)] == ["hosted-general", "local-small"]


@pytest.mark.parametrize("routes", [ROUTES, TWO_HOSTED])
async def test_nothing_is_sent_of_who_is_erased_while_the_intent_is_written(routes):
    """That takes as long as the broker takes: after it nothing goes out, by no route, and the request ends once."""
    rig = Rig(routes=routes)
    rig.erased = lambda *_: EVERYTHING if any(kind == "commit" for kind, _ in rig.journal) else None
    rig = await served(rig, prompt=MARK)
    assert rig.calls == []
    assert (rig.response["outcome"], rig.response["failure"]["code"]) == ("failed", "erased")
    assert [event["failure"]["code"] for event in rig.story if event["eventType"] == "model.failed"] == ["erased"]


async def broken(call: ModelCall) -> Completion:
    """A backend that breaks its contract, with the prompt in its error."""
    raise ValueError(f"{MARK}: {call.messages[-1].content}")


@pytest.mark.parametrize(("changes", "outcome"), [({}, "unknown"), (LOCAL_ONLY, "failed")])
async def test_a_backend_that_breaks_its_contract_is_in_doubt(changes, outcome, caplog):
    """An unexpected error after sending may mean that data left; its text is in no record and in no log."""
    with caplog.at_level(logging.DEBUG):
        rig = await served(Rig(hosted=[broken], local=[broken]), prompt=MARK, **changes)
    assert (rig.response["outcome"], rig.response["failure"]["code"]) == (outcome, "internal_error")
    assert MARK.encode() not in all_bytes(rig.written)
    assert "ValueError" in caplog.text
    assert MARK not in caplog.text


@pytest.mark.parametrize(
    "strange",
    [
        {"model": "m" * 500, "response_id": "i" * 500, "provider": "p" * 500},
        {"model": "", "response_id": "", "provider": ""},
        {"text": ""},
        {"text": "\ud800"},
        {"tokens": Tokens(-1, 5)},
    ],
)
async def test_no_answer_can_stop_the_partition(strange):
    """Whatever a provider says of itself, the request ends; an answer that cannot be recorded is in doubt."""
    rig = await served(Rig(hosted=[answer(**strange)]))
    assert rig.response["outcome"] == ("unknown" if "tokens" in strange or strange.get("text") else "completed")


@pytest.mark.parametrize(("size", "outcome"), [(MAX_ANSWER_CHARS, "completed"), (MAX_ANSWER_CHARS + 1, "failed")])
async def test_an_answer_too_large_for_a_record_is_not_kept(size, outcome):
    """The largest answer fits a record with every character escaped; a larger one fails, and its price is told."""
    rig = await served(Rig(hosted=[answer("\x01" * size)]))
    assert rig.response["outcome"] == outcome
    assert rig.response["receipt"]["costUsd"] > 0
    assert max(len(record.value) for record in rig.written) < 1_000_000


def interrupted(rig: Rig, work: Any, **changes: Any) -> Finding:
    """What the ledger says of a request whose worker was lost after its intent."""
    entry = LedgerEntry.model_validate(rig.ledger[0] | changes)
    return Finding(Standing.INTERRUPTED, entry)


async def lost_worker(rig: Rig, **changes: Any) -> tuple[Any, Finding]:
    """Serve up to the call and lose the worker there; what was committed stays in the rig's journal."""

    async def killed(call: ModelCall) -> Completion:
        raise asyncio.CancelledError

    rig.hosted = [killed]
    work = rig.admit()
    with pytest.raises(asyncio.CancelledError):
        await rig.serve(work)
    return work, interrupted(rig, work, **changes)


async def test_work_that_a_crash_interrupted_is_unknown():
    """Found with an intent and no end, a request is told as unknown, in one story, and is not sent again."""
    rig = Rig()
    work, finding = await lost_worker(rig)
    await rig.serve(work, finding)
    check(rig)
    assert (rig.response["outcome"], rig.response["failure"]["code"], len(rig.calls)) == ("unknown", "worker_lost", 1)
    assert rig.response["receipt"]["leftTheSite"] is True
    assert rig.response["receipt"]["waybill"] is not None


async def test_interrupted_work_is_repeated_where_policy_accepts_it_once():
    """With `resend` the interrupted call is made once more; interrupted again, it is not."""
    rig = Rig(routes=RESEND)
    work, finding = await lost_worker(rig)
    rig.hosted = [answer()]
    await rig.serve(work, finding)
    check(rig)
    assert (rig.response["outcome"], len(rig.calls)) == ("completed", 2)
    rig = Rig(routes=RESEND)
    work, finding = await lost_worker(rig, resent=True)
    await rig.serve(work, finding)
    assert (rig.response["outcome"], len(rig.calls)) == ("unknown", 1)


async def test_interrupted_work_whose_route_is_gone_is_unknown():
    """A route table without the interrupted route leaves the request unknown."""
    rig = Rig()
    work, finding = await lost_worker(rig)
    rig.routes_now = ROUTES.replace("hosted-general", "renamed")
    await rig.serve(work, finding)
    check(rig)
    assert rig.response["outcome"] == "unknown"


async def test_interrupted_work_past_its_deadline_stays_in_doubt():
    """An interrupted call that may not be repeated in time is unknown, not expired or failed."""
    rig = Rig(routes=RESEND)
    work, finding = await lost_worker(rig)
    rig.clock = at(3600)
    await rig.serve(work, finding)
    assert rig.response["outcome"] == "unknown"


async def test_a_duplicate_is_answered_without_a_call():
    """The same work under the same key gets a response that names the first request, and evidence its intake."""
    rig = Rig()
    work = rig.admit()
    await rig.serve(work, Finding(Standing.DUPLICATE, holder=Claim("first", "f" * 32, work.fingerprint)))
    check(rig)
    assert (rig.response["outcome"], rig.response["duplicateOf"], rig.calls) == ("duplicate", "first", [])
    assert rig.story[-1]["duplicateOf"] == "f" * 32
    assert rig.ledger == []


async def test_other_work_under_the_same_key_is_rejected():
    """A key that another payload holds is a conflict; the ledger stays the first one's."""
    rig = Rig()
    await rig.serve(rig.admit(), Finding(Standing.CONFLICT, holder=Claim("first", "f" * 32, "other")))
    check(rig)
    assert (rig.response["outcome"], rig.response["failure"]["code"]) == ("rejected", "idempotency_conflict")
    assert (rig.calls, rig.ledger) == ([], [])


async def test_hops_are_renewed_and_tracestate_is_handed_on():
    """Every record of dispatch carries a span of its own in the request's trace, and the sender's tracestate."""
    rig = Rig(hosted=[answer()])
    work = rig.admit().model_copy(update={"trace_state": "vendor=1"})
    await rig.serve(work)
    for record in rig.written:
        found = dict(record.headers)
        assert found["traceparent"].split(b"-")[1] == work.trace_id.encode()
        assert found["traceparent"].split(b"-")[2] != work.parent_span_id.encode()
        assert found["tracestate"] == b"vendor=1"
        assert found["ce_subject"] == b"r1"


async def test_records_lie_where_they_are_looked_for():
    """Response and evidence have the request id as their key, ledger entries the idempotency scope."""
    rig = await served(Rig(hosted=[answer()]))
    scope = rig.admit().scope.encode()
    assert {(record.topic, record.key) for record in rig.written} == {
        ("ai.evidence", b"r1"), ("ai.responses", b"r1"), ("ai.ledger", scope),
    }  # fmt: skip
