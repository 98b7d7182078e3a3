"""An answer belongs to its request: no byte that a server sends beside an answer reaches another call."""

from __future__ import annotations

import asyncio
import gzip
import re
import time
import zlib
from collections.abc import Callable
from contextlib import suppress

import orjson
import pytest
from openai_rig import COMPLETION, RawServer, http_answer, make_call, opened

from inference.errors import Ambiguous, BackendError
from inference.http_transport import MAX_HEAD, MAX_HEADER_LINE, BadEncodingError, decode_body


def gzipped(body: bytes) -> bytes:
    """Compress without a time in it, so that each process of the suite collects the same tests."""
    return gzip.compress(body, mtime=0)


DELAYS_MS = (0, 1, 5, 20, 50, 200)
"""When the second response comes after the first; 0 is in the same segment."""


def completion(text: str) -> bytes:
    """A completion that says this."""
    message = {"role": "assistant", "content": text}
    return orjson.dumps({**orjson.loads(COMPLETION), "choices": [{"message": message, "finish_reason": "stop"}]})


def chunked(body: bytes, headers: str = "") -> bytes:
    """An answer in chunks, with an extension and a trailer."""
    head = f"HTTP/1.1 200 OK\r\n{headers}transfer-encoding: chunked\r\ntrailer: x-sum\r\n\r\n".encode()
    middle = len(body) // 2
    parts = b"".join(b"%x;a=b\r\n%s\r\n" % (len(part), part) for part in (body[:middle], body[middle:]))
    return head + parts + b"0\r\nx-sum: 1\r\n\r\n"


FRAMINGS: dict[str, Callable[[bytes], bytes]] = {
    "length": http_answer,
    "chunked": chunked,
    "gzip": lambda body: http_answer(gzipped(body), headers="content-encoding: gzip\r\n"),
    "chunked gzip": lambda body: chunked(gzipped(body), "content-encoding: x-gzip\r\n"),
    "interim": lambda body: b"HTTP/1.1 103 Early Hints\r\nlink: </a>\r\n\r\nHTTP/1.1 102 P\r\n\r\n" + http_answer(body),
    "http/1.0": lambda body: (
        http_answer(body).replace(b"HTTP/1.1", b"HTTP/1.0").replace(b"\r\n", b"\r\nconnection: keep-alive\r\n", 1)
    ),
}
"""How an answer is put into HTTP."""


