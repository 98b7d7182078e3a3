"""Whether the data left: each way in which a call can fail on its way, on real sockets."""

from __future__ import annotations

import asyncio
import socket
import ssl
import subprocess
import time
from pathlib import Path
from shutil import which

import pytest
from openai_rig import COMPLETION, RawServer, answering, http_answer, make_call, opened, until

from inference.errors import Ambiguous, BackendError, NotSent
from inference.openai import OpenAICompatibleBackend
from inference.standin import Behaviour, Rule, Script, StandIn


async def failure(backend: OpenAICompatibleBackend, **changes: object) -> BackendError:
    """The error with which a call ends; it is told apart from its cause."""
    with pytest.raises(BackendError) as caught:
        await backend.complete(make_call(**changes))
    assert caught.value.__cause__ is None
    return caught.value


def free_port() -> int:
    """A port on which nobody listens."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


async def test_refused_connection_is_not_sent() -> None:
    """Where nobody listens, nothing was sent."""
    async with opened(f"http://127.0.0.1:{free_port()}/v1") as backend:
        error = await failure(backend)
    assert (type(error), error.code, error.provider) == (NotSent, "connect_failed", "")


async def test_unknown_name_is_not_sent() -> None:
    """Where the name cannot be resolved, nothing was sent."""
    async with opened("https://nobody.invalid/v1") as backend:
        error = await failure(backend)
    assert (type(error), error.code) == (NotSent, "dns_failed")


async def test_full_backlog_is_not_sent() -> None:
    """A host that never completes the TCP handshake got nothing, and the connect limit applies to the moment."""
    with socket.socket() as deaf:
        deaf.bind(("127.0.0.1", 0))
        deaf.listen(0)
        address = deaf.getsockname()
        fillers = [socket.socket() for _ in range(4)]
        try:
            for filler in fillers:
                filler.setblocking(False)  # noqa: FBT003 - the socket's own signature
                filler.connect_ex(address)
            async with opened(f"http://127.0.0.1:{address[1]}/v1", connect_timeout_s=0.2) as backend:
                started = time.monotonic()
                error = await failure(backend)
                took = time.monotonic() - started
        finally:
            for filler in fillers:
                filler.close()
    assert (type(error), error.code) == (NotSent, "connect_timeout")
    assert took < 1.0


async def test_silent_tls_server_is_not_sent() -> None:
    """A server that accepts TCP and never speaks TLS got no byte of the request."""

    async def silent(reader: asyncio.StreamReader, _writer: asyncio.StreamWriter) -> None:
        await reader.read(-1)

    async with (
        RawServer(silent) as server,
        opened(f"https://127.0.0.1:{server.port}/v1", connect_timeout_s=0.2) as backend,
    ):
        error = await failure(backend)
    assert (type(error), error.code) == (NotSent, "connect_timeout")


async def test_server_without_tls_is_not_sent() -> None:
    """Plain HTTP behind an https URL is a failed handshake: nothing was sent."""
    async with StandIn() as stand_in:
        async with opened(stand_in.base_url.replace("http:", "https:")) as backend:
            error = await failure(backend)
        assert stand_in.log.total == 0
    assert (type(error), error.code) == (NotSent, "tls_failed")


async def test_broken_handshake_is_not_sent() -> None:
    """A server that hangs up during the TLS handshake got nothing."""

    async def hang_up(reader: asyncio.StreamReader, _writer: asyncio.StreamWriter) -> None:
        await reader.read(1)

    async with RawServer(hang_up) as server, opened(f"https://127.0.0.1:{server.port}/v1") as backend:
        error = await failure(backend)
    assert type(error) is NotSent
    assert error.code in ("connect_failed", "tls_failed")


@pytest.fixture
def certificate(tmp_path: Path) -> tuple[Path, Path]:
    """A self-signed certificate for 127.0.0.1 and its key."""
    if which("openssl") is None:
        pytest.skip("the openssl program is missing: it makes the certificate of this test")
    cert, key = tmp_path / "cert.pem", tmp_path / "key.pem"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "1",
         "-keyout", str(key), "-out", str(cert), "-subj", "/CN=test", "-addext", "subjectAltName=IP:127.0.0.1"],
        check=True, capture_output=True,
    )  # fmt: skip
    return cert, key


async def test_certificate_is_verified(certificate: tuple[Path, Path]) -> None:
    """An untrusted certificate ends the call before the request; with its authority trusted, the call goes through."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(*certificate)
    requests = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        requests.append(await reader.readuntil(b"\r\n\r\n"))
        writer.write(http_answer(COMPLETION, headers="connection: close\r\n"))
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=context)
    async with server:
        url = f"https://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1"
        async with opened(url) as backend:
            error = await failure(backend)
        assert (type(error), error.code) == (NotSent, "tls_failed")
        assert "self-signed" in str(error)
        assert not requests
        async with opened(url, tls=ssl.create_default_context(cafile=certificate[0])) as backend:
            assert (await backend.complete(make_call())).text == "Hello."


