"""Reading of what an OpenAI-compatible server answered: pure, from a whole reply to a completion or one error.

Read generously, recorded strictly: what the answer does not need cannot lose it, and no number or text that evidence
could not hold leaves this module. `docs/routes.md` has the table of what counts as what; a test reads it from there.

An error names the status and the provider's own error code, never its sentence: providers quote prompts and keys.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from typing import Any, Final

from inference.backend import MAX_TOKENS, UNKNOWN_TOKENS, Completion, FinishReason, Tokens
from inference.errors import Ambiguous, BackendError, Malformed, Rejected, Unavailable
from inference.http_transport import BadEncodingError, decode_body

STAND_IN: Final = "stand-in"
"""The provider of every answer that carries the stand-in's mark, whatever the configuration says."""

MAX_RESPONSE_BYTES: Final = 8 * 1024 * 1024
"""The largest answer that is read, after decompression."""

MAX_NAME: Final = 256
"""Most characters of a name that evidence takes."""

_MODEL_MARK: Final = "stand-in/"
_MAX_DIGITS: Final = 20
_OK: Final = 200
_ACCEPTED: Final = 202
_CLIENT_ERROR: Final = 400
_SERVER_ERROR: Final = 500
_LAST_ERROR: Final = 599
_REFUSED_STATUS: Final = frozenset({425, 429, 501, 505, 511, 525, 526, 530})
"""Statuses that say by themselves that no model has seen the call."""

_REFUSED_BY_PROVIDER: Final = frozenset({503, 529})
"""Statuses that say so where they are the provider's own, and not those of a gateway that lost its upstream."""

_MAYBE_ACCEPTED: Final = frozenset({408, 409, 499})
"""Statuses below 500 under which a model may have seen the call; above, all are so that are in no other set."""

_STATUS_OF: Final[Mapping[str, int]] = {
    "rate_limit_exceeded": 429,
    "rate_limit_error": 429,
    "insufficient_quota": 429,
    "service_unavailable": 503,
    "overloaded_error": 529,
    "invalid_request_error": 400,
    "context_length_exceeded": 400,
    "invalid_api_key": 401,
    "authentication_error": 401,
    "permission_error": 403,
    "not_found_error": 404,
    "model_not_found": 404,
    "server_error": 500,
    "internal_server_error": 500,
    "api_error": 500,
    "timeout": 504,
}
"""The status that an error in a 200 would have had, by its code or type."""

_FILTERED: Final = frozenset({"content_filter", "content_policy_violation", "ResponsibleAIPolicyViolation"})
_PROVIDER_CODE: Final = re.compile(r"[A-Za-z]{1,24}(?:[_.-][A-Za-z]{1,24}){0,7}")
"""A code in words, such as `rate_limit_exceeded`; what has digits may be a key or an id that the provider repeats."""

_BEFORE_JSON: Final = re.compile(r"(?:\s++|:[^\n]*+)*+")
"""What servers put before JSON: blanks, and comment lines of SSE. Possessive, so that it is read once however long."""

_SURROGATE: Final = re.compile("[\ud800-\udfff]")

_REASONS: Final[Mapping[str, FinishReason]] = {
    **dict.fromkeys(("stop", "eos", "eos_token", "end", "end_turn", "stop_sequence", "complete", "completed"), "stop"),
    **dict.fromkeys(("finished", "done"), "stop"),
    **dict.fromkeys(("length", "max_tokens", "max_output_tokens", "max_new_tokens", "max_length"), "length"),
    **dict.fromkeys(("model_length", "token_limit", "model_context_window_exceeded"), "length"),
    **dict.fromkeys(("content_filter", "content_filtered", "safety", "refusal", "recitation"), "content_filter"),
    **dict.fromkeys(("blocklist", "prohibited_content", "spii"), "content_filter"),
}
"""Known spellings of why generation ended, in lower case."""

_NO_ENDING: Final = frozenset({"tool_calls", "tool_use", "function_call", "error", "abort", "aborted", "cancelled"})
"""Reasons under which the text is not the whole answer: a tool was wanted, which was not offered, or it broke off."""


