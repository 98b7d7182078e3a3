"""Spans from evidence: what they say, what they never say, and that a collector gets them."""

from __future__ import annotations

import asyncio
import time
from datetime import UTC, datetime, timedelta
from typing import Any

import orjson
import pytest
from aiohttp import web
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.trace import SpanKind, StatusCode
from told_story import ToldStory

from evidence.records import (
    Classification,
    EventType,
    EvidenceEvent,
    Failure,
    Outcome,
    Placement,
    PolicyRef,
    Position,
    RouteRef,
    Stage,
    Usage,
)
from streams.processors.correlation import ClosedStory, Correlator
from streams.story import event_id, span_id
from streams.telemetry import Exporter, spans

NOON = datetime(2026, 11, 23, 12, 0, 0, 123_457, tzinfo=UTC)
INTAKE = "ab" * 16
TRACE = "cd" * 16
APP_SPAN = "ef" * 8
ROOT = span_id(INTAKE, "request")
RESOURCE = Resource({"service.name": "waybill"})
SAID: dict[str, Any] = {
    "request_id": "r-1",
    "trace_id": TRACE,
    "site": "local",
    "actor_ref": "person:ada",
    "tenant_ref": "acme",
    "session_ref": "s-9",
    "task_type": "question",
}
ASKED = RouteRef(name="hosted-general", placement=Placement.HOSTED, provider="stand-in", model="gpt-4o", region="eu")
ANSWERED = ASKED.model_copy(update={"model": "gpt-4o-2026-08"})
LOCAL = RouteRef(name="local-small", placement=Placement.LOCAL, provider="triton", model="smollm2", region="on-site")
PUBLIC = Classification(declared="public", effective="internal", detected="internal", findings=("email",))


def later(ms: float) -> datetime:
    """Give a moment after noon."""
    return NOON + timedelta(milliseconds=ms)


def admission(parent: str | None = APP_SPAN) -> list[EvidenceEvent]:
    """Give what admission says of a request that goes to the hosted route."""
    story = ToldStory(
        stage=Stage.ADMISSION,
        intake=INTAKE,
        sequence=0,
        span=span_id(INTAKE, "admission"),
        parent_span_id=ROOT,
        **SAID,
    )
    place = Position(topic="ai.requests", partition=3, offset=41)
    policy = PolicyRef(decision="allow", policy_id="p", policy_version="v1")
    return [
        story.event(EventType.REQUEST_ADMITTED, NOON, span_id=ROOT, parent_span_id=parent, source=place),
        story.event(EventType.DATA_CLASSIFIED, later(1), classification=PUBLIC),
        story.event(EventType.POLICY_DECIDED, later(2), policy=policy),
        story.event(EventType.ROUTE_SELECTED, later(3), route=ASKED, fallbacks=("local-small",)),
    ]


def dispatch() -> ToldStory:
    """Give the story as dispatch goes on with it."""
    span = span_id(INTAKE, "dispatch")
    return ToldStory(stage=Stage.DISPATCH, intake=INTAKE, sequence=4, span=span, parent_span_id=ROOT, **SAID)


def attempt(number: int) -> dict[str, Any]:
    """Give what the events of one attempt have in common."""
    return {"attempt": number, "span_id": span_id(INTAKE, f"attempt-{number}"), "parent_span_id": ROOT}


def ended(story: ToldStory, at: datetime, outcome: Outcome, **fields: Any) -> EvidenceEvent:
    """Give the end of a request."""
    about = {"span_id": ROOT, "parent_span_id": APP_SPAN, "classification": PUBLIC}
    return story.event(EventType.REQUEST_ENDED, at, outcome=outcome, **about, **fields)


def closed(events: list[EvidenceEvent]) -> ClosedStory:
    """Send events through the correlator, as JSON, the way the stage does."""
    correlator = Correlator()
    *_, story = [correlator.observe(orjson.loads(event.to_json()), 0, at) for at, event in enumerate(events)]
    assert story is not None
    return story


