# ruff: noqa: S105, S106 - names of parameters, and tokens of no use
"""Credentials at the edge: the contract that each kind passes, the exchange over HTTP, and what the stand-in sees."""

from __future__ import annotations

import asyncio
import json
import logging
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing
from datetime import UTC, datetime, timedelta
from http.client import HTTPConnection
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

import pytest
from aiohttp import web
from bad_tokens import Issuer
from openai_rig import RawServer, http_answer, make_call, opened
from pydantic import SecretStr, ValidationError
from token_endpoint import JWT, TokenEndpoint, answer, refusal

from evidence.errors import ConfigError, RetryableError
from inference.callers import CredentialConfig
from inference.credentials import (
    Credentials,
    Crossing,
    KeyCredentials,
    MintedCredentials,
    NoCredentials,
    load_signing_key,
)
from inference.errors import NotSent, Rejected
from inference.exchange import ExchangedCredentials, checked_url
from inference.standin import StandIn
from policy.identity.jwks import KeySet
from policy.identity.jws import SigningKey, public_set
from policy.identity.workload import Minter

ROOT = Path(__file__).resolve().parents[2]
PROVIDER_KEY = "sk-test-4e1bd0c9f7"
SIGNING = SigningKey.generate()
KEYS = KeySet.parse(public_set(SIGNING), "jwks.json")
AUDIENCE = "https://api.example.com"
MINTER = Minter(SIGNING, trust_domain="example.org")


def crossing(call_id: str = "int-1", **changes: Any) -> Crossing:
    """A crossing that happens now."""
    fields: dict[str, Any] = {
        "call_id": call_id,
        "route": "hosted-small",
        "audience": AUDIENCE,
        "tenant": "acme",
        "actor_ref": "ada@example.org",
        "waybill_hash": "ab" * 32,
        "site": "paris-1",
        "now": datetime.now(UTC),
    }
    return Crossing(**{**fields, **changes})


@asynccontextmanager
async def exchanging(**settings: Any) -> AsyncIterator[tuple[ExchangedCredentials, TokenEndpoint]]:
    """Credentials from a real endpoint."""
    async with TokenEndpoint(KEYS, {AUDIENCE}, **settings) as endpoint:
        credentials = ExchangedCredentials(MINTER, token_url=endpoint.url, timeout_s=2)
        try:
            yield credentials, endpoint
        finally:
            await credentials.close()


@asynccontextmanager
async def of_kind(kind: str) -> AsyncIterator[Credentials]:
    """Each kind of credentials, with real parts."""
    match kind:
        case "key":
            yield KeyCredentials(SecretStr(PROVIDER_KEY), "acme")
        case "minted":
            yield MintedCredentials(MINTER)
        case "exchanged":
            async with exchanging() as (credentials, _):
                yield credentials
        case _:
            yield NoCredentials()


@pytest.mark.parametrize("kind", ["key", "minted", "exchanged", "none"])
async def test_contract_of_credentials(kind: str, caplog: pytest.LogCaptureFixture) -> None:
    """Each kind names itself in evidence, gives one header or none, tells nobody the token, and closes twice."""
    with caplog.at_level(logging.DEBUG):
        async with of_kind(kind) as credentials:
            got = await credentials.authorize(crossing())
            told = repr(credentials) + repr(got) + got.ref.to_json().decode()
            await credentials.close()
            await credentials.close()
    assert got.ref.method == kind
    assert (got.header is None) == (kind == "none")
    if got.header is not None:
        scheme, _, token = got.header.get_secret_value().partition(" ")
        assert scheme == "Bearer"
        assert got.ref.audience == AUDIENCE
        assert not any(part in told + caplog.text for part in token.split("."))
    assert "ada@example.org" not in told


