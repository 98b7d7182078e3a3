"""Hosted models behind the OpenAI chat-completions protocol, over aiohttp: one POST for each call, never two.

The question that each failure has to answer is whether the provider may have the data (promise P5). aiohttp says when
it is about to write a request (`TraceConfig.on_request_headers_sent`); what fails before that is `NotSent`, what fails
after it without a usable answer is `Ambiguous`. aiohttp resends a request over a dead kept-alive connection only for
idempotent methods, and POST is not one (`ClientSession._request`); a test counts the requests on a raw socket.

How an answer's status is read:

    2xx             a completion, or Malformed; 202 is Ambiguous: accepted, and nothing came
    3xx             Rejected `redirected`: following it would carry the data to another destination
    409             Ambiguous: the same Idempotency-Key is, or was, at work there
    408, 425, 429   Unavailable: it says itself that it did not take the call
    504, 524        Ambiguous: a gateway gave up waiting, and the model behind it may not have
    other 5xx       Unavailable
    other 4xx       Rejected

An error names the status and the provider's own error code, never its sentence: providers quote prompts and keys.
"""

from __future__ import annotations

import re
import ssl
from collections.abc import Mapping
from email.utils import parsedate_to_datetime
from types import SimpleNamespace
from typing import Annotated, Final, Literal

import aiohttp
import orjson
from multidict import CIMultiDict
from pydantic import BaseModel, ConfigDict, Field, JsonValue, SecretStr, ValidationError
from yarl import URL

from evidence.errors import ConfigError
from evidence.hosts import is_this_machine
from inference.backend import Completion, FinishReason, ModelCall
from inference.errors import Ambiguous, BackendError, Malformed, NotSent, Rejected, Unavailable

STAND_IN: Final = "stand-in"
"""The provider of every answer that carries the stand-in's mark, whatever the configuration says."""

MAX_RESPONSE_BYTES: Final = 8 * 1024 * 1024
"""The largest answer that is read, after decompression."""

KEEPALIVE_S: Final = 4.0
"""How long an idle connection is kept: under the 5 s after which common servers (uvicorn, Node) close it, since a call
written onto a connection that the server is just closing would be ambiguous."""

_MARK_HEADER = "x-waybill-provider"
_MODEL_MARK = "stand-in/"
_DNS_TTL_S = 30
_NEVER = float("inf")
_MAX_ERROR_BYTES = 64 * 1024
_OWN_FIELDS = frozenset({"model", "messages", "max_tokens", "max_completion_tokens", "temperature", "stream", "n"})
_CALL_ID = re.compile(r"[!-~]{1,200}")
_TRACEPARENT = re.compile(r"[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}")
_PROVIDER_CODE = re.compile(r"[A-Za-z]{1,24}(?:[_.-][A-Za-z]{1,24}){0,7}")
"""A code in words, such as `rate_limit_exceeded`; what has digits may be a key or an id that the provider repeats."""

_KEY = re.compile(r"[!-~]+")
_AUTHORIZATION = re.compile(r"[A-Za-z][A-Za-z0-9-]{0,31} [!-~]+")
_AMBIGUOUS_STATUS = frozenset({202, 409, 504, 524})
_DECLINED_STATUS = frozenset({408, 425, 429})


class _Read(BaseModel):
    model_config = ConfigDict(strict=True, frozen=True)


class _Message(_Read):
    content: str | None = None
    refusal: str | None = None


class _Choice(_Read):
    message: _Message
    finish_reason: str


class _Usage(_Read):
    prompt_tokens: Annotated[int, Field(ge=0)]
    completion_tokens: Annotated[int, Field(ge=0)]


class _Answer(_Read):
    """What is needed of a chat completion; providers add fields, and those are let through unread."""

    id: Annotated[str, Field(max_length=512)] | None = None
    model: Annotated[str, Field(max_length=512)]
    provider: JsonValue = None
    choices: Annotated[list[_Choice], Field(min_length=1)]
    usage: _Usage


class _ErrorDetail(_Read):
    code: JsonValue = None
    type: JsonValue = None


class _ErrorAnswer(_Read):
    error: _ErrorDetail