def answered() -> ClosedStory:
    """Give a request whose first, hosted call failed and whose second, local one was answered in a stream."""
    story, first = dispatch(), attempt(1)
    intent = event_id(INTAKE, 4)
    down = Failure(code="http_503", message="stand-in at 127.0.0.1:1 answered 503", retryable=True)
    usage = Usage(input_tokens=12, output_tokens=30, cost_usd=0.5)
    return closed(
        [
            *admission(),
            story.event(EventType.MODEL_INTENDED, later(10), route=ASKED, intent_id=intent, **first),
            story.event(
                EventType.MODEL_FAILED,
                later(60),
                route=ASKED,
                failure=down,
                duration_ms=45.5,
                intent_id=intent,
                **first,
            ),
            story.event(
                EventType.MODEL_COMPLETED,
                later(300),
                route=LOCAL,
                usage=usage,
                response_id="x-1",
                duration_ms=200.25,
                first_chunk_ms=40.0,
                **attempt(2),
            ),
            ended(story, later(301), Outcome.COMPLETED, route=LOCAL),
        ]
    )


def built(story: ClosedStory) -> dict[str, ReadableSpan]:
    """Give a story's spans by name."""
    return {span.name: span for span in spans(story, RESOURCE)}


def ns(at: datetime) -> int:
    """Give nanoseconds since 1970, the slow and sure way."""
    whole = at - datetime(1970, 1, 1, tzinfo=UTC)
    return ((whole.days * 86_400 + whole.seconds) * 1_000_000 + whole.microseconds) * 1000


def parent_of(span: ReadableSpan) -> str | None:
    """Give a span's parent as evidence writes it."""
    return f"{span.parent.span_id:016x}" if span.parent else None


def test_a_story_is_one_trace_under_the_applications_span() -> None:
    """All spans are in the request's trace; the request hangs under the caller's span and all others under it."""
    found = built(answered())
    assert set(found) == {"waybill.request", "waybill.admission", "chat gpt-4o", "chat smollm2"}
    assert {f"{span.context.trace_id:032x}" for span in found.values()} == {TRACE}
    request = found.pop("waybill.request")
    assert (f"{request.context.span_id:016x}", parent_of(request)) == (ROOT, APP_SPAN)
    assert request.parent.is_remote
    assert {parent_of(span) for span in found.values()} == {ROOT}
    assert not any(span.parent.is_remote for span in found.values())
    assert f"{found['chat smollm2'].context.span_id:016x}" == span_id(INTAKE, "attempt-2")
    assert len({span.context.span_id for span in [request, *found.values()]}) == 4


def test_a_request_without_a_caller_begins_its_trace() -> None:
    """Where the application sent no trace context, the request is the trace's root."""
    story = closed([*admission(parent=None), ended(dispatch(), later(9), Outcome.COMPLETED)])
    assert built(story)["waybill.request"].parent is None


def test_times_are_those_of_the_events() -> None:
    """The request lasts from its first event to its last, a call for as long as its event says, to the microsecond."""
    found = built(answered())
    assert (found["waybill.request"].start_time, found["waybill.request"].end_time) == (ns(NOON), ns(later(301)))
    assert (found["waybill.admission"].start_time, found["waybill.admission"].end_time) == (ns(NOON), ns(later(3)))
    assert (found["chat gpt-4o"].start_time, found["chat gpt-4o"].end_time) == (ns(later(14.5)), ns(later(60)))
    assert (found["chat smollm2"].start_time, found["chat smollm2"].end_time) == (ns(later(99.75)), ns(later(300)))


@given(st.datetimes(min_value=datetime(2020, 1, 1), max_value=datetime(2090, 1, 1), timezones=st.just(UTC)))  # noqa: DTZ001
def test_no_moment_is_blurred(at: datetime) -> None:
    """Whatever the moment, its microseconds arrive unchanged."""
    event = dispatch().event(EventType.REQUEST_ENDED, at, outcome=Outcome.EXPIRED)
    assert built(closed([event]))["waybill.request"].start_time == ns(at)


def test_calls_carry_the_genai_attributes() -> None:
    """A call says who was asked for which model, what it cost, and how long the first token took."""
    call = built(answered())["chat smollm2"]
    assert call.kind is SpanKind.CLIENT
    assert call.status.status_code is StatusCode.UNSET
    assert dict(call.attributes) == {
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": "triton",
        "gen_ai.request.model": "smollm2",
        "gen_ai.request.stream": True,
        "gen_ai.response.id": "x-1",
        "gen_ai.response.model": "smollm2",
        "gen_ai.response.time_to_first_chunk": 0.04,
        "gen_ai.usage.input_tokens": 12,
        "gen_ai.usage.output_tokens": 30,
        "waybill.attempt": 2,
        "waybill.event_id": event_id(INTAKE, 6),
        "waybill.placement": "local",
        "waybill.region": "on-site",
        "waybill.route": "local-small",
    }