@pytest.mark.parametrize("delay_s", [0, 0.005, 0.05])
async def test_a_token_belongs_to_its_exchange(delay_s: float) -> None:
    """An endpoint that answers twice gives no crossing the token of another one."""

    async def twice(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            form = parse_qs((await server.read_request(reader)).decode().rpartition("\r\n\r\n")[2])
            token = {"access_token": form["audience"][0], "issued_token_type": JWT, "token_type": "Bearer"}
            writer.write(http_answer(json.dumps(token).encode()))
            await asyncio.sleep(delay_s)
            writer.write(http_answer(json.dumps({**token, "access_token": "late"}).encode()))

    async with RawServer(twice) as server:
        credentials = ExchangedCredentials(MINTER, token_url=f"http://127.0.0.1:{server.port}/token", timeout_s=2)
        try:
            for number in range(10):
                got = await credentials.authorize(crossing(audience=f"https://{number}.example"))
                assert got.header is not None
                assert got.header.get_secret_value() == f"Bearer https://{number}.example"
                await asyncio.sleep(delay_s / 2)
        finally:
            await credentials.close()


@pytest.mark.parametrize("kind", ["minted", "exchanged"])
async def test_crossing_that_cannot_have_a_token_is_not_sent(kind: str) -> None:
    """Where no token can be made, the answer is `NotSent`, which the fallback set may follow."""
    async with of_kind(kind) as credentials:
        with pytest.raises(NotSent) as caught:
            await credentials.authorize(crossing(route=""))
    assert caught.value.code == "no_credential"
    assert isinstance(caught.value, RetryableError)


async def test_minted_tokens_are_each_crossings_own() -> None:
    """Two crossings have two tokens with two ids."""
    credentials = MintedCredentials(MINTER)
    first, second = [await credentials.authorize(crossing(call_id)) for call_id in ("int-1", "int-2")]
    assert (first.ref.token_id, second.ref.token_id) == ("int-1", "int-2")
    assert first.header != second.header


async def test_exchange_hands_in_a_token_for_the_endpoint_alone() -> None:
    """The endpoint gets a minted token whose only audience is itself, and asks for audience and scope of the call."""
    async with exchanging() as (credentials, endpoint):
        got = await credentials.authorize(crossing())
    assert endpoint.asked == [
        {
            "grant_type": "urn:ietf:params:oauth:grant-type:token-exchange",
            "subject_token_type": "urn:ietf:params:oauth:token-type:jwt",
            "requested_token_type": "urn:ietf:params:oauth:token-type:access_token",
            "audience": AUDIENCE,
            "scope": "hosted-small",
        }
    ]
    assert endpoint.subjects[0]["aud"] == [endpoint.url]
    assert not {"waybill", "waybill_actor"} & endpoint.subjects[0].keys()
    assert got.header is not None
    assert got.header.get_secret_value() == f"Bearer {endpoint.given[0]}"
    assert (got.ref.method, got.ref.token_id, got.ref.scope) == ("exchanged", "int-1", "hosted-small")


async def test_exchanged_token_serves_until_shortly_before_it_expires() -> None:
    """One token serves the crossings of one audience, scope and tenant for 80 % of its life, and then another one."""
    async with exchanging(expires_in=100) as (credentials, endpoint):
        start = datetime.now(UTC)
        for second in (0, 1, 79):
            await credentials.authorize(crossing(now=start + timedelta(seconds=second)))
        assert len(endpoint.given) == 1
        endpoint.clock = lambda: start + timedelta(seconds=80)
        await credentials.authorize(crossing(now=start + timedelta(seconds=80)))
        assert len(endpoint.given) == 2


async def test_exchanged_token_is_never_used_for_another_tenant_or_route() -> None:
    """Another tenant, and another route, has its own exchange."""
    async with exchanging() as (credentials, endpoint):
        for changes in ({}, {"tenant": "other"}, {"route": "hosted-large"}, {}):
            await credentials.authorize(crossing(**changes))
        assert len(endpoint.given) == 3
        assert len(set(endpoint.given)) == 3


async def test_crossings_at_the_same_moment_share_one_exchange() -> None:
    """A hundred crossings that find no token ask for one; one that is cancelled does not take it from the others."""
    async with exchanging() as (credentials, endpoint):
        endpoint.pause_s = 0.05
        tasks = [asyncio.create_task(credentials.authorize(crossing(f"int-{n}"))) for n in range(100)]
        await asyncio.sleep(0.01)
        tasks[0].cancel()
        done = await asyncio.gather(*tasks, return_exceptions=True)
        assert len(endpoint.asked) == 1
        assert isinstance(done[0], asyncio.CancelledError)
        assert all(not isinstance(each, BaseException) for each in done[1:])


@pytest.mark.parametrize(
    ("reply", "code"),
    [
        (lambda: refusal("invalid_target"), "exchange_http_400"),
        (lambda: refusal("invalid_client", 401), "exchange_http_401"),
        (lambda: web.Response(status=503, text="down"), "exchange_http_503"),
        (lambda: web.Response(status=302, headers={"Location": "http://127.0.0.1:9/"}), "exchange_http_302"),
        (lambda: web.Response(text="not JSON"), "exchange_bad_answer"),
        (lambda: web.Response(text="x" * 70_000), "exchange_bad_answer"),
        (lambda: answer(access_token=None), "exchange_bad_answer"),
        (lambda: answer(access_token="two words"), "exchange_bad_answer"),
        (lambda: answer(issued_token_type=None), "exchange_bad_answer"),
        (lambda: answer(issued_token_type="urn:ietf:params:oauth:token-type:refresh_token"), "exchange_bad_answer"),
        (lambda: answer(token_type="N_A"), "exchange_bad_answer"),
        (lambda: answer(token_type="DPoP"), "exchange_bad_answer"),
        (lambda: answer(expires_in=0), "exchange_bad_answer"),
        (lambda: answer(expires_in="300"), "exchange_bad_answer"),
        (lambda: answer(expires_in=86_400), "exchange_long_lived"),
        (lambda: answer(scope="hosted-small admin"), "exchange_wrong_scope"),
        (lambda: answer(scope=""), "exchange_wrong_scope"),
    ],
)
async def test_exchange_that_fails_is_not_sent_and_quotes_nothing(reply: Any, code: str) -> None:
    """Refusals, wrong forms, and more than was asked for are `NotSent`; the text and its causes quote no token."""
    async with exchanging() as (credentials, endpoint):
        endpoint.answers = [reply]
        with pytest.raises(NotSent) as caught:
            await credentials.authorize(crossing())
        assert caught.value.code == code
        assert "eyJ" not in str(caught.value)
        assert "opaque-token" not in str(caught.value)
        assert caught.value.__cause__ is None
        assert caught.value.__context__ is None
        assert (await credentials.authorize(crossing())).header is not None  # the failure was not remembered


async def test_exchange_without_scope_in_its_answer_granted_what_was_asked() -> None:
    """An answer that says no scope, or the same, and no lifetime is taken; without a lifetime it counts as a minute."""
    async with exchanging() as (credentials, endpoint):
        endpoint.answers = [lambda: answer(scope="hosted-small", expires_in=None, token_type="bearer")]
        moment = datetime.now(UTC)
        got = await credentials.authorize(crossing(now=moment))
        assert got.ref.expires_at_utc == moment + timedelta(seconds=60)


async def test_exchange_that_does_not_answer_is_not_sent() -> None:
    """A late answer, a closed port and a closed client are `NotSent` with their codes."""
    async with exchanging() as (credentials, endpoint):
        endpoint.pause_s = 5
        late = ExchangedCredentials(MINTER, token_url=endpoint.url, timeout_s=0.1)
        with pytest.raises(NotSent) as caught:
            await late.authorize(crossing())
        assert caught.value.code == "exchange_timeout"
        await late.close()
        waiting = asyncio.create_task(credentials.authorize(crossing()))
        await asyncio.sleep(0.05)
        await credentials.close()
        with pytest.raises(NotSent) as caught:
            await waiting
        assert caught.value.code == "exchange_closed"
        url = endpoint.url
        endpoint.pause_s = 0
    gone = ExchangedCredentials(MINTER, token_url=url)
    with pytest.raises(NotSent) as caught:
        await gone.authorize(crossing())
    assert caught.value.code == "exchange_connect_failed"
    await gone.close()


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("ftp://sts.example.org/", "is no URL"),
        ("token", "is no URL"),
        ("https://", "is no URL"),
        ("https://sts.example.org:99999/", "is no URL"),
        ("http://sts.example.org/token", "is unencrypted"),
        ("http://10.0.0.1/token", "is unencrypted"),
        ("https://ada:hunter2@sts.example.org/token", "has a user, a password"),
        ("https://sts.example.org/token#x", "or a fragment"),
    ],
)
def test_tokens_go_over_tls_only(url: str, says: str) -> None:
    """A token URL without TLS to another machine, or with a password in it, is refused without being quoted."""
    with pytest.raises(ConfigError, match=says) as caught:
        ExchangedCredentials(MINTER, token_url=url)
    assert "hunter2" not in str(caught.value)
    assert checked_url("http://127.0.0.1:8080/token", "x")
    assert checked_url("https://sts.example.org/token?v=1", "x")


