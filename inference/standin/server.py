"""The stand-in's HTTP/1.1 server: one `asyncio.Protocol` for each connection, nothing between it and the socket.

It speaks as much of HTTP as clients of a chat-completions API need: requests with a `Content-Length`, kept-alive and
pipelined connections, `Expect: 100-continue`. What it does not speak it refuses with a status (411, 413, 431, 505).

    POST   /v1/chat/completions   an answer, or what the script says
    GET    /v1/models             the one model that is here: none
    GET    /healthz               liveness
    GET    /_standin/calls        the calls received; ?since=SEQ&limit=N pages through them
    GET    /_standin/rules        the script, and how many requests each rule has taken
    POST   /_standin/rules        replaces the script
    DELETE /_standin/rules        removes it
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self, cast
from urllib.parse import parse_qs

import orjson
from pydantic import ValidationError

from evidence.errors import ConfigError, RecordError
from evidence.faults import faults
from inference.standin.calls import CallLog, ReceivedCall, credential_mark
from inference.standin.script import (
    MODEL_PREFIX,
    PROVIDER,
    Asked,
    Behaviour,
    Reply,
    Script,
    choose,
    error_body,
    reply_to,
)
from policy.identity.jwks import KeySet
from policy.identity.workload import check_presented

MARK_HEADER: Final = "x-waybill-provider"
"""The response header that says `stand-in`."""

_MAX_HEAD = 64 * 1024
_MAX_BODY = 16 * 1024 * 1024
_MAX_PAGE = 10_000
_COMPLETIONS = "/v1/chat/completions"
_SCHEME = "bearer "
_CHALLENGE = (("www-authenticate", "Bearer"),)
_REASONS = {200: "OK", 307: "Temporary Redirect", 400: "Bad Request", 401: "Unauthorized", 404: "Not Found",
            405: "Method Not Allowed", 411: "Length Required", 413: "Content Too Large", 429: "Too Many Requests",
            431: "Request Header Fields Too Large", 500: "Internal Server Error", 503: "Service Unavailable",
            505: "HTTP Version Not Supported"}  # fmt: skip
_PLAIN = Behaviour()


@dataclass(frozen=True, slots=True)
class _Head:
    """The head of a request."""

    method: str
    target: str
    headers: dict[str, str]
    length: int
    keep_alive: bool


class _Refused(Exception):  # noqa: N818 - an answer, raised where parsing stops
    """The request is no HTTP that this server speaks."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.reply = Reply(status, error_body("http", message))


def _parse_head(raw: bytes) -> _Head:
    """Parse a request's head (without its last blank line), or raise `_Refused`."""
    first, *lines = raw.decode("latin-1").split("\r\n")
    parts = first.split(" ")
    if len(parts) != 3:  # noqa: PLR2004 - method, target, version
        raise _Refused(400, "The request line is not METHOD TARGET VERSION.")
    method, target, version = parts
    if version not in ("HTTP/1.1", "HTTP/1.0"):
        raise _Refused(505, "Only HTTP/1.1 and HTTP/1.0 are spoken here.")
    headers: dict[str, str] = {}
    for line in lines:
        name, colon, value = line.partition(":")
        if not colon or not name or name != name.strip():
            raise _Refused(400, "A header line has no name.")
        key = name.lower()
        if key in headers and key in ("content-length", "idempotency-key", "authorization"):
            raise _Refused(400, f"The header {key} is there twice.")
        headers[key] = value.strip()
    if "transfer-encoding" in headers:
        raise _Refused(411, "Send the body with a Content-Length.")
    length = headers.get("content-length", "0")
    if not (length.isascii() and length.isdigit()):
        raise _Refused(400, "Content-Length is not a number.")
    if int(length) > _MAX_BODY:
        raise _Refused(413, f"The body is larger than {_MAX_BODY} bytes.")
    connection = headers.get("connection", "").lower()
    keep_alive = connection != "close" and (version == "HTTP/1.1" or connection == "keep-alive")
    return _Head(method, target, headers, int(length), keep_alive)