def test_a_failed_call_names_its_error() -> None:
    """A call that failed has status error and the failure's code as error.type, and leads to its intent."""
    call = built(answered())["chat gpt-4o"]
    assert (call.status.status_code, call.attributes["error.type"]) == (StatusCode.ERROR, "http_503")
    assert call.attributes["waybill.intent_id"] == event_id(INTAKE, 4)
    assert "gen_ai.usage.input_tokens" not in call.attributes
    assert built(answered())["waybill.request"].status.status_code is StatusCode.UNSET


def test_the_model_asked_for_and_the_model_that_answered_are_told_apart() -> None:
    """A provider that answers with another model's name does not change what was asked for."""
    story, intent = dispatch(), event_id(INTAKE, 4)
    about = attempt(1) | {"intent_id": intent}
    usage = Usage(input_tokens=1, output_tokens=1)
    call = built(
        closed(
            [
                *admission(),
                story.event(EventType.MODEL_INTENDED, later(5), route=ASKED, **about),
                story.event(EventType.MODEL_COMPLETED, later(9), route=ANSWERED, usage=usage, duration_ms=3, **about),
                ended(story, later(10), Outcome.COMPLETED, route=ANSWERED),
            ]
        )
    )["chat gpt-4o"]
    assert call.attributes["gen_ai.request.model"] == "gpt-4o"
    assert call.attributes["gen_ai.response.model"] == "gpt-4o-2026-08"
    assert call.attributes["gen_ai.request.stream"] is False


def test_a_call_whose_worker_was_lost_begins_with_its_intent() -> None:
    """Of a call that nobody saw the end of, the span reaches from the intent to the moment it was given up."""
    story, intent = dispatch(), event_id(INTAKE, 4)
    lost = Failure(code="worker_lost", message="the worker ended between the intent and the answer")
    found = built(
        closed(
            [
                *admission(),
                story.event(EventType.MODEL_INTENDED, later(5), route=ASKED, intent_id=intent, **attempt(1)),
                story.event(
                    EventType.MODEL_FAILED, later(9000), route=ASKED, attempt=1, intent_id=intent, failure=lost
                ),
                ended(story, later(9001), Outcome.UNKNOWN, failure=lost),
            ]
        )
    )
    call, request = found["chat gpt-4o"], found["waybill.request"]
    assert (call.start_time, call.end_time) == (ns(later(5)), ns(later(9000)))
    assert (request.status.status_code, request.status.description) == (StatusCode.ERROR, "unknown")
    assert request.attributes["error.type"] == "worker_lost"


def test_the_request_says_where_it_came_from_and_how_it_was_decided() -> None:
    """Messaging attributes lead to the record; classification, outcome and policy are metadata of the spans."""
    found = built(answered())
    assert found["waybill.request"].kind is SpanKind.CONSUMER
    assert dict(found["waybill.request"].attributes) == {
        "gen_ai.conversation.id": "s-9",
        "messaging.destination.name": "ai.requests",
        "messaging.destination.partition.id": "3",
        "messaging.kafka.offset": 41,
        "messaging.operation.name": "process",
        "messaging.operation.type": "process",
        "messaging.system": "kafka",
        "waybill.classification": "internal",
        "waybill.intake_id": INTAKE,
        "waybill.outcome": "completed",
        "waybill.request_id": "r-1",
        "waybill.site": "local",
        "waybill.task_type": "question",
        "waybill.tenant": "acme",
    }
    assert dict(found["waybill.admission"].attributes) == {
        "waybill.policy.decision": "allow",
        "waybill.policy.version": "v1",
        "waybill.route": "hosted-general",
    }