@pytest.fixture
def key_file(tmp_path: Path) -> Path:
    """A private key that its owner alone can read."""
    path = tmp_path / "signing.pem"
    path.touch(0o600)
    path.write_bytes(SIGNING.pem())
    return path


@pytest.mark.parametrize(
    ("auth", "made"),
    [("key", "KeyCredentials"), ("minted", "MintedCredentials"), ("exchange", "ExchangedCredentials"), ("none", "No")],
)
def test_configuration_makes_each_kind(key_file: Path, auth: str, made: str) -> None:
    """Each value of `auth` makes its own kind of credentials."""
    fields: dict[str, Any] = {"auth": auth}
    if auth in ("minted", "exchange"):
        fields |= {"audience": AUDIENCE, "signing_key_file": key_file, "trust_domain": "example.org"}
    if auth == "exchange":
        fields["token_url"] = "https://sts.example.org/token"
    built = CredentialConfig(**fields).build("acme", SecretStr(PROVIDER_KEY) if auth == "key" else None)
    assert type(built).__name__.startswith(made)


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"auth": "minted"}, "auth: minted needs audience, signing_key_file, trust_domain"),
        (
            {"auth": "exchange", "audience": "x", "signing_key_file": "k", "trust_domain": "d"},
            "auth: exchange needs token_url",
        ),
        ({"auth": "key", "audience": "x"}, "audience is of no use with auth: key"),
        ({"auth": "minted", "audience": "x", "signing_key_file": "k", "trust_domain": "d", "token_url": "u"}, "no use"),
        ({"auth": "token"}, "Input should be"),
        ({"auth": "none", "typo": 1}, "Extra inputs"),
        ({"auth": "key", "token_seconds": 601}, "less than or equal to 600"),
    ],
)
def test_configuration_that_is_not_whole_is_refused(fields: dict[str, Any], says: str) -> None:
    """A field that is missing, of no use, unknown or out of range is an error at start."""
    with pytest.raises(ValidationError, match=says):
        CredentialConfig(**fields)