async def test_wait_for_a_free_connection_is_not_sent() -> None:
    """A call that found no free connection within its limit was not sent."""
    script = Script(rules=(Rule(call_id="slow", do=Behaviour(latency_ms=300)),))
    async with StandIn(script) as stand_in, opened(stand_in.base_url, connections=1) as backend:
        slow = asyncio.create_task(backend.complete(make_call("slow")))
        await until(lambda: stand_in.log.total)
        error = await failure(backend, call_id="waits", timeout_s=0.1)
        assert (type(error), error.code) == (NotSent, "connect_timeout")
        await slow
        assert [call.call_id for call in stand_in.calls] == ["slow"]


@pytest.mark.parametrize(("drop", "answered_by"), [("before-read", ""), ("after-accept", ""), ("mid-body", "stand-in")])
async def test_dropped_connection_is_ambiguous(drop: str, answered_by: str) -> None:
    """A connection that ends after the request was written leaves the call unknown, and it is not sent again."""
    script = Script(rules=(Rule(do=Behaviour.model_validate({"drop": drop})),))
    async with StandIn(script) as stand_in, opened(stand_in.base_url) as backend:
        error = await failure(backend)
        assert [call.behaviour for call in stand_in.calls] == [f"drop:{drop}"]
    assert (type(error), error.code, error.provider) == (Ambiguous, "disconnected", answered_by)


async def test_post_is_never_sent_twice_on_a_fresh_connection() -> None:
    """A server that reads the request and hangs up reads exactly one."""

    async def drop(reader: asyncio.StreamReader, _writer: asyncio.StreamWriter) -> None:
        await server.read_request(reader)

    async with RawServer(drop) as server, opened(server.base_url) as backend:
        error = await failure(backend)
        await asyncio.sleep(0.1)
        assert (len(server.requests), server.connections) == (1, 1)
    assert type(error) is Ambiguous


