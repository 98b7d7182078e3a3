"""The topics as an AsyncAPI 3.0 document with the Kafka binding 0.5.0: what is on them, who reads and who writes it.

Topics, retention, records and headers come from the code that uses them, addresses and sizes from the settings. What is
written here is only what no other module says in one place: which stage reads and writes what, and under which key.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

from pydantic import BaseModel

from evidence.records import EvidenceEvent
from streams import envelope, topics
from streams.app import APP
from streams.approvals import ApprovalClosed, ApprovalRequest, ApprovalVerdict
from streams.consent import ConsentEntry
from streams.envelope import APPROVAL_TYPE, CONSENT_TYPE
from streams.kafka import KafkaSettings
from streams.request import CONTRACT_MAJOR, RuntimeRequest
from streams.response import DeadLetter, Response
from streams.story import TRACEPARENT
from streams.topics import Topic
from streams.work import LedgerEntry, Work
from waybill.contract_forms import Content, schemas

ASYNCAPI: Final = "3.0.0"
"""Version of the specification."""

BINDING: Final = "0.5.0"
"""Version of the Kafka binding."""

FILE: Final = "asyncapi.yaml"
"""Name of the document's file."""

_MANY: Final = 3
"""Copies from which on two must have a record before it counts as written, as `streams.kafka` makes topics."""

_BOUND: Final = {"bindingVersion": BINDING}


@dataclass(frozen=True, slots=True)
class Traffic:
    """What travels on a topic."""

    messages: Mapping[str, type[BaseModel]]
    """Its records, by the names of their messages."""

    ce_type: str
    """Their CloudEvents type."""

    key: str
    """What the key of a record is."""

    writers: tuple[str, ...] = ()
    """Who of this application writes them."""

    groups: tuple[str, ...] = ()
    """Stages that share them out among workers, each in a consumer group of its name."""

    followers: tuple[str, ...] = ()
    """Parts that read all of them, without a group."""

    by_applications: bool = False
    """Whether other applications write them: then no header is taken for granted."""


TRAFFIC: Final[dict[str, Traffic]] = {
    topics.REQUESTS.name: Traffic(
        {"request": RuntimeRequest},
        envelope.REQUEST_TYPE,
        "Any; the request id is a good one.",
        groups=("admission",),
        by_applications=True,
    ),
    topics.WORK_LOCAL.name: Traffic(
        {"work": Work},
        envelope.WORK_TYPE,
        "The idempotency scope.",
        writers=("admission", "approvals"),
        groups=("dispatch",),
    ),
    topics.WORK_HOSTED.name: Traffic(
        {"work": Work},
        envelope.WORK_TYPE,
        "The idempotency scope.",
        writers=("admission", "approvals"),
        groups=("dispatch",),
    ),
    topics.RESPONSES.name: Traffic(
        {"response": Response},
        envelope.RESPONSE_TYPE,
        "The request id.",
        writers=("admission", "dispatch", "approvals"),
    ),
    topics.EVIDENCE.name: Traffic(
        {"evidenceEvent": EvidenceEvent},
        envelope.EVIDENCE_TYPE,
        "The request id.",
        writers=("admission", "dispatch", "approvals", "operator"),
        groups=("sink", "correlation"),
    ),
    topics.DEADLETTER.name: Traffic(
        {"deadLetter": DeadLetter},
        envelope.DEADLETTER_TYPE,
        "The request id, or else the intake id; from stages after admission, the bad record's own key.",
        writers=("admission", "dispatch", "approvals", "sink"),
        groups=(APP,),
    ),
    topics.LEDGER.name: Traffic(
        {"ledgerEntry": LedgerEntry},
        envelope.LEDGER_TYPE,
        "The idempotency scope.",
        writers=("dispatch",),
        followers=("dispatch",),
    ),
    topics.CONSENT.name: Traffic(
        {"consentEntry": ConsentEntry},
        CONSENT_TYPE,
        "`<tenant>/<subject>/<purpose>`, each part percent-encoded; a record without a value forgets the key.",
        writers=("operator",),
        followers=("worker",),
    ),
    topics.APPROVALS.name: Traffic(
        {"approvalRequest": ApprovalRequest, "approvalVerdict": ApprovalVerdict, "approvalClosed": ApprovalClosed},
        APPROVAL_TYPE,
        "The intake id.",
        writers=("admission", "operator", "approvals"),
        groups=("approvals",),
    ),
}
"""What travels on each topic of `streams.topics.ALL`."""

