"""The published contracts: what the code makes, right by the standards, and true of what travels."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator
from datetime import UTC, datetime
from importlib import resources
from itertools import product
from pathlib import Path
from typing import Any

import jsonschema_rs
import pytest
import yaml
from doc_pages import DOCS, ROOT, codes, read_table
from evidence_samples import stories
from pydantic import BaseModel
from requests_made import request

from evidence.errors import RecordError
from inference.routes import Endpoint, RouteConfig, fallbacks
from inference.routes import load as load_routes
from inference.rulebook import load as load_rulebook
from policy.contract import Waybill
from policy.engine import Held
from policy.labels import Label
from policy.labels import load as load_labels
from policy.questions import Facts
from streams import envelope
from streams.kafka import KafkaSettings
from streams.processors.cases import Case, Wish
from streams.processors.routing import decide, waybills
from streams.stages import admission, approvals, correlation, dispatch
from streams.topics import ALL
from waybill import contracts, schemas
from waybill.contract_asyncapi import TRAFFIC, document
from waybill.contract_odcs import contract
from waybill.settings import Settings

FOLDER = DOCS / "contracts"
LABELS = load_labels(ROOT / "config" / "policy" / "labels.yaml")
CLASSES = LABELS.classes
TABLE = load_routes(ROOT / "config" / "routes.yaml", LABELS)
HOSTED = [route.name for route in contracts.hosted(TABLE)]
TOPICS = {topic.name: topic for topic in ALL}
DRAFT_07 = "http://json-schema.org/draft-07/schema#"


@pytest.fixture(scope="module")
def topics() -> dict[str, Any]:
    """Give the document of the topics as the code makes it."""
    return document(KafkaSettings("127.0.0.1:9092"), partitions=4, replication=1, classes=CLASSES)


def odcs(name: str) -> dict[str, Any]:
    """Give a route's contract as it lies in the project."""
    return yaml.safe_load((FOLDER / f"{name}.odcs.yaml").read_text(encoding="utf-8"))


def standard() -> jsonschema_rs.Validator:
    """Give the standard's own JSON Schema."""
    text = resources.files("open_data_contract_standard").joinpath("schema.json").read_text(encoding="utf-8")
    return jsonschema_rs.validator_for(json.loads(text))


def parts(content: Any) -> Iterator[dict[str, Any]]:
    """Give every mapping inside a document."""
    if isinstance(content, dict):
        yield content
        for each in content.values():
            yield from parts(each)
    elif isinstance(content, list):
        for each in content:
            yield from parts(each)


def found(ref: str, whole: dict[str, Any]) -> Any:
    """Follow a reference inside a document."""
    place: Any = whole
    for part in ref.removeprefix("#/").split("/"):
        place = place[part]
    return place


def checker(schema: dict[str, Any], whole: dict[str, Any]) -> jsonschema_rs.Validator:
    """Give a validator of one schema of the document of the topics."""
    return jsonschema_rs.validator_for({"$schema": DRAFT_07, "allOf": [schema], "components": whole["components"]})


# --- both


def test_files_are_what_the_code_makes(monkeypatch):
    """No route, topic, record, header or label has changed without its published contract."""
    for name in [name for name in os.environ if name.startswith("WAYBILL_")]:
        monkeypatch.delenv(name)
    made = contracts.texts(TABLE, Settings(), CLASSES)
    assert contracts.check(FOLDER, made) == (), "run: waybill contracts export"


def test_made_twice_is_the_same(monkeypatch):
    """Nothing in a document depends on when or how often it is made."""
    for name in [name for name in os.environ if name.startswith("WAYBILL_")]:
        monkeypatch.delenv(name)
    assert contracts.texts(TABLE, Settings(), CLASSES) == contracts.texts(TABLE, Settings(), CLASSES)


# --- routes


@pytest.mark.parametrize("name", HOSTED)
def test_contract_is_valid_by_the_standard(name):
    """The standard's JSON Schema accepts each contract, and would not accept one that is damaged."""
    content, check = odcs(name), standard()
    assert [error.message for error in check.iter_errors(content)] == []
    del content["schema"][0]["properties"][0]["name"]
    assert not check.is_valid(content)


