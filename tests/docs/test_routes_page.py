"""The tables of docs/routes.md on what counts as an answer, each row played to the program by a raw server."""

from __future__ import annotations

import asyncio
import json
import re
from typing import Any

import pytest
from doc_pages import DOCS, read_table
from openai_rig import COMPLETION, RawServer, http_answer, make_call, opened

from inference.backend import Completion
from inference.errors import Ambiguous, BackendError, Malformed, Rejected, Unavailable

KINDS = {"unavailable": Unavailable, "no answer": Malformed, "rejected": Rejected, "ambiguous": Ambiguous}
BODIES = {
    "completion": [COMPLETION],
    "own error": [
        b'{"error": {"message": "overloaded"}}',
        b'{"detail": "no"}',
        b'{"object": "error", "message": "no"}',
    ],
    "other": [b"", b"<html>503</html>", b"upstream connect error", b"{}", b'{"message": "no upstream"}', b"[1]"],
    "content filter": [
        b'{"error": {"code": "content_filter", "status": 400, "innererror": {"code": "X"}}}',
        b'{"error": {"code": null, "innererror": {"code": "ResponsibleAIPolicyViolation"}}}',
    ],
}
STATUSES = read_table("routes.md", "### By its status")
ANSWERS = read_table("routes.md", "### By what is in it")
ERRORS = read_table("routes.md", "### By an error in its place")


async def ask(answer: bytes) -> Completion | BackendError:
    """Ask a server on a raw socket that answers with these bytes and closes."""

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await server.read_request(reader)
        writer.write(answer)
        await writer.drain()

    async with RawServer(talk) as server, opened(server.base_url) as backend:
        try:
            return await backend.complete(make_call())
        except BackendError as error:
            return error


def bodies_of(status: str, body: str) -> list[bytes]:
    """The bodies of a row of the first table."""
    if status == "204":
        return [b""]
    if body == "any":
        return [BODIES["own error"][0], BODIES["other"][1]]
    if body == "other" and not status.startswith("5"):
        return [*BODIES["other"], b'{"object": "error"}']
    return BODIES[body]


STATUS_ROWS = [
    pytest.param(status, body, kind, id=f"{status}-{kind}-{number}")
    for statuses, name, kind, _ in STATUSES
    for status in statuses.split(", ")
    for number, body in enumerate(bodies_of(status, name))
]


@pytest.mark.parametrize(("status", "body", "kind"), STATUS_ROWS)
async def test_statuses_count_as_the_table_says(status: str, body: bytes, kind: str) -> None:
    """Each status, with each kind of body, is the kind of end that its row says, and its code names the status."""
    result = await ask(http_answer(body, f"{status} X") if status != "204" else b"HTTP/1.1 204 X\r\n\r\n")
    if kind in ("answer", "refusal"):
        assert isinstance(result, Completion), result
        assert result.refused is (kind == "refusal")
        return
    assert type(result) is KINDS[kind], result
    if status == "200":
        assert result.code in ("not_json", "wrong_shape")
    else:
        assert result.code == ("redirected" if status.startswith("3") else f"http_{status}")


@pytest.mark.parametrize("body", BODIES["other"])
@pytest.mark.parametrize("status", ["503", "529"])
async def test_retry_after_is_a_providers_own_word(status: str, body: bytes) -> None:
    """A gateway that lost its upstream asks nobody to come again: with `Retry-After` the call was refused."""
    assert type(await ask(http_answer(body, f"{status} X", "Retry-After: 3\r\n"))) is Unavailable


def changed(place: str, value: str) -> bytes:
    """A completion with another JSON text at a place; `absent` takes it away."""
    document = json.loads(COMPLETION)
    *way, last = place.split(".")
    at: Any = document
    for step in way:
        at = at[int(step) if step.isdigit() else step]
    if value == "absent":
        del at[last]
        return json.dumps(document).encode()
    at[last] = "@here@"
    return json.dumps(document).replace('"@here@"', value).encode()


@pytest.mark.parametrize(("place", "value", "counts_as", "told"), ANSWERS)
async def test_answers_count_as_the_table_says(place: str, value: str, counts_as: str, told: str) -> None:
    """Each row of the table is an answer, a refusal or an error with its code, and the last column holds."""
    body = changed(place.strip("`"), value.strip("`"))
    result = await ask(http_answer(body))
    if counts_as.startswith("`"):
        assert isinstance(result, Malformed), result
        assert result.code == counts_as.strip("`")
        assert (result.tokens is not None) is ("content_filter" not in value)
        return
    assert isinstance(result, Completion), result
    assert result.refused is (counts_as == "refusal")
    assert result.text in ("Hello.", "\ufffd", "I will not.")
    if told == "tokens unknown":
        assert not result.tokens.known
    elif found := re.match(r"tokens (\d+)/(\d+)(?:, (\d+) of them (\w+))?$", told):
        tokens = result.tokens
        assert (tokens.input, tokens.output) == (int(found[1]), int(found[2]))
        assert not found[4] or getattr(tokens, found[4]) == int(found[3])
    elif found := re.match(r"ended by `(\w+)`(?:, recorded as `(\w+)`)?$", told):
        assert (result.finish_reason, result.stated_reason) == (found[1], found[2] or "")
    if place == "`id`":
        assert result.response_id == ("17" if value == "`17`" else "")
    if place == "`model`":
        assert result.model == ""


@pytest.mark.parametrize(("error", "counts_as"), ERRORS)
async def test_an_error_in_a_success_counts_as_the_table_says(error: str, counts_as: str) -> None:
    """An error object in a 200 is read as the status that it should have had, alone or within a choice."""
    kind, _, code = counts_as.partition(", ")
    for document in ('{"error": %s}', '{"error": %s, "choices": []}', '{"choices": [{"error": %s, "message": {}}]}'):
        result = await ask(http_answer((document % error.strip("`")).encode()))
        if kind == "refusal":
            assert isinstance(result, Completion)
            assert result.refused
        else:
            assert type(result) is KINDS[kind], result
            assert result.code == code.strip("`")


@pytest.mark.parametrize("before", ["\ufeff", " \r\n\t", ": OPENROUTER PROCESSING\n\n: again\n", "\ufeff: x\n "])
async def test_passed_over_before_the_json(before: str) -> None:
    """A byte order mark, blanks and comment lines before the JSON lose nothing."""
    result = await ask(http_answer(before.encode() + COMPLETION))
    assert isinstance(result, Completion), result


def test_the_page_names_the_bounds() -> None:
    """The numbers on the page are those of the program."""
    from inference import chat_answer, http_transport  # noqa: PLC0415 - only for this

    text = (DOCS / "routes.md").read_text(encoding="utf-8")
    assert f"more than {chat_answer.MAX_NAME} characters" in text
    assert chat_answer.MAX_RESPONSE_BYTES == 8 * 1024 * 1024
    assert http_transport.MAX_HEADER_LINE == 64 * 1024
    assert f"{http_transport.MAX_HEADERS:,} of them" in text
