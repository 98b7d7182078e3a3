"""What the stand-in does with a request: rules, the choice among them, and the bytes of the answer.

All of it is pure: the server hands in the request, the counters and the time, and gets back what to write.

A script is JSON, `{"rules": [RULE, ...]}`. The first rule that matches decides; without one, the stand-in answers with
a text that says that no model ran. An unknown field is an error, never ignored.

    {"rules": [
      {"contains": "weather", "times": 2, "do": {"status": 429, "retry_after_s": 3}},
      {"call_id": "int-7",                "do": {"drop": "after-accept"}},
      {"contains": "phone",               "do": {"text": "Call Erika on +49 30 901820"}}
    ]}
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Final, Literal, Self

import orjson
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from evidence.errors import ConfigError
from evidence.faults import faults

PROVIDER: Final = "stand-in"
"""What everything that the stand-in serves says of itself."""

MODEL_PREFIX: Final = "stand-in/"
"""Put before the requested model's name in each answer: the model that was asked for is not the one that answered."""

MARK: Final = "[stand-in]"
"""The first word of each answer that no rule has written."""

_ECHOED_WORDS = 8

Drop = Literal["before-read", "after-accept", "mid-body"]
Malformed = Literal["not-json", "wrong-shape", "truncated"]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class Behaviour(_Strict):
    """What happens to a request; an empty one is the default answer."""

    latency_ms: Annotated[float, Field(strict=False, ge=0, le=3_600_000)] = 0
    """Milliseconds between the whole request and the first byte of the answer (or the drop)."""

    status: Annotated[int, Field(ge=200, le=599)] | None = None
    """Answer with this status and an error body (400 and above), or with this status and the completion (2xx)."""

    retry_after_s: Annotated[int, Field(ge=0)] | None = None
    """`Retry-After` in seconds; only together with `status`."""

    redirect: str | None = None
    """Answer 307 with this `Location`."""

    refusal: str | None = None
    """Answer with `message.refusal` set to this text and `content` null."""

    content_filter: bool = False
    """Answer with `finish_reason` `content_filter`; `content` is `text`, or null without one."""

    malformed: Malformed | None = None
    """Answer 200 with a body that is not JSON, is JSON of another shape, or is JSON cut in half (lengths agree)."""

    drop: Drop | None = None
    """Close the connection: on seeing the headers, after reading everything, or half-way through the answer."""

    text: str | None = None
    """Answer with exactly this text."""

    input_tokens: Annotated[int, Field(ge=0)] | None = None
    """Tokens reported as read; by default the words of all messages."""

    output_tokens: Annotated[int, Field(ge=0)] | None = None
    """Tokens reported as generated; by default the words of the answer."""

    @model_validator(mode="after")
    def _one_outcome(self) -> Self:
        error = self.status is not None and self.status >= 300  # noqa: PLR2004 - the end of HTTP's success class
        chosen = [
            name
            for name, is_set in (
                ("status", error),
                ("redirect", self.redirect is not None),
                ("refusal", self.refusal is not None),
                ("content_filter", self.content_filter),
                ("malformed", self.malformed is not None),
                ("drop", self.drop is not None),
            )
            if is_set
        ]
        if len(chosen) > 1:
            raise ValueError(f"{' and '.join(chosen)} exclude each other: a request has one outcome")
        if self.status in (204, 304):
            raise ValueError(f"status {self.status} has no body, and each answer here has one: choose another")
        if self.drop == "before-read" and self.latency_ms:
            raise ValueError("before-read closes at once: leave latency_ms out, or drop after-accept")
        if self.retry_after_s is not None and self.status is None:
            raise ValueError("retry_after_s needs a status, for example 429")
        if self.text is not None and chosen and chosen[0] not in ("content_filter", "drop"):
            raise ValueError(f"text is never sent together with {chosen[0]}: leave one out")
        if self.redirect is not None and not (self.redirect.isascii() and self.redirect.isprintable()):
            raise ValueError("redirect must be printable ASCII: it becomes a header")
        return self

    @cached_property
    def name(self) -> str:
        """The outcome in a word, as the call log shows it, for example `status:429` or `drop:mid-body`."""
        named = (
            (self.drop is not None, f"drop:{self.drop}"),
            (self.malformed is not None, f"malformed:{self.malformed}"),
            (self.redirect is not None, "redirect"),
            (self.refusal is not None, "refusal"),
            (self.content_filter, "content_filter"),
            (self.status is not None, f"status:{self.status}"),
            (self.text is not None, "text"),
        )
        return next((name for is_set, name in named if is_set), "answer")