@dataclass(frozen=True, slots=True)
class Reply:
    """One whole HTTP response."""

    status: int
    """Its status."""

    body: bytes = b""
    """Its body as it came; no more than one byte over `MAX_RESPONSE_BYTES`."""

    encoding: str = ""
    """Its `Content-Encoding`."""

    retry_after: str = ""
    """Its `Retry-After`."""


@dataclass(frozen=True, slots=True)
class Source:
    """Who answered."""

    provider: str
    """As evidence names it."""

    where: str
    """Host and port."""


def read_reply(reply: Reply, source: Source) -> Completion:
    """Return the completion that a reply is.

    Raises:
        BackendError: it is none; of which kind, `docs/routes.md` says.
    """
    if _OK <= reply.status < 300:  # noqa: PLR2004 - HTTP's success class
        return _read_success(reply, source)
    code = "redirected" if 300 <= reply.status < _CLIENT_ERROR else f"http_{reply.status}"  # noqa: PLR2004 - the same
    if code == "redirected":
        moved = "a redirect, which is not followed: if the API has moved, change the base URL"
        text = f"{source.provider} at {source.where} answered {reply.status}, {moved}"
        raise Rejected(code, text, provider=source.provider)
    if reply.status < _OK:
        text = f"{source.provider} at {source.where} answered {reply.status}, which is no answer to a completion"
        raise Malformed(code, text, provider=source.provider)
    return _judge_error(reply.status, _error_document(reply), reply, source)


def retry_after_words(value: str) -> str:
    """Return a `Retry-After` header in words, as `, asks to wait 7 s`; "" for whatever is none. Raises nothing."""
    if value.isascii() and value.isdigit() and len(value) < 9:  # noqa: PLR2004 - 30 years in seconds
        return f", asks to wait {int(value)} s"
    try:
        return f", asks to wait until {parsedate_to_datetime(value[:64]).isoformat()}"
    except Exception:  # noqa: BLE001 - the standard library raises more than it says, and the status has said enough
        return ""


def _read_success(reply: Reply, source: Source) -> Completion:
    try:
        document = _parse(_decoded(reply, source), source)
        if not isinstance(document, dict):
            raise _malformed("wrong_shape", "the body is no JSON object", source)
        choice = _first_choice(document)
        error = document.get("error") or (choice.get("error") if choice else None)
        if error and not (choice and _text_of(_message(choice).get("content"))):
            return _judge_stated_error({**document, "error": error}, reply, source)
        return _completion(document, choice, source)
    except Malformed as failure:
        if reply.status == _OK or (failure.code not in ("not_json", "wrong_shape")):
            raise
    text = f"{source.provider} at {source.where} answered {reply.status}"
    if reply.status == _ACCEPTED:
        raise Ambiguous("http_202", f"{text}: it has taken the call, and no answer came", provider=source.provider)
    raise Malformed(f"http_{reply.status}", f"{text}, without a completion", provider=source.provider)


def _decoded(reply: Reply, source: Source) -> bytes:
    try:
        body = decode_body(reply.body, reply.encoding, MAX_RESPONSE_BYTES)
    except BadEncodingError as error:
        raise Malformed("bad_encoding", f"the answer of {source.where} {error}", provider=source.provider) from None
    if len(body) > MAX_RESPONSE_BYTES:
        text = f"the answer of {source.where} has more than {MAX_RESPONSE_BYTES} bytes"
        raise Malformed("too_large", text, provider=source.provider)
    return body


def _parse(body: bytes, source: Source) -> Any:
    try:
        return _load(body)
    except (ValueError, RecursionError):
        pass
    raise _malformed("not_json", "the body is no JSON", source)  # outside the handler: its error holds the body


def _load(body: bytes) -> Any:
    """Read JSON, with what servers put before it left out: a byte order mark, blanks, and comment lines of SSE."""
    text = body.decode("utf-8", "replace").removeprefix("\ufeff")
    before = _BEFORE_JSON.match(text)
    return json.loads(text[before.end() :] if before else text, parse_int=_integer)


def _integer(digits: str) -> int | float:
    return int(digits) if len(digits) <= _MAX_DIGITS else math.inf


def _first_choice(document: Mapping[str, Any]) -> dict[str, Any] | None:
    choices = document.get("choices")
    return choices[0] if isinstance(choices, list) and choices and isinstance(choices[0], dict) else None