class _Progress:
    """How far a call has come."""

    __slots__ = ("provider", "written")

    def __init__(self) -> None:
        self.written = False
        self.provider = ""


async def _note_written(_session: object, context: SimpleNamespace, _params: object) -> None:
    context.trace_request_ctx.written = True


class OpenAICompatibleBackend:
    """A hosted provider that speaks the OpenAI chat-completions protocol.

    It keeps up to `connections` connections open, holds no state between calls, never retries, never follows a
    redirect, ignores proxy variables and `.netrc`, keeps no cookies, and never shows its key. Use it in one event loop.
    """

    def __init__(
        self,
        *,
        base_url: str,
        provider: str,
        api_key: SecretStr | None = None,
        connections: int = 100,
        connect_timeout_s: float = 10.0,
        allow_plaintext: bool = False,
        tls: ssl.SSLContext | None = None,
        max_tokens_field: Literal["max_tokens", "max_completion_tokens"] = "max_tokens",
        extra_body: Mapping[str, JsonValue] | None = None,
        authorized_calls: bool = False,
    ) -> None:
        """Check the configuration; nothing is connected before the first call.

        Args:
            base_url: where the API begins, for example `https://api.example.com/v1`.
            provider: the name that evidence knows this provider by; a stand-in's answers override it.
            api_key: the workload's key, sent as a bearer token; None for servers that need none.
            connections: the most connections that are open at the same time, at least 1.
            connect_timeout_s: seconds to make a connection, TLS included, within each call's own time limit. A call
                waits for one of the `connections` as long as its own limit allows.
            allow_plaintext: permit `http://` to hosts other than this machine.
            tls: how to verify the server, for example with a private authority; None uses the system's authorities.
            max_tokens_field: how this provider calls the limit of generated tokens.
            extra_body: fields added to each request, for example a gateway's data-collection rules.
            authorized_calls: each call has to bring its own authorization; one without is not sent.

        Raises:
            ConfigError: something of this is wrong.
        """
        url = _checked_url(base_url, allow_plaintext=allow_plaintext)
        if connections < 1:
            raise ConfigError(f"connections is {connections}: give at least 1")
        if connect_timeout_s <= 0:
            raise ConfigError(f"connect_timeout_s is {connect_timeout_s}: give more than 0 seconds")
        if not provider:
            raise ConfigError(f"the provider at {url} has no name: evidence needs one")
        if tls is not None and (tls.verify_mode is not ssl.CERT_REQUIRED or not tls.check_hostname):
            raise ConfigError(f"the TLS settings for {url} do not verify the server: data must not go there")
        if authorized_calls and api_key is not None:
            raise ConfigError(f"the provider at {url} has a key, and so needs no calls that bring their own")
        if taken := sorted(_OWN_FIELDS & set(extra_body or ())):
            raise ConfigError(f"extra_body for {url} sets {', '.join(taken)}: these come from the call")
        self._provider = provider
        self._key = api_key
        self._where = f"{url.host}:{url.port}"
        self._calls_url = url / "chat" / "completions"
        self._models_url = url / "models"
        self._connections = connections
        self._connect_timeout_s = connect_timeout_s
        self._tls: ssl.SSLContext | bool = True if tls is None else tls
        self._max_tokens_field = max_tokens_field
        self._extra = dict(extra_body or {})
        self._headers = _fixed_headers(api_key, url)
        self._authorized_calls = authorized_calls
        self._session: aiohttp.ClientSession | None = None
        self._closed = False

    def __repr__(self) -> str:
        key = "none" if self._key is None else "**********"
        return f"{type(self).__name__}(provider={self._provider!r}, url={str(self._calls_url)!r}, api_key={key})"

    async def complete(self, call: ModelCall) -> Completion:
        """Ask once; see `inference.backend.Backend.complete` for the errors."""
        body = self._encode(call)
        headers = self._headers.copy()
        headers["Idempotency-Key"] = call.call_id
        headers["X-Waybill-Intent"] = call.call_id
        if call.traceparent:
            headers["traceparent"] = call.traceparent
        if call.authorization is not None:
            headers["Authorization"] = call.authorization.get_secret_value()
        progress = _Progress()
        failure: BackendError
        try:
            async with self._open().request(
                "POST",
                self._calls_url,
                data=body,
                headers=headers,
                allow_redirects=False,
                timeout=self._timeout(call.timeout_s),
                trace_request_ctx=progress,
            ) as response:
                progress.provider = self._name(response)
                return await self._read(response, progress.provider)
        except BackendError:
            raise
        except Exception as exc:  # noqa: BLE001 - whatever it was, the caller must learn whether data may have left
            failure = self._explain(exc, progress, call.timeout_s)
        raise failure  # outside the handler: aiohttp's errors hold the request's headers, and so the key

    async def ready(self) -> str:
        """Ask for the list of models; see `inference.backend.Backend.ready`."""
        failure: BackendError
        progress = _Progress()
        try:
            async with self._open().get(
                self._models_url,
                headers=self._headers,
                allow_redirects=False,
                timeout=self._timeout(self._connect_timeout_s),
                trace_request_ctx=progress,
            ) as response:
                status, name = response.status, self._name(response)
        except BackendError:
            raise
        except Exception as exc:  # noqa: BLE001 - for the caller they all mean that nobody is there
            failure = self._explain(exc, progress, self._connect_timeout_s)
            failure = NotSent(failure.code, str(failure), provider=failure.provider)
        else:
            expected = (401, 403, 404, 405) if self._authorized_calls else (404, 405)  # asked without a token
            if status < 300 or status in expected:  # noqa: PLR2004 - some providers keep no list of models
                return f"{name} at {self._where} answers ({status})"
            what = "refuses the key" if status in (401, 403) else "cannot serve"
            failure = NotSent(f"http_{status}", f"{name} at {self._where} {what} ({status})", provider=name)
        raise failure  # outside the handler, like above

    async def close(self) -> None:
        """Give back the connections; calls that still wait end as `Ambiguous`. Safe to call twice."""
        self._closed = True
        session, self._session = self._session, None
        if session is not None:
            await session.close()

    def _open(self) -> aiohttp.ClientSession:
        if self._closed:
            raise NotSent("closed", f"the backend for {self._where} has been closed: make a new one")
        if self._session is None:
            trace = aiohttp.TraceConfig()
            trace.on_request_headers_sent.append(_note_written)
            self._session = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(
                    limit=self._connections,
                    keepalive_timeout=KEEPALIVE_S,
                    ttl_dns_cache=_DNS_TTL_S,
                    ssl=self._tls,
                ),
                cookie_jar=aiohttp.DummyCookieJar(),
                trace_configs=[trace],
                trust_env=False,
            )
        return self._session

    def _timeout(self, total_s: float) -> aiohttp.ClientTimeout:
        # aiohttp rounds limits above ceil_threshold up to whole seconds; a call's limit is meant exactly
        return aiohttp.ClientTimeout(total=total_s, sock_connect=self._connect_timeout_s, ceil_threshold=_NEVER)

    def _encode(self, call: ModelCall) -> bytes:
        """Make the request's body, or say that this call cannot be one."""
        wrong = ""
        if not _CALL_ID.fullmatch(call.call_id):
            wrong = "its call_id is not 1 to 200 visible ASCII characters"
        elif call.traceparent and not _TRACEPARENT.fullmatch(call.traceparent):
            wrong = "its traceparent is not in the form of W3C Trace Context"
        elif call.authorization is None and self._authorized_calls:
            wrong = "it brings no authorization, and this destination has to be told who calls"
        elif call.authorization is not None and not _AUTHORIZATION.fullmatch(call.authorization.get_secret_value()):
            wrong = "its authorization is not a scheme and a token"
        elif not call.messages:
            wrong = "it has no messages"
        elif call.max_tokens < 1 or not call.timeout_s > 0:
            wrong = "max_tokens and timeout_s have to be more than 0"
        else:
            try:
                return orjson.dumps(
                    {
                        **self._extra,
                        "model": call.model,
                        "messages": [{"role": each.role, "content": each.content} for each in call.messages],
                        self._max_tokens_field: call.max_tokens,
                        "temperature": call.temperature,
                        "stream": False,
                    }
                )
            except TypeError:  # lone surrogates: text that UTF-8 cannot carry
                wrong = "its text cannot be written as UTF-8"
        raise NotSent("bad_call", f"nothing was sent to {self._where}, because the call is wrong: {wrong}")

    async def _read(self, response: aiohttp.ClientResponse, provider: str) -> Completion:
        status = response.status
        if status == 200:  # noqa: PLR2004 - OK
            return self._decode(await self._body(response, MAX_RESPONSE_BYTES), provider)
        code = "redirected" if 300 <= status < 400 else f"http_{status}"  # noqa: PLR2004 - HTTP's classes
        text = f"{provider} at {self._where} answered {status}"
        if status in _AMBIGUOUS_STATUS:
            raise Ambiguous(code, f"{text}: it may have taken the call", provider=provider)
        if status in _DECLINED_STATUS or status >= 500:  # noqa: PLR2004 - the same
            wait = _retry_after(response.headers.get("Retry-After", ""))
            raise Unavailable(code, text + await self._error_code(response) + wait, provider=provider)
        if code == "redirected":
            text += ", a redirect, which is not followed: if the API has moved, change the base URL"
            raise Rejected(code, text, provider=provider)
        if status >= 400:  # noqa: PLR2004 - the same
            raise Rejected(code, text + await self._error_code(response), provider=provider)
        raise Malformed(code, f"{text}, which is no answer to a completion", provider=provider)

    async def _body(self, response: aiohttp.ClientResponse, limit: int) -> bytes:
        """Read the body; more than `limit` bytes are `Malformed` and end the connection."""
        stream = response.content
        data = await stream.readany()
        if stream.at_eof() and len(data) <= limit:
            return data
        parts = [data]
        size = len(data)
        while size <= limit and (data := await stream.readany()):
            parts.append(data)
            size += len(data)
        if size > limit:
            response.close()
            raise Malformed(
                "too_large", f"the answer of {self._where} has more than {limit} bytes", provider=self._name(response)
            )
        return b"".join(parts)

    async def _error_code(self, response: aiohttp.ClientResponse) -> str:
        """The provider's own short code for an error, as ` (code)`, or "" where there is none to be had."""
        try:
            detail = _ErrorAnswer.model_validate_json(await self._body(response, _MAX_ERROR_BYTES)).error
        except (ValidationError, aiohttp.ClientError, OSError, Malformed):
            return ""  # the status has said what matters
        for said in (detail.code, detail.type):
            if isinstance(said, str) and _PROVIDER_CODE.fullmatch(said):
                return f" ({said})"
        return ""

    def _decode(self, body: bytes, provider: str) -> Completion:
        try:
            answer = _Answer.model_validate_json(body)
        except ValidationError as exc:
            fault = exc.errors(include_url=False, include_input=False, include_context=False)[0]
            code = "not_json" if fault["type"] == "json_invalid" else "wrong_shape"
            # of the fault only its place and kind: pydantic's sentence about bad JSON can quote the text
            where = ".".join(map(str, fault["loc"])) or "the body"
            text = f"the answer of {self._where} is no chat completion: {where}: {fault['type']}"
            failure = Malformed(code, text, provider=provider)
        else:
            if answer.provider == STAND_IN or answer.model.startswith(_MODEL_MARK):
                provider = STAND_IN
            return self._completion(answer, provider)
        raise failure

    def _completion(self, answer: _Answer, provider: str) -> Completion:
        choice = answer.choices[0]
        refusal = choice.message.refusal
        finish = _finish_reason(choice.finish_reason)
        refused = bool(refusal) or finish == "content_filter"
        text = refusal or choice.message.content or ""
        if finish is None:
            said = choice.finish_reason if _PROVIDER_CODE.fullmatch(choice.finish_reason) else "something unprintable"
            fault = f"it ended for the reason {said}, which was not asked for or is not known"
            raise Malformed("finish_reason", f"the answer of {self._where} is unusable: {fault}", provider=provider)
        if not text and not refused:
            raise Malformed("empty_answer", f"the answer of {self._where} has no text", provider=provider)
        return Completion(
            text=text,
            finish_reason=finish,
            provider=provider,
            model=answer.model,
            response_id=answer.id or "",
            input_tokens=answer.usage.prompt_tokens,
            output_tokens=answer.usage.completion_tokens,
            refused=refused,
        )

    def _name(self, response: aiohttp.ClientResponse) -> str:
        return STAND_IN if response.headers.get(_MARK_HEADER) == STAND_IN else self._provider

    def _explain(self, exc: Exception, progress: _Progress, timeout_s: float) -> BackendError:
        """Say what a failure of the transport means for the data."""
        if isinstance(exc, aiohttp.ClientResponseError):
            return Malformed("bad_http", f"what {self._where} answered is not HTTP")
        late = isinstance(exc, TimeoutError)
        if progress.written:
            code = "timeout" if late else "disconnected"
            what = (
                f"gave no answer within {timeout_s:g} s" if late else "broke the connection off before its answer ended"
            )
            text = f"{self._where} {what} ({type(exc).__name__}): it may have taken the call"
            return Ambiguous(code, text, provider=progress.provider)
        code, what = _before_writing(exc)
        return NotSent(code, f"nothing was sent to {self._where}: {what}")


