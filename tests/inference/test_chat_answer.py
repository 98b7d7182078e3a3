"""Whatever a server answers, it becomes a completion that evidence can hold, or exactly one error of the seam."""

from __future__ import annotations

import json
import zlib
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from openai_rig import COMPLETION

from inference.backend import MAX_TOKENS, Completion, Tokens
from inference.chat_answer import MAX_NAME, Reply, Source, _load, read_reply, read_usage, retry_after_words
from inference.errors import BackendError

SOURCE = Source("acme", "127.0.0.1:1")
PLACES = (
    ("id",), ("model",), ("provider",), ("usage",), ("choices",), ("error",), ("choices", 0), ("choices", 0, "message"),
    ("choices", 0, "finish_reason"), ("choices", 0, "error"), ("choices", 0, "message", "content"),
    ("choices", 0, "message", "refusal"), ("usage", "prompt_tokens"), ("usage", "completion_tokens"),
    ("usage", "total_tokens"), ("usage", "prompt_tokens_details"), ("usage", "completion_tokens_details"),
)  # fmt: skip
WORDS = st.sampled_from(
    ["stop", "eos", "error", "content_filter", "text", "type", "code", "message", "innererror", "cached_tokens", "429",
     "reasoning_tokens", "ResponsibleAIPolicyViolation", "rate_limit_exceeded", "\ud83d", "\x00", "m" * 300]
)  # fmt: skip
NUMBERS = st.one_of(st.integers(), st.floats(), st.sampled_from([2**63, 10**9, 10**400, -1, 429, 502, 1e400]))
VALUES = st.recursive(
    st.one_of(st.none(), st.booleans(), NUMBERS, st.text(max_size=20), WORDS),
    lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(WORDS, inner, max_size=4)),
    max_leaves=8,
)


def put(document: Any, place: tuple[str | int, ...], value: Any) -> None:
    """Put a value at a place, where there still is such a place."""
    *way, last = place
    for step in way:
        try:
            document = document[step]
        except (KeyError, IndexError, TypeError):
            return
    if isinstance(document, dict):
        document[last] = value
    elif isinstance(document, list) and document:
        document[0] = value


def read(reply: Reply) -> Completion | BackendError:
    """What a reply becomes; any other error is the test's failure."""
    try:
        return read_reply(reply, SOURCE)
    except BackendError as error:
        return error


def check(reply: Reply) -> None:
    """A reply is one of both, and what it says of itself is within the bounds."""
    answer = read(reply)
    if isinstance(answer, BackendError):
        assert answer.code == answer.code.lower()
        assert len(answer.code) <= MAX_NAME
        assert str(answer).isprintable()
        return
    assert answer.text or answer.refused
    answer.text.encode()
    for name in (answer.model, answer.response_id, answer.stated_reason):
        assert len(name) <= MAX_NAME
        assert name.isprintable()
        name.encode()
    tokens = answer.tokens
    for count in (tokens.input, tokens.output, tokens.cached, tokens.reasoning):
        assert count is None or (type(count) is int and 0 <= count <= MAX_TOKENS)
    assert tokens.cached <= (tokens.input or 0)
    assert tokens.reasoning <= (tokens.output or 0)


@given(
    st.dictionaries(st.sampled_from(PLACES), VALUES, max_size=4), st.sampled_from([200, 201, 202, 400, 429, 500, 503])
)
def test_any_value_in_any_place(values: dict[tuple[str | int, ...], Any], status: int) -> None:
    """Any JSON in any place of a completion, under any status, raises nothing but an error of the seam."""
    document = json.loads(COMPLETION)
    for place, value in values.items():
        put(document, place, value)
    check(Reply(status, json.dumps(document).encode("utf-8", "surrogatepass")))


@given(st.binary(max_size=200), st.sampled_from(["", "gzip", "deflate", "x-gzip, gzip", "br"]), st.integers(100, 999))
def test_any_bytes(body: bytes, encoding: str, status: int) -> None:
    """Any bytes in any encoding under any status do so, too."""
    check(Reply(status, body, encoding))
    check(Reply(status, zlib.compress(body), encoding))


@given(
    st.one_of(
        st.text(max_size=80), st.from_regex(r"[A-Z][a-z]{2}, \d{1,3} [A-Z][a-z]{2} \d{1,12} [\d:]{1,12} [+-]\d{1,30}")
    )
)
def test_any_retry_after(value: str) -> None:
    """Any `Retry-After` is told in words of ours, or not at all."""
    told = retry_after_words(value)
    assert told == "" or told.startswith(", asks to wait ")
    assert told.isascii()


def test_reasoning_is_a_part_of_what_was_generated() -> None:
    """Where only one count is known, no more reasoning is recorded than there are tokens."""
    usage = {"completion_tokens": 5, "completion_tokens_details": {"reasoning_tokens": 10}}
    assert read_usage(usage) == Tokens(None, 5)


def test_nesting_without_end_is_no_json() -> None:
    """A body that nests deeper than anything is an error like any other."""
    check(Reply(200, b"[" * 500_000))
    check(Reply(500, b'{"error":' * 500_000))


def test_comments_before_an_answer_are_read_once():
    """However many comment lines stand before the JSON, they are passed over in time that grows as they do."""
    answer = read(Reply(status=200, body=b": X\n\n" * 500_000 + COMPLETION))
    assert isinstance(answer, Completion)
    assert _load(b":" * 1_000_000 + b"\n[1]") == [1]


def test_a_refusal_among_parts_is_a_refusal():
    """A message whose part is a refusal is refused, so that no other route is asked."""
    document = json.loads(COMPLETION)
    document["choices"][0]["message"]["content"] = [{"type": "refusal", "refusal": "I will not."}]
    answer = read(Reply(status=200, body=json.dumps(document).encode()))
    assert isinstance(answer, Completion)
    assert (answer.refused, answer.text) == (True, "I will not.")