def test_key_where_none_belongs_is_refused(key_file: Path) -> None:
    """A provider key that is missing, cannot be sent, or would be ignored is an error."""
    with pytest.raises(ConfigError, match="needs the provider's key"):
        CredentialConfig(auth="key").build("acme", None)
    with pytest.raises(ConfigError, match="of no use with auth: none"):
        CredentialConfig(auth="none").build("acme", SecretStr("k"))
    with pytest.raises(ConfigError, match="no header can carry"):
        CredentialConfig(auth="key").build("acme", SecretStr("two\nlines"))


def test_private_key_that_others_can_read_is_refused(key_file: Path, tmp_path: Path) -> None:
    """A key file that a group can read, that is gone, or that is no key, is an error that says what to do."""
    assert load_signing_key(key_file).kid == SIGNING.kid
    key_file.chmod(0o640)
    with pytest.raises(ConfigError, match="chmod 600"):
        load_signing_key(key_file)
    key_file.chmod(0o600)
    key_file.write_text("nothing")
    with pytest.raises(ConfigError, match="waybill identity keygen"):
        load_signing_key(key_file)
    with pytest.raises(ConfigError, match="No such file"):
        load_signing_key(tmp_path / "gone.pem")


async def test_destination_takes_the_minted_token_over_http(tmp_path: Path) -> None:
    """The stand-in verifies the token of each call, logs what it says, and its log holds no token."""
    log = tmp_path / "calls.jsonl"
    async with (
        StandIn(token_keys=KEYS, audience=AUDIENCE, log_path=log, keep_prompts=True) as stand_in,
        opened(stand_in.base_url, api_key=None, authorized_calls=True) as backend,
    ):
        authorized = await MintedCredentials(MINTER).authorize(crossing("int-9"))
        assert (await backend.complete(make_call("int-9", authorization=authorized.header))).text
        assert "answers (200)" in await backend.ready()
    line = json.loads(log.read_text())
    assert line["token"] == {
        "jti": "int-9",
        "sub": "spiffe://example.org/waybill/paris-1",
        "aud": AUDIENCE,
        "scope": "hosted-small",
        "act": {
            "sub": "spiffe://example.org/waybill/paris-1/dispatch",
            "act": {"sub": "spiffe://example.org/waybill/paris-1/admission"},
        },
        "waybill": "ab" * 32,
    }
    assert authorized.header is not None
    assert not any(part in log.read_text() for part in authorized.header.get_secret_value()[7:].split("."))


async def test_destination_takes_the_exchanged_token_over_http() -> None:
    """A stand-in that trusts the endpoint takes its token, and does not take the one that was handed in."""
    async with (
        exchanging() as (credentials, endpoint),
        StandIn(token_keys=endpoint.keys, audience=AUDIENCE) as stand_in,
        opened(stand_in.base_url, api_key=None, authorized_calls=True) as backend,
    ):
        authorized = await credentials.authorize(crossing())
        assert (await backend.complete(make_call(authorization=authorized.header))).text
        minted = await MintedCredentials(MINTER).authorize(crossing())
        with pytest.raises(Rejected) as caught:
            await backend.complete(make_call("int-2", authorization=minted.header))
        assert caught.value.code == "http_401"
        assert [call.behaviour for call in stand_in.calls] == ["answer", "unauthorized:unknown_key"]