def _before_writing(exc: Exception) -> tuple[str, str]:
    """Name what kept a request from being written: a code and a sentence."""
    if isinstance(exc, TimeoutError):
        return "connect_timeout", "no connection in time (it does not answer, or all connections are busy)"
    if isinstance(exc, aiohttp.ClientConnectorDNSError):
        return "dns_failed", "its name cannot be resolved"
    if isinstance(exc, aiohttp.ClientConnectorCertificateError):
        reason = getattr(exc.certificate_error, "verify_message", "")
        return "tls_failed", f"its certificate is not to be trusted ({reason or type(exc.certificate_error).__name__})"
    if isinstance(exc, aiohttp.ClientSSLError):
        return "tls_failed", f"the TLS handshake failed ({type(exc.os_error).__name__})"
    if isinstance(exc, aiohttp.ClientConnectorError):
        return "connect_failed", f"no connection ({exc.os_error.strerror or type(exc.os_error).__name__})"
    return "not_sent", f"the request ended before it was written ({type(exc).__name__})"


def _finish_reason(said: str) -> FinishReason | None:
    match said:
        case "stop" | "length" | "content_filter":
            return said
        case _:
            return None


def _retry_after(value: str) -> str:
    """A `Retry-After` header in words, as `, asks to wait 7 s`, or "" where it is none."""
    if value.isascii() and value.isdigit() and len(value) < 9:  # noqa: PLR2004 - 30 years in seconds
        return f", asks to wait {int(value)} s"
    try:
        return f", asks to wait until {parsedate_to_datetime(value).isoformat()}"
    except ValueError:
        return ""


