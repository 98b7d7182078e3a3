"""What a hosted provider's configuration may say, and how `ready` describes who is there."""

from __future__ import annotations

import ssl
from typing import Any

import pytest
from openai_rig import KEY, answering, http_answer, opened
from pydantic import SecretStr

from evidence.errors import ConfigError
from inference.errors import NotSent
from inference.openai import Dialect, OpenAICompatibleBackend
from inference.standin import StandIn


def unverified() -> ssl.SSLContext:
    """TLS settings that let anybody in."""
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"base_url": "ftp://example.com"}, "write https://HOST/PATH"),
        ({"base_url": "example.com/v1"}, "write https://HOST/PATH"),
        ({"base_url": "http://["}, "write https://HOST/PATH"),
        ({"base_url": f"https://user:{KEY}@example.com/v1"}, "user or password"),
        ({"base_url": f"https://example.com/v1?key={KEY}"}, "query"),
        ({"base_url": "http://example.com/v1"}, "unencrypted"),
        ({"base_url": "http://10.0.0.1/v1"}, "unencrypted"),
        ({"base_url": "http://localhost.example.com/v1"}, "unencrypted"),
        ({"connections": 0}, "at least 1"),
        ({"connect_timeout_s": 0}, "more than 0"),
        ({"provider": ""}, "no name"),
        ({"api_key": SecretStr(KEY + "\n")}, "line end"),
        ({"api_key": SecretStr("")}, "empty"),
        ({"tls": unverified()}, "do not verify"),
        ({"dialect": Dialect(extra_body={"model": "x"})}, "come from the call"),
        ({"dialect": Dialect(extra_headers={"Authorization": SecretStr(KEY)})}, "comes from the call"),
        ({"dialect": Dialect(extra_headers={"Host": SecretStr(KEY)})}, "comes from the call"),
        ({"dialect": Dialect(extra_headers={"a b": SecretStr(KEY)})}, "is none"),
        ({"dialect": Dialect(extra_headers={"x-org": SecretStr(KEY + "\n")})}, "line end"),
        ({"dialect": Dialect(key_header="Host")}, "cannot go in"),
        ({"dialect": Dialect(key_header="a:b")}, "cannot go in"),
        ({"dialect": Dialect(key_header="api-key", extra_headers={"API-Key": SecretStr(KEY)})}, "or the key"),
    ],
)
def test_wrong_configuration_is_refused(changes: dict[str, Any], reason: str) -> None:
    """Each wrong setting is named when the program starts, and no error shows the key."""
    settings: dict[str, Any] = {"base_url": "https://example.com/v1", "provider": "acme", **changes}
    with pytest.raises(ConfigError) as caught:
        OpenAICompatibleBackend(**settings)
    assert reason in str(caught.value)
    assert KEY not in str(caught.value)


@pytest.mark.parametrize(
    ("url", "allow"),
    [
        ("http://localhost:1/v1", False),
        ("http://127.0.0.2:1/v1", False),
        ("http://[::1]:1/v1", False),
        ("https://example.com", False),
        ("http://models.internal/v1", True),
    ],
)
def test_right_addresses_are_taken(url: str, allow: bool) -> None:  # noqa: FBT001 - a parameter of the table
    """Plain HTTP is for this machine, or for where it was allowed by name; https goes anywhere."""
    assert OpenAICompatibleBackend(base_url=url, provider="acme", allow_plaintext=allow)


async def test_ready_says_who_is_there() -> None:
    """The stand-in is there, and is called what it is."""
    async with StandIn() as stand_in, opened(stand_in.base_url + "/") as backend:
        assert (await backend.ready()).startswith("stand-in at 127.0.0.1:")


@pytest.mark.parametrize("status", ["401 No", "403 No", "500 No", "307 Moved", "429 Wait"])
async def test_ready_says_why_not(status: str) -> None:
    """A provider that refuses the key or cannot serve is not ready, by its status."""
    async with answering(http_answer(b"{}", status))() as server:

        async def read_get(reader: Any) -> bytes:
            return bytes(await reader.readuntil(b"\r\n\r\n"))

        server.read_request = read_get  # type: ignore[method-assign]
        async with opened(server.base_url) as backend:
            with pytest.raises(NotSent) as caught:
                await backend.ready()
    assert (caught.value.code, caught.value.provider) == (f"http_{status[:3]}", "acme")


async def test_ready_without_anybody() -> None:
    """Where nobody listens, `ready` says so."""
    async with opened("http://127.0.0.1:9/v1") as backend:
        with pytest.raises(NotSent, match="no connection"):
            await backend.ready()
