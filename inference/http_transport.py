"""HTTP connections on which an answer belongs to its request, and bodies as servers send them.

aiohttp keeps a connection after a response and reads what comes on it next as the answer to the next request, also
where it came before that request was sent. So by default each call has a connection of its own: then no byte of one
call can reach another. Connections may be kept on request; then one is closed before it is used again where

- a byte came while nobody had asked (it was idle), or behind the end of a response;
- a byte waits in its socket just before it is used;
- an answer begins before the request on it was written whole.

A server that was caught once gets a connection for each call from then on. What no client of HTTP/1.1 can tell apart is
a late answer that arrives after the next request was written; only connections that are not kept rule that out.
"""

from __future__ import annotations

import asyncio
import functools
import logging
import selectors
import ssl
import zlib
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

import aiohttp
from aiohttp.client_proto import ResponseHandler
from aiohttp.http_exceptions import HttpProcessingError

if TYPE_CHECKING:
    from aiohttp.connector import Connection

log: Final = logging.getLogger("waybill.inference")

KEEPALIVE_S: Final = 4.0
"""How long an idle connection is kept: under the 5 s after which common servers (uvicorn, Node) close it, since a call
written onto a connection that the server is just closing would be ambiguous."""

MAX_HEADER_LINE: Final = 64 * 1024
"""Most bytes of one header line of an answer."""

MAX_HEADERS: Final = 1000
"""Most header lines of an answer."""

MAX_HEAD: Final = 512 * 1024
"""Most bytes of the head of an answer, with those of interim (1xx) responses before it."""

NEVER: Final = float("inf")
"""A `ceil_threshold` under which time limits are exact; aiohttp rounds longer ones up to whole seconds."""

_SWITCHING: Final = 101
_HEAD_END: Final = b"\r\n\r\n"
_TOO_LONG: Final = ("Too many headers", "Got more than", HEAD_TOO_LONG := "the head of the answer is too long")
"""How aiohttp's parser words what is over a bound; its error for it is a plain one."""

_DNS_TTL_S: Final = 30


class BadEncodingError(Exception):
    """A body cannot be decoded; the text says why and quotes nothing."""


class BrokenBodyError(aiohttp.ClientPayloadError):
    """A body breaks the rules of its framing, so that nobody knows where it ends."""


class OneAnswer(ResponseHandler):
    """Reads one final response for each request; a byte that belongs to none ends the connection.

    Args:
        loop: the event loop.
        on_stray: called where such a byte came.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, on_stray: Callable[[], None]) -> None:
        super().__init__(loop)
        self._on_stray = on_stray
        self._asked = False
        self._asked_before = False
        self._final = False
        self._head = 0
        self._left: int | None = None

    def set_response_params(self, **params: Any) -> None:
        """Begin to wait for an answer: called just before a request is written."""
        super().set_response_params(**params)
        self._asked, self._final, self._head, self._left = True, False, 0, None

    def rest(self) -> None:
        """Expect nothing: the answer was read."""
        self._asked, self._asked_before = False, True

    def feed_data(self, data: Any, size: int = 0) -> None:
        """Take a response's head from the parser."""
        head = data[0]
        self._final |= not 100 <= head.code < 200 or head.code == _SWITCHING  # noqa: PLR2004 - interim responses
        length = head.headers.get("Content-Length", "")
        self._left = int(length) if self._final and length.isdigit() and not head.chunked else None
        super().feed_data(data, size)

    def data_received(self, data: bytes) -> None:
        """Take bytes from the connection; none (`b""`) where reading goes on after a pause."""
        if not data:
            super().data_received(data)
            return
        if not self._expected():
            self._drop()
            return
        # Heads are read by themselves, so that the end of the body is known before what may stand behind it is read.
        while not self._final and 0 <= (end := data.find(_HEAD_END)) < len(data) - len(_HEAD_END):
            self._read(data[: end + len(_HEAD_END)])
            data = data[end + len(_HEAD_END) :]
            if self.exception() is not None:
                return  # the parser refused it
        beyond = b""
        if self._final and self._left is not None:
            data, beyond = data[: self._left], data[self._left :]
            self._left -= len(data)
        if data:
            self._read(data)
        if beyond:
            self._drop()

    def _read(self, data: bytes) -> None:
        if not self._final:
            self._head += len(data)
        super().data_received(data)
        broken, body = self.exception(), self._payload
        if broken is not None and body is not None and not body.is_eof():
            body.set_exception(BrokenBodyError())  # else who reads it waits until the time is over
        if not self._final and self._head > MAX_HEAD:
            self.set_exception(HttpProcessingError(message=HEAD_TOO_LONG))

    def _drop(self) -> None:
        """Leave out bytes that belong to no request, and see to it that the connection is not used again."""
        self._on_stray()
        self.force_close()
        answered = self._asked and self._final  # an answer that came whole is still to be read
        if not answered and self.transport is not None:
            self.transport.abort()

    def _expected(self) -> bool:
        """Say whether bytes that come now can belong to the request that was sent last."""
        if not self._asked:
            return False
        if self._final:
            return self._payload is None or not self._payload.is_eof()
        # On a kept connection an answer to a request that was not written whole yet may be a late one to another.
        transport = self.transport
        return not (self._asked_before and transport is not None and transport.get_write_buffer_size())