@pytest.mark.parametrize("name", HOSTED)
def test_contract_says_what_the_route_says(name):
    """Each field of the route is in its contract: retention, time limit, region, purposes, fallbacks, answer rules."""
    content, route = odcs(name), TABLE.by_name[name]
    levels = {each["property"]: (each["value"], each["unit"]) for each in content["slaProperties"]}
    assert levels == {"retention": (route.retention_days, "d"), "latency": (route.timeout_s, "s")}
    told = {each["property"]: each["value"] for each in content["customProperties"]}
    assert told["region"] == route.region
    assert told["fallback"] == [other.name for other in fallbacks(route, TABLE)]
    assert told["purposes"] == list(route.purposes)
    assert told["answer"]["forbid"] == list(route.answer.forbid)
    elsewhere = {"name", "contract", "timeout_s", "retention_days"}
    assert len(told) == len(RouteConfig.model_fields.keys() - elsewhere) + 1, "all fields and the policy's name"


def walked(properties: list[dict[str, Any]], start: str = "") -> dict[str, dict[str, Any]]:
    """Give the properties of an object by their paths."""
    all_: dict[str, dict[str, Any]] = {}
    for each in properties:
        place = f"{start}{each['name']}"
        all_[place] = each
        inner = each.get("properties") or each.get("items", {}).get("properties", [])
        all_ |= walked(inner, f"{place}.")
    return all_


def of_record(model: type[BaseModel], start: str = "") -> set[str]:
    """Give the paths of a record's fields."""
    names: set[str] = set()
    for name, field in model.model_fields.items():
        place = f"{start}{field.alias or name}"
        names.add(place)
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            names |= of_record(field.annotation, f"{place}.")
    return names


@pytest.mark.parametrize("name", HOSTED)
def test_contract_has_every_field_of_the_waybill(name):
    """What travels with a crossing is described whole, each field with its class and its meaning."""
    objects = {each["name"]: walked(each["properties"]) for each in odcs(name)["schema"]}
    assert objects["waybill"].keys() == of_record(Waybill)
    for properties in objects.values():
        assert all(each["classification"] in CLASSES and each["description"] for each in properties.values())


@pytest.mark.parametrize("name", HOSTED)
def test_text_has_the_highest_class_that_may_cross(name):
    """What a user wrote is as sensitive as the route allows, a number as little."""
    route = TABLE.by_name[name]
    taken = sorted(map(str, route.classes), key=CLASSES.index)
    objects = {each["name"]: walked(each["properties"]) for each in odcs(name)["schema"]}
    assert objects["call"]["messages.content"]["classification"] == taken[-1]
    assert objects["answer"]["text"]["classification"] == taken[-1]
    assert objects["call"]["max_tokens"]["classification"] == taken[0]


@pytest.mark.parametrize("name", HOSTED)
def test_contract_allows_only_this_routes_terms(name):
    """Region, route and retention of a waybill are bounded by the contract."""
    route = TABLE.by_name[name]
    waybill = walked(next(each for each in odcs(name)["schema"] if each["name"] == "waybill")["properties"])
    values = {
        place: each["quality"][0]["arguments"]["validValues"] for place, each in waybill.items() if "quality" in each
    }
    assert values["waybillVersion"] == [route.contract]
    assert values["destination.region"] == [route.region]
    assert values["modelRoute"] == [f"{route.name}/{route.model}"]
    assert values["dataClassification"] == sorted(map(str, route.classes), key=CLASSES.index)
    assert waybill["retention.destinationDays"]["logicalTypeOptions"]["maximum"] == route.retention_days


def breaks(properties: list[dict[str, Any]], record: dict[str, Any], place: str = "") -> Iterator[str]:
    """Name each element of a record that a contract does not allow."""
    known = {each["name"]: each for each in properties}
    yield from (f"{place}{name} is unknown" for name in record.keys() - known.keys())
    yield from (f"{place}{name} is missing" for name, each in known.items() if each["required"] and name not in record)
    for name in record.keys() & known.keys():
        yield from wrong(known[name], record[name], f"{place}{name}")


def wrong(element: dict[str, Any], value: Any, place: str) -> Iterator[str]:
    """Name each part of a value that an element of a contract does not allow."""
    if element["logicalType"] == "object":
        yield from breaks(element["properties"], value, f"{place}.")
    elif element["logicalType"] == "array":
        for each in value:
            yield from wrong(element["items"], each, place)
    else:
        if any(value not in rule["arguments"]["validValues"] for rule in element.get("quality", ())):
            yield f"{place} is {value}"
        if value > element.get("logicalTypeOptions", {}).get("maximum", value):
            yield f"{place} is too much"


