"""Where the issuer's keys come from: a file or a URL, read again while the worker runs.

A set that cannot be read changes nothing at first: the keys of before stay in use, and a warning says so. After
`max_age_s` without a good read they are not trusted any more, and the verifier lets nothing in (`Verifier.verify`).
"""

from __future__ import annotations

import asyncio
import logging
import ssl
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Annotated, Final, Literal, Self

import aiohttp
from pydantic import Field, model_validator

from evidence.errors import ConfigError, UnavailableError
from inference.exchange import checked_url
from policy.files import Config, read_text
from policy.identity.jwks import KeySet
from policy.identity.verify import ClaimNames, Verifier

_MAX_BYTES: Final = 1 << 20
_TICK_S: Final = 1.0
_TOLD: Final = 8
"""Keys that are passed over and named in the log."""

_LOG = logging.getLogger(__name__)


def _now() -> datetime:
    return datetime.now(UTC)


Name = Annotated[str, Field(min_length=1, max_length=256)]
"""A name that an issuer uses."""


class IdentityConfig(Config):
    """How actor and tenant of a request are established."""

    method: Literal["jwt", "unsigned"] = "jwt"
    """`jwt`: each request carries a signed token; `unsigned`: what it says is believed, for development alone."""
    allow_unsigned: bool = False
    """Permit `unsigned`; set for the worker of a development run."""
    jwks: Name | None = None
    """The issuer's public keys: a file, or an `https://` URL."""
    issuer: Name | None = None
    """What a token's `iss` must be."""
    audience: Name = "waybill"
    """What a token's `aud` must name."""
    leeway_seconds: float = Field(default=30, ge=0, le=300)
    """Seconds by which clocks may differ."""
    max_token_hours: float = Field(default=24, gt=0, le=720)
    """Hours that a token may live."""
    cached_tokens: int = Field(default=10_000, ge=1, le=1_000_000)
    """Tokens whose check is remembered."""
    refresh_seconds: float = Field(default=300, ge=1, le=86_400)
    """Seconds between two reads of the keys from a URL."""
    max_key_hours: float = Field(default=24, gt=0, le=720)
    """Hours for which keys are trusted that cannot be read again; then nothing is let in."""
    tenant_claim: Name = "tenant"
    """The claim with the tenant."""
    kind_claim: Name = "actor_kind"
    """The claim that says `user` or `service`; a token without it is a user's."""
    roles_claim: Name = "roles"
    """The claim with a list of roles."""
    subject_claim: Name = "data_subject"
    """The claim with the one person whom the data may be about."""

    @model_validator(mode="after")
    def _whole(self) -> Self:
        if self.method == "unsigned":
            if not self.allow_unsigned:
                raise ValueError(
                    "method unsigned is for `waybill dev` alone: set the issuer and its keys (ISSUER and JWKS)"
                )
            return self
        if missing := [name for name in ("jwks", "issuer") if getattr(self, name) is None]:
            named = " and ".join(f"identity {name}" for name in missing)
            raise ValueError(f"identity: method jwt needs {named}: who signs the tokens, and with which keys")
        return self

    async def open(self) -> tuple[Verifier, KeyFeed] | None:
        """Read the keys; give a verifier and the feed that keeps it (`follow`), or None for `unsigned`.

        Raises:
            ConfigError: the keys are wrong.
            UnavailableError: they cannot be read.
        """
        if self.method == "unsigned" or self.jwks is None or self.issuer is None:
            return None
        refresh_s, max_age_s = self.refresh_seconds, self.max_key_hours * 3600
        feed = KeyFeed(self.jwks, refresh_s=refresh_s, max_age_s=max_age_s, least_s=min(30.0, refresh_s))
        keys, fresh_until = await feed.read()
        names = ClaimNames(self.tenant_claim, self.kind_claim, self.roles_claim, self.subject_claim)
        verifier = Verifier(
            keys,
            issuer=self.issuer,
            audience=self.audience,
            leeway_s=self.leeway_seconds,
            cache=self.cached_tokens,
            max_lifetime_s=self.max_token_hours * 3600,
            claims=names,
            fresh_until=fresh_until,
        )
        return verifier, feed