def test_a_rejection_is_one_span() -> None:
    """A record that could not be read gives a single span with its reason."""
    story = ToldStory(
        stage=Stage.ADMISSION,
        intake=INTAKE,
        sequence=0,
        span=ROOT,
        request_id="unreadable",
        trace_id=TRACE,
        site="local",
    )
    bad = Failure(code="not_json", message="the value is not JSON")
    (span,) = spans(
        closed([story.event(EventType.REQUEST_REJECTED, NOON, outcome=Outcome.REJECTED, failure=bad)]), RESOURCE
    )
    assert (span.name, span.status.status_code, span.attributes["error.type"]) == (
        "waybill.request", StatusCode.ERROR, "not_json",
    )  # fmt: skip


def test_no_message_reaches_a_span() -> None:
    """Attributes are a closed list of metadata: failure messages, findings, hashes and people are not among them."""
    said = " ".join(str(value) for span in spans(answered(), RESOURCE) for value in span.attributes.values())
    for secret in ("127.0.0.1", "answered 503", "email", "ada"):
        assert secret not in said
    names = {name for span in spans(answered(), RESOURCE) for name in span.attributes}
    assert not any(
        "message" in name.removeprefix("messaging.") or "prompt" in name or "content" in name for name in names
    )


class Collector:
    """An OpenTelemetry collector's HTTP end: takes protobuf, as the specification says."""

    def __init__(self) -> None:
        self.requests: list[ExportTraceServiceRequest] = []
        self.kinds: list[str] = []
        self.refuse = 0

    async def take(self, request: web.Request) -> web.Response:
        """Take one export."""
        if self.refuse:
            self.refuse -= 1
            return web.Response(status=503)
        self.kinds.append(request.headers["Content-Type"])
        self.requests.append(ExportTraceServiceRequest.FromString(await request.read()))
        return web.Response(body=b"", content_type="application/x-protobuf")


@pytest.fixture
async def collector() -> Any:
    """A collector that listens on a free port, and its address."""
    found = Collector()
    app = web.Application()
    app.router.add_post("/v1/traces", found.take)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    yield found, f"http://127.0.0.1:{runner.addresses[0][1]}/"
    await runner.cleanup()


async def test_a_collector_gets_the_spans_over_http(collector: Any) -> None:
    """What a collector decodes from the wire are the spans of the story, with site, parents, times and attributes."""
    found, address = collector
    exporter = Exporter.over_http(address, site="local")
    exporter.export(answered())
    await asyncio.to_thread(exporter.close)
    assert found.kinds == ["application/x-protobuf"]
    (resource_spans,) = found.requests[0].resource_spans
    resource = {each.key: each.value.string_value for each in resource_spans.resource.attributes}
    assert (resource["service.name"], resource["waybill.site"]) == ("waybill", "local")
    (scope,) = resource_spans.scope_spans
    assert scope.scope.name == "waybill"
    got = {span.name: span for span in scope.spans}
    want = built(answered())
    assert got.keys() == want.keys()
    for name, span in got.items():
        assert span.trace_id.hex() == TRACE
        assert span.parent_span_id.hex() == parent_of(want[name])
        assert (span.start_time_unix_nano, span.end_time_unix_nano) == (want[name].start_time, want[name].end_time)
        assert {each.key for each in span.attributes} == set(want[name].attributes)
    tokens = {each.key: each.value.int_value for each in got["chat smollm2"].attributes}
    assert tokens["gen_ai.usage.output_tokens"] == 30


async def test_a_collector_that_is_busy_is_asked_again(collector: Any) -> None:
    """A 503 loses nothing: the same spans arrive with the next try."""
    found, address = collector
    found.refuse = 1
    exporter = Exporter.over_http(address, site="local")
    exporter.export(answered())
    await asyncio.to_thread(exporter.close)
    assert sum(len(scope.spans) for each in found.requests for scope in each.resource_spans[0].scope_spans) == 4


async def test_export_never_waits_for_the_collector() -> None:
    """With nobody at the collector's address, handing over a hundred stories takes no time worth speaking of."""
    silent = await asyncio.start_server(lambda _reader, _writer: asyncio.sleep(0), "127.0.0.1", 0)
    exporter = Exporter.over_http(f"http://127.0.0.1:{silent.sockets[0].getsockname()[1]}", site="local")
    story, began = answered(), time.perf_counter()
    for _ in range(100):
        exporter.export(story)
    assert time.perf_counter() - began < 5
    silent.close()
    await asyncio.to_thread(exporter.close)
