"""Settings of endpoints reach the server: from variables to bytes on the wire, and what is wrong stops the start."""

from __future__ import annotations

import os
import ssl
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from shutil import which
from typing import Any

import orjson
import pytest
from aiohttp import web
from openai_rig import COMPLETION, make_call

from evidence.errors import ConfigError
from inference.errors import NotSent, Rejected
from inference.openai import OpenAICompatibleBackend
from waybill.assembly import backends
from waybill.settings import load

KEY = "Zq7planted"
START = "WAYBILL_ENDPOINTS__HOSTED__"


@pytest.fixture
def endpoint(monkeypatch):
    """Sets the variables of one endpoint and makes its back end."""
    for name in list(os.environ):
        if name.startswith("WAYBILL_"):
            monkeypatch.delenv(name)

    def make(**values: str) -> OpenAICompatibleBackend:
        for name, value in {"KIND": "openai", **values}.items():
            monkeypatch.setenv(START + name, value)
        made = backends(load())["hosted"]
        assert isinstance(made, OpenAICompatibleBackend)
        return made

    return make


class Picky:
    """A server that refuses what today's models refuse, with Azure's ways where it is told so."""

    def __init__(self, *, azure: bool = False) -> None:
        self.azure = azure
        self.asked: list[tuple[web.Request, dict[str, Any]]] = []

    async def answer(self, request: web.Request) -> web.Response:
        """Answer one call, or say what is wrong with it."""
        body = orjson.loads(await request.read())
        self.asked.append((request, body))
        if self.azure and request.query.getall("api-version", []) != ["2024-10-21"]:
            return self._no(404, "api_version", "Resource not found")
        if self.azure and (request.headers.get("api-key") != KEY or "Authorization" in request.headers):
            return self._no(401, "access_denied", "Access denied due to invalid subscription key")
        if "max_tokens" in body:
            return self._no(400, "unsupported_parameter", "Use 'max_completion_tokens' instead.")
        if body.get("temperature", 1) != 1:
            return self._no(400, "unsupported_value", "Only the default (1) value is supported.")
        if "forbidden" in body["messages"][-1]["content"]:
            inner = {"code": "ResponsibleAIPolicyViolation", "content_filter_result": {"hate": {"filtered": True}}}
            return self._no(400, "content_filter", "The response was filtered", innererror=inner)
        filtered = [{"prompt_index": 0, "content_filter_results": {"hate": {"filtered": False}}}]
        usage = {"prompt_tokens": 9, "completion_tokens": 40, "completion_tokens_details": {"reasoning_tokens": 38}}
        return web.json_response({**orjson.loads(COMPLETION), "usage": usage, "prompt_filter_results": filtered})

    def _no(self, status: int, code: str, message: str, **more: Any) -> web.Response:
        return web.json_response({"error": {"code": code, "message": message, **more}}, status=status)

    @asynccontextmanager
    async def serve(self, path: str, tls: ssl.SSLContext | None = None) -> AsyncIterator[str]:
        """Serve below a path; give the URL."""
        application = web.Application()
        application.router.add_post(f"{path}/chat/completions", self.answer)
        runner = web.AppRunner(application, access_log=None)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0, ssl_context=tls).start()
        try:
            yield f"{'https' if tls else 'http'}://127.0.0.1:{runner.addresses[0][1]}{path}"
        finally:
            await runner.cleanup()


@pytest.fixture
def key_file(tmp_path) -> str:
    """A file that holds the key."""
    path = tmp_path / "key"
    path.write_text(KEY + "\n")
    return str(path)


async def test_a_model_on_azure_is_asked_in_its_ways(endpoint, key_file):
    """Key header, version query and name of the limit lead to an answer of a server that wants them so."""
    server = Picky(azure=True)
    async with server.serve("/openai/deployments/d") as url:
        backend = endpoint(
            URL=url, PROVIDER="azure", KEY_FILE=key_file, KEY_HEADER="api-key", QUERY="api-version=2024-10-21",
            MAX_TOKENS_FIELD="max_completion_tokens",
        )  # fmt: skip
        try:
            answer = await backend.complete(make_call())
            refusal = await backend.complete(make_call(prompt="Something forbidden."))
        finally:
            await backend.close()
    assert (answer.text, answer.provider, answer.tokens.reasoning) == ("Hello.", "azure", 38)
    assert (refusal.refused, refusal.finish_reason, refusal.tokens.known) == (True, "content_filter", False)
    assert KEY not in repr(backend)