class TwiceServer(RawServer):
    """Answers each request with its own id, and then once more with another text.

    Args:
        framing: how.
        delay_ms: when the second response comes.
        think_ms: how long the first one takes.
        stray: the second response; None makes it a whole one.
    """

    def __init__(self, framing: str, delay_ms: float, think_ms: float = 0, stray: bytes | None = None) -> None:
        super().__init__(self._talk)
        self._frame = FRAMINGS[framing]
        self._late: list[asyncio.StreamWriter] = []
        self._delay_s, self._think_s, self._stray = delay_ms / 1000, think_ms / 1000, stray

    async def _talk(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            request = await self.read_request(reader)
            await asyncio.sleep(self._think_s)
            found = re.search(rb"idempotency-key: (\S+)", request, re.IGNORECASE)
            name = found[1].decode() if found else "none"
            first = self._frame(completion(name))
            second = self._frame(completion(f"late, for {name}")) if self._stray is None else self._stray
            writer.write(first if self._delay_s else first + second)
            if self._delay_s:
                self._late.append(writer)
                late = asyncio.create_task(self._send_late(writer, second))
                self._tasks.add(late)
                late.add_done_callback(self._tasks.discard)

    def answer_late_now(self) -> None:
        """Send the late responses at once, without a turn of the event loop in which they could be read."""
        for writer in self._late:
            writer.write(self._frame(completion("late")))
        time.sleep(0.05)

    async def _send_late(self, writer: asyncio.StreamWriter, second: bytes) -> None:
        await asyncio.sleep(self._delay_s)
        with suppress(ConnectionError):
            writer.write(second)


@pytest.mark.parametrize("delay_ms", DELAYS_MS)
@pytest.mark.parametrize("framing", FRAMINGS)
async def test_a_second_response_reaches_nobody(framing: str, delay_ms: float) -> None:
    """However it is framed and whenever it comes, no call gets another's answer, one after the other or at once."""
    calls = 40
    async with (
        TwiceServer(framing, delay_ms, think_ms=3) as server,
        opened(server.base_url, connections=4) as backend,
    ):
        for number in range(calls):
            assert (await backend.complete(make_call(f"one-{number}"))).text == f"one-{number}"
        texts = await asyncio.gather(*(backend.complete(make_call(f"all-{number}")) for number in range(calls)))
        assert [answer.text for answer in texts] == [f"all-{number}" for number in range(calls)]
        assert len(server.requests) == 2 * calls


@pytest.mark.parametrize("delay_ms", DELAYS_MS)
@pytest.mark.parametrize("framing", FRAMINGS)
async def test_a_kept_connection_on_which_bytes_came_is_not_used_again(framing: str, delay_ms: float) -> None:
    """Where connections are kept, one that gets bytes while it is idle is closed, and none is kept from then on."""
    async with (
        TwiceServer(framing, delay_ms) as server,
        opened(server.base_url, reuse_connections=True) as backend,
    ):
        for number in range(3):
            assert (await backend.complete(make_call(f"int-{number}"))).text == f"int-{number}"
            await asyncio.sleep(delay_ms / 1000 + 0.03)
        assert server.connections == 3


@pytest.mark.parametrize("stray", [b"x", b"\r\n", b"HTTP/1.1 200", http_answer(COMPLETION)[:-20], b"\x00" * 70_000])
@pytest.mark.parametrize("delay_ms", [5, 50])
async def test_any_byte_on_an_idle_connection_ends_it(stray: bytes, delay_ms: float) -> None:
    """It need not be a response: a part of one, or one byte, ends a kept connection too."""
    async with (
        TwiceServer("length", delay_ms, stray=stray) as server,
        opened(server.base_url, reuse_connections=True) as backend,
    ):
        for number in range(2):
            assert (await backend.complete(make_call(f"int-{number}"))).text == f"int-{number}"
            await asyncio.sleep(delay_ms / 1000 + 0.03)
        assert server.connections == 2


@pytest.mark.parametrize("stray", [b"HTTP/1.1 200", http_answer(COMPLETION)[:-20]])
async def test_part_of_a_response_behind_an_answer_reaches_nobody(stray: bytes) -> None:
    """Bytes in the same segment as the end of an answer never become part of another one, whatever is kept."""
    for reuse in (False, True):
        async with (
            TwiceServer("length", 0, stray=stray) as server,
            opened(server.base_url, reuse_connections=reuse) as backend,
        ):
            for number in range(3):
                with suppress(BackendError):
                    assert (await backend.complete(make_call(f"int-{number}"))).text == f"int-{number}"


@pytest.mark.parametrize("stray", [b"garbage", b"\x00", b"0\r\n\r\n", b"HTTP/1.1 200", http_answer(COMPLETION) * 3])
@pytest.mark.parametrize("before", [b"", b"HTTP/1.1 100 Continue\r\n\r\n"])
async def test_what_stands_behind_an_answer_does_not_lose_it(stray: bytes, before: bytes) -> None:
    """An answer of a known length is read although more follows in the same segment, and that is read by nobody."""
    for reuse in (False, True):
        async with (
            RawServer(answer_with(before + http_answer(COMPLETION) + stray)) as server,
            opened(server.base_url, reuse_connections=reuse) as backend,
        ):
            for number in range(2):
                assert (await backend.complete(make_call(f"int-{number}"))).text == "Hello."
            assert server.connections == 2


async def test_bytes_in_the_socket_are_seen_before_a_kept_connection_is_used() -> None:
    """Bytes that the event loop has not read yet end a kept connection, too."""
    async with (
        TwiceServer("length", 60_000) as server,
        opened(server.base_url, reuse_connections=True) as backend,
    ):
        await backend.complete(make_call("first"))
        server.answer_late_now()
        assert (await backend.complete(make_call("second"))).text == "second"
        assert server.connections == 2


async def test_connections_are_kept_where_that_is_set() -> None:
    """Where connections are kept, a server that keeps to HTTP answers many calls on one; else each has its own."""

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            await server.read_request(reader)
            writer.write(http_answer(COMPLETION))

    for reuse, connections in ((True, 1), (False, 3)):
        async with RawServer(talk) as server, opened(server.base_url, reuse_connections=reuse) as backend:
            for number in range(3):
                await backend.complete(make_call(f"int-{number}"))
            assert server.connections == connections
            assert (b"connection: close" in server.requests[0].lower()) is not reuse


def with_headers(*lines: str) -> bytes:
    """A completion with these header lines."""
    return http_answer(COMPLETION, headers="".join(f"{line}\r\n" for line in lines))


@pytest.mark.parametrize(
    "lines",
    [
        ["set-cookie: a=" + "x" * 8_191],
        ["content-security-policy: " + "x" * (MAX_HEADER_LINE - 100)],
        [f"x-{number}: y" for number in range(900)],
        ["set-cookie: a=" + "x" * 20_000] * 20,
    ],
)
async def test_long_heads_are_read(lines: list[str]) -> None:
    """Long header lines and many of them do not lose an answer."""
    async with RawServer(answer_with(with_headers(*lines))) as server, opened(server.base_url) as backend:
        assert (await backend.complete(make_call())).text == "Hello."


@pytest.mark.parametrize(
    "head",
    [
        with_headers("x: " + "y" * (MAX_HEADER_LINE + 1)),
        with_headers(*(f"x-{number}: y" for number in range(1_001))),
        with_headers(*(["x: " + "y" * 60_000] * (3 * MAX_HEAD // 60_000))),
        b"HTTP/1.1 103 Hints\r\nx: " + b"y" * 60_000 + b"\r\n\r\n" + b"HTTP/1.1 103 H\r\nx: " + b"y" * MAX_HEAD,
    ],
)
async def test_heads_over_the_bound_are_told(head: bytes) -> None:
    """A head over the bounds is an error that says so, not that the answer is no HTTP."""
    async with RawServer(answer_with(head)) as server, opened(server.base_url) as backend:
        with pytest.raises(BackendError) as caught:
            await backend.complete(make_call())
    assert (caught.value.code, "too long" in str(caught.value)) == ("header_too_long", True)


def answer_with(answer: bytes) -> Callable[[asyncio.StreamReader, asyncio.StreamWriter], object]:
    """Handle a connection by one answer, whatever was asked."""

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(answer)
        await writer.drain()
        await reader.read(-1)

    return talk


BOMB = gzipped(b"0" * 10_000_000)


@pytest.mark.parametrize(
    ("body", "encoding", "result"),
    [
        (b"plain", "", b"plain"),
        (b"plain", "identity", b"plain"),
        (gzipped(b"text"), "gzip", b"text"),
        (gzipped(b"text"), "X-GZIP", b"text"),
        (gzipped(b"te") + gzipped(b"xt"), "gzip", b"text"),
        (gzipped(gzipped(b"text")), "gzip, gzip", b"text"),
        (b"", "gzip", b""),
        (zlib.compress(b"text"), "deflate", b"text"),
        (zlib.compress(b"text")[2:-4], "deflate", b"text"),
        (BOMB, "gzip", b"0" * 1001),
    ],
)
def test_bodies_are_decoded(body: bytes, encoding: str, result: bytes) -> None:
    """What servers use although nobody asked for it is undone, within the limit."""
    assert decode_body(body, encoding, 1000) == result


@pytest.mark.parametrize(
    ("body", "encoding", "told"),
    [
        (b"plain", "gzip", "says that it is gzip and is not"),
        (b"plain", "deflate", "says that it is deflate and is not"),
        (gzipped(b"text")[:-9], "gzip", "ends too early"),
        (b"plain", "br", "compressed with br"),
        (b"plain", "zstd", "compressed with zstd"),
        (b"plain", "sk-secret", "in a way that was not asked for"),
    ],
)
def test_wrong_encodings_are_told(body: bytes, encoding: str, told: str) -> None:
    """What cannot be decoded is told as it is, without a word of the server's."""
    with pytest.raises(BadEncodingError) as caught:
        decode_body(body, encoding, 1000)
    assert told in str(caught.value)
    assert "sk-secret" not in str(caught.value)


@pytest.mark.parametrize("size", [b"ZZ", b"-5", b"f" * 20, b"5\r\nhello\r\nZZ", b""])
async def test_broken_chunks_are_told_at_once(size):
    """Where the framing of a body is broken, the call does not wait for its time limit, and is in doubt."""

    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await server.read_request(reader)
        writer.write(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n" + size + b"\r\nhello\r\n")
        await reader.read()  # it keeps its side open

    async with RawServer(handler) as server, opened(server.base_url) as backend, asyncio.timeout(3):
        with pytest.raises(BackendError, match="chunks are broken") as caught:
            await backend.complete(make_call())
    assert (type(caught.value), caught.value.code) == (Ambiguous, "disconnected")
