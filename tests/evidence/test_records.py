"""Records: closed, frozen, camelCase outside, UTC, and hashed in one form."""

from __future__ import annotations

import inspect
import typing
from datetime import UTC, datetime, timedelta, timezone
from types import UnionType

import orjson
import pytest
from evidence_samples import stories
from pydantic import BaseModel, ValidationError

from evidence import records
from evidence.canonical import canonical_json, sha256_hex
from evidence.records import EvidenceEvent, Failure, Outcome, Position, Record, Usage
from policy import contract
from policy.contract import Destination, RetentionTerms, Waybill
from streams import request, response, work

EVENTS = list(stories(12, seed=3))
ALL = sorted(
    {
        found
        for module in (records, contract, request, response, work)
        for _, found in inspect.getmembers(module, inspect.isclass)
        if issubclass(found, Record)
    },
    key=lambda found: found.__name__,
)


@pytest.mark.parametrize("record", ALL, ids=lambda found: found.__name__)
def test_each_record_is_closed_frozen_and_told(record):
    """Every record refuses unknown fields, cannot be changed, and has a docstring under each field."""
    assert record.model_config["extra"] == "forbid"
    assert record.model_config["frozen"] is True
    assert record.model_config["allow_inf_nan"] is False
    assert record.__doc__
    source = inspect.getsource(record)
    for name, field in record.model_fields.items():
        if name in record.__annotations__:
            assert f"\n    {name}: " in source
            assert '"""' in source.split(f"\n    {name}: ", 1)[1].split("\n    ", 2)[1] or field.description


def types_in(annotation: typing.Any) -> set[typing.Any]:
    """Every plain type in an annotation."""
    parts = typing.get_args(annotation)
    if typing.get_origin(annotation) is typing.Literal:
        return {type(part) for part in parts}
    if parts and (typing.get_origin(annotation) is not None or isinstance(annotation, UnionType)):
        return {found for part in parts if part is not Ellipsis for found in types_in(part)} | {
            typing.get_origin(annotation)
        }
    return {annotation}


def walk(model: type[BaseModel]) -> set[typing.Any]:
    """Every type in a model's fields and in those of the models in them."""
    found: set[typing.Any] = set()
    for name, annotation in typing.get_type_hints(model, include_extras=False).items():
        if name in model.model_fields:
            for one in types_in(annotation):
                found |= walk(one) if inspect.isclass(one) and issubclass(one, BaseModel) else {one}
    return found


def test_what_is_hashed_holds_no_number_that_has_two_forms():
    """A waybill, which is hashed, holds neither floats nor mappings, in no part of it."""
    assert not walk(Waybill) & {float, dict, typing.Any}
    assert float in walk(EvidenceEvent)  # the walk sees what it looks for


def test_a_digest_is_that_of_the_canonical_form():
    """Two parties that hold the record's JSON compute its digest, whatever the order of its names."""
    made = Waybill(
        intake_id="i", data_classification="public", purpose="süpport",
        destination=Destination(provider="p", endpoint="e", region="eu"), model_route="r/m",
        retention=RetentionTerms(destination_days=0, forbidden_in_answer=("personal",), action="mask"),
        encryption="tls", redaction=("none",), consent="contract", fallback=("stop",),
    )  # fmt: skip
    content = orjson.loads(made.to_json())
    assert made.digest() == sha256_hex(canonical_json(content))
    assert made.digest() == sha256_hex(canonical_json(dict(reversed(content.items()))))
    assert made.model_copy(update={"purpose": "other"}).digest() != made.digest()


NINE = ("data_classification", "purpose", "destination", "model_route", "retention", "encryption", "redaction",
        "consent", "fallback")  # fmt: skip


@pytest.mark.parametrize("field", NINE)
def test_a_waybill_lacks_none_of_its_nine_fields(field):
    """A contract without one of the nine fields, or with an empty one, is none."""
    content = {
        "intake_id": "i", "data_classification": "public", "purpose": "p",
        "destination": {"provider": "p", "endpoint": "e", "region": "eu"}, "model_route": "r/m",
        "retention": {"destination_days": 0, "forbidden_in_answer": (), "action": "mask"}, "encryption": "tls",
        "redaction": ("none",), "consent": "contract", "fallback": ("stop",),
    }  # fmt: skip
    assert Waybill.model_validate(content)
    empty = {
        **content,
        field: () if field in {"fallback", "redaction"} else {} if isinstance(content[field], dict) else "",
    }
    for wrong in ({name: value for name, value in content.items() if name != field}, empty):
        with pytest.raises(ValidationError):
            Waybill.model_validate(wrong)


def test_events_survive_the_way_over_a_topic():
    """Every sample event reads back from its own JSON, in which names are camelCase and nothing is null."""
    for event in EVENTS:
        text = event.to_json()
        assert EvidenceEvent.model_validate_json(text) == event
        content = orjson.loads(text)
        assert None not in content.values()
        assert not any("_" in name for name in content)


@pytest.mark.parametrize(
    "moment",
    [datetime(2026, 1, 1), datetime(2026, 1, 1, tzinfo=timezone(timedelta(hours=2)))],  # noqa: DTZ001 - naive on purpose
)
def test_a_moment_is_utc_or_an_error(moment):
    """A naive or shifted time is refused, from Python and from JSON."""
    content = EVENTS[0].model_dump() | {"occurredAtUtc": moment}
    with pytest.raises(ValidationError):
        EvidenceEvent.model_validate(content)
    with pytest.raises(ValidationError):
        EvidenceEvent.model_validate_json(
            orjson.dumps({**orjson.loads(EVENTS[0].to_json()), "occurredAtUtc": moment.isoformat()})
        )
    assert EvidenceEvent.model_validate(content | {"occurredAtUtc": datetime(2026, 1, 1, tzinfo=UTC)})


@pytest.mark.parametrize(
    ("model", "content"),
    [
        (Position, {"topic": "t", "partition": -1, "offset": 0}),
        (Position, {"topic": "", "partition": 0, "offset": 0}),
        (Usage, {"input_tokens": 1, "output_tokens": -1}),
        (Usage, {"input_tokens": 1, "output_tokens": 1, "cost_usd": float("inf")}),
        (Failure, {"code": "c", "message": "x" * 2001}),
        (Failure, {"code": "", "message": "x"}),
        (Failure, {"code": "c", "message": "x", "colour": "blue"}),
    ],
)
def test_what_is_out_of_bounds_is_refused(model, content):
    """Negative places and counts, endless prices, empty codes and long sentences are errors."""
    with pytest.raises(ValidationError):
        model.model_validate(content)


def test_a_records_error_does_not_repeat_its_input():
    """The text of a validation error holds none of what was given."""
    with pytest.raises(ValidationError) as caught:
        Position.model_validate({"topic": "t", "partition": "Zq7planted", "offset": 0})
    assert "Zq7planted" not in str(caught.value)


def test_a_record_cannot_be_changed():
    """An event is a fact: assigning to it is an error."""
    with pytest.raises(ValidationError):
        EVENTS[0].outcome = Outcome.FAILED
