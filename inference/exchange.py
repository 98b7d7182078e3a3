"""Token exchange (RFC 8693): a minted token goes to an endpoint, and a token for the destination comes back.

The endpoint sees no prompt. Whatever goes wrong here is therefore `NotSent`: nothing has reached the model. An error
says the status and the endpoint's own short code, and never quotes a token.
"""

from __future__ import annotations

import asyncio
import re
import ssl
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Annotated, Final

import aiohttp
from pydantic import BaseModel, ConfigDict, Field, SecretStr, ValidationError
from yarl import URL

from evidence.errors import ConfigError
from evidence.hosts import is_this_machine
from evidence.records import CredentialRef
from inference.credentials import Authorization, bearer_header
from inference.errors import NotSent
from policy.identity.workload import Crossing, Minter

GRANT_TYPE: Final = "urn:ietf:params:oauth:grant-type:token-exchange"
"""The grant of RFC 8693."""

JWT_TYPE: Final = "urn:ietf:params:oauth:token-type:jwt"
"""The type of what is handed in."""

ACCESS_TOKEN_TYPE: Final = "urn:ietf:params:oauth:token-type:access_token"  # noqa: S105 - the name of a type
"""The type of what is asked for."""

MAX_LIFETIME_S: Final = 3600
"""Seconds that a token from an exchange may live; a longer one is refused."""

_KEPT_S: Final = 300.0
"""Seconds that a token is used again at most, so that one that was revoked is not used for long."""

_ASSUMED_S: Final = 60
"""Seconds that a token lives whose endpoint does not say."""

_MARGIN: Final = 0.2
"""Part of a token's life in which it is not used any more, so that it does not expire on its way."""

_MAX_KEPT: Final = 10_000
_MAX_ANSWER: Final = 64 * 1024
_CODE: Final = re.compile(r"[A-Za-z][A-Za-z0-9_.-]{0,63}")


class _Read(BaseModel):
    model_config = ConfigDict(strict=True, frozen=True, hide_input_in_errors=True)


class _Granted(_Read):
    """What is needed of an endpoint's answer; a refresh token in it is not read, and so not kept."""

    access_token: Annotated[SecretStr, Field(min_length=1, max_length=16_384)]
    issued_token_type: Annotated[str, Field(min_length=1, max_length=256)]
    token_type: Annotated[str, Field(min_length=1, max_length=64)]
    expires_in: Annotated[int, Field(ge=1)] = _ASSUMED_S
    scope: Annotated[str, Field(max_length=2048)] | None = None


class _Refusal(_Read):
    error: str


@dataclass(frozen=True, slots=True)
class _Held:
    authorization: Authorization
    until: datetime


