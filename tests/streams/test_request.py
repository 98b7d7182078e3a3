"""The request contract: what is no request is refused by code, and no refusal repeats what was sent."""

from __future__ import annotations

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st
from requests_made import encoded, request

from evidence.errors import RecordError
from streams.request import parse, readable_request_id

MARK = "Zq7planted"


def refused(value: bytes | None) -> RecordError:
    """The error with which a value is refused."""
    with pytest.raises(RecordError) as caught:
        parse(value)
    return caught.value


def spoiled(text: str) -> bytes:
    """A valid request with this JSON text added as further fields."""
    return encoded(request("r1"))[:-1] + b"," + text.encode() + b"}"


@pytest.mark.parametrize(
    ("value", "code"),
    [
        (None, "empty"),
        (b"", "empty"),
        (b"hello", "not_json"),
        (b"\xff\xfe", "not_json"),
        (b'{"requestId": "r1"', "not_json"),
        (spoiled('"session": "\\ud800"'), "not_json"),
        (b"[1, 2]", "invalid_field"),
        (b"null", "invalid_field"),
        (encoded(request("r1", contractVersion="2.0")), "unsupported_version"),
        (encoded(request("r1", contractVersion="9.9", extra=1, actor=None)), "unsupported_version"),
        (encoded(request("r1", contractVersion="one")), "invalid_field"),
        (encoded(request("r1", actor=None)), "no_identity"),
        (encoded(request("r1", tenant=None)), "no_identity"),
        (encoded(request("r1", actor={"id": ""})), "no_identity"),
        (encoded(request("r1", actor={"id": " "})), "no_identity"),
        (encoded(request("r1", actor={"id": "a", "name": "Ada"})), "unknown_field"),
        (encoded(request("r1", classification="")), "invalid_field"),
        (encoded(request("r1", classification=7)), "invalid_field"),
        (encoded(request("r1", classification=None)), "invalid_field"),
        (encoded(request("r1", tools=["shell"])), "unknown_field"),
        (spoiled('"request_id": "r2"'), "unknown_field"),
        (encoded(request("r1", modelPolicy={"placment": "local"})), "unknown_field"),
        (encoded(request("r1", allowedTools=["shell"])), "unsupported_field"),
        (encoded(request("r1", timestampUtc="2026-01-01T00:00:00")), "invalid_field"),
        (encoded(request("r1", timestampUtc="2026-01-01T02:00:00+02:00")), "invalid_field"),
        (encoded(request("r1", timestampUtc=5)), "invalid_field"),
        (encoded(request("r1", input={"messages": []})), "invalid_field"),
        (encoded(request("r1", input={"messages": [{"role": "assistant", "content": "x"}]})), "invalid_field"),
        (encoded(request("r1", modelPolicy={"maxTokens": "12"})), "invalid_field"),
        (spoiled('"budget": {"maxCostUsd": 1e999}'), "invalid_field"),
        (spoiled('"budget": {"maxCostUsd": NaN}'), "invalid_field"),
        (spoiled('"modelPolicy": {"temperature": NaN}'), "invalid_field"),
    ],
)
def test_each_broken_request_is_refused_by_its_code(value, code):
    """Every way to break the contract has its code, and the gravest of several is the one that is told."""
    assert refused(value).code == code


def test_many_broken_fields_are_counted_rather_than_listed():
    """A refusal names eight fields and counts the rest."""
    text = str(refused(encoded(request("r1", **{f"field{number}": 1 for number in range(20)}))))
    assert text.count("unknown field") == 8
    assert text.endswith("and 12 more")


def test_a_field_name_that_may_be_data_is_not_repeated():
    """An unknown field is named where its name looks like one, and only then."""
    assert "modelPolicey" in str(refused(encoded(request("r1", modelPolicey={}))))
    for name in ("anna@example.org", "4111 1111 1111 1111", "x" * 33, "kräuter"):
        assert name not in str(refused(encoded(request("r1", **{name: 1}))))


PLACES = st.sampled_from(
    ["contractVersion", "requestId", "timestampUtc", "deadlineUtc", "actor", "tenant", "session", "taskType",
     "purpose", "riskLevel", "classification", "input", "modelPolicy", "consent", "budget", "traceMode",
     "allowedTools", "idempotencyKey"]
)  # fmt: skip
SHAPES = st.sampled_from(
    [MARK, [MARK], {"id": [MARK]}, {"messages": MARK}, {"messages": [{"role": MARK, "content": MARK}]},
     {"basis": MARK}, {"placement": MARK, "regions": MARK, "maxTokens": MARK}, {"maxCostUsd": MARK},
     {"id": MARK + "\u0000"}, {MARK + "@x": MARK}, 7, None]
)  # fmt: skip