def _message(choice: Mapping[str, Any]) -> Mapping[str, Any]:
    message = choice.get("message")
    return message if isinstance(message, dict) else {}


def _completion(document: Mapping[str, Any], choice: Mapping[str, Any] | None, source: Source) -> Completion:
    tokens = read_usage(document.get("usage"))
    if choice is None or "message" not in choice:
        raise _malformed("wrong_shape", "it has no choice with a message", source, tokens)
    model, said = _name(document.get("model")), document.get("provider")
    if said == STAND_IN or model.startswith(_MODEL_MARK):
        source = Source(STAND_IN, source.where)
    content = _text_of(_message(choice).get("content"))
    refusal = _text_of(_message(choice).get("refusal")) or _refusal_in(_message(choice).get("content"))
    if content is None:
        raise _malformed("wrong_shape", "its content is no text", source, tokens)
    finish, stated = _finish_reason(choice.get("finish_reason"))
    if finish is None:
        fault = f"it ended for the reason {stated}, under which the text is not the whole answer"
        raise _malformed("finish_reason", fault, source, tokens)
    refused = bool(refusal) or finish == "content_filter"
    text = refusal or content
    if not text and not refused:
        raise _malformed("empty_answer", "it has no text", source, tokens)
    return Completion(
        text=text,
        finish_reason=finish,
        provider=source.provider,
        model=model,
        response_id=_name(document.get("id")),
        tokens=tokens,
        refused=refused,
        stated_reason=stated,
    )


def _refusal_in(content: object) -> str:
    """Return the refusal among a message's parts; empty where there is none."""
    parts = [part for part in content if _part_kind(part) == "refusal"] if isinstance(content, list) else []
    return "".join(_text_of(part.get("refusal")) or "" for part in parts)


def _text_of(content: object) -> str | None:
    """Return a message's content as text: a string, or the text of its parts; None where it is neither."""
    match content:
        case None | False:
            return ""
        case str():
            return _SURROGATE.sub("\ufffd", content)
        case {"type": "text" | "output_text", "text": str(text)}:
            return _SURROGATE.sub("\ufffd", text)
        case list():
            kinds = ("text", "output_text")
            texts = [part for part in content if isinstance(part, str) or _part_kind(part) in kinds]
            return "".join(_text_of(part) or "" for part in texts)
        case _:
            return None


def _part_kind(part: object) -> object:
    """Return the type of a part of a message's content; None where it has none."""
    return part.get("type") if isinstance(part, dict) else None


def _finish_reason(said: object) -> tuple[FinishReason | None, str]:
    """Return why generation ended, None for a text that is not whole, and the word for it where it was another one."""
    if said is None or said == "":
        return "stop", "absent"
    word = said.strip() if isinstance(said, str) else ""
    if word in ("stop", "length", "content_filter"):
        return _REASONS[word], ""
    told = word if _PROVIDER_CODE.fullmatch(word) else "unprintable"
    if word.lower() in _NO_ENDING:
        return None, told
    return _REASONS.get(word.lower(), "stop"), told


def _name(value: object) -> str:
    """Return a name that a provider chose, as far as evidence can hold it; "" where it cannot."""
    if isinstance(value, int) and not isinstance(value, bool):
        value = str(value)
    return value if isinstance(value, str) and len(value) <= MAX_NAME and value.isprintable() else ""


def read_usage(usage: object) -> Tokens:
    """Return the token counts of an answer; what is no count, or cannot be one, is unknown."""
    if not isinstance(usage, dict):
        return UNKNOWN_TOKENS
    read = _count(usage.get("prompt_tokens", usage.get("input_tokens")))
    written = _count(usage.get("completion_tokens", usage.get("output_tokens")))
    cached = _detail(usage, "prompt_tokens_details", "cached_tokens")
    cached = cached or _count(usage.get("prompt_cache_hit_tokens")) or 0
    reasoning = _detail(usage, "completion_tokens_details", "reasoning_tokens")
    if read is not None and written is not None and reasoning:
        # Some providers count reasoning within what was generated, and some beside it; the total tells.
        beside = _count(usage.get("total_tokens")) == read + written + reasoning
        written = written + reasoning if beside or reasoning > written else written
    if written is not None and written > MAX_TOKENS:
        written = None
    return Tokens(
        input=read,
        output=written,
        cached=cached if read is not None and cached <= read else 0,
        reasoning=reasoning if written is not None and reasoning <= written else 0,
    )


