"""The issuer's keys while a worker runs: a file that changes, a URL that changes, fails, or grows too old."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from aiohttp import web
from bad_tokens import AUDIENCE, ISSUER, NOW, Issuer
from pydantic import ValidationError

from evidence.errors import ConfigError, RecordError, UnavailableError
from policy.identity.jws import SigningKey, public_set
from policy.identity.verify import Verifier
from streams.keys import IdentityConfig, KeyFeed

OLD, NEW = Issuer(), Issuer()


class Publisher:
    """An issuer's web server."""

    def __init__(self) -> None:
        self.text = OLD.jwks()
        self.status = 200
        self.asked = 0
        self.url = ""

    async def serve(self, _request: web.Request) -> web.Response:
        """Give the keys."""
        self.asked += 1
        headers = {"Location": self.url} if self.status == 302 else None
        return web.Response(text=self.text, status=self.status, headers=headers)


@asynccontextmanager
async def published() -> AsyncIterator[Publisher]:
    """A publisher that listens."""
    publisher = Publisher()
    app = web.Application()
    app.router.add_get("/jwks.json", publisher.serve)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    publisher.url = f"http://127.0.0.1:{runner.addresses[0][1]}/jwks.json"
    try:
        yield publisher
    finally:
        await runner.cleanup()


@asynccontextmanager
async def following(feed: KeyFeed) -> AsyncIterator[Verifier]:
    """A verifier that a feed keeps."""
    keys, fresh_until = await feed.read()
    verifier = Verifier(keys, issuer=ISSUER, audience=AUDIENCE, fresh_until=fresh_until)
    task = asyncio.create_task(feed.follow(verifier))
    try:
        yield verifier
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


async def until(condition: Callable[[], object]) -> None:
    """Wait until something that another task brings about is so."""
    async with asyncio.timeout(10):
        while not condition():  # noqa: ASYNC110 - a file and a server have no event to wait for
            await asyncio.sleep(0.01)


def takes(verifier: Verifier, issuer: Issuer) -> bool:
    """Whether a token of this issuer's key is taken."""
    with suppress(RecordError):
        return verifier.verify(issuer.token(), NOW).actor_id == "ada"
    return False


async def test_file_that_changes_is_read_again(tmp_path: Path) -> None:
    """New keys in the file hold within seconds, and those that are gone hold no more."""
    path = tmp_path / "jwks.json"
    path.write_text(OLD.jwks())
    async with following(KeyFeed(str(path), clock=lambda: NOW)) as verifier:
        assert takes(verifier, OLD)
        path.write_text(NEW.jwks() + "\n")
        await until(lambda: takes(verifier, NEW))
        assert not takes(verifier, OLD)