@given(changes=st.dictionaries(PLACES, SHAPES, min_size=1, max_size=4))
def test_no_refusal_repeats_a_value(changes):
    """Whatever stands where in a request, the text of its refusal holds none of it."""
    content = {**request("r1"), **changes}
    try:
        parse(orjson.dumps(content))
    except RecordError as error:
        assert MARK not in str(error)  # noqa: PT017 - a request that is taken is no failure here


@given(before=st.binary(max_size=20), after=st.binary(max_size=20))
def test_no_refusal_of_what_is_no_json_repeats_it(before, after):
    """Bytes that are no JSON are refused by position, never by quoting them."""
    try:
        parse(before + MARK.encode() + after)
    except RecordError as error:
        assert MARK not in str(error)  # noqa: PT017 - the same


def test_parts_are_everything_that_could_cross():
    """Each turn is a part, and so are the id and the text of each source, in their order."""
    made = parse(encoded(request("r1", input={
        "messages": [{"role": "user", "content": "one"}],
        "context": [{"sourceId": "mail/anna@example.org", "content": "two"}],
    })))  # fmt: skip
    assert made.parts() == ["one", "mail/anna@example.org", "two"]


def test_ids_are_every_word_that_evidence_repeats():
    """What evidence repeats of a request stands in its ids, once it has been read."""
    words = {name: f"word-{name}" for name in ("requestId", "correlationId", "idempotencyKey", "session", "purpose")}
    others = {
        "actor": {"id": "word-actor"}, "tenant": {"id": "word-tenant"}, "taskType": "word-task",
        "modelPolicy": {"regions": ["word-region"]},
        "consent": {"basis": "consent", "reference": "word-reference", "subject": "word-subject"},
    }  # fmt: skip
    made = parse(encoded({**request("r1"), **words, **others}))
    found = made.ids().split(" \x1f ")
    assert set(found) == {*words.values(), "word-task", "word-actor", "word-tenant", "word-region", "word-reference",
                          "word-subject"}  # fmt: skip


def test_a_scope_is_one_actors_own():
    """Two requests share an idempotency scope only with the same tenant, actor, kind, task type and key."""
    base = request("r1", idempotencyKey="k")
    other = [
        {"tenant": {"id": "b"}}, {"actor": {"id": "b"}}, {"actor": {"id": "ada", "kind": "service"}},
        {"taskType": "b"}, {"idempotencyKey": "b"}, {"idempotencyKey": None},
    ]  # fmt: skip
    scopes = [
        parse(encoded({k: v for k, v in {**base, **change}.items() if v is not None})).scope() for change in other
    ]
    assert len({parse(encoded(base)).scope(), *scopes}) == len(other) + 1
    assert parse(encoded({**base, "requestId": "r2"})).scope() == parse(encoded(base)).scope()


def test_a_fingerprint_tells_payloads_apart_and_retries_not():
    """A retry with a new id and time has the same fingerprint; another prompt or policy has not."""
    first = parse(encoded(request("r1")))
    again = parse(encoded(request("r2", timestampUtc="2026-01-01T00:00:00Z", deadlineUtc=None)))
    assert first.fingerprint() == again.fingerprint()
    for change in ({"purpose": "b"}, {"riskLevel": "high"}, {"modelPolicy": {"maxTokens": 5}}, {"consent": None},
                   {"classification": "internal"}, {"budget": {"maxCostUsd": 1}}, {"dataCategories": ["health"]},
                   {"dataRegulations": ["home"]}, {"consent": {"basis": "contract", "subject": "b"}},
                   {"input": {"messages": [{"role": "user", "content": "Say hello."}],
                              "context": [{"sourceId": "s", "content": "c", "need": "useful"}]}}):  # fmt: skip
        assert parse(encoded(request("r1", **change))).fingerprint() != first.fingerprint()
    assert parse(encoded(request("r1", prompt="Other."))).fingerprint() != first.fingerprint()


@given(value=st.binary(max_size=60) | st.text(max_size=20).map(lambda text: orjson.dumps({"requestId": text})))
def test_a_readable_request_id_is_printable_and_short(value):
    """Whatever is sent, the id that is read from it can be written into a response and a header."""
    found = readable_request_id(value)
    assert found is None or (found.isprintable() and 0 < len(found) <= 128)