_HEADERS: Final[dict[str, Content]] = {
    "content-type": {"const": envelope.JSON, "description": "What the value is."},
    "ce_specversion": {"const": "1.0", "description": "Version of CloudEvents."},
    "ce_type": {"description": "What kind of record it is."},
    "ce_id": {"minLength": 1, "description": "The writer's id of this record; the same where it is written again."},
    "ce_source": {"minLength": 1, "description": "Who wrote it."},
    "ce_time": {"format": "date-time", "description": "When it was written."},
    "ce_subject": {"description": "The request that it is about."},
    "ce_dataclassification": {"description": "The label that the request carries, where given here too."},
    "traceparent": {"pattern": f"^{TRACEPARENT.pattern}$", "description": "W3C trace context."},
    "tracestate": {"description": "The vendor part of the trace context."},
}
"""Headers in the order in which they are shown."""

_ASKED: Final = ("content-type", "ce_specversion", "ce_type", "ce_id", "ce_source")
"""Headers without which a request is refused."""

_MAY: Final = ("ce_dataclassification", "traceparent", "tracestate")
"""Headers that a request may have besides."""


def document(
    kafka: KafkaSettings,
    *,
    partitions: int,
    replication: int,
    classes: Sequence[str],
    served: Sequence[Topic] = topics.ALL,
) -> Content:
    """Write the document.

    Args:
        kafka: where the broker is, and what stands before the names of topics and groups.
        partitions: partitions of each topic.
        replication: copies of each partition.
        classes: all classes of data, the least sensitive first.
        served: the topics.
    """
    messages = {name: traffic for topic in served for traffic in [TRAFFIC[topic.name]] for name in traffic.messages}
    owners = {name: traffic.messages[name] for name, traffic in messages.items()}
    payloads, shared = schemas(owners, "#/components/schemas/{model}")
    named = {_schema_name(name, payloads): name for name in owners}
    components = {**shared, **{key: payloads[name] for key, name in named.items() if key not in shared}}
    key_of = {name: key for key, name in named.items()}
    content: Content = {
        "asyncapi": ASYNCAPI,
        "id": "urn:waybill:topics",
        "info": {
            "title": "Waybill topics",
            "version": f"{CONTRACT_MAJOR}.0.0",
            "description": "Requests to AI models, what becomes of them, and the evidence of it. Values are JSON, "
            "headers are CloudEvents 1.0 in binary mode. Read with isolation level read_committed.",
            "license": {"name": "Apache-2.0"},
        },
        "defaultContentType": envelope.JSON,
        "servers": _servers(kafka),
        "channels": {
            _channel(topic): _channel_content(topic, kafka, partitions=partitions, replication=replication)
            for topic in served
        },
        "operations": {name: made for topic in served for name, made in _operations(topic, kafka)},
        "components": {
            "messages": {
                name: _message(name, traffic, key_of[name], components, classes) for name, traffic in messages.items()
            },
            "schemas": {name: _draft07(components[name]) for name in sorted(components)},
        },
    }
    if kafka.security_protocol.startswith("SASL"):
        content["components"]["securitySchemes"] = {"sasl": {"type": _mechanism(kafka.sasl_mechanism)}}
    return content


def _servers(kafka: KafkaSettings) -> Content:
    hosts = [host.strip() for host in kafka.bootstrap.split(",")]
    names = ["broker", *(f"broker{number}" for number in range(2, len(hosts) + 1))]
    rest: Content = {"protocol": "kafka-secure" if kafka.security_protocol.endswith("SSL") else "kafka"}
    if kafka.security_protocol.startswith("SASL"):
        rest["security"] = [{"$ref": "#/components/securitySchemes/sasl"}]
    return {
        name: {"host": host, **rest, "bindings": {"kafka": _BOUND}} for name, host in zip(names, hosts, strict=True)
    }


def _mechanism(name: str) -> str:
    return {"PLAIN": "plain", "SCRAM-SHA-256": "scramSha256", "SCRAM-SHA-512": "scramSha512"}[name]


def _channel(topic: Topic) -> str:
    """Name a topic's channel: `ai.work.local` is `workLocal`."""
    first, *rest = re.split(r"[^A-Za-z0-9]+", topic.name.removeprefix("ai."))
    return first + "".join(part.capitalize() for part in rest)


