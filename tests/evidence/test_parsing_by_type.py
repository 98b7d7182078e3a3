"""A large batch is read type by type, and nobody can tell."""

from __future__ import annotations

import orjson
import pyarrow as pa
import pytest
from evidence_samples import stories

from evidence import parsing
from evidence.parsing import parse
from evidence.records import EvidenceEvent

VALUES = [event.to_json() for event in stories(700)]


def parsed(values):
    """Parse values as the offsets from 0 on."""
    return parse(values, partition=0, offsets=range(len(values)), timestamps_ms=[1] * len(values))


def changed(value, **fields):
    """Give a value with other fields."""
    return orjson.dumps(orjson.loads(value) | fields)


@pytest.fixture
def by_type(monkeypatch):
    """Have batches of any size read type by type, by a parser that has seen nothing yet."""
    monkeypatch.setattr(parsing, "_BY_TYPE_FROM", 100)
    monkeypatch.setattr(parsing, "_GROUP_FROM", 20)
    monkeypatch.setattr(parsing, "_SEEN", {})


def whole(monkeypatch, values):
    """Parse values without regard to types."""
    with monkeypatch.context() as patch:
        patch.setattr(parsing, "_BY_TYPE_FROM", len(values) + 1)
        return parsed(values)


def same(one, other):
    """Tell whether two batches gave the same rows and rejects."""
    rejects = [[(reject.index, reject.error.code) for reject in batch.rejects] for batch in (one, other)]
    return plain(one.table).equals(plain(other.table)) and rejects[0] == rejects[1]


def plain(table):
    """Give a table without dictionaries, whose words may stand in any order."""
    fields = [field.with_type(pa.string()) if pa.types.is_dictionary(field.type) else field for field in table.schema]
    return table.cast(pa.schema(fields))


def test_the_rows_are_those_of_one_reading(by_type, monkeypatch):
    """Rows, their order and their types are the same, at the first reading and when the types are known."""
    expected = whole(monkeypatch, VALUES)
    assert same(parsed(VALUES), expected)
    assert len(parsing._SEEN) > 5, "several types were read by themselves"
    assert same(parsed(VALUES), expected)


def test_a_column_that_a_type_did_not_have_is_read(by_type, monkeypatch):
    """A field, a member of a struct and a struct that are new to a type come out, and are known from then on."""
    parsed(VALUES)
    values = list(VALUES)
    values[50] = changed(values[50], detail="something new")
    values[60] = changed(values[60], credential={"method": "minted"})
    values[70] = changed(values[70], credential={"method": "minted", "tokenId": "t-1"})
    expected = whole(monkeypatch, values)
    assert same(parsed(values), expected)
    assert expected.table.column("detail")[50].as_py() == "something new"
    assert same(parsed(values), expected)
    assert same(parsed(VALUES), whole(monkeypatch, VALUES))


@pytest.mark.parametrize(
    "fields",
    [
        {"eventType": "no.such"},
        {"eventType": None},
        {"route": {}},
        {"usage": {"inputTokens": -1, "outputTokens": 1}},
        {"requestId": ""},
        {"nobody": 'knows "eventType":"model.intended"'},
        {"detail": '"eventType":"model.intended"'},
        {"detail": None, "route": None},
        {"retained": {"action": None}},
    ],
    ids=lambda fields: next(iter(fields)) + str(len(str(fields))),
)
def test_what_is_odd_is_judged_alike(by_type, monkeypatch, fields):
    """A record that is wrong, or in an unusual form, has the same fate, wherever it stands."""
    parsed(VALUES)
    values = list(VALUES)
    for place in (0, 333, len(values) - 1):
        values[place] = changed(values[place], **fields)
    assert same(parsed(values), whole(monkeypatch, values))


def test_no_value_and_no_json_are_judged_alike(by_type, monkeypatch):
    """Records without a value, without JSON, with two documents and with a line feed are rejects, and no other."""
    values: list[bytes | None] = list(VALUES)
    values[10], values[200], values[300] = None, b"{", values[300] + values[301]
    values[400] = values[400].replace(b",", b",\n", 1)
    found = parsed(values)
    assert [reject.index for reject in found.rejects] == [10, 200, 300]
    assert same(found, whole(monkeypatch, values))


def test_a_type_guessed_wrong_does_not_matter(by_type, monkeypatch):
    """An event whose text names another type before its own is the same row."""
    event = EvidenceEvent.model_validate_json(VALUES[0])
    text = orjson.loads(event.to_json())
    text = {"detail": '"eventType":"request.ended"', **text}
    values = [orjson.dumps(text), *VALUES[1:]]
    assert same(parsed(values), whole(monkeypatch, values))
