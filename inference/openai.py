"""Hosted models behind the OpenAI chat-completions protocol, over aiohttp: one POST for each call, never two.

The question that each failure has to answer is whether the provider may have the data (promise P5). aiohttp says when
it is about to write a request (`TraceConfig.on_request_headers_sent`); what fails before that is `NotSent`, what fails
after it without a whole answer is `Ambiguous`. aiohttp resends a request over a dead kept-alive connection only for
idempotent methods, and POST is not one (`ClientSession._request`); a test counts the requests on a raw socket.

`inference.http_transport` sees to it that an answer belongs to its request, and `inference.chat_answer` reads it.
"""

from __future__ import annotations

import logging
import re
import ssl
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Final, Literal

import aiohttp
import orjson
from multidict import CIMultiDict
from pydantic import JsonValue, SecretStr
from yarl import URL

from evidence.errors import ConfigError, kind_and_place
from evidence.hosts import is_this_machine
from inference.backend import Completion, ModelCall
from inference.chat_answer import MAX_RESPONSE_BYTES, STAND_IN, Reply, Source, read_reply
from inference.errors import Ambiguous, BackendError, Malformed, NotSent
from inference.http_transport import NEVER, BrokenBodyError, is_too_long, open_session

log: Final = logging.getLogger("waybill.inference")

_MARK_HEADER: Final = "x-waybill-provider"
_MAX_ERROR_BYTES: Final = 64 * 1024
_SUCCESS: Final = range(200, 300)
_OWN_FIELDS: Final = frozenset(
    {"model", "messages", "max_tokens", "max_completion_tokens", "temperature", "stream", "n"}
)
_OWN_HEADERS: Final = frozenset(
    {"accept", "accept-encoding", "authorization", "connection", "content-length", "content-type", "expect", "host",
     "idempotency-key", "keep-alive", "te", "trailer", "traceparent", "tracestate", "transfer-encoding", "upgrade",
     "x-waybill-intent"}
)  # fmt: skip
_CALL_ID: Final = re.compile(r"[!-~]{1,200}")
_TRACEPARENT: Final = re.compile(r"[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}")
_KEY: Final = re.compile(r"[!-~]+")
_AUTHORIZATION: Final = re.compile(r"[A-Za-z][A-Za-z0-9-]{0,31} [!-~]+")
_HEADER_NAME: Final = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]{1,128}")
_HEADER_VALUE: Final = re.compile(r"[!-~](?:[ -~]{0,8190}[!-~])?")