class ExchangedCredentials:
    """Tokens from an exchange, one for each audience, scope and tenant, used again until shortly before they expire."""

    def __init__(
        self,
        minter: Minter,
        *,
        token_url: str,
        resource: str | None = None,
        timeout_s: float = 10.0,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        """Check the configuration; nothing is connected before the first crossing.

        Args:
            minter: makes what is handed in.
            token_url: the endpoint.
            resource: where the token will be used, as a URI, where the endpoint wants it.
            timeout_s: seconds for one exchange.
            tls: how to verify the endpoint; None uses the system's authorities.

        Raises:
            ConfigError: one of these is wrong.
        """
        self._url = checked_url(token_url, "token_url")
        if tls is not None and (tls.verify_mode is not ssl.CERT_REQUIRED or not tls.check_hostname):
            raise ConfigError("the TLS settings for token_url do not verify the server: no token must go there")
        if timeout_s <= 0:
            raise ConfigError(f"the time limit of a token exchange is {timeout_s:g}: give more than 0 seconds")
        self._minter = minter
        self._resource = resource
        self._timeout = aiohttp.ClientTimeout(total=timeout_s, ceil_threshold=float("inf"))
        self._tls: ssl.SSLContext | bool = True if tls is None else tls
        self._where = f"{self._url.host}:{self._url.port}"
        self._held: dict[tuple[str, str, str], _Held] = {}
        self._asking: dict[tuple[str, str, str], asyncio.Task[_Held]] = {}
        self._session: aiohttp.ClientSession | None = None
        self._closed = False

    def __repr__(self) -> str:
        return f"ExchangedCredentials({str(self._url)!r}, {self._minter!r}, {len(self._held)} held)"

    async def authorize(self, crossing: Crossing) -> Authorization:
        """Give a token for the crossing's audience, route and tenant; see `Credentials.authorize`."""
        name = (crossing.audience, crossing.route, crossing.tenant)
        held = self._held.get(name)
        if held is not None and crossing.now < held.until:
            return held.authorization
        task = self._asking.get(name)
        if task is None:  # those that come meanwhile wait for the same exchange
            task = asyncio.create_task(self._exchange(crossing))
            self._asking[name] = task
            task.add_done_callback(lambda done: self._keep(name, done))
        # shielded: one call that is cancelled must not take the token from the others
        try:
            return (await asyncio.shield(task)).authorization
        except asyncio.CancelledError:
            if not task.cancelled():
                raise
        raise self._failed("closed", "has been closed")

    async def close(self) -> None:
        """Forget the tokens and give back the connections; safe to call twice."""
        self._closed = True
        self._held.clear()
        waiting = list(self._asking.values())
        for task in waiting:
            task.cancel()
        await asyncio.gather(*waiting, return_exceptions=True)
        session, self._session = self._session, None
        if session is not None:
            await session.close()

    def _keep(self, name: tuple[str, str, str], done: asyncio.Task[_Held]) -> None:
        self._asking.pop(name, None)
        if done.cancelled() or done.exception() is not None:  # whoever waits has the exception
            return
        self._held.pop(name, None)
        if len(self._held) >= _MAX_KEPT:
            del self._held[next(iter(self._held))]
        if not self._closed:
            self._held[name] = done.result()

    async def _exchange(self, crossing: Crossing) -> _Held:
        try:
            minted = self._minter.mint_for_exchange(replace(crossing, audience=str(self._url)))
        except ConfigError as error:
            raise NotSent("no_credential", f"no token can be made for this call: {error}") from None
        form = {
            "grant_type": GRANT_TYPE,
            "subject_token": minted.token.get_secret_value(),
            "subject_token_type": JWT_TYPE,
            "requested_token_type": ACCESS_TOKEN_TYPE,
            "audience": crossing.audience,
            "scope": crossing.route,
        }
        if self._resource is not None:
            form["resource"] = self._resource
        granted = await self._ask(form)
        self._check(granted, crossing)
        life = timedelta(seconds=granted.expires_in)
        ref = CredentialRef(
            method="exchanged",
            token_id=crossing.call_id,
            audience=crossing.audience,
            scope=crossing.route,
            expires_at_utc=crossing.now + life,
        )
        until = crossing.now + min(life * (1 - _MARGIN), timedelta(seconds=_KEPT_S))
        return _Held(Authorization(bearer_header(granted.access_token), ref), until)

    async def _ask(self, form: dict[str, str]) -> _Granted:
        try:
            async with self._open().post(
                self._url,
                data=form,
                headers={"Accept": "application/json"},
                allow_redirects=False,
                timeout=self._timeout,
            ) as response:
                status = response.status
                body = b""
                while len(body) <= _MAX_ANSWER and (more := await response.content.readany()):
                    body += more
        except NotSent:
            raise
        except Exception as exc:  # noqa: BLE001 - whatever it was, nothing has gone to the model
            code = "timeout" if isinstance(exc, TimeoutError) else "connect_failed"
            failure = self._failed(code, f"does not answer ({type(exc).__name__})")
        else:
            if len(body) > _MAX_ANSWER:
                raise self._failed("bad_answer", f"answered {status} and more than {_MAX_ANSWER} bytes")
            if status == 200:  # noqa: PLR2004 - OK
                return self._read(body)
            failure = self._failed(f"http_{status}", f"answered {status}{_error_code(body)}")
        raise failure  # outside the handler: aiohttp's errors hold the request, and so the token

    def _read(self, body: bytes) -> _Granted:
        try:
            return _Granted.model_validate_json(body)
        except ValidationError as exc:
            fault = exc.errors(include_url=False, include_input=False, include_context=False)[0]
            where = ".".join(map(str, fault["loc"])) or "the body"
            failure = self._failed("bad_answer", f"gave no token in the form of RFC 8693: {where}: {fault['type']}")
        raise failure  # outside the handler: pydantic's error holds the body

    def _check(self, granted: _Granted, crossing: Crossing) -> None:
        """Refuse what is more than was asked for."""
        if granted.token_type.lower() != "bearer":
            raise self._failed("bad_answer", "gave a token that is not for the scheme Bearer")
        if granted.issued_token_type not in (ACCESS_TOKEN_TYPE, JWT_TYPE):
            raise self._failed("bad_answer", "gave a token of a type that was not asked for")
        if granted.scope is not None and granted.scope.split() != [crossing.route]:
            raise self._failed("wrong_scope", "gave a token with another scope than was asked for")
        if granted.expires_in > MAX_LIFETIME_S:
            raise self._failed("long_lived", f"gave a token that lives longer than {MAX_LIFETIME_S} seconds")
        if not re.fullmatch(r"[!-~]+", granted.access_token.get_secret_value()):
            raise self._failed("bad_answer", "gave a token that no header can carry")

    def _failed(self, code: str, what: str) -> NotSent:
        return NotSent(f"exchange_{code}", f"no token, and so no call: the exchange at {self._where} {what}")

    def _open(self) -> aiohttp.ClientSession:
        if self._closed:
            raise self._failed("closed", "has been closed")
        if self._session is None:
            self._session = aiohttp.ClientSession(
                # Never kept: a token that comes late on a kept connection would be taken for another crossing's.
                connector=aiohttp.TCPConnector(limit=8, force_close=True, ssl=self._tls),
                cookie_jar=aiohttp.DummyCookieJar(),
                trust_env=False,
            )
        return self._session


def checked_url(text: str, name: str) -> URL:
    """Give the URL of something that keys or tokens come from: TLS, or this machine.

    Args:
        text: the URL.
        name: the setting, for errors.

    Raises:
        ConfigError: it is none, would be unencrypted, or has a password in it. The text never quotes the URL.
    """
    try:
        url = URL(text)
        port = url.port
    except ValueError:
        url, port = URL(), None
    if url.scheme not in ("http", "https") or not url.host or port is None:
        raise ConfigError(f"{name} is no URL: write https://HOST/PATH")
    if url.user is not None or url.password is not None or url.fragment:
        raise ConfigError(f"{name} for {url.host} has a user, a password or a fragment in it: leave it out")
    if url.scheme == "http" and not is_this_machine(url.host):
        raise ConfigError(f"{name} for {url.host} is unencrypted: use https://")
    return url


def _error_code(body: bytes) -> str:
    """The endpoint's own short code (RFC 6749, 5.2), as ` (code)`, or "" where there is none."""
    try:
        said = _Refusal.model_validate_json(body).error
    except ValidationError:
        return ""
    return f" ({said})" if _CODE.fullmatch(said) else ""
