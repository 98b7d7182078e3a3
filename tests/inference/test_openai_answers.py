"""What a provider's answer becomes: a completion, or exactly one error."""

from __future__ import annotations

import traceback
from datetime import UTC, datetime
from email.utils import format_datetime

import orjson
import pytest
from openai_rig import COMPLETION, KEY, TRACEPARENT, answering, http_answer, make_call, opened

from inference.backend import Completion, Tokens
from inference.chat_answer import MAX_RESPONSE_BYTES
from inference.errors import Ambiguous, BackendError, Malformed, Rejected, Unavailable
from inference.openai import Dialect
from inference.standin import Behaviour, Rule, Script, StandIn


async def ask(do: Behaviour) -> Completion:
    """Ask a stand-in that behaves so."""
    async with StandIn(Script(rules=(Rule(do=do),))) as stand_in, opened(stand_in.base_url) as backend:
        return await backend.complete(make_call())


async def ask_raw(answer: bytes) -> Completion:
    """Ask a server that answers with these bytes."""
    async with answering(answer)() as server, opened(server.base_url) as backend:
        try:
            return await backend.complete(make_call())
        finally:
            assert len(server.requests) == 1


def changed(**changes: object) -> bytes:
    """A completion with other top-level fields; None removes one."""
    fields = {**orjson.loads(COMPLETION), **changes}
    return http_answer(orjson.dumps({name: value for name, value in fields.items() if value is not None}))


def choice(finish: object = "stop", **message: object) -> bytes:
    """A completion with this message."""
    return changed(choices=[{"index": 0, "message": {"role": "assistant", **message}, "finish_reason": finish}])


async def test_answer_becomes_completion() -> None:
    """A provider's answer is read field by field, and fields that nobody knows do not disturb."""
    assert await ask_raw(http_answer(COMPLETION)) == Completion(
        text="Hello.",
        finish_reason="stop",
        provider="acme",
        model="small-1-2026",
        response_id="r-1",
        tokens=Tokens(5, 2),
    )


async def test_request_on_the_wire() -> None:
    """The request has the intent's id twice, the trace, the key, the call's fields, and nothing that aiohttp adds."""
    async with answering(http_answer(COMPLETION))() as server:
        async with opened(
            server.base_url, dialect=Dialect(extra_body={"provider": {"data_collection": "deny"}})
        ) as backend:
            await backend.complete(make_call("int-9", "Hi", temperature=0.5))
        head, _, body = server.requests[0].partition(b"\r\n\r\n")
    lines = head.decode().split("\r\n")
    assert lines[0] == "POST /v1/chat/completions HTTP/1.1"
    assert {name.lower(): value for name, _, value in (line.partition(": ") for line in lines[1:])} == {
        "host": f"127.0.0.1:{server.port}",
        "content-type": "application/json",
        "accept": "application/json",
        "accept-encoding": "identity",
        "user-agent": "waybill",
        "authorization": f"Bearer {KEY}",
        "idempotency-key": "int-9",
        "x-waybill-intent": "int-9",
        "traceparent": TRACEPARENT,
        "content-length": str(len(body)),
        "connection": "close",
    }
    assert orjson.loads(body) == {
        "model": "small-1",
        "messages": [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hi"}],
        "max_tokens": 64,
        "temperature": 0.5,
        "stream": False,
        "provider": {"data_collection": "deny"},
    }


async def test_no_key_and_no_trace_send_no_header() -> None:
    """Without a key and a trace there is no Authorization and no traceparent header."""
    async with (
        answering(http_answer(COMPLETION))() as server,
        opened(server.base_url, api_key=None, dialect=Dialect(max_tokens_field="max_completion_tokens")) as backend,
    ):
        await backend.complete(make_call(traceparent=""))
    request = server.requests[0].lower()
    assert b"authorization" not in request
    assert b"traceparent" not in request
    assert b'"max_completion_tokens":64' in request


async def test_stand_in_is_named_whatever_the_configuration_says() -> None:
    """An answer of the stand-in has the provider `stand-in` and says in its text that no model ran."""
    completion = await ask(Behaviour())
    assert completion.provider == "stand-in"
    assert completion.model == "stand-in/small-1"
    assert completion.text.startswith("[stand-in] No model ran.")


@pytest.mark.parametrize(
    "answer",
    [
        http_answer(COMPLETION, headers="X-Waybill-Provider: stand-in\r\n"),
        changed(provider="stand-in"),
        changed(model="stand-in/small-1"),
    ],
)
async def test_each_mark_alone_names_the_stand_in(answer: bytes) -> None:
    """Header, JSON field and model name: each of the three marks is enough."""
    assert (await ask_raw(answer)).provider == "stand-in"


async def test_scripted_text_and_usage() -> None:
    """A text and token counts that a script gives arrive as they are."""
    completion = await ask(Behaviour(text="Call Erika: +49 30 901820", input_tokens=11, output_tokens=7))
    assert (completion.text, completion.input_tokens, completion.output_tokens) == ("Call Erika: +49 30 901820", 11, 7)


@pytest.mark.parametrize("do", [Behaviour(refusal="I will not."), Behaviour(content_filter=True, text="I will not.")])
async def test_refusal_is_an_answer(do: Behaviour) -> None:
    """A model's refusal and a provider's content filter are answers, not errors."""
    completion = await ask(do)
    assert completion.refused
    assert completion.text == "I will not."


async def test_filtered_without_text() -> None:
    """A filtered answer without any text is a refusal with an empty text."""
    completion = await ask(Behaviour(content_filter=True))
    assert (completion.refused, completion.text, completion.finish_reason) == (True, "", "content_filter")


async def test_length_is_told() -> None:
    """An answer that was cut at max_tokens says so."""
    async with StandIn() as stand_in, opened(stand_in.base_url) as backend:
        completion = await backend.complete(make_call(max_tokens=3))
    assert (completion.text, completion.finish_reason, completion.output_tokens) == ("[stand-in] No model", "length", 3)


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (400, Rejected),
        (401, Rejected),
        (404, Rejected),
        (408, Ambiguous),
        (409, Ambiguous),
        (422, Rejected),
        (425, Unavailable),
        (429, Unavailable),
        (500, Ambiguous),
        (502, Ambiguous),
        (503, Unavailable),
        (504, Ambiguous),
        (524, Ambiguous),
        (529, Unavailable),
    ],
)
async def test_status_decides(status: int, kind: type[BackendError]) -> None:
    """Each status has one error, whose code and provider say what came from whom."""
    with pytest.raises(BackendError) as caught:
        await ask(Behaviour(status=status))
    assert type(caught.value) is kind
    assert caught.value.code == f"http_{status}"
    assert caught.value.provider == "stand-in"