class OneAnswerConnector(aiohttp.TCPConnector):
    """Makes connections on which an answer belongs to its request.

    Args:
        where: the server, for the log.
        reuse: whether connections are kept at all.
        limit: connections at once.
        tls: how to verify servers.
    """

    def __init__(self, *, where: str, reuse: bool, limit: int, tls: ssl.SSLContext | bool) -> None:
        kept: dict[str, Any] = {"keepalive_timeout": KEEPALIVE_S} if reuse else {"force_close": True}
        super().__init__(limit=limit, ttl_dns_cache=_DNS_TTL_S, ssl=tls, **kept)
        self._where = where
        make: Any = functools.partial(OneAnswer, loop=self._loop, on_stray=self._caught)
        self._factory = make

    def _caught(self) -> None:
        if not self._force_close:
            log.warning("%s sends bytes that answer no request: its connections are not kept any more", self._where)
        self._force_close = True

    async def _get(self, key: Any, traces: Any) -> Connection | None:
        while (found := await super()._get(key, traces)) is not None:
            if not self._force_close and _is_silent(found.transport):
                return found
            found.close()
        return None

    def _release(self, key: Any, protocol: ResponseHandler, *, should_close: bool = False) -> None:
        if isinstance(protocol, OneAnswer):
            if protocol._buffer:  # noqa: SLF001 - aiohttp's own place for responses that nobody has read
                self._caught()
            protocol.rest()
        super()._release(key, protocol, should_close=should_close)


def _is_silent(transport: asyncio.Transport | None) -> bool:
    """Say whether nothing waits to be read from a connection's socket, its end included."""
    socket = transport.get_extra_info("socket") if transport is not None else None
    if socket is None or socket.fileno() < 0:
        return False
    with selectors.DefaultSelector() as selector:
        selector.register(socket.fileno(), selectors.EVENT_READ)
        return not selector.select(0)


def open_session(
    *, where: str, reuse: bool, limit: int, tls: ssl.SSLContext | bool, trace: aiohttp.TraceConfig | None = None
) -> aiohttp.ClientSession:
    """Open a session that keeps no cookies, ignores proxies, and leaves bodies encoded as they come.

    Args:
        where: the server, for the log.
        reuse: whether connections are kept.
        limit: connections at once.
        tls: how to verify servers.
        trace: hears how far requests come.
    """
    return aiohttp.ClientSession(
        connector=OneAnswerConnector(where=where, reuse=reuse, limit=limit, tls=tls),
        cookie_jar=aiohttp.DummyCookieJar(),
        trace_configs=[trace] if trace else [],
        trust_env=False,
        auto_decompress=False,
        max_line_size=MAX_HEADER_LINE,
        max_field_size=MAX_HEADER_LINE,
        max_headers=MAX_HEADERS,
    )


def is_too_long(error: BaseException | None) -> bool:
    """Say whether the head of an answer was over a bound."""
    while error is not None:
        if any(said in str(error) for said in _TOO_LONG):
            return True
        error = error.__cause__
    return False


def decode_body(body: bytes, encoding: str, limit: int) -> bytes:
    """Undo what `Content-Encoding` names: gzip (`x-gzip`), deflate with or without its head, identity, or several.

    Args:
        body: the body as it came.
        encoding: the header's value; "" without one.
        limit: most bytes of the result; one more may come back, which says that there is more.

    Raises:
        BadEncodingError: it is encoded otherwise than it says, or in a way that nobody asked for.
    """
    for name in reversed([part.strip().lower() for part in encoding.split(",")]):
        match name:
            case "" | "identity":
                continue
            case "gzip" | "x-gzip":
                body = _inflate(body, zlib.MAX_WBITS | 16, limit, "gzip")
            case "deflate":
                has_head = len(body) > 1 and body[0] & 0x0F == zlib.DEFLATED and (body[0] << 8 | body[1]) % 31 == 0
                body = _inflate(body, zlib.MAX_WBITS if has_head else -zlib.MAX_WBITS, limit, "deflate")
            case "br" | "zstd" | "compress" | "x-compress":
                raise BadEncodingError(f"is compressed with {name}, which was not asked for")
            case _:
                raise BadEncodingError("is encoded in a way that was not asked for")
    return body


def _inflate(body: bytes, window: int, limit: int, name: str) -> bytes:
    parts: list[bytes] = []
    size = 0
    while body:
        member = zlib.decompressobj(window)
        try:
            part = member.decompress(body, limit + 1 - size)
        except zlib.error:
            raise BadEncodingError(f"says that it is {name} and is not") from None
        parts.append(part)
        size += len(part)
        if size > limit:
            break
        if not member.eof:
            raise BadEncodingError(f"says that it is {name} and ends too early")
        body = member.unused_data if window > zlib.MAX_WBITS else b""
    return b"".join(parts)
