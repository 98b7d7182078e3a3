"""The stand-in as a server: what is on the wire, what it logs, how it is told what to do while it runs."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from hashlib import sha256
from pathlib import Path
from typing import Any

import aiohttp
import orjson
import pytest
from openai_rig import KEY, TRACEPARENT, make_call, opened, until

from evidence.errors import ConfigError
from inference.standin import Behaviour, Rule, Script, StandIn

BODY = orjson.dumps({"model": "m", "messages": [{"role": "user", "content": "Hi"}]})
POST = b"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ncontent-length: %d\r\n\r\n" % len(BODY) + BODY


@asynccontextmanager
async def wire(stand_in: StandIn) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    """A bare connection to the stand-in."""
    port = int(stand_in.base_url.split(":")[2].split("/")[0])
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        yield reader, writer
    finally:
        writer.close()


async def read_answer(reader: asyncio.StreamReader) -> tuple[int, dict[str, str], dict[str, Any]]:
    """Status, headers and JSON body of the next answer."""
    head = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
    headers = {name: value for name, _, value in (line.partition(": ") for line in head[1:-2])}
    body = await reader.readexactly(int(headers["content-length"]))
    return int(head[0].split(" ")[1]), headers, orjson.loads(body)


async def control(stand_in: StandIn, method: str, path: str, body: bytes | None = None) -> tuple[int, dict[str, Any]]:
    """Ask one of the other addresses, with an ordinary HTTP client."""
    root = stand_in.base_url.removesuffix("/v1")
    async with aiohttp.ClientSession() as session, session.request(method, root + path, data=body) as response:
        assert response.headers["x-waybill-provider"] == "stand-in"
        return response.status, await response.json()


async def test_everything_is_marked() -> None:
    """Header and body say stand-in at each address, on each status."""
    async with StandIn() as stand_in:
        for method, path, status in [
            ("GET", "/healthz", 200),
            ("GET", "/v1/models", 200),
            ("GET", "/_standin/calls", 200),
            ("GET", "/_standin/rules", 200),
            ("DELETE", "/_standin/rules", 200),
            ("POST", "/v1/chat/completions", 400),
            ("GET", "/v1/chat/completions", 405),
            ("GET", "/elsewhere", 404),
            ("GET", "/_standin/calls?sinse=3", 400),
            ("GET", "/_standin/calls?since=x", 400),
        ]:
            got, body = await control(stand_in, method, path)
            assert (got, body["provider"]) == (status, "stand-in"), path


async def test_call_is_logged_without_prompt_or_credential(tmp_path: Path) -> None:
    """A call leaves who, when, what for and the hashes, in memory and in the file, but neither prompt nor key."""
    path = tmp_path / "calls.jsonl"
    async with StandIn(log_path=path, clock=lambda: 1234.5) as stand_in, opened(stand_in.base_url) as backend:
        await backend.complete(make_call("int-5", "My secret is Rosebud."))
        lines = path.read_bytes().splitlines()
        (call,) = stand_in.calls
    assert [orjson.loads(line) for line in lines] == [
        {
            "seq": 1,
            "arrived_at": 1234.5,
            "call_id": "int-5",
            "intent": "int-5",
            "traceparent": TRACEPARENT,
            "model": "small-1",
            "prompt_sha256": sha256(b"My secret is Rosebud.").hexdigest(),
            "bytes_in": call.bytes_in,
            "behaviour": "answer",
            "rule": None,
            "credential": sha256(f"Bearer {KEY}".encode()).hexdigest()[:16],
            "token": None,
            "body": None,
        }
    ]
    assert b"Rosebud" not in path.read_bytes()
    assert KEY.encode() not in path.read_bytes()


async def test_prompts_are_kept_where_asked_for() -> None:
    """With keep_prompts the whole body is there, for tests that look for leaks."""
    async with StandIn(keep_prompts=True) as stand_in, opened(stand_in.base_url) as backend:
        await backend.complete(make_call(prompt="My secret is Rosebud."))
        assert "Rosebud" in str(stand_in.calls[0].body)


async def test_log_file_outlives_the_stand_in(tmp_path: Path) -> None:
    """A second stand-in appends to the same file."""
    path = tmp_path / "calls.jsonl"
    for _ in range(2):
        async with StandIn(log_path=path) as stand_in, opened(stand_in.base_url) as backend:
            await backend.complete(make_call())
    assert len(path.read_bytes().splitlines()) == 2


async def test_calls_are_paged() -> None:
    """Reading with since and limit gives each call once; the total counts also the calls that memory has let go."""
    async with StandIn(keep_calls=5) as stand_in, opened(stand_in.base_url) as backend:
        for number in range(8):
            await backend.complete(make_call(f"int-{number}"))
        seen: list[str] = []
        since = 0
        while True:
            _, page = await control(stand_in, "GET", f"/_standin/calls?since={since}&limit=2")
            assert page["total"] == 8
            if not page["calls"]:
                break
            seen += [call["call_id"] for call in page["calls"]]
            since = page["next_since"]
    assert seen == [f"int-{number}" for number in range(3, 8)]


async def test_rules_change_while_it_runs() -> None:
    """Rules are set, counted, refused where wrong, and removed over HTTP."""
    async with StandIn() as stand_in:
        rules = b'{"rules": [{"times": 1, "do": {"status": 503}}]}'
        assert await control(stand_in, "POST", "/_standin/rules", rules) == (
            200,
            {"provider": "stand-in", "rules": [{"times": 1, "do": {"status": 503}, "taken": 0}]},
        )
        assert [(await control(stand_in, "POST", "/v1/chat/completions", BODY))[0] for _ in range(2)] == [503, 200]
        status, body = await control(stand_in, "POST", "/_standin/rules", b'{"rule": []}')
        assert (status, body["error"]["code"]) == (400, "bad_script")
        _, body = await control(stand_in, "GET", "/_standin/rules")
        assert body["rules"][0]["taken"] == 1
        assert (await control(stand_in, "DELETE", "/_standin/rules"))[1]["rules"] == []
        assert [call.behaviour for call in stand_in.calls] == ["status:503", "answer"]


async def test_invalid_requests_are_told_and_logged() -> None:
    """A request that is no chat completion gets a 400 with the field's name, and is in the log."""
    async with StandIn() as stand_in:
        for wrong in (b"{", b'{"model": "m", "messages": []}', BODY[:-1] + b',"stream":true}'):
            status, body = await control(stand_in, "POST", "/v1/chat/completions", wrong)
            assert (status, body["error"]["code"]) == (400, "invalid_request")
        assert [call.behaviour for call in stand_in.calls] == ["invalid"] * 3