async def test_post_is_never_sent_twice_on_a_kept_connection() -> None:
    """Aiohttp resends idempotent requests when a kept-alive connection dies; our POST is not resent."""

    async def answer_once_then_drop(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await server.read_request(reader)
        writer.write(http_answer(COMPLETION))
        await writer.drain()
        await server.read_request(reader)

    async with RawServer(answer_once_then_drop) as server, opened(server.base_url, reuse_connections=True) as backend:
        await backend.complete(make_call("first"))
        error = await failure(backend, call_id="second")
        await asyncio.sleep(0.1)
        assert (len(server.requests), server.connections) == (2, 1)
    assert (type(error), error.code) == (Ambiguous, "disconnected")


async def test_reset_on_a_kept_connection_is_ambiguous() -> None:
    """A reset in answer to a request on a kept-alive connection is ambiguous too, and nothing is resent."""

    async def answer_once_then_reset(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await server.read_request(reader)
        writer.write(http_answer(COMPLETION))
        await writer.drain()
        await reader.readexactly(1)
        writer.transport.abort()

    async with RawServer(answer_once_then_reset) as server, opened(server.base_url, reuse_connections=True) as backend:
        await backend.complete(make_call("first"))
        error = await failure(backend, call_id="second")
        await asyncio.sleep(0.1)
        assert server.connections == 1
    assert (type(error), error.code) == (Ambiguous, "disconnected")


async def test_connection_closed_while_idle_is_replaced() -> None:
    """A kept-alive connection that the server has closed in the meantime is not used again."""
    closing = http_answer(COMPLETION)

    async def answer_and_close(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await server.read_request(reader)
        writer.write(closing)
        await writer.drain()

    async with RawServer(answer_and_close) as server, opened(server.base_url, reuse_connections=True) as backend:
        for number in range(3):
            assert (await backend.complete(make_call(f"int-{number}"))).text == "Hello."
            await asyncio.sleep(0.05)
        assert (len(server.requests), server.connections) == (3, 3)


async def test_late_answer_is_ambiguous() -> None:
    """A call that gets no answer within its limit is unknown, and ends at the limit."""
    async with (
        StandIn(Script(rules=(Rule(do=Behaviour(latency_ms=5000)),))) as stand_in,
        opened(stand_in.base_url) as backend,
    ):
        started = time.monotonic()
        error = await failure(backend, timeout_s=0.15)
        took = time.monotonic() - started
    assert (type(error), error.code) == (Ambiguous, "timeout")
    assert 0.1 < took < 1.0


async def test_answer_that_stops_half_way_is_ambiguous() -> None:
    """An answer that begins and never ends is unknown at the limit."""

    async def stall(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await server.read_request(reader)
        writer.write(http_answer(COMPLETION)[:-10])
        await reader.read(1)

    async with RawServer(stall) as server, opened(server.base_url) as backend:
        error = await failure(backend, timeout_s=0.15)
    assert (type(error), error.code, error.provider) == (Ambiguous, "timeout", "acme")


async def test_cancelling_hangs_up() -> None:
    """Cancelling a call closes its connection, so that the destination can stop."""
    async with (
        StandIn(Script(rules=(Rule(do=Behaviour(latency_ms=5000)),))) as stand_in,
        opened(stand_in.base_url) as backend,
    ):
        task = asyncio.create_task(backend.complete(make_call()))
        await until(lambda: stand_in.log.total)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await until(lambda: stand_in.log.abandoned == 1)


async def test_closing_ends_waiting_calls_as_ambiguous() -> None:
    """Calls that wait for an answer when the backend is closed are unknown; later ones are not sent."""
    async with (
        StandIn(Script(rules=(Rule(do=Behaviour(latency_ms=5000)),))) as stand_in,
        opened(stand_in.base_url) as backend,
    ):
        task = asyncio.create_task(backend.complete(make_call()))
        await until(lambda: stand_in.log.total)
        await backend.close()
        await backend.close()
        with pytest.raises(Ambiguous):
            await task
        error = await failure(backend)
    assert (type(error), error.code) == (NotSent, "closed")


@pytest.mark.parametrize(
    "changes",
    [
        {"call_id": ""},
        {"call_id": "a\r\nX-Evil: 1"},
        {"traceparent": "00-1"},
        {"messages": ()},
        {"max_tokens": 0},
        {"timeout_s": 0.0},
        {"timeout_s": float("nan")},
        {"prompt": "\ud800"},
    ],
)
async def test_wrong_calls_are_not_sent(changes: dict[str, object]) -> None:
    """A call that cannot be put into a request is refused before a connection is made."""
    async with StandIn() as stand_in, opened(stand_in.base_url) as backend:
        error = await failure(backend, **changes)
        assert stand_in.log.total == 0
        assert not stand_in.connections
    assert (type(error), error.code) == (NotSent, "bad_call")


async def test_proxy_variables_are_ignored(monkeypatch: pytest.MonkeyPatch) -> None:
    """A proxy in the environment gets nothing."""
    async with answering(http_answer(COMPLETION))() as proxy, StandIn() as stand_in:
        for name in ("http_proxy", "HTTP_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"):
            monkeypatch.setenv(name, f"http://127.0.0.1:{proxy.port}")
        for name in ("no_proxy", "NO_PROXY"):
            monkeypatch.delenv(name, raising=False)
        async with opened(stand_in.base_url) as backend:
            await backend.complete(make_call())
        assert (stand_in.log.total, proxy.connections) == (1, 0)


async def test_many_calls_share_few_connections() -> None:
    """A hundred calls at once go over at most the configured connections, each exactly once."""
    async with StandIn() as stand_in, opened(stand_in.base_url, connections=4) as backend:
        await asyncio.gather(*(backend.complete(make_call(f"int-{number}")) for number in range(100)))
        assert len(stand_in.connections) <= 4
        assert sorted(call.call_id for call in stand_in.calls) == sorted(f"int-{number}" for number in range(100))