async def test_a_reasoning_model_is_asked_in_its_ways(endpoint, key_file):
    """No temperature goes where the request asks for none, and further fields and headers go along."""
    server = Picky()
    async with server.serve("/v1") as url:
        backend = endpoint(
            URL=url, KEY_FILE=key_file, MAX_TOKENS_FIELD="max_completion_tokens",
            EXTRA_BODY='{"reasoning_effort": "low", "metadata": {"a": [1, null]}}',
            HEADERS='{"OpenAI-Project": "proj-1"}',
        )  # fmt: skip
        try:
            assert (await backend.complete(make_call())).text == "Hello."
            assert (await backend.complete(make_call(temperature=1.0))).text == "Hello."
            with pytest.raises(Rejected, match="unsupported_value"):
                await backend.complete(make_call(temperature=0.2))
        finally:
            await backend.close()
    request, body = server.asked[0]
    assert (body["max_completion_tokens"], body["reasoning_effort"]) == (64, "low")
    assert "temperature" not in body
    assert (request.headers["Authorization"], request.headers["OpenAI-Project"]) == (f"Bearer {KEY}", "proj-1")
    assert [asked[1].get("temperature") for asked in server.asked] == [None, 1.0, 0.2]


async def test_without_these_settings_the_same_model_says_no(endpoint):
    """The server of these tests is as picky as it claims: a plain endpoint is refused by it."""
    async with Picky().serve("/v1") as url:
        backend = endpoint(URL=url)
        try:
            with pytest.raises(Rejected, match="unsupported_parameter"):
                await backend.complete(make_call())
        finally:
            await backend.close()


@pytest.fixture
def certificates(tmp_path: Path) -> Path:
    """A folder with an authority, and certificates of a server and of a client that it signed."""
    if which("openssl") is None:
        pytest.skip("the openssl program is missing: it makes the certificates of this test")
    ec = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "1"]

    def run(*words: str) -> None:
        subprocess.run(["openssl", *words], cwd=tmp_path, check=True, capture_output=True)

    run("req", "-x509", *ec, "-keyout", "ca.key", "-out", "ca.pem", "-subj", "/CN=authority")
    for name, alternative in (("server", "IP:127.0.0.1"), ("client", "DNS:client")):
        run("req", "-x509", *ec, "-keyout", f"{name}.key", "-out", f"{name}.pem", "-subj", f"/CN={name}",
            "-addext", f"subjectAltName={alternative}", "-addext", "basicConstraints=critical,CA:FALSE",
            "-CA", "ca.pem", "-CAkey", "ca.key")  # fmt: skip
    return tmp_path