class Rule(_Strict):
    """One line of a script: when, how often, what."""

    contains: Annotated[str, Field(min_length=1)] | None = None
    """Matches where the last user message has this text in it (case counts)."""

    call_id: Annotated[str, Field(min_length=1)] | None = None
    """Matches where the `Idempotency-Key` is this."""

    times: Annotated[int, Field(ge=1)] | None = None
    """How many requests the rule takes before it is spent; without it, all of them."""

    do: Behaviour = Behaviour()
    """What happens then."""

    @model_validator(mode="after")
    def _decidable(self) -> Self:
        if self.contains is not None and self.do.drop == "before-read":
            raise ValueError("before-read happens before the messages are known: match by call_id or times instead")
        return self


class Script(_Strict):
    """The rules of a stand-in, in the order in which they are tried."""

    rules: tuple[Rule, ...] = ()
    """Tried from the first to the last; the first match decides."""

    @classmethod
    def parse(cls, raw: bytes, where: str) -> Self:
        """Read a script from JSON.

        Args:
            raw: the JSON text, UTF-8.
            where: what to call it in an error (a file's name, `the request's body`).

        Raises:
            ConfigError: it is not JSON, or breaks the rules above; the text names each wrong field.
        """
        try:
            return cls.model_validate_json(raw)
        except ValidationError as exc:
            told = "; ".join(f"{'.'.join(map(str, one.place)) or 'the whole'}: {one.text}" for one in faults(exc, cls))
            raise ConfigError(f"{where} is no stand-in script: {told}") from None

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read a script from a file; raises `ConfigError` like `parse`, also where it cannot be read."""
        try:
            raw = path.read_bytes()
        except OSError as exc:
            raise ConfigError(f"the stand-in script {path} cannot be read: {exc.strerror}") from exc
        return cls.parse(raw, str(path))


def choose(rules: Sequence[Rule], used: Sequence[int], call_id: str, prompt: str | None) -> int | None:
    """Find the rule for a request.

    Args:
        rules: the script, in order.
        used: how many requests each rule has taken.
        call_id: the request's `Idempotency-Key`, "" without one.
        prompt: its last user message; None while only the headers are there. Then only a `before-read` rule can be
            found, and only where no earlier rule could still take the request.

    Returns:
        The rule's place, or None: no rule, or (without a prompt) none that can act yet.
    """
    for place, rule in enumerate(rules):
        if rule.times is not None and used[place] >= rule.times:
            continue
        if rule.call_id is not None and rule.call_id != call_id:
            continue
        if prompt is None:
            return place if rule.do.drop == "before-read" else None
        if rule.contains is None or rule.contains in prompt:
            return place
    return None


class AskedMessage(BaseModel):
    """A message of a request; fields that the stand-in has no use for are let through, as providers do."""

    role: Literal["system", "developer", "user", "assistant", "tool"]
    """Who speaks."""

    content: str
    """What is said."""


class Asked(BaseModel):
    """A chat-completion request, as far as the stand-in reads it."""

    model: Annotated[str, Field(min_length=1)]
    """The model that is asked for."""

    messages: Annotated[tuple[AskedMessage, ...], Field(min_length=1)]
    """The conversation."""

    max_tokens: Annotated[int, Field(ge=1)] | None = None
    """The most words that the default answer has."""

    max_completion_tokens: Annotated[int, Field(ge=1)] | None = None
    """The newer name of `max_tokens`."""

    stream: Literal[False] = False
    """The stand-in does not stream."""

    @property
    def prompt(self) -> str:
        """The last user message, "" where no user has spoken."""
        for message in reversed(self.messages):
            if message.role == "user":
                return message.content
        return ""


@dataclass(frozen=True, slots=True)
class Reply:
    """What to write on the connection."""

    status: int
    """HTTP status."""

    body: bytes
    """JSON, except where the behaviour asks for something else."""

    headers: tuple[tuple[str, str], ...] = ()
    """Headers besides type, length and the stand-in's mark."""

    half: bool = False
    """Write only half of the body, then close the connection."""