def _fixed_headers(key: SecretStr | None, url: URL) -> CIMultiDict[str]:
    headers = CIMultiDict(
        {
            "Content-Type": "application/json",
            "Accept": "application/json",
            "Accept-Encoding": "identity",
            "User-Agent": "waybill",
        }
    )
    if key is not None:
        secret = key.get_secret_value()
        if not _KEY.fullmatch(secret):
            raise ConfigError(f"the key for {url} is empty or has characters that no header can carry (a line end?)")
        headers["Authorization"] = f"Bearer {secret}"
    return headers


def _checked_url(base_url: str, *, allow_plaintext: bool) -> URL:
    try:
        url = URL(base_url)
    except ValueError:
        url = URL()
    # none of these errors quotes the URL: a password or a key may be in it
    if url.scheme not in ("http", "https") or not url.host:
        raise ConfigError("the base URL of a hosted provider is none: write https://HOST/PATH")
    if url.user is not None or url.password is not None:
        raise ConfigError(f"the base URL for {url.host} has a user or password in it: set the key by itself")
    if url.query_string or url.fragment:
        raise ConfigError(f"the base URL for {url.host} has a query or a fragment: leave it out")
    if url.scheme == "http" and not allow_plaintext and not is_this_machine(url.host):
        raise ConfigError(f"the base URL for {url.host} would carry data unencrypted to another machine: use https://")
    return url