async def test_private_authority_client_certificate_and_secret_header(endpoint, certificates, tmp_path):
    """A server under a private authority that wants a client certificate is reached with the files, and only so."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=str(certificates / "ca.pem"))
    context.load_cert_chain(certificates / "server.pem", certificates / "server.key")
    context.verify_mode = ssl.CERT_REQUIRED
    (tmp_path / "token").write_text("gateway-secret\n")
    server = Picky()
    async with server.serve("/v1", context) as url:
        files = {
            "CA_FILE": str(certificates / "ca.pem"),
            "CLIENT_CERT_FILE": str(certificates / "client.pem"),
            "CLIENT_KEY_FILE": str(certificates / "client.key"),
        }
        plain = endpoint(URL=url, MAX_TOKENS_FIELD="max_completion_tokens")
        with pytest.raises(NotSent, match="certificate"):
            await plain.complete(make_call())
        await plain.close()
        backend = endpoint(
            URL=url, **files, HEADER_FILES=orjson.dumps({"X-Gateway-Token": str(tmp_path / "token")}).decode()
        )
        try:
            assert (await backend.complete(make_call())).provider == "127.0.0.1"
        finally:
            await backend.close()
    assert len(server.asked) == 1
    assert server.asked[0][0].headers["X-Gateway-Token"] == "gateway-secret"


@pytest.mark.parametrize(
    ("values", "told"),
    [
        ({"KIND": "triton", "URL": "127.0.0.1:1", "MAX_TOKENS_FIELD": "max_tokens"}, "MAX_TOKENS_FIELD is of no use"),
        ({"KIND": "in-process", "EXTRA_BODY": "{}"}, "EXTRA_BODY is of no use"),
        ({"KIND": "triton", "URL": "127.0.0.1:1", "CA_FILE": "/x"}, "CA_FILE is of no use"),
        ({"URL": "http://127.0.0.1:1/v1", "CA_FILE": "/x"}, "whose URL is not https://"),
        ({"MAX_TOKENS_FIELD": "tokens"}, "MAX_TOKENS_FIELD"),
        ({"MAX_TOKEN_FIELD": "max_tokens"}, "MAX_TOKEN_FIELD"),
        ({"KEY_HEADER": "api-key"}, "KEY_HEADER needs"),
        ({"KEY": KEY, "KEY_HEADER": "Host"}, "cannot go in the header"),
        ({"KEY": KEY, "KEY_HEADER": "a b"}, "cannot go in the header"),
        ({"EXTRA_BODY": "[1]"}, "EXTRA_BODY"),
        ({"EXTRA_BODY": "{broken"}, "EXTRA_BODY"),
        ({"EXTRA_BODY": '{"model": "other"}'}, "come from the call"),
        ({"EXTRA_BODY": '{"stream": true}'}, "come from the call"),
        ({"HEADERS": f'{{"Authorization": "{KEY}"}}'}, "comes from the call"),
        ({"HEADERS": f'{{"X-A": "{KEY}\\n"}}'}, "line end"),
        ({"HEADERS": '{"X-A": 7}'}, "HEADERS"),
        ({"HEADERS": '{"x-a": "1"}', "HEADER_FILES": '{"X-A": "/f"}'}, "not both"),
        ({"HEADER_FILES": '{"X-A": "/nowhere"}'}, "cannot read the file of X-A"),
        ({"QUERY": "api-version"}, "QUERY is no query"),
        ({"QUERY": f"key={KEY}"}, "a key goes in KEY_FILE"),
        ({"QUERY": f"subscription-key={KEY}"}, "a key goes in KEY_FILE"),
        ({"QUERY": "a=1&a=2"}, "twice"),
        ({"CA_FILE": "/nowhere"}, "/nowhere holds no certificates"),
        ({"CLIENT_KEY_FILE": "/nowhere"}, "needs CLIENT_CERT_FILE"),
        ({"CLIENT_CERT_FILE": "/nowhere"}, "no certificate with its key"),
        ({"CONNECT_SECONDS": "0"}, "CONNECT_SECONDS"),
        ({"CONNECT_SECONDS": "nan"}, "CONNECT_SECONDS"),
        ({"REUSE_CONNECTIONS": "perhaps"}, "REUSE_CONNECTIONS"),
        ({"PROVIDER": "x" * 201}, "PROVIDER"),
        ({"PROVIDER": "a b"}, "PROVIDER"),
        ({"URL": "https://127.0.0.1/v1?api-version=1"}, "QUERY"),
    ],
)
def test_wrong_endpoint_settings_stop_the_start(endpoint, values, told):
    """What is unknown, of no use, at odds with another setting or unreadable is an error by name, not by value."""
    with pytest.raises(ConfigError) as caught:
        endpoint(**{"URL": "https://models.example.com/v1", **values})
    assert told in str(caught.value)
    assert KEY not in str(caught.value)


@pytest.mark.parametrize(
    ("url", "provider"),
    [
        ("https://api.example.com/v1", "api.example.com"),
        ("http://127.0.0.1:8080/v1", "127.0.0.1"),
        ("http://[::1]:8080/v1", "::1"),
    ],
)
def test_a_provider_without_a_name_is_its_host(endpoint, url, provider):
    """Evidence never says `openai` of somebody who is not: the host names who runs a hosted endpoint."""
    endpoint(URL=url)
    assert load().described_endpoints()["hosted"].provider == provider


def test_keys_and_headers_are_not_shown(endpoint, key_file):
    """No text of the settings shows a key or the value of a header."""
    endpoint(URL="https://a.example/v1", KEY_FILE=key_file, HEADERS=f'{{"X-A": "{KEY}"}}')
    assert KEY not in repr(load())