async def test_file_that_breaks_changes_nothing_and_is_told_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A private key in the file, or no file, leaves the keys of before in use, with one warning that quotes none."""
    path = tmp_path / "jwks.json"
    path.write_text(OLD.jwks())
    feed = KeyFeed(str(path), refresh_s=0.02, least_s=0.01, clock=lambda: NOW)
    async with following(feed) as verifier:
        path.write_text('{"keys": [{"kty": "EC", "crv": "P-256", "d": "c2VjcmV0"}]}')
        await until(lambda: feed.failures > 2)
        path.unlink()
        await until(lambda: feed.failures > 6)
        assert takes(verifier, OLD)
        told = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
        assert len(told) == 1
        assert "a private key" in told[0]
        assert "c2VjcmV0" not in told[0]
        path.write_text(NEW.jwks())
        await until(lambda: takes(verifier, NEW))
        assert feed.failures == 0


async def test_keys_that_are_passed_over_are_named_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """The log says once for each set which keys are of no use and why, and a byte order mark before it is skipped."""
    path = tmp_path / "jwks.json"
    path.write_text("\ufeff" + OLD.jwks().replace('"keys": [', '"keys": [{"kty": "AKP"},'))
    feed = KeyFeed(str(path), clock=lambda: NOW)
    with caplog.at_level(logging.INFO, logger="streams.keys"):
        for _ in range(2):
            keys, _ = await feed.read()
    assert len(keys.keys) == 4
    (told,) = [record.getMessage() for record in caplog.records]
    assert told == f"{path}: 1 keys are passed over: keys[0]: its type or curve is not used here"


async def test_file_that_stays_as_it_is_never_grows_old(tmp_path: Path) -> None:
    """The keys of a file that can be read are trusted however old they are."""
    path = tmp_path / "jwks.json"
    path.write_text(OLD.jwks())
    now = NOW
    feed = KeyFeed(str(path), refresh_s=0.01, least_s=0.01, max_age_s=60, clock=lambda: now)
    async with following(feed) as verifier:
        token = OLD.token(exp=int((NOW + timedelta(hours=5)).timestamp()))
        now = NOW + timedelta(hours=4)
        await asyncio.sleep(0.1)
        assert verifier.verify(token, now)


async def test_url_is_read_again_and_a_failure_changes_nothing() -> None:
    """A server that fails leaves the keys in use; once it answers again its new keys hold."""
    async with published() as publisher:
        feed = KeyFeed(publisher.url, refresh_s=0.02, least_s=0.01, clock=lambda: NOW)
        async with following(feed) as verifier:
            publisher.status = 500
            await until(lambda: feed.failures > 2)
            assert takes(verifier, OLD)
            publisher.status, publisher.text = 200, NEW.jwks()
            await until(lambda: takes(verifier, NEW))


async def test_keys_that_could_not_be_renewed_for_too_long_fail_closed() -> None:
    """After the age that is allowed nobody is let in, until the server answers again."""
    now = NOW
    async with published() as publisher:
        feed = KeyFeed(publisher.url, refresh_s=0.02, least_s=0.01, max_age_s=60, clock=lambda: now)
        async with following(feed) as verifier:
            await until(lambda: publisher.asked > 2)
            publisher.status = 503
            await until(lambda: feed.failures)
            now = NOW + timedelta(seconds=61)
            with pytest.raises(UnavailableError):
                verifier.verify(OLD.token(), now)
            publisher.status = 200
            await until(lambda: not feed.failures)
            assert verifier.verify(OLD.token(), now)


async def test_token_of_an_unknown_key_brings_the_next_read_forward() -> None:
    """A key that was published a moment ago is fetched when a token names it, long before the next refresh."""
    async with published() as publisher:
        feed = KeyFeed(publisher.url, refresh_s=3600, max_age_s=7200, least_s=0.01, clock=lambda: NOW)
        async with following(feed) as verifier:
            publisher.text = NEW.jwks()
            await asyncio.sleep(1.2)
            assert publisher.asked == 1
            assert not takes(verifier, NEW)
            await until(lambda: publisher.asked == 2)
            await until(lambda: takes(verifier, NEW))


@pytest.mark.parametrize("status", [302, 404, 500])
async def test_url_that_gives_no_keys_is_unavailable(status: int) -> None:
    """At start a server that redirects or refuses is an error that names host, status and nothing else."""
    async with published() as publisher:
        publisher.status = status
        with pytest.raises(UnavailableError, match=f"answers {status}"):
            await KeyFeed(publisher.url).read()


async def test_url_that_is_not_there_is_unavailable() -> None:
    """A closed port is an error at start."""
    async with published() as publisher:
        url = publisher.url
    with pytest.raises(UnavailableError, match="cannot be read"):
        await KeyFeed(url).read()


@pytest.mark.parametrize(
    ("source", "settings"),
    [
        ("http://id.example.org/jwks.json", {}),
        ("ftp://id.example.org/jwks.json", {}),
        ("jwks.json", {"refresh_s": 0}),
        ("jwks.json", {"refresh_s": 100, "max_age_s": 100}),
        ("jwks.json", {"timeout_s": 0}),
    ],
)
def test_source_that_cannot_be_trusted_is_refused(source: str, settings: dict[str, float]) -> None:
    """Keys over plain HTTP from another machine, and numbers that make no sense, are errors at start."""
    with pytest.raises(ConfigError):
        KeyFeed(source, **settings)


async def test_missing_file_is_refused_at_start(tmp_path: Path) -> None:
    """A file that is not there is an error with its name, and so is one whose keys are wrong."""
    with pytest.raises(ConfigError, match="cannot read the JWKS"):
        await KeyFeed(str(tmp_path / "gone.json")).read()
    (tmp_path / "jwks.json").write_text(public_set(SigningKey.generate()).replace('"EC"', '"oct"'))
    with pytest.raises(ConfigError, match=r"jwks\.json:3: no key of this JWKS .*keys\[0\]: kty"):
        await KeyFeed(str(tmp_path / "jwks.json")).read()


async def test_configuration_opens_a_verifier(tmp_path: Path) -> None:
    """Issuer, audience, keys and claim names of the settings are those that tokens are checked with."""
    path = tmp_path / "jwks.json"
    path.write_text(OLD.jwks())
    config = IdentityConfig(jwks=str(path), issuer=ISSUER, tenant_claim="org", max_token_hours=0.5)
    opened = await config.open()
    assert opened is not None
    verifier, _ = opened
    now = datetime.now(UTC)
    begins = int(now.timestamp())
    assert verifier.verify(OLD.token(org="o-1", iat=begins, exp=begins + 1800), now).tenant == "o-1"
    with pytest.raises(RecordError, match="lives too long"):
        verifier.verify(OLD.token(org="o-1", iat=begins, exp=begins + 1900), now)


async def test_unsigned_has_to_be_allowed() -> None:
    """`unsigned` alone is refused, with the permission of a development run it opens nothing, and `jwt` needs keys."""
    with pytest.raises(ValidationError, match="for `waybill dev` alone"):
        IdentityConfig(method="unsigned")
    assert await IdentityConfig(method="unsigned", allow_unsigned=True).open() is None
    with pytest.raises(ValidationError, match="identity"):
        IdentityConfig()