class _Connection(asyncio.Protocol):
    """One client's connection: takes requests in turn, answers each before it looks at the next."""

    __slots__ = ("_buffer", "_head", "_server", "_timer", "_transport")

    def __init__(self, server: StandIn) -> None:
        self._server = server
        self._buffer = bytearray()
        self._head: _Head | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)  # a stream server makes no other kind
        self._server.connections.add(self)

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - how it ended changes nothing
        self._server.connections.discard(self)
        self._transport = None
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
            self._server.log.abandoned += 1

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        if self._timer is not None:
            if self._transport is not None and len(self._buffer) > _MAX_HEAD:
                self._transport.pause_reading()  # the client sends ahead while its first request still waits
            return
        self._advance()

    def close(self) -> None:
        """End the connection at once (the server stops)."""
        if self._transport is not None:
            self._transport.abort()

    def _advance(self) -> None:
        """Serve what the buffer holds, until it is empty, an answer has to wait, or the connection is over."""
        try:
            while self._transport is not None and self._timer is None and not self._transport.is_closing():
                if self._head is None and not self._take_head():
                    return
                head = self._head
                if head is None or len(self._buffer) < head.length:
                    return
                body = bytes(self._buffer[: head.length])
                del self._buffer[: head.length]
                self._head = None
                self._serve(head, body)
        except _Refused as refused:
            self._write(refused.reply, keep_alive=False)

    def _take_head(self) -> bool:
        """Move a whole head from the buffer to `_head`; False where there is none, or the script closes here."""
        if self._buffer and not self._buffer[:1].isalpha():
            raise _Refused(400, "This is no HTTP request (TLS, perhaps: the stand-in speaks http:// only).")
        end = self._buffer.find(b"\r\n\r\n")
        if end < 0 or end > _MAX_HEAD:
            if len(self._buffer) > _MAX_HEAD:
                raise _Refused(431, f"The head is larger than {_MAX_HEAD} bytes.")
            return False
        head = _parse_head(bytes(self._buffer[:end]))
        del self._buffer[: end + 4]
        if head.target == _COMPLETIONS and self._server.drops_unread(head.headers):
            self.close()
            return False
        if head.headers.get("expect", "").lower() == "100-continue" and self._transport is not None:
            self._transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        self._head = head
        return True

    def _serve(self, head: _Head, body: bytes) -> None:
        if head.target != _COMPLETIONS or head.method != "POST":
            self._write(self._server.control(head.method, head.target, body), keep_alive=head.keep_alive)
            return
        reply, latency_s = self._server.complete(head.headers, body)
        if latency_s > 0:
            loop = asyncio.get_running_loop()
            self._timer = loop.call_later(latency_s, self._late, reply, head.keep_alive)
        else:
            self._finish(reply, keep_alive=head.keep_alive)

    def _late(self, reply: Reply | None, keep_alive: bool) -> None:  # noqa: FBT001 - called by a timer
        self._timer = None
        self._finish(reply, keep_alive=keep_alive)
        if self._transport is not None and not self._transport.is_closing():
            self._transport.resume_reading()
            self._advance()

    def _finish(self, reply: Reply | None, *, keep_alive: bool) -> None:
        if reply is not None:
            self._write(reply, keep_alive=keep_alive)
        elif self._transport is not None:
            self._transport.close()

    def _write(self, reply: Reply, *, keep_alive: bool) -> None:
        if self._transport is None:
            return
        extra = "".join(f"{name}: {value}\r\n" for name, value in reply.headers) if reply.headers else ""
        closing = "" if keep_alive else "connection: close\r\n"
        head = (
            f"HTTP/1.1 {reply.status} {_REASONS.get(reply.status, 'Scripted')}\r\n"
            f"content-type: application/json\r\n{MARK_HEADER}: {PROVIDER}\r\n"
            f"{extra}{closing}content-length: {len(reply.body)}\r\n\r\n"
        ).encode("latin-1")
        sent = reply.body[: len(reply.body) // 2] if reply.half else reply.body
        self._transport.write(head + sent)
        if reply.half or not keep_alive:
            self._transport.close()


class StandIn:
    """A server that stands in for a hosted provider, and says so in everything that it serves.

    Use it as an async context manager, or with `start` and `stop`:

        async with StandIn(Script.parse(b'{"rules": []}', "inline")) as stand_in:
            backend = OpenAICompatibleBackend(base_url=stand_in.base_url, ...)

    Attributes:
        log: the calls received.
        connections: the connections that are open.
    """

    def __init__(
        self,
        script: Script | None = None,
        *,
        host: str = "127.0.0.1",
        port: int = 0,
        log_path: Path | None = None,
        keep_prompts: bool = False,
        keep_calls: int = 100_000,
        token_keys: KeySet | None = None,
        audience: str = "",
        clock: Callable[[], float] = time.time,
    ) -> None:
        """Prepare a stand-in; nothing listens before `start`.

        Args:
            script: what to do with requests; None answers each with the default text.
            host: the address to bind.
            port: the TCP port; 0 takes a free one.
            log_path: where each call is appended as a JSON line; None keeps calls in memory only.
            keep_prompts: keep whole request bodies in the log (for tests that look for leaks).
            keep_calls: how many calls stay in memory.
            token_keys: each call has to carry a token signed with one of these; None asks for none.
            audience: what such a token has to name, and nothing beside it.
            clock: seconds since the epoch.

        Raises:
            ConfigError: the log file cannot be opened, or there are keys without an audience.
        """
        if (token_keys is None) != (not audience):
            raise ConfigError("a stand-in that asks for tokens needs both: the keys (JWKS) and its audience")
        self._token_keys = token_keys
        self._audience = audience
        self.log = CallLog(keep_calls, log_path)
        self.connections: set[_Connection] = set()
        self._host = host
        self._port = port
        self._keep_prompts = keep_prompts
        self._clock = clock
        self._server: asyncio.Server | None = None
        self._rules = (script or Script()).rules
        self._used = [0] * len(self._rules)

    @property
    def base_url(self) -> str:
        """What a client takes as its base URL, `http://HOST:PORT/v1`; only after `start`."""
        host = f"[{self._host}]" if ":" in self._host else self._host
        return f"http://{host}:{self._port}/v1"

    @property
    def calls(self) -> tuple[ReceivedCall, ...]:
        """The calls that are in memory, oldest first."""
        return self.log.since(0, self.log.total)

    async def start(self) -> str:
        """Listen, and return the base URL.

        Raises:
            ConfigError: the address cannot be bound.
        """
        loop = asyncio.get_running_loop()
        try:
            self._server = await loop.create_server(lambda: _Connection(self), self._host, self._port, backlog=1024)
        except OSError as exc:
            raise ConfigError(
                f"the stand-in cannot listen on {self._host}:{self._port} ({exc.strerror}): give another port"
            ) from exc
        self._port = self._server.sockets[0].getsockname()[1]
        return self.base_url

    async def stop(self) -> None:
        """Stop listening, cut the open connections, close the log; safe to call twice."""
        if self._server is not None:
            self._server.close()
            for connection in tuple(self.connections):
                connection.close()
            await self._server.wait_closed()
            self._server = None
            await asyncio.sleep(0)  # lets the cut connections learn that they are
        self.log.close()

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, at: TracebackType | None
    ) -> None:
        await self.stop()

    def set_rules(self, script: Script) -> None:
        """Replace the script; the counters of its rules start at 0."""
        self._rules = script.rules
        self._used = [0] * len(self._rules)

    def drops_unread(self, headers: dict[str, str]) -> bool:
        """Whether a rule closes this connection on seeing the headers; if so, the call is counted and logged."""
        place = choose(self._rules, self._used, headers.get("idempotency-key", ""), None)
        if place is None:
            return False
        self._used[place] += 1
        self._record(headers, None, b"", self._rules[place].do.name, place)
        return True

    def complete(self, headers: dict[str, str], body: bytes) -> tuple[Reply | None, float]:
        """Log a chat-completion request and decide on it: the reply (None: close instead) and seconds to wait first."""
        token = None
        if self._token_keys is not None:
            try:
                token = self._presented(headers.get("authorization", ""), self._token_keys)
            except RecordError as refused:
                self._record(headers, None, body, f"unauthorized:{refused.code}", None)
                return Reply(401, error_body(refused.code, str(refused)), headers=_CHALLENGE), 0.0
        try:
            asked = Asked.model_validate_json(body)
        except ValidationError as exc:
            self._record(headers, None, body, "invalid", None, token)
            fault = faults(exc, Asked)[0]
            where = ".".join(map(str, fault.place)) or "body"
            return Reply(400, error_body("invalid_request", f"{where}: {fault.text}")), 0.0
        place = choose(self._rules, self._used, headers.get("idempotency-key", ""), asked.prompt)
        do = _PLAIN
        if place is not None:
            self._used[place] += 1
            do = self._rules[place].do
        seq = self._record(headers, asked, body, do.name, place, token)
        closes = do.drop in ("before-read", "after-accept")
        return (None if closes else reply_to(asked, do, seq, self._clock())), do.latency_ms / 1000

    def control(self, method: str, target: str, body: bytes) -> Reply:
        """Answer everything that is not a completion."""
        path, _, query = target.partition("?")
        reply: Reply
        match method, path:
            case "GET", "/healthz":
                reply = _json({"status": "ok"})
            case "GET", "/v1/models":
                models = [{"id": f"{MODEL_PREFIX}any", "object": "model", "created": 0, "owned_by": PROVIDER}]
                reply = _json({"object": "list", "data": models})
            case "GET", "/_standin/calls":
                reply = self._page(query)
            case "GET", "/_standin/rules":
                reply = self._show_rules()
            case "POST", "/_standin/rules":
                try:
                    self.set_rules(Script.parse(body, "the request's body"))
                    reply = self._show_rules()
                except ConfigError as exc:
                    reply = Reply(400, error_body("bad_script", str(exc)))
            case "DELETE", "/_standin/rules":
                self.set_rules(Script())
                reply = self._show_rules()
            case _, "/healthz" | "/v1/models" | "/_standin/calls" | "/_standin/rules" | "/v1/chat/completions":
                reply = Reply(405, error_body("method", f"{path} has no {method}."))
            case _:
                reply = Reply(404, error_body("not_found", f"There is no {path} here."))
        return reply

    def _presented(self, authorization: str, keys: KeySet) -> dict[str, Any]:
        """Give what a call's token says.

        Raises:
            RecordError: there is none, or it does not hold here.
        """
        if authorization[: len(_SCHEME)].lower() != _SCHEME:
            raise RecordError("no_token", "This destination wants `Authorization: Bearer <JWT>`.")
        now = datetime.fromtimestamp(self._clock(), UTC)
        return asdict(check_presented(authorization[len(_SCHEME) :], keys, audience=self._audience, now=now))

    def _record(
        self,
        headers: dict[str, str],
        asked: Asked | None,
        body: bytes,
        behaviour: str,
        rule: int | None,
        token: dict[str, Any] | None = None,
    ) -> int:
        seq = self.log.total + 1
        self.log.add(
            ReceivedCall(
                seq=seq,
                arrived_at=self._clock(),
                call_id=headers.get("idempotency-key", ""),
                intent=headers.get("x-waybill-intent", ""),
                traceparent=headers.get("traceparent", ""),
                model="" if asked is None else asked.model,
                prompt_sha256="" if asked is None else sha256(asked.prompt.encode()).hexdigest(),
                bytes_in=len(body),
                behaviour=behaviour,
                rule=rule,
                credential=credential_mark(headers.get("authorization", "")),
                token=token,
                body=body.decode("utf-8", "replace") if self._keep_prompts else None,
            )
        )
        return seq

    def _page(self, query: str) -> Reply:
        asked = parse_qs(query, keep_blank_values=True)
        unknown = sorted(set(asked) - {"since", "limit"})
        values = [asked.get("since", ["0"])[-1], asked.get("limit", ["1000"])[-1]]
        if unknown or not all(value.isascii() and value.isdigit() for value in values):
            return Reply(400, error_body("bad_query", "Ask with since=SEQ and limit=N, both whole numbers."))
        since, limit = int(values[0]), min(int(values[1]), _MAX_PAGE)
        calls = self.log.since(since, limit)
        return _json(
            {
                "total": self.log.total,
                "abandoned": self.log.abandoned,
                "next_since": calls[-1].seq if calls else since,
                "calls": calls,
            }
        )

    def _show_rules(self) -> Reply:
        pairs = zip(self._rules, self._used, strict=True)
        rules = [{**rule.model_dump(mode="json", exclude_defaults=True), "taken": used} for rule, used in pairs]
        return _json({"rules": rules})


def _json(value: dict[str, Any]) -> Reply:
    return Reply(200, orjson.dumps({"provider": PROVIDER, **value}))