def crossings() -> Iterator[tuple[str, Waybill]]:
    """Give the waybills that the sample configuration writes, for every purpose, task and class that it knows."""
    endpoints = {name: Endpoint(name, name, "loopback") for name in ("hosted", "local")}
    book = load_rulebook(ROOT / "config" / "policy", ROOT / "config" / "routes.yaml", endpoints)
    words = LABELS.config
    for purpose, task, cls in product(words.purposes or (), words.task_types or (), CLASSES):
        facts = Facts(
            actor="user:ada", kind="user", tenant="acme", roles=frozenset(), identity="jwt", action="model-call",
            purpose=purpose, task=task, risk=0, basis="consent", consent="granted",
        )  # fmt: skip
        case = Case(facts, Wish(), Held(Label(cls)))
        made = waybills("intake", case, decide(case, book), "consent", ("none",), book)
        yield from made.items()


def test_every_waybill_is_within_the_contract_of_its_route():
    """What is decided under the sample policies agrees with what is published; another region does not."""
    seen = set()
    for name, waybill in crossings():
        seen.add(name)
        properties = next(each for each in odcs(name)["schema"] if each["name"] == "waybill")["properties"]
        record = json.loads(waybill.to_json())
        assert list(breaks(properties, record)) == []
        record["destination"]["region"] = "elsewhere"
        record["retention"]["destinationDays"] = 400
        assert sorted(breaks(properties, record)) == [
            "destination.region is elsewhere",
            "retention.destinationDays is too much",
        ]
    assert seen == set(HOSTED)


def test_a_credential_is_of_the_highest_class():
    """What authorises a call is more sensitive than anything that may cross."""
    call = walked(next(each for each in odcs(HOSTED[0])["schema"] if each["name"] == "call")["properties"])
    assert call["authorization"]["classification"] == CLASSES[-1]


def test_a_local_route_has_no_contract():
    """Nothing crosses there."""
    with pytest.raises(ValueError, match="local-small is local"):
        contract(TABLE.by_name["local-small"], TABLE, CLASSES)


# --- topics


def test_every_topic_is_a_channel_as_it_is_made(topics):
    """Name, retention and further settings are those with which the topic is created."""
    channels = {each["address"]: each["bindings"]["kafka"] for each in topics["channels"].values()}
    assert channels.keys() == TOPICS.keys() == TRAFFIC.keys()
    for name, binding in channels.items():
        told = {key: str(value) for key, value in binding["topicConfiguration"].items() if key != "cleanup.policy"}
        told["cleanup.policy"] = ",".join(binding["topicConfiguration"]["cleanup.policy"])
        assert told == TOPICS[name].settings()


def test_every_reference_leads_somewhere(topics):
    """Each `$ref` points into the document, and nothing stands beside it that readers would ignore."""
    refs = [each for each in parts(topics) if "$ref" in each]
    assert len(refs) > 100
    for each in refs:
        assert list(each) == ["$ref"]
        assert found(each["$ref"], topics)
    used = {each["$ref"] for each in refs}
    for kind in ("messages", "schemas"):
        assert all(f"#/components/{kind}/{name}" in used for name in topics["components"][kind])


def test_operations_speak_of_messages_of_their_channel(topics):
    """An operation sends or receives what its channel carries."""
    for made in topics["operations"].values():
        assert made["action"] in {"send", "receive"}
        carried = found(made["channel"]["$ref"], topics)["messages"]
        for each in made["messages"]:
            start, _, name = each["$ref"].rpartition("/messages/")
            assert start == made["channel"]["$ref"]
            assert name in carried


def test_bindings_have_their_version(topics):
    """Every Kafka binding is of version 0.5.0."""
    bindings = [each["bindings"]["kafka"] for each in parts(topics) if "bindings" in each]
    assert len(bindings) > len(ALL)
    assert {each["bindingVersion"] for each in bindings} == {"0.5.0"}


def test_consumer_groups_are_those_of_the_stages(topics):
    """The groups in the document are those that the stages join, Faust's own included."""
    kafka = KafkaSettings("127.0.0.1:9092")
    groups = {each["groupId"]["enum"][0] for each in parts(topics) if "groupId" in each}
    joined = {
        kafka.group(name) for name in (admission.NAME, approvals.NAME, dispatch.NAME, correlation.NAME, "sink")
    } | {"waybill"}
    assert groups == joined