class KeyFeed:
    """Keeps a verifier's keys as the issuer publishes them.

    Attributes:
        failures: reads that failed since the last good one.
    """

    def __init__(
        self,
        source: str,
        *,
        refresh_s: float = 300.0,
        max_age_s: float = 86_400.0,
        least_s: float = 30.0,
        timeout_s: float = 10.0,
        tls: ssl.SSLContext | None = None,
        clock: Callable[[], datetime] = _now,
    ) -> None:
        """Check where the keys are; nothing is read yet.

        Args:
            source: a path, or an `https://` URL (`http://` on this machine alone).
            refresh_s: seconds between reads of a URL. A file is looked at each second.
            max_age_s: seconds for which keys are trusted without a good read.
            least_s: seconds between two reads of a URL at least, also where tokens name keys that are not known.
            timeout_s: seconds for one read.
            tls: how to verify the URL's server; None uses the system's authorities.
            clock: gives the moment, in UTC.

        Raises:
            ConfigError: the URL is none or is unencrypted, or a number is out of range.
        """
        if not 0 < least_s <= refresh_s < max_age_s or timeout_s <= 0:
            raise ConfigError("keys are refreshed more often than they grow too old: check the refresh and the age")
        remote = "://" in source
        self._url = checked_url(source, "the JWKS") if remote else None
        self._path = None if remote else Path(source)
        self._where = f"{self._url.host}:{self._url.port}" if self._url else source
        self._refresh_s = refresh_s
        self._max_age = timedelta(seconds=max_age_s)
        self._least_s = least_s
        self._timeout = aiohttp.ClientTimeout(total=timeout_s)
        self._tls: ssl.SSLContext | bool = True if tls is None else tls
        self._clock = clock
        self._stamp: tuple[int, int, int] | None = None
        self._told = ""
        self.failures = 0

    async def read(self) -> tuple[KeySet, datetime]:
        """Read the keys once: the set, and until when it is trusted.

        Raises:
            ConfigError: what is there is no key set, or the file cannot be read.
            UnavailableError: the URL does not give one.
        """
        if self._path is not None:
            self._stamp = self._look()
            text = read_text(self._path, "JWKS")
        else:
            text = await self._fetch()
        keys = KeySet.parse(text, self._where)
        if keys.ignored and keys.revision != self._told:
            self._told = keys.revision
            _LOG.info(
                "%s: %d keys are passed over: %s", self._where, len(keys.ignored), "; ".join(keys.ignored[:_TOLD])
            )
        return keys, self._clock() + self._max_age

    async def follow(self, verifier: Verifier) -> None:
        """Renew a verifier's keys until cancelled; a read that fails is logged once and tried again."""
        read_at = time.monotonic()
        unknown = verifier.unknown_keys
        while True:
            await asyncio.sleep(min(_TICK_S, self._refresh_s))
            since = time.monotonic() - read_at
            asked = verifier.unknown_keys != unknown and since >= self._least_s
            if not (self._changed() if self._path is not None else since >= self._refresh_s or asked):
                self._extend(verifier)
                continue
            read_at, unknown = time.monotonic(), verifier.unknown_keys
            try:
                keys, fresh_until = await self.read()
            except (ConfigError, UnavailableError) as error:
                self.failures += 1
                if self.failures == 1:
                    _LOG.warning("the identity keys of before stay in use: %s", error)
                continue
            if self.failures or keys.revision != verifier.revision:
                _LOG.info("identity keys: revision %s, %d keys", keys.revision, len(keys.keys))
            self.failures = 0
            verifier.use(keys, fresh_until=fresh_until)

    def _extend(self, verifier: Verifier) -> None:
        """A file that is as it was is as good as new."""
        if self._path is not None and not self.failures:
            verifier.trust_until(self._clock() + self._max_age)

    def _changed(self) -> bool:
        return self._look() != self._stamp or self.failures > 0

    def _look(self) -> tuple[int, int, int] | None:
        assert self._path is not None  # noqa: S101 - only asked of files
        try:
            found = self._path.stat()
        except OSError:
            return None
        return found.st_mtime_ns, found.st_size, found.st_ino

    async def _fetch(self) -> str:
        assert self._url is not None  # noqa: S101 - only asked of URLs
        connector = aiohttp.TCPConnector(ssl=self._tls, force_close=True)
        try:
            async with (
                aiohttp.ClientSession(connector=connector, trust_env=False, timeout=self._timeout) as session,
                session.get(self._url, allow_redirects=False, headers={"Accept": "application/json"}) as response,
            ):
                body = b""
                while len(body) <= _MAX_BYTES and (more := await response.content.readany()):
                    body += more
                status = response.status
        except (aiohttp.ClientError, OSError) as error:
            raise UnavailableError(
                f"the JWKS at {self._where} cannot be read ({type(error).__name__}): check the URL and the issuer"
            ) from error
        if status != 200 or len(body) > _MAX_BYTES:  # noqa: PLR2004 - OK
            raise UnavailableError(f"the JWKS at {self._where} cannot be read: it answers {status}, {len(body)} bytes")
        try:
            return body.decode()
        except UnicodeDecodeError as error:
            raise ConfigError(f"the JWKS at {self._where} is not UTF-8") from error