async def test_other_success_without_completion_is_malformed() -> None:
    """A success status without a completion is no answer."""
    with pytest.raises(Malformed) as caught:
        await ask_raw(b"HTTP/1.1 204 No Content\r\n\r\n")
    assert caught.value.code == "http_204"


async def test_retry_after_is_told() -> None:
    """What a provider asks for in Retry-After is in the error's text: seconds or a date, but no other words."""
    with pytest.raises(Unavailable, match="asks to wait 7 s"):
        await ask(Behaviour(status=429, retry_after_s=7))
    date = format_datetime(datetime(2030, 1, 2, tzinfo=UTC), usegmt=True)
    with pytest.raises(Unavailable, match="until 2030-01-02T00:00:00"):
        await ask_raw(http_answer(b"{}", "503 No", f"Retry-After: {date}\r\n"))
    with pytest.raises(Unavailable) as caught:
        await ask_raw(http_answer(b"{}", "503 No", "Retry-After: call +49 30 901820\r\n"))
    assert "901820" not in str(caught.value)


async def test_error_names_code_but_not_sentence() -> None:
    """A provider's error code is told; its sentence, which may quote the prompt or the key, is not."""
    body = orjson.dumps({"error": {"message": f"bad key {KEY} in 'Say hello.'", "code": "invalid_api_key"}})
    with pytest.raises(Rejected) as caught:
        await ask_raw(http_answer(body, "401 Unauthorized"))
    assert "(invalid_api_key)" in str(caught.value)
    assert KEY not in str(caught.value)
    assert "hello" not in str(caught.value)


@pytest.mark.parametrize("code", ["+49 30 901820", "erika@example.com", "x" * 65, 7, None, ["a"]])
async def test_odd_error_codes_are_not_told(code: object) -> None:
    """What does not look like a code is not repeated, whatever the provider calls it."""
    with pytest.raises(Rejected, match=r"answered 400$"):
        await ask_raw(http_answer(orjson.dumps({"error": {"code": code, "type": code}}), "400 Bad"))


async def test_unreadable_error_body_changes_nothing() -> None:
    """An error's status counts even where its body is endless or cut off."""
    with pytest.raises(Unavailable):
        await ask_raw(http_answer(b"x" * 300_000, "429 No"))
    with pytest.raises(Rejected):
        await ask_raw(b"HTTP/1.1 400 No\r\ncontent-length: 900\r\n\r\nhalf")
    with pytest.raises(Ambiguous):
        await ask_raw(b"HTTP/1.1 503 No\r\ncontent-length: 900\r\n\r\nhalf")


@pytest.mark.parametrize(
    "value",
    [
        "Mon, 01 Jan 2024 00:00:00 +99999999999999999999",
        "Mon, 01 Jan 2024 00:00:00 +2500",
        "Mon, 99 Jan 9999999999 00:00:00 GMT",
        "Fri, 31 Dec 9999 23:59:59 -2359",
        "-1",
        "1e400",
        "\u0663".encode().decode("latin-1"),
        "9" * 400,
        "",
        ",",
        ":",
        "; ; ;",
        "1 2 3 4 5 6 7",
    ],
)
async def test_an_odd_retry_after_changes_nothing(value: str) -> None:
    """Whatever stands in Retry-After, a 429 is a 429."""
    with pytest.raises(Unavailable) as caught:
        await ask_raw(http_answer(b"{}", "429 Wait", f"Retry-After: {value}\r\n"))
    assert caught.value.code == "http_429"