@pytest.mark.parametrize(
    ("audience", "minutes", "behaviour"),
    [
        ("https://other.example.com", 0, "unauthorized:wrong_audience"),
        (AUDIENCE, -5, "unauthorized:expired_token"),
        (AUDIENCE, 5, "unauthorized:early_token"),
    ],
)
async def test_destination_refuses_a_token_of_another_crossing(audience: str, minutes: int, behaviour: str) -> None:
    """A token for another destination or another time is refused with 401, which is `Rejected`, and answers nothing."""
    async with (
        StandIn(token_keys=KEYS, audience=AUDIENCE) as stand_in,
        opened(stand_in.base_url, api_key=None) as backend,
    ):
        made = crossing(audience=audience, now=datetime.now(UTC) + timedelta(minutes=minutes))
        authorized = await MintedCredentials(MINTER).authorize(made)
        with pytest.raises(Rejected) as caught:
            await backend.complete(make_call(authorization=authorized.header))
        assert caught.value.code == "http_401"
        assert [call.behaviour for call in stand_in.calls] == [behaviour]
        assert stand_in.calls[0].token is None


async def test_destination_refuses_a_users_token_and_no_token() -> None:
    """Without a token, and with a user's own, the stand-in answers 401."""
    async with (
        StandIn(token_keys=KEYS, audience=AUDIENCE) as stand_in,
        opened(stand_in.base_url, api_key=None) as backend,
    ):
        for call in (make_call(), make_call(authorization=SecretStr(f"Bearer {Issuer().token()}"))):
            with pytest.raises(Rejected):
                await backend.complete(call)
        assert [call.behaviour for call in stand_in.calls] == ["unauthorized:no_token", "unauthorized:unknown_key"]


async def test_call_without_authorization_is_not_sent_where_each_needs_one() -> None:
    """A backend of authorized calls sends none without, and none with what no header can carry."""
    async with StandIn() as stand_in, opened(stand_in.base_url, api_key=None, authorized_calls=True) as backend:
        for wrong in (None, SecretStr("Bearer"), SecretStr("Bearer a\r\nX-Evil: 1"), SecretStr("")):
            with pytest.raises(NotSent) as caught:
                await backend.complete(make_call(authorization=wrong))
            assert caught.value.code == "bad_call"
        assert stand_in.calls == ()


async def test_calls_authorization_takes_the_place_of_the_key() -> None:
    """A call's own authorization is sent, the backend's key is not; the next call without one has the key again."""
    async with StandIn() as stand_in, opened(stand_in.base_url) as backend:
        await backend.complete(make_call("int-1", authorization=SecretStr("Bearer own-token")))
        await backend.complete(make_call("int-2"))
        from inference.standin.calls import credential_mark  # noqa: PLC0415 - for this test alone

        marks = [credential_mark(f"Bearer {secret}") for secret in ("own-token", PROVIDER_KEY)]
        assert [call.credential for call in stand_in.calls] == marks
    assert "own-token" not in repr(make_call(authorization=SecretStr("Bearer own-token")))


def test_stand_in_needs_keys_and_audience_together() -> None:
    """Keys without an audience would take every token of ours, an audience without keys would check none."""
    for settings in ({"token_keys": KEYS}, {"audience": AUDIENCE}):
        with pytest.raises(ConfigError, match="needs both"):
            StandIn(**settings)


def test_stand_in_program_asks_for_tokens(tmp_path: Path) -> None:
    """`python -m inference.standin --jwks FILE --audience NAME` refuses calls without a token; keys alone do not do."""
    (tmp_path / "jwks.json").write_text(public_set(SIGNING))
    command = [sys.executable, "-m", "inference.standin", "--jwks", str(tmp_path / "jwks.json")]
    alone = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False, cwd=ROOT)
    assert (alone.returncode, "needs both" in alone.stderr) == (2, True)
    with subprocess.Popen([*command, "--audience", AUDIENCE], stdout=subprocess.PIPE, text=True, cwd=ROOT) as program:
        try:
            assert program.stdout is not None
            port = int(program.stdout.readline().strip().removesuffix("/v1").rpartition(":")[2])
            with closing(HTTPConnection("127.0.0.1", port, timeout=10)) as connection:
                connection.request("POST", "/v1/chat/completions", b"{}")
                with connection.getresponse() as response:
                    assert (response.status, response.headers["www-authenticate"]) == (401, "Bearer")
                    response.read()
        finally:
            program.terminate()