def default_text(asked: Asked) -> str:
    """Say honestly, and the same for the same request, that no model has answered."""
    characters = sum(len(message.content) for message in asked.messages)
    words = asked.prompt.split(maxsplit=_ECHOED_WORDS)
    more = " ..." if len(words) > _ECHOED_WORDS else ""
    return (
        f"{MARK} No model ran. {len(asked.messages)} message(s), {characters} characters came in; "
        f"the last begins: {' '.join(words[:_ECHOED_WORDS])}{more}"
    )


def reply_to(asked: Asked, do: Behaviour, seq: int, now: float) -> Reply:
    """Make the answer to a request.

    Args:
        asked: the request.
        do: what happens to it; `drop` before an answer is the server's business and not looked at here.
        seq: the number of the call, which becomes the answer's id.
        now: seconds since the epoch, for `created`.
    """
    if do.redirect is not None:
        return Reply(
            307, error_body("moved", "This is a redirect that a script asked for."), (("location", do.redirect),)
        )
    if do.status is not None and do.status >= 300:  # noqa: PLR2004 - the end of HTTP's success class
        extra = () if do.retry_after_s is None else (("retry-after", str(do.retry_after_s)),)
        return Reply(do.status, error_body("scripted", f"A script asked for status {do.status}."), extra)
    if do.malformed == "not-json":
        return Reply(200, f"<html><body>{MARK} this is not JSON</body></html>".encode())
    if do.malformed == "wrong-shape":
        return Reply(200, orjson.dumps({"provider": PROVIDER, "object": "list", "data": []}))
    body = _completion(asked, do, seq, now)
    if do.malformed == "truncated":
        return Reply(200, body[: len(body) // 2])
    return Reply(do.status or 200, body, half=do.drop == "mid-body")


def error_body(code: str, message: str) -> bytes:
    """An error in the form that OpenAI-compatible providers use, marked as the stand-in's."""
    return orjson.dumps(
        {
            "error": {"message": f"{MARK} {message}", "type": "stand_in", "param": None, "code": code},
            "provider": PROVIDER,
        }
    )


def _completion(asked: Asked, do: Behaviour, seq: int, now: float) -> bytes:
    finish = "stop"
    content = do.text
    message: dict[str, Any] = {"role": "assistant", "content": None, "refusal": do.refusal}
    if do.content_filter:
        finish = "content_filter"
    elif do.refusal is None and content is None:
        words = default_text(asked).split(" ")
        limit = asked.max_tokens or asked.max_completion_tokens or len(words)
        if limit < len(words):
            finish = "length"
        content = " ".join(words[:limit])
    if do.refusal is None:
        message["content"] = content
    said = do.refusal or content or ""
    read = sum(len(each.content.split()) for each in asked.messages) if do.input_tokens is None else do.input_tokens
    wrote = len(said.split()) if do.output_tokens is None else do.output_tokens
    return orjson.dumps(
        {
            "id": f"chatcmpl-standin-{seq}",
            "object": "chat.completion",
            "created": int(now),
            "model": MODEL_PREFIX + asked.model,
            "provider": PROVIDER,
            "choices": [{"index": 0, "message": message, "logprobs": None, "finish_reason": finish}],
            "usage": {"prompt_tokens": read, "completion_tokens": wrote, "total_tokens": read + wrote},
        }
    )
