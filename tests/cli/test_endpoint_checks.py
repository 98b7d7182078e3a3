"""Endpoints that are set wrong are told at the start, by what is wrong with them; nobody's text is sent for that."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from evidence.errors import ConfigError
from streams.brokers.process import free_port
from waybill.dev_parts import check_texts
from waybill.endpoint_checks import check_endpoints
from waybill.settings import EndpointConfig, Settings


class Server:
    """A raw HTTP server that gives one answer, and keeps what it was sent."""

    def __init__(self, status: str) -> None:
        self.sent = b""
        self.port = 0
        self._status = status

    async def answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Read a request's head, answer, close."""
        try:
            self.sent += await reader.readuntil(b"\r\n\r\n")
            body = b'{"data": []}'
            head = f"HTTP/1.1 {self._status}\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n"
            writer.write(head.encode() + body)
            await writer.drain()
        except asyncio.IncompleteReadError:
            pass  # what speaks TLS sends no such thing
        finally:
            writer.close()


@asynccontextmanager
async def serving(status: str) -> AsyncIterator[Server]:
    """Serve on a free port."""
    made = Server(status)
    server = await asyncio.start_server(made.answer, "127.0.0.1", 0)
    made.port = server.sockets[0].getsockname()[1]
    async with server:
        yield made


async def asked(url: str) -> tuple[bool, str]:
    """Ask one endpoint; return whether it is well, and what is said."""
    settings = Settings(endpoints={"hosted": EndpointConfig(kind="openai", url=url, provider="acme", key="k-123")})
    ((name, good, said),) = [found async for found in check_endpoints(settings, ["hosted"])]
    assert (name, "k-123" in said) == ("hosted", False)
    return good, said


@pytest.mark.parametrize(
    ("status", "good", "said"),
    [
        ("200 OK", True, "answers (200)"),
        ("405 Method Not Allowed", True, "answers (405)"),
        ("401 Unauthorized", False, "refuses the key (401)"),
        ("403 Forbidden", False, "refuses the key (403)"),
        ("404 Not Found", False, "the path is wrong (a URL ends before /chat/completions)"),
        ("503 Service Unavailable", False, "cannot serve (503)"),
    ],
)
async def test_what_the_server_answers_is_told(status, good, said):
    """Wrong key, wrong path, not serving; what is sent is a question for the list of models, and no body."""
    async with serving(status) as server:
        found = await asked(f"http://127.0.0.1:{server.port}/v1")
    assert (found[0], said in found[1]) == (good, True), found
    assert server.sent.startswith(b"GET /v1/models HTTP/1.1\r\n")
    assert server.sent.lower().count(b"content-length") == 0


async def test_a_closed_port_is_told():
    """Nobody listens there."""
    good, said = await asked(f"http://127.0.0.1:{free_port()}/v1")
    assert not good
    assert "connection" in said


async def test_tls_asked_of_a_server_without_it_is_told():
    """`https://` on a port that speaks plain HTTP is not taken for a slow server."""
    async with serving("400 Bad Request") as server:
        good, said = await asked(f"https://127.0.0.1:{server.port}/v1")
    assert not good
    assert "answers without TLS: use http://" in said


@pytest.mark.parametrize("end", ["/chat/completions", "/completions", "/models", "/chat/completions/"])
async def test_a_url_that_goes_too_far_is_told_without_asking(end):
    """The API's own paths are added by the program."""
    good, said = await asked(f"http://127.0.0.1:{free_port()}/v1{end}")
    assert not good
    assert f"leave {end.rstrip('/')} out" in said


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"url": "http://models.example.com/v1"}, "use https://"),
        ({"url": "https://models.example.com/v1", "key_file": "gone"}, "cannot read the key file gone"),
        ({"url": "models.example.com/v1"}, "write https://HOST/PATH"),
    ],
)
def test_a_run_with_a_faulty_endpoint_ends_before_anything_is_started(changes, said):
    """What can be known of an endpoint without asking it is told by `waybill dev` before its broker and its model."""
    place = EndpointConfig.model_validate({"kind": "openai", "provider": "acme", **changes})
    with pytest.raises(ConfigError, match=said):
        check_texts(Settings(endpoints={"hosted": place}))