def test_a_request_survives_being_written():
    """What is sealed as JSON reads back as the same request."""
    made = parse(encoded(request("r1", budget={"maxCostUsd": 0.5}, session="s", prompt="ü\n\u2028x")))
    assert type(made).model_validate_json(made.to_json()) == made


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"stream": True}, "stream: unknown field; streaming is not supported; an answer comes as a whole"),
        ({"tools": []}, "tools: unknown field; tools are not supported by this version"),
        ({"tool_choice": "auto"}, "tool_choice: unknown field; tools are not supported by this version"),
        ({"responseFormat": {}}, "responseFormat: unknown field; formats of answers are not supported"),
        ({"model": "gpt"}, "model: unknown field; the route table chooses the model"),
        ({"messages": []}, "messages: unknown field; it is input.messages"),
        ({"max_tokens": 5}, "max_tokens: unknown field; it is modelPolicy.maxTokens"),
        ({"allowedTools": ["search"]}, "allowedTools: tools are not supported by this version; leave it empty"),
        ({"actor": "ada"}, "actor: must be an object: names with values"),
        ({"timestampUtc": "2026-11-23T10:00:00+01:00"}, "timestampUtc: must be in UTC and end in `Z`, such as"),
        ({"timestampUtc": "1795940886"}, "timestampUtc: must be a time such as 2026-04-01T09:00:00Z, and not a number"),
        ({"classification": None, "classifcation": "public"},
         "classifcation: unknown field; did you mean classification?"),
        ({"modelPolicy": {"placment": "local"}}, "modelPolicy.placment: unknown field; did you mean placement?"),
        ({"modelPolicy": {"placement": "cloud"}}, "modelPolicy.placement: must be 'any', 'local' or 'hosted'"),
        ({"modelPolicy": {"maxTokens": 1.5}}, "modelPolicy.maxTokens: must be a whole number"),
        ({"modelPolicy": {"temperature": 3}}, "modelPolicy.temperature: must be 2 or less"),
        ({"purpose": ""}, "purpose: must not be empty"),
        ({"session": "s" * 129}, "session: may have 128 characters at most"),
        ({"dataCategories": ["a"] * 33}, "dataCategories: may list 32 at most"),
        ({"input": {"messages": []}}, "input.messages: must list 1 or more"),
        ({"input": {"messages": [{"role": "user", "content": [{"type": "image"}]}]}},
         ("input.messages.0.content: must be a text, and not a list; only texts are supported, and no parts such as "
          "images")),
        ({"contractVersion": None}, "contractVersion: is missing"),
        ({"budget": {"maxCostUsd": 0}}, "budget.maxCostUsd: must be more than 0"),
    ],
)  # fmt: skip
def test_a_refusal_says_what_would_be_right(changes, said):
    """Each fault is one sentence that names the field and what belongs there, without a second one that is not so."""
    text = str(refused(encoded(request("r1", **changes))))
    assert text.startswith(said)
    assert ";" not in text.removeprefix(said)


@pytest.mark.parametrize(
    ("text", "field"),
    [
        ('"purpose": "other"', "purpose"),
        ('"requestId": "r1"', "requestId"),
        ('"purpose" \n : "a:b"', "purpose"),
        ('"purp\\u006fse": "x"', "purpose"),
        ('"actor": {"id": "eve"}', "actor"),
        ('"budget": {"maxCostUsd": 1, "maxCostUsd": 2}', "maxCostUsd"),
        ('"session": "a\\": b", "session": "a\\\\"', "session"),
        ('"input": {"messages": [{"role": "user", "content": "\\u003a", "content": "x:y"}]}', "content"),
    ],
)
def test_a_field_that_stands_twice_is_refused(text, field):
    """Which of two would count is anyone's guess: the request is refused, and names the field."""
    error = refused(spoiled(text))
    assert error.code == "duplicate_field"
    assert str(error) == f"{field}: stands twice in one object; send it once"


NAMES = st.sampled_from(["role", "content", "r\\u006fle"])
TEXTS = st.text('ab:\\"\n \u00e9', min_size=1, max_size=6).map(lambda text: orjson.dumps(text).decode())
BLANKS = st.text(" \n\t\r", max_size=2)


@given(members=st.lists(st.tuples(NAMES, BLANKS, BLANKS, TEXTS), max_size=4), text=TEXTS)
def test_a_field_is_refused_exactly_where_it_stands_twice(members, text):
    """Whatever texts, escapes and blanks are in a request, it is taken where no name is repeated, and only then."""
    names = [name.replace("\\u006f", "o") for name, _, _, _ in members]
    pairs = [f'"{name}"{before}:{after}{text if name == "content" else chr(34) + "user" + chr(34)}'
             for name, before, after, text in members]  # fmt: skip
    value = spoiled(f'"session": "s:{{\\": 1", "correlationId": {orjson.dumps(text.strip() or "x").decode()}')
    value = value.replace(b'"messages":[{', b'"messages":[{' + ",".join(pairs).encode() + (b"," if pairs else b""))
    try:
        parse(value)
    except RecordError as error:
        assert error.code in {"duplicate_field", "invalid_field"}  # noqa: PT017 - a request that is taken is no failure
        assert members or error.code == "invalid_field"  # noqa: PT017 - the same
    else:
        assert not names


def test_a_byte_order_mark_is_named():
    """A request that begins with a byte order mark is refused with a sentence of its own."""
    error = refused(b"\xef\xbb\xbf" + encoded(request("r1")))
    assert (error.code, str(error)) == (
        "not_json", "the value begins with a byte order mark: send UTF-8 without one"
    )  # fmt: skip