def test_the_page_of_topics_tells_the_same():
    """Types, schemas and writers in the page's table are those of the document."""
    told = set()
    for row in read_table("topics.md", "## Records"):
        for name in codes([row]):
            told.add(name)
            traffic = TRAFFIC[name]
            assert f"`{traffic.ce_type}`" in row[1]
            linked = re.search(r"schemas/([a-z-]+)\.json", row[2])
            if linked:
                assert schemas.SCHEMAS[linked[1]] in traffic.messages.values()
            for stage in ("admission", "dispatch", "sink", "approvals"):
                assert (stage in row[4]) == (stage in traffic.writers), (name, stage)
            assert ("people" in row[4]) == ("operator" in traffic.writers), name
            assert ("applications" in row[4]) == traffic.by_applications
    assert told == TOPICS.keys()


def test_request_headers_are_those_that_are_read(topics):
    """What the document asks of a request is what admission asks, header by header, and it knows no other."""
    headers = topics["components"]["messages"]["request"]["headers"]
    assert headers["properties"].keys() == envelope._READ | {"traceparent", "tracestate"}
    sample = {"content-type": "application/json", "ce_specversion": "1.0", "ce_type": envelope.REQUEST_TYPE,
              "ce_id": "1", "ce_source": "/test"}  # fmt: skip
    check = checker(headers, topics)
    assert check.is_valid(sample)
    assert envelope.read([(name, value.encode()) for name, value in sample.items()]).event_id == "1"
    assert headers["required"] == list(sample)
    for name in sample:
        rest = {other: value for other, value in sample.items() if other != name}
        assert not check.is_valid(rest)
        with pytest.raises(RecordError):
            envelope.read([(other, value.encode()) for other, value in rest.items()])


@pytest.mark.parametrize("name", sorted({name for each in TRAFFIC.values() for name in each.messages} - {"request"}))
def test_headers_that_are_written_are_valid(topics, name):
    """The headers that the pipeline writes are those of the document, each with its type and no other type."""
    traffic = next(each for each in TRAFFIC.values() if name in each.messages)
    hop = envelope.Hop(source="/waybill/test/admission", subject="r", traceparent=f"00-{'a' * 32}-{'b' * 16}-01")
    written = hop.headers(traffic.ce_type, "id", datetime(2026, 3, 1, tzinfo=UTC))
    content = {key: value.decode() for key, value in written}
    check = checker(topics["components"]["messages"][name]["headers"], topics)
    assert [error.message for error in check.iter_errors(content)] == []
    assert not check.is_valid({**content, "ce_type": "io.waybill.other.v1"})
    assert not check.is_valid({key: value for key, value in content.items() if key != "ce_subject"})


def test_records_are_valid_by_the_document(topics):
    """A request and stories of evidence are what the document says; an unknown or a missing field is not."""
    schema = {name: each["payload"] for name, each in topics["components"]["messages"].items()}
    check = checker(schema["request"], topics)
    sample = request("r-1")
    assert [error.message for error in check.iter_errors(sample)] == []
    assert not check.is_valid({**sample, "more": 1})
    assert not check.is_valid({key: value for key, value in sample.items() if key != "purpose"})
    check = checker(schema["evidenceEvent"], topics)
    for each in stories(10):
        assert [error.message for error in check.iter_errors(json.loads(each.to_json()))] == []


def test_schemas_are_valid_draft_07(topics):
    """Every schema is one that AsyncAPI's own form, a superset of JSON Schema draft 07, can express."""
    for schema in topics["components"]["schemas"].values():
        jsonschema_rs.meta.validate({"$schema": DRAFT_07, **schema})
        words = {word for each in parts(schema) for word in each}
        assert not words & {"$defs", "prefixItems", "unevaluatedProperties", "dependentRequired", "$dynamicRef"}


# --- the page


def test_the_page_shows_what_is_there():
    """The YAML on the page stands so in the contract of a route, and the page leads to it."""
    page = (DOCS / "contracts.md").read_text(encoding="utf-8")
    block = re.search(r"```yaml\n(.*?)```", page, flags=re.DOTALL)
    assert block
    assert block[1] in (FOLDER / "hosted-general.odcs.yaml").read_text(encoding="utf-8")
    assert Path(ROOT / "docs" / "contracts").is_dir()