async def test_a_fault_of_ours_is_told_as_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where this program fails after the head of an answer, the error says so, and is ambiguous; nothing is quoted."""
    for place in ("inference.openai.read_reply", "inference.openai.Reply"):
        with monkeypatch.context() as broken:
            broken.setattr(place, lambda *_, **__: {}["Say hello."])
            with pytest.raises(Ambiguous) as caught:
                await ask_raw(http_answer(COMPLETION))
        assert (caught.value.code, caught.value.provider) == ("internal_error", "acme")
        assert "Say hello." not in chain(caught.value)


async def test_what_does_not_come_whole_is_a_lost_answer() -> None:
    """A body that ends before its length is a lost connection, and one that is no gzip is an answer that is none."""
    with pytest.raises(Ambiguous) as caught:
        await ask_raw(http_answer(COMPLETION)[:-5])
    assert caught.value.code == "disconnected"
    for encoding, told in (("gzip", "is gzip and is not"), ("br", "compressed with br")):
        with pytest.raises(Malformed, match=told) as malformed:
            await ask_raw(http_answer(COMPLETION, headers=f"content-encoding: {encoding}\r\n"))
        assert malformed.value.code == "bad_encoding"


@pytest.mark.parametrize("name", ["m" * 257, "a\u0000b", "a\nb", "\u202eabc", ""])
async def test_names_that_evidence_cannot_hold_are_left_out(name: str) -> None:
    """A model or an id that is too long or cannot be printed is none; the answer stays."""
    completion = await ask_raw(changed(model=name, id=name))
    assert (completion.text, completion.model, completion.response_id) == ("Hello.", "", "")


async def test_redirect_is_not_followed() -> None:
    """A redirect is rejected, and the place that it points to never hears of the call."""
    async with StandIn() as elsewhere:
        with pytest.raises(Rejected) as caught:
            await ask(Behaviour(redirect=f"{elsewhere.base_url}/chat/completions"))
        assert elsewhere.log.total == 0
    assert caught.value.code == "redirected"


@pytest.mark.parametrize(
    ("malformed", "code"), [("not-json", "not_json"), ("wrong-shape", "wrong_shape"), ("truncated", "not_json")]
)
async def test_malformed_answers(malformed: str, code: str) -> None:
    """What is no chat completion is Malformed, by the stand-in's script."""
    with pytest.raises(Malformed) as caught:
        await ask(Behaviour.model_validate({"malformed": malformed}))
    assert (caught.value.code, caught.value.provider) == (code, "stand-in")


@pytest.mark.parametrize(
    ("answer", "code"),
    [
        (http_answer(b""), "not_json"),
        (http_answer(b"[]"), "wrong_shape"),
        (changed(choices=[]), "wrong_shape"),
        (choice(content=None), "empty_answer"),
        (choice(content=""), "empty_answer"),
        (choice(content={"parts": 1}), "wrong_shape"),
        (choice(content="x", finish="tool_calls"), "finish_reason"),
        (b"HELLO WORLD\r\n\r\n", "bad_http"),
    ],
)
async def test_what_is_needed_is_strict(answer: bytes, code: str) -> None:
    """Where there is no text to be had, the answer is Malformed; what else counts is in docs/routes.md."""
    with pytest.raises(Malformed) as caught:
        await ask_raw(answer)
    assert caught.value.code == code


def chain(error: BaseException | None) -> str:
    """All that an error and the errors behind it say of themselves."""
    said = ""
    while error is not None:
        said += f"{error!r} {error} "
        error = error.__cause__ or error.__context__
    return said


async def test_malformed_does_not_quote_the_answer() -> None:
    """An error about a malformed answer repeats nothing of it, nor do the errors behind it."""
    with pytest.raises(Malformed) as caught:
        await ask_raw(http_answer(b'{"secret": "erika@example.com" broken'))
    assert "erika" not in chain(caught.value)


async def test_size_limit() -> None:
    """An answer over the limit is given up at the limit, even where it announces no length."""

    async def flood() -> None:
        chunk = b"10000\r\n" + b" " * 0x10000 + b"\r\n"
        head = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n"
        async with (
            answering(head + chunk * (MAX_RESPONSE_BYTES // 0x10000 + 2))() as server,
            opened(server.base_url) as backend,
        ):
            await backend.complete(make_call())

    with pytest.raises(Malformed) as caught:
        await flood()
    assert caught.value.code == "too_large"


async def test_large_answer_in_pieces() -> None:
    """An answer of many pieces under the limit is put together whole."""
    text = "wörd " * 200_000
    assert (await ask(Behaviour(text=text))).text == text


async def test_key_is_never_shown() -> None:
    """The key is neither in the repr nor anywhere in an error's chain of causes."""
    async with answering(b"HELLO WORLD\r\n\r\n")() as server, opened(server.base_url) as backend:
        assert KEY not in repr(backend)
        with pytest.raises(BackendError) as caught:
            await backend.complete(make_call())
    assert KEY not in chain(caught.value)
    assert KEY not in "".join(traceback.format_exception(caught.value))