@dataclass(frozen=True, slots=True)
class Dialect:
    """How one provider wants to be asked, where that differs from provider to provider."""

    max_tokens_field: Literal["max_tokens", "max_completion_tokens"] = "max_tokens"
    """Its name for the limit of generated tokens."""

    extra_body: Mapping[str, JsonValue] = field(default_factory=dict)
    """Fields added to each request, for example a gateway's data-collection rules."""

    extra_headers: Mapping[str, SecretStr] = field(default_factory=dict)
    """Headers added to each request."""

    query: Mapping[str, str] = field(default_factory=dict)
    """Query of the URL, for example `api-version`."""

    key_header: str = "Authorization"
    """The header that the key goes in: as a bearer token in `Authorization`, as it is in any other."""


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

    It holds no state between calls, never retries, never follows a redirect, ignores proxy variables and `.netrc`,
    keeps no cookies, and never shows its key. Use it in one event loop.
    """

    def __init__(
        self,
        *,
        base_url: str,
        provider: str,
        api_key: SecretStr | None = None,
        connections: int = 100,
        reuse_connections: bool = False,
        connect_timeout_s: float = 10.0,
        allow_plaintext: bool = False,
        tls: ssl.SSLContext | None = None,
        dialect: Dialect | None = None,
        authorized_calls: bool = False,
    ) -> None:
        """Check the configuration; nothing is connected before the first call.

        Args:
            base_url: where the API begins, for example `https://api.example.com/v1`.
            provider: the name that evidence knows this provider by; a stand-in's answers override it.
            api_key: the workload's key; None for servers that need none.
            connections: the most calls that are under way at the same time, at least 1, each on its own connection.
            reuse_connections: keep connections for later calls; see `inference.http_transport` for what that costs.
            connect_timeout_s: seconds to make a connection, TLS included, within each call's own time limit. A call
                waits for one of the `connections` as long as its own limit allows.
            allow_plaintext: permit `http://` to hosts other than this machine.
            tls: how to verify the server, for example with a private authority; None uses the system's authorities.
            dialect: how this provider wants to be asked.
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
        self._dialect = dialect or Dialect()
        _check_dialect(self._dialect, url)
        self._provider = provider
        self._key = api_key
        self._where = f"{url.host}:{url.port}"
        self._calls_url = (url / "chat" / "completions").with_query(self._dialect.query)
        self._models_url = (url / "models").with_query(self._dialect.query)
        self._connections = connections
        self._reuse = reuse_connections
        self._connect_timeout_s = connect_timeout_s
        self._tls: ssl.SSLContext | bool = True if tls is None else tls
        self._headers = _fixed_headers(api_key, url, self._dialect)
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
                reply = await self._whole(response)
        except BackendError:
            raise
        except Exception as exc:  # noqa: BLE001 - whatever it was, the caller must learn whether data may have left
            failure = self._explain(exc, progress, call.timeout_s)
        else:
            try:
                return read_reply(reply, Source(progress.provider, self._where))
            except BackendError:
                raise
            except Exception as exc:  # noqa: BLE001 - a fault of ours, which must not look like one of the provider's
                failure = self._own_fault(exc, progress)
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
            self._session = open_session(
                where=self._where, reuse=self._reuse, limit=self._connections, tls=self._tls, trace=trace
            )
        return self._session

    def _timeout(self, total_s: float) -> aiohttp.ClientTimeout:
        return aiohttp.ClientTimeout(total=total_s, sock_connect=self._connect_timeout_s, ceil_threshold=NEVER)

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
            body: dict[str, JsonValue] = {
                **self._dialect.extra_body,
                "model": call.model,
                "messages": [{"role": each.role, "content": each.content} for each in call.messages],
                self._dialect.max_tokens_field: call.max_tokens,
                "stream": False,
            }
            if call.temperature is not None:
                body["temperature"] = call.temperature
            try:
                return orjson.dumps(body)
            except TypeError:  # lone surrogates: text that UTF-8 cannot carry
                wrong = "its text cannot be written as UTF-8"
        raise NotSent("bad_call", f"nothing was sent to {self._where}, because the call is wrong: {wrong}")

    async def _whole(self, response: aiohttp.ClientResponse) -> Reply:
        """Read a response to its end; the body of an error is left out where it does not come whole."""
        headers = response.headers
        success = response.status in _SUCCESS
        try:
            body = await self._body(response, MAX_RESPONSE_BYTES if success else _MAX_ERROR_BYTES)
        except (aiohttp.ClientError, OSError, Malformed):
            if success:
                raise
            body = b""  # the status has said what matters
        return Reply(
            status=response.status,
            body=body,
            encoding=",".join(headers.getall("Content-Encoding", ())),
            retry_after=headers.get("Retry-After", ""),
        )

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

    def _name(self, response: aiohttp.ClientResponse) -> str:
        return STAND_IN if response.headers.get(_MARK_HEADER) == STAND_IN else self._provider

    def _explain(self, exc: Exception, progress: _Progress, timeout_s: float) -> BackendError:
        """Say what a failure of the transport means for the data."""
        if isinstance(exc, aiohttp.ClientResponseError):
            if is_too_long(exc):
                return Malformed("header_too_long", f"the head of what {self._where} answered is too long to be read")
            return Malformed("bad_http", f"what {self._where} answered is not HTTP")
        if not progress.written:
            code, what = _before_writing(exc)
            return NotSent(code, f"nothing was sent to {self._where}: {what}")
        if isinstance(exc, TimeoutError):
            code, what = "timeout", f"gave no answer within {timeout_s:g} s"
        elif isinstance(exc, BrokenBodyError):
            code, what = "disconnected", "sent a body whose chunks are broken, so that nobody knows where it ends"
        elif isinstance(exc, aiohttp.ClientError | OSError):
            code, what = "disconnected", "broke the connection off before its answer ended"
        else:
            return self._own_fault(exc, progress)
        text = f"{self._where} {what} ({type(exc).__name__}): it may have taken the call"
        return Ambiguous(code, text, provider=progress.provider)

    def _own_fault(self, exc: Exception, progress: _Progress) -> Ambiguous:
        """Say that this program failed after a request was written; the log says where, without what was asked."""
        log.error("reading an answer of %s failed: %s", self._where, kind_and_place(exc))
        text = f"{self._where} was asked, and reading its answer failed here ({type(exc).__name__})"
        return Ambiguous("internal_error", text, provider=progress.provider)


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


def _fixed_headers(key: SecretStr | None, url: URL, dialect: Dialect) -> CIMultiDict[str]:
    headers = CIMultiDict(
        {
            "Content-Type": "application/json",
            "Accept": "application/json",
            "Accept-Encoding": "identity",
            "User-Agent": "waybill",
        }
    )
    for name, value in dialect.extra_headers.items():
        headers[name] = value.get_secret_value()
    if key is not None:
        secret = key.get_secret_value()
        if not _KEY.fullmatch(secret):
            raise ConfigError(f"the key for {url} is empty or has characters that no header can carry (a line end?)")
        bearer = dialect.key_header.lower() == "authorization"
        headers[dialect.key_header] = f"Bearer {secret}" if bearer else secret
    return headers


def _check_dialect(dialect: Dialect, url: URL) -> None:
    """Refuse what would take the place of what comes from the call, or cannot be sent.

    Raises:
        ConfigError: there is such a thing; the text names it without its value.
    """
    if taken := sorted(_OWN_FIELDS & set(dialect.extra_body)):
        raise ConfigError(f"extra_body for {url} sets {', '.join(taken)}: these come from the call")
    try:
        orjson.dumps(dict(dialect.extra_body))
    except TypeError:
        raise ConfigError(f"extra_body for {url} cannot be written as JSON") from None
    key_header = dialect.key_header.lower()
    for name, value in dialect.extra_headers.items():
        if not _HEADER_NAME.fullmatch(name) or name.lower() in _OWN_HEADERS | {key_header}:
            raise ConfigError(f"header {name!r} for {url} is none, or is one that comes from the call or the key")
        if not _HEADER_VALUE.fullmatch(value.get_secret_value()):
            raise ConfigError(f"header {name} for {url} has no value that a header can carry (a line end?)")
    if not _HEADER_NAME.fullmatch(dialect.key_header) or key_header in _OWN_HEADERS - {"authorization"}:
        raise ConfigError(f"the key for {url} cannot go in the header {dialect.key_header!r}")


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
        raise ConfigError(
            f"the base URL for {url.host} has a query or a fragment: leave it out (a query is set as QUERY)"
        )
    if url.scheme == "http" and not allow_plaintext and not is_this_machine(url.host):
        raise ConfigError(f"the base URL for {url.host} would carry data unencrypted to another machine: use https://")
    return url
