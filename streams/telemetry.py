"""Spans of a closed story, with OpenTelemetry's GenAI attributes, built from evidence and exported over OTLP.

The spans are made from the events and not beside them, so that traces and evidence cannot disagree. They carry metadata
only: no prompt and no answer is in an event, so none can be in a span.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan, SpanProcessor
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.trace import SpanContext, SpanKind, Status, StatusCode, TraceFlags

from evidence.moments import shifted
from streams.processors.correlation import ClosedStory, Event, parse_time
from streams.story import span_id

_SCOPE: Final = InstrumentationScope("waybill")
_GOOD: Final = frozenset({"completed", "refused", "duplicate"})
_EXPORT_S: Final = 3.0
_LONGEST_MS: Final = 86_400_000.0 * 36_500
"""The longest call that is believed: a hundred years."""
"""How long one export may try; also how long a stopping worker waits for a collector that is gone."""

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


def spans(story: ClosedStory, resource: Resource) -> Iterator[ReadableSpan]:
    """Give the spans of a story: the request, its admission, and each call to a model."""
    first, last = story.events[0], story.events[-1]
    intake = first["intakeId"]
    root = span_id(intake, "request")
    yield _span(
        "waybill.operator" if first["stage"] == "operator" else "waybill.request", first, root,
        first.get("parentSpanId") if first["spanId"] == root else None, remote=True,
        kind=SpanKind.CONSUMER, start=parse_time(first["occurredAtUtc"]), end=parse_time(last["occurredAtUtc"]),
        attributes=_request_attributes(story), resource=resource,
        failed=None if story.outcome in _GOOD else story.outcome,
    )  # fmt: skip
    admitted = [event for event in story.events if event["stage"] == "admission"]
    if len(admitted) > 1:
        yield _span(
            "waybill.admission", first, span_id(intake, "admission"), root, kind=SpanKind.INTERNAL,
            start=parse_time(admitted[0]["occurredAtUtc"]), end=parse_time(admitted[-1]["occurredAtUtc"]),
            attributes=_policy_attributes(admitted), resource=resource, failed=None,
        )  # fmt: skip
    for event in story.events:
        if event["eventType"] in {"model.completed", "model.failed"}:
            yield _call(event, story, root, resource)


def _call(event: Event, story: ClosedStory, root: str, resource: Resource) -> ReadableSpan:
    route, usage, failure = event["route"], event.get("usage"), event.get("failure")
    wanted = _asked_model(event, story)
    attributes: dict[str, Any] = {
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": route["provider"],
        "gen_ai.request.model": wanted,
        "gen_ai.request.stream": event.get("firstChunkMs") is not None,
        "waybill.route": route["name"],
        "waybill.placement": route["placement"],
        "waybill.region": route["region"],
        "waybill.attempt": event["attempt"],
        "waybill.event_id": event["eventId"],
    }
    if usage:
        attributes["gen_ai.response.model"] = route["model"]
        attributes["gen_ai.usage.input_tokens"] = usage["inputTokens"]
        attributes["gen_ai.usage.output_tokens"] = usage["outputTokens"]
    if event.get("responseId"):
        attributes["gen_ai.response.id"] = event["responseId"]
    if event.get("firstChunkMs") is not None:
        attributes["gen_ai.response.time_to_first_chunk"] = event["firstChunkMs"] / 1000
    if event.get("intentId"):
        attributes["waybill.intent_id"] = event["intentId"]
    if failure:
        attributes["error.type"] = failure["code"]
    end = parse_time(event["occurredAtUtc"])
    return _span(
        f"chat {wanted}", event, event["spanId"], event.get("parentSpanId") or root, kind=SpanKind.CLIENT,
        start=_call_began(event, story, end), end=end, attributes=attributes, resource=resource,
        failed=failure["code"] if failure else None,
    )  # fmt: skip


def _intent(event: Event, story: ClosedStory) -> Event | None:
    """Give the intent of a hosted call."""
    intent = event.get("intentId")
    return next((each for each in story.events if intent and each["eventId"] == intent), None)


def _asked_model(event: Event, story: ClosedStory) -> str:
    """Give the model that was asked for: an answer may name another one than the route does."""
    intent = _intent(event, story)
    if intent is not None:
        return str(intent["route"]["model"])
    selected = (each["route"] for each in story.events if each["eventType"] == "route.selected")
    same = (route["model"] for route in selected if route["name"] == event["route"]["name"])
    return str(next(same, event["route"]["model"]))


def _call_began(event: Event, story: ClosedStory, end: datetime) -> datetime:
    """Give when a call began; of a call whose worker was lost, only the intent tells."""
    if "durationMs" in event:
        return shifted(end, timedelta(milliseconds=-min(event["durationMs"], _LONGEST_MS)))
    intent = _intent(event, story)
    return end if intent is None else parse_time(intent["occurredAtUtc"])


def _request_attributes(story: ClosedStory) -> dict[str, Any]:
    first, last = story.events[0], story.events[-1]
    attributes: dict[str, Any] = {
        "waybill.request_id": first["requestId"],
        "waybill.intake_id": first["intakeId"],
        "waybill.outcome": story.outcome,
        "waybill.site": first["site"],
    }
    if last.get("failure"):
        attributes["error.type"] = last["failure"]["code"]
    source = first.get("source")
    if source:
        attributes["messaging.system"] = "kafka"
        attributes["messaging.operation.name"] = "process"
        attributes["messaging.operation.type"] = "process"
        attributes["messaging.destination.name"] = source["topic"]
        attributes["messaging.destination.partition.id"] = str(source["partition"])
        attributes["messaging.kafka.offset"] = source["offset"]
    if first.get("sessionRef"):
        attributes["gen_ai.conversation.id"] = first["sessionRef"]
    for name, key in (("waybill.tenant", "tenantRef"), ("waybill.task_type", "taskType")):
        if first.get(key):
            attributes[name] = first[key]
    if last.get("classification"):
        attributes["waybill.classification"] = last["classification"]["effective"]
    return attributes


def _policy_attributes(events: list[Event]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for event in events:
        if "policy" in event:
            found["waybill.policy.decision"] = event["policy"]["decision"]
            found["waybill.policy.version"] = event["policy"]["policyVersion"]
        if "route" in event:
            found["waybill.route"] = event["route"]["name"]
    return found


def _span(
    name: str,
    event: Event,
    span: str,
    parent: str | None,
    *,
    kind: SpanKind,
    start: datetime,
    end: datetime,
    attributes: dict[str, Any],
    resource: Resource,
    failed: str | None,
    remote: bool = False,
) -> ReadableSpan:
    trace = int(event["traceId"], 16)
    return ReadableSpan(
        name=name,
        context=_context(trace, span),
        parent=_context(trace, parent, remote=remote) if parent else None,
        resource=resource,
        attributes=attributes,
        kind=kind,
        status=Status(StatusCode.ERROR, failed) if failed else Status(StatusCode.UNSET),
        start_time=_nanoseconds(start),
        end_time=_nanoseconds(end),
        instrumentation_scope=_SCOPE,
    )


def _context(trace: int, span: str, *, remote: bool = False) -> SpanContext:
    return SpanContext(trace, int(span, 16), is_remote=remote, trace_flags=TraceFlags(TraceFlags.SAMPLED))


def _nanoseconds(at: datetime) -> int:
    """Return nanoseconds since 1970, exactly: a float of that size no longer holds microseconds.

    OpenTelemetry counts them from 0 in 64 bits: up to the year 2262 here.
    """
    return min(max((at - _EPOCH) // timedelta(microseconds=1) * 1000, 0), 2**63 - 1)


class Exporter:
    """Hands the spans of closed stories to a batch processor; a slow collector never holds up evidence."""

    def __init__(self, exporter: SpanExporter, *, site: str) -> None:
        self._resource = Resource.create({"service.name": "waybill", "waybill.site": site})
        self._processor: SpanProcessor = BatchSpanProcessor(exporter)

    @classmethod
    def over_http(cls, endpoint: str, *, site: str) -> Exporter:
        """Export to a collector's base URL."""
        return cls(OTLPSpanExporter(endpoint=endpoint.rstrip("/") + "/v1/traces", timeout=_EXPORT_S), site=site)

    def export(self, story: ClosedStory) -> None:
        """Queue a story's spans."""
        for span in spans(story, self._resource):
            self._processor.on_end(span)

    def close(self) -> None:
        """Send what is queued, and stop; blocks for seconds where the collector is slow, so call it in a thread."""
        self._processor.shutdown()
