"""What the tests of the OpenAI-compatible backend share: calls, backends, and raw servers that count what they read."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from itertools import cycle
from typing import Any, Self

from pydantic import SecretStr

from inference.backend import Message, ModelCall
from inference.openai import OpenAICompatibleBackend
from inference.standin import Behaviour, Rule, Script, StandIn

KEY = "sk-test-4e1bd0c9f7"
TRACEPARENT = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"

Handler = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Coroutine[Any, Any, None]]


def make_call(call_id: str = "int-1", prompt: str = "Say hello.", **changes: Any) -> ModelCall:
    """A call with sensible fields, of which a test changes the ones it is about."""
    fields: dict[str, Any] = {
        "call_id": call_id,
        "model": "small-1",
        "messages": (Message("system", "Be brief."), Message("user", prompt)),
        "max_tokens": 64,
        "timeout_s": 5.0,
        "traceparent": TRACEPARENT,
    }
    return ModelCall(**{**fields, **changes})


@asynccontextmanager
async def opened(base_url: str, **settings: Any) -> AsyncIterator[OpenAICompatibleBackend]:
    """A backend that is closed at the end."""
    fields: dict[str, Any] = {"provider": "acme", "api_key": SecretStr(KEY)}
    backend = OpenAICompatibleBackend(base_url=base_url, **{**fields, **settings})
    try:
        yield backend
    finally:
        await backend.close()


async def until(condition: Callable[[], object]) -> None:
    """Wait until something that another task brings about is so."""
    async with asyncio.timeout(5):
        while not condition():  # noqa: ASYNC110 - the other side of a socket has no event to wait for
            await asyncio.sleep(0.002)


class RawServer:
    """A TCP server whose every connection is given to a handler; it counts connections and whole requests."""

    def __init__(self, handler: Handler) -> None:
        self.connections = 0
        self.requests: list[bytes] = []
        self._handler = handler
        self._tasks: set[asyncio.Task[None]] = set()
        self._server: asyncio.Server | None = None
        self.port = 0

    @property
    def base_url(self) -> str:
        """Where the server is."""
        return f"http://127.0.0.1:{self.port}/v1"

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._server is not None
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._server.wait_closed()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        self.connections += 1
        try:
            await self._handler(reader, writer)
        except (asyncio.CancelledError, ConnectionError, asyncio.IncompleteReadError):
            pass  # the test is over, or the client went away: both are ends that a test may ask for
        finally:
            writer.close()
            self._tasks.discard(task)

    async def read_request(self, reader: asyncio.StreamReader) -> bytes:
        """Read one whole request and count it."""
        head = await reader.readuntil(b"\r\n\r\n")
        length = next(
            int(line.split(b":")[1]) for line in head.split(b"\r\n") if line.lower().startswith(b"content-length:")
        )
        whole = head + await reader.readexactly(length)
        self.requests.append(whole)
        return whole


def http_answer(body: bytes, status: str = "200 OK", headers: str = "") -> bytes:
    """A whole HTTP answer."""
    head = f"HTTP/1.1 {status}\r\ncontent-type: application/json\r\n{headers}content-length: {len(body)}\r\n\r\n"
    return head.encode() + body


COMPLETION = (
    b'{"id":"r-1","object":"chat.completion","model":"small-1-2026","new_field":{"a":1},"choices":[{"index":0,'
    b'"message":{"role":"assistant","content":"Hello."},"finish_reason":"stop"}],'
    b'"usage":{"prompt_tokens":5,"completion_tokens":2,"total_tokens":7}}'
)
"""A real provider's answer: no stand-in's mark, and a field that nobody here knows."""


def answering(*answers: bytes) -> Callable[[], RawServer]:
    """A server that gives these answers, one to each request, whichever connection it comes on."""

    def make() -> RawServer:
        left = list(answers)

        async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            while left:
                await server.read_request(reader)
                writer.write(left.pop(0))
                await writer.drain()

        server = RawServer(handle)
        return server

    return make


FAILURES = Script(
    rules=(
        Rule(contains="Fail for now: throttle.", do=Behaviour(status=429, retry_after_s=1)),
        Rule(contains="Fail for now: break.", do=Behaviour(status=503)),
        Rule(contains="Fail for now: babble.", do=Behaviour(malformed="not-json")),
        Rule(contains="Fail for good.", do=Behaviour(status=400)),
    )
)
"""What the stand-in does for the contract suite, by what the call says."""


@asynccontextmanager
async def openai_rig(_request: object) -> AsyncIterator[Any]:
    """The rig for the contract suite: a stand-in that fails on demand, and proof that no call reached it twice."""
    from backend_rigs import Rig, plain_call  # noqa: PLC0415 - that module imports this one

    kinds = cycle(("throttle", "break", "babble"))

    def call(outcome: str, call_id: str) -> ModelCall:
        texts = {"transient": f"Fail for now: {next(kinds)}.", "permanent": "Fail for good."}
        return plain_call(call_id, text=texts.get(outcome, "Say hello."))

    async with StandIn(FAILURES) as stand_in, opened(stand_in.base_url) as backend:
        yield Rig(backend, call)
        arrived = Counter(received.call_id for received in stand_in.calls)
        assert set(arrived.values()) <= {1}, f"sent more than once: {arrived}"