def _detail(usage: Mapping[str, Any], group: str, name: str) -> int:
    details = usage.get(group)
    return (_count(details.get(name)) or 0) if isinstance(details, dict) else 0


def _count(value: object) -> int | None:
    if isinstance(value, str) and value.isascii() and value.isdigit() and len(value) <= _MAX_DIGITS:
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= MAX_TOKENS:
        return None
    return int(value) if value == int(value) else None


def _error_document(reply: Reply) -> Mapping[str, Any]:
    """Return the JSON object that an error's body is; an empty one where it is none: the status says what matters."""
    try:
        document = _load(decode_body(reply.body, reply.encoding, MAX_RESPONSE_BYTES))
    except (ValueError, RecursionError, BadEncodingError):
        return {}
    return document if isinstance(document, dict) else {}


def _judge_stated_error(document: Mapping[str, Any], reply: Reply, source: Source) -> Completion:
    """Judge an error in a reply whose status is a success, as the status that it should have had."""
    error = document["error"]
    codes = [error.get("code"), error.get("status"), error.get("type")] if isinstance(error, dict) else [error]
    for code in codes:
        number = _count(code)
        if number is None and isinstance(code, str):
            number = _STATUS_OF.get(code.lower())
        if number is not None and _CLIENT_ERROR <= number <= _LAST_ERROR:
            return _judge_error(number, document, reply, source)
    if _is_filtered(document):
        return _refused(source)
    tokens = read_usage(document.get("usage"))
    raise _malformed("provider_error", f"it is an error{_code_words(document)}", source, tokens)


def _judge_error(status: int, document: Mapping[str, Any], reply: Reply, source: Source) -> Completion:
    """Return a refusal, where an error is one.

    Raises:
        BackendError: it is none.
    """
    if status < _SERVER_ERROR and _is_filtered(document):
        return _refused(source)
    stated = f"{reply.status} with an error {status}" if reply.status < _CLIENT_ERROR else str(status)
    text = f"{source.provider} at {source.where} answered {stated}{_code_words(document)}"
    own = _is_own(document) or bool(reply.retry_after)
    kind: type[BackendError]
    if status in _REFUSED_STATUS or (status in _REFUSED_BY_PROVIDER and own):
        kind, text = Unavailable, text + retry_after_words(reply.retry_after)
    elif status in _MAYBE_ACCEPTED or status >= _SERVER_ERROR:
        kind, text = Ambiguous, f"{text}: it may have taken the call"
    else:
        kind = Rejected
    raise kind(f"http_{status}", text, provider=source.provider)


def _refused(source: Source) -> Completion:
    """Return the refusal of a content filter that looked at the prompt; how many tokens it counted is not told."""
    return Completion(
        text="",
        finish_reason="content_filter",
        provider=source.provider,
        model="",
        response_id="",
        tokens=UNKNOWN_TOKENS,
        refused=True,
    )


def _is_own(document: Mapping[str, Any]) -> bool:
    """Say whether an error's body is the API's own, and not that of a gateway before it."""
    return bool(document.get("error") or document.get("detail")) or "error" in (
        document.get("object"),
        document.get("type"),
    )


def _is_filtered(document: Mapping[str, Any]) -> bool:
    error = document.get("error")
    if not isinstance(error, dict):
        return False
    inner = error.get("innererror") or error.get("inner_error")
    codes = [error.get("code"), error.get("type"), inner.get("code") if isinstance(inner, dict) else None]
    return any(isinstance(code, str) and code in _FILTERED for code in codes)


def _code_words(document: Mapping[str, Any]) -> str:
    """Return the provider's own short code for an error, as ` (code)`; "" where there is none to be had."""
    error = document.get("error")
    for said in (error.get("code"), error.get("type")) if isinstance(error, dict) else ():
        if isinstance(said, str) and _PROVIDER_CODE.fullmatch(said):
            return f" ({said})"
    return ""


def _malformed(code: str, fault: str, source: Source, tokens: Tokens = UNKNOWN_TOKENS) -> Malformed:
    text = f"the answer of {source.where} is unusable: {fault}"
    return Malformed(code, text, provider=source.provider, tokens=tokens if tokens.known else None)