def _channel_content(topic: Topic, kafka: KafkaSettings, *, partitions: int, replication: int) -> Content:
    settings = topic.settings()
    if replication >= _MANY:
        settings["min.insync.replicas"] = "2"
    values: Content = {name: int(text) if text.lstrip("-").isdigit() else text for name, text in settings.items()}
    values["cleanup.policy"] = settings["cleanup.policy"].split(",")
    address = kafka.name(topic)
    return {
        "address": address,
        "title": address,
        "description": topic.about,
        "messages": {name: {"$ref": f"#/components/messages/{name}"} for name in TRAFFIC[topic.name].messages},
        "bindings": {
            "kafka": {
                "topic": address,
                "partitions": partitions,
                "replicas": replication,
                "topicConfiguration": values,
                **_BOUND,
            }
        },
    }


def _operations(topic: Topic, kafka: KafkaSettings) -> Iterator[tuple[str, Content]]:
    traffic, channel = TRAFFIC[topic.name], _channel(topic)
    tail = channel[0].upper() + channel[1:]
    refs = [{"$ref": f"#/channels/{channel}/messages/{name}"} for name in traffic.messages]
    base = {"channel": {"$ref": f"#/channels/{channel}"}, "messages": refs}
    for stage in traffic.groups:
        group = kafka.prefix + APP if stage == APP else kafka.group(stage)
        binding = {"kafka": {"groupId": {"type": "string", "enum": [group]}, **_BOUND}}
        told = f"{stage} reads {kafka.name(topic)}; workers share its partitions."
        yield f"{stage}Receives{tail}", {"action": "receive", "summary": told, **base, "bindings": binding}
    for stage in traffic.followers:
        told = f"{stage} reads all of {kafka.name(topic)} that it needs, without a consumer group."
        yield f"{stage}Follows{tail}", {"action": "receive", "summary": told, **base, "bindings": {"kafka": _BOUND}}
    for stage in traffic.writers:
        told = f"{stage} writes {kafka.name(topic)}."
        yield f"{stage}Sends{tail}", {"action": "send", "summary": told, **base, "bindings": {"kafka": _BOUND}}


def _message(
    name: str, traffic: Traffic, schema: str, components: Mapping[str, Content], classes: Sequence[str]
) -> Content:
    return {
        "name": name,
        "title": schema,
        "summary": " ".join(components[schema].get("description", "").split()),
        "contentType": envelope.JSON,
        "headers": _headers(traffic, classes),
        "payload": {"$ref": f"#/components/schemas/{schema}"},
        "bindings": {"kafka": {"key": {"type": "string", "description": traffic.key}, **_BOUND}},
    }


def _headers(traffic: Traffic, classes: Sequence[str]) -> Content:
    required = _ASKED if traffic.by_applications else _written()
    names = {*required, *(_MAY if traffic.by_applications else ("tracestate",))}
    special: dict[str, Content] = {
        "ce_type": {"const": traffic.ce_type},
        "ce_dataclassification": {"enum": list(classes)},
    }
    known = {name: {"type": "string", **special.get(name, {}), **about} for name, about in _HEADERS.items()}
    return {
        "type": "object",
        "required": [name for name in _HEADERS if name in required],
        "properties": {name: known[name] for name in _HEADERS if name in names},
    }


def _written() -> frozenset[str]:
    """Give the headers that every record of the pipeline has: asked of the code that writes them."""
    hop = envelope.Hop(source="-", subject="-", traceparent="-")
    return frozenset(name for name, _ in hop.headers("-", "-", datetime(2000, 1, 1, tzinfo=UTC)))


def _schema_name(name: str, payloads: Mapping[str, Content]) -> str:
    """Give the name of a message's schema among the components."""
    ref: str = payloads[name].get("$ref", "")
    return ref.rpartition("/")[2] or str(payloads[name].get("title", name))


def _draft07(schema: Any) -> Any:
    """Give a schema as AsyncAPI's own form reads it: what stands beside a reference would be ignored there."""
    if isinstance(schema, list):
        return [_draft07(each) for each in schema]
    if not isinstance(schema, dict):
        return schema
    made = {name: _draft07(each) for name, each in schema.items()}
    if "$ref" in made and len(made) > 1:
        ref = made.pop("$ref")
        made = {"allOf": [{"$ref": ref}], **made}
    return made