async def test_pipelined_and_split_requests() -> None:
    """Requests are answered in order whether they come together or byte by byte, also behind one that waits."""
    script = Script(rules=(Rule(times=1, do=Behaviour(latency_ms=30, text="slow")),))
    async with StandIn(script) as stand_in, wire(stand_in) as (reader, writer):
        writer.write(POST * 3)
        texts = [(await read_answer(reader))[2]["choices"][0]["message"]["content"] for _ in range(3)]
        assert texts[0] == "slow"
        assert texts[1] == texts[2] != "slow"
        for at in range(len(POST)):
            writer.write(POST[at : at + 1])
            await asyncio.sleep(0)
        assert (await read_answer(reader))[0] == 200
        assert stand_in.log.total == 4


async def test_expect_continue() -> None:
    """A client that asks whether to go on (curl does, for large bodies) is told to."""
    async with StandIn() as stand_in, wire(stand_in) as (reader, writer):
        writer.write(POST.removesuffix(BODY).replace(b"host: x", b"host: x\r\nexpect: 100-continue"))
        assert await reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
        writer.write(BODY)
        assert (await read_answer(reader))[0] == 200


@pytest.mark.parametrize(
    ("request_bytes", "status"),
    [
        (b"NONSENSE\r\n\r\n", 400),
        (b"\x16\x03\x01\x02\x00\x01", 400),
        (b"GET / HTTP/2.0\r\n\r\n", 505),
        (b"POST / HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n", 411),
        (b"POST / HTTP/1.1\r\ncontent-length: -1\r\n\r\n", 400),
        (b"POST / HTTP/1.1\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\n", 400),
        (b"POST / HTTP/1.1\r\ncontent-length: 99999999999\r\n\r\n", 413),
        (b"GET / HTTP/1.1\r\nno colon\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nx: " + b"y" * 70_000, 431),
    ],
)
async def test_what_is_not_spoken_is_refused(request_bytes: bytes, status: int) -> None:
    """HTTP that the stand-in does not speak gets a status, and the connection ends."""
    async with StandIn() as stand_in, wire(stand_in) as (reader, writer):
        writer.write(request_bytes)
        got, headers, _ = await read_answer(reader)
        assert (got, headers["connection"]) == (status, "close")
        assert await reader.read() == b""


async def test_connection_close_is_kept() -> None:
    """A client that asks for the end of the connection gets it after its answer."""
    async with StandIn() as stand_in, wire(stand_in) as (reader, writer):
        writer.write(POST.replace(b"host: x", b"connection: close"))
        assert (await read_answer(reader))[0] == 200
        assert await reader.read() == b""


async def test_unread_drop_closes_before_the_body() -> None:
    """A before-read rule ends the connection on the headers; the body is never asked for."""
    script = Script(rules=(Rule(do=Behaviour(drop="before-read")),))
    async with StandIn(script) as stand_in, wire(stand_in) as (reader, writer):
        writer.write(POST.removesuffix(BODY))
        with pytest.raises((ConnectionResetError, asyncio.IncompleteReadError)):
            await reader.readuntil(b"\r\n\r\n")
        assert [(call.behaviour, call.bytes_in) for call in stand_in.calls] == [("drop:before-read", 0)]


async def test_client_that_leaves_is_counted() -> None:
    """A client that hangs up while its answer waits is counted as gone."""
    async with StandIn(Script(rules=(Rule(do=Behaviour(latency_ms=60_000)),))) as stand_in:
        async with wire(stand_in) as (_, writer):
            writer.write(POST)
            await until(lambda: stand_in.log.total)
        await until(lambda: stand_in.log.abandoned == 1)


async def test_stop_cuts_connections_and_frees_the_port() -> None:
    """After stop, which may be called twice, nobody is connected and the port can be taken again."""
    first = StandIn()
    url = await first.start()
    async with wire(first) as (reader, writer):
        writer.write(POST)
        await read_answer(reader)
        await first.stop()
        await first.stop()
        assert not first.connections
        assert await reader.read() == b""
    async with StandIn(port=int(url.split(":")[2].split("/")[0])) as second:
        assert second.base_url == url


async def test_taken_port_and_bad_log_are_named(tmp_path: Path) -> None:
    """A port that is taken and a log that cannot be written stop the start, with the reason."""
    async with StandIn() as stand_in:
        with pytest.raises(ConfigError, match="cannot listen"):
            await StandIn(port=int(stand_in.base_url.split(":")[2].split("/")[0])).start()
    with pytest.raises(ConfigError, match="call log"):
        StandIn(log_path=tmp_path / "nowhere" / "calls.jsonl")
