"""The token that a destination gets instead of the user's: minted for one crossing, and for nothing else.

It has the shape of a JWT-SVID: `sub` is a `spiffe://` id of the workload, `aud` names exactly one destination, `exp` is
minutes away, and the algorithm is ES256. Of the person and the tenant it holds keyed hashes that differ for each
audience, so that two destinations cannot compare what they see.
"""

from __future__ import annotations

import hmac
import re
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Any, Final

from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from pydantic import SecretStr

from evidence.errors import ConfigError, RecordError
from evidence.records import CredentialRef
from policy.identity.jwks import KeySet
from policy.identity.jws import SigningKey, open_token

LIFETIME_S: Final = 120.0
"""Seconds that a minted token lives where nothing else is set."""

MAX_LIFETIME_S: Final = 600.0
"""Seconds that a minted token lives at most."""

_MIN_LIFETIME_S: Final = 5.0
_LAST_SECOND: Final = 253_402_300_799
_MAX_TEXT: Final = 256
_TRUST_DOMAIN: Final = re.compile(r"[a-z0-9][a-z0-9._-]{0,254}")
_SEGMENT: Final = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]{0,62}")
_SPIFFE: Final = re.compile(r"spiffe://[a-z0-9._-]{1,255}(?:/[A-Za-z0-9._-]{1,255}){1,8}")


@dataclass(frozen=True, slots=True)
class Crossing:
    """One call that is about to leave, as far as a credential for it needs to know."""

    call_id: str
    """The intent's id; the id of a minted token too."""
    route: str
    """The route's name; the token's scope."""
    audience: str
    """Whom the token is for."""
    tenant: str
    """For which tenant; only a keyed hash of it leaves."""
    actor_ref: str
    """On whose behalf; only a keyed hash of it leaves."""
    waybill_hash: str
    """The contract under which data crosses."""
    site: str
    """Where dispatch runs."""
    now: datetime
    """The moment, in UTC."""


@dataclass(frozen=True, slots=True)
class Minted:
    """A token, and what may be told of it."""

    token: SecretStr
    """The compact JWS."""
    ref: CredentialRef
    """Its form in evidence."""


@dataclass(frozen=True, slots=True)
class Presented:
    """What a destination learns of a token that it was shown; fit for a log."""

    jti: str
    """The token's id: the intent's."""
    sub: str
    """The workload."""
    aud: str
    """For whom."""
    scope: str
    """The route."""
    act: dict[str, Any]
    """Who acts, and for whom."""
    waybill: str | None
    """The contract; None in a token that is good for several crossings."""


@lru_cache(maxsize=256)
def workload_id(trust_domain: str, site: str, stage: str = "") -> str:
    """Give the SPIFFE id of the deployment at a site, or of one of its stages.

    Raises:
        ConfigError: a part of it cannot be in such an id.
    """
    if not _TRUST_DOMAIN.fullmatch(trust_domain):
        raise ConfigError(
            "trust_domain: write a name in lower case, such as example.org, of letters, digits, points and hyphens"
        )
    if not _SEGMENT.fullmatch(site) or (stage and not _SEGMENT.fullmatch(stage)):
        raise ConfigError("the site cannot be in a SPIFFE id: use letters, digits and hyphens")
    return f"spiffe://{trust_domain}/waybill/{site}" + (f"/{stage}" if stage else "")


class Minter:
    """Makes tokens with one key. It does no I/O and keeps no token."""

    def __init__(self, key: SigningKey, *, trust_domain: str, lifetime_s: float = LIFETIME_S) -> None:
        """Prepare.

        Args:
            key: signs; its public part is what destinations check with.
            trust_domain: the SPIFFE trust domain of the deployment.
            lifetime_s: seconds until a token expires.

        Raises:
            ConfigError: the trust domain is none, or the lifetime is out of range.
        """
        workload_id(trust_domain, "site")
        if not _MIN_LIFETIME_S <= lifetime_s <= MAX_LIFETIME_S:
            raise ConfigError(
                f"a token's lifetime is {lifetime_s:g} s: give {_MIN_LIFETIME_S:g} to {MAX_LIFETIME_S:g} seconds"
            )
        self._key = key
        self._trust_domain = trust_domain
        self._lifetime = timedelta(seconds=lifetime_s)
        derived = HKDF(algorithm=SHA256(), length=32, salt=None, info=b"waybill: names of actors and tenants, 1")
        self._names_key = derived.derive(key.secret())

    def __repr__(self) -> str:
        return f"Minter(trust_domain={self._trust_domain!r}, kid={self._key.kid!r})"

    def mint(self, crossing: Crossing) -> Minted:
        """Make the token of one crossing.

        Raises:
            ConfigError: the crossing's site cannot be in a SPIFFE id, or its audience or route is empty.
        """
        return self._sign(
            crossing,
            {
                "waybill": crossing.waybill_hash,
                "waybill_actor": self._name(crossing.audience, crossing.tenant, crossing.actor_ref),
            },
        )

    def mint_for_exchange(self, crossing: Crossing) -> Minted:
        """Make the token that is exchanged for another one, which then serves several crossings of a tenant.

        It names neither the waybill nor the person, since the next crossing has others; its audience is the endpoint
        that exchanges it, so that it is worth nothing elsewhere.

        Raises:
            ConfigError: as `mint`.
        """
        return self._sign(crossing, {})

    def _sign(self, crossing: Crossing, more: dict[str, Any]) -> Minted:
        if not crossing.audience or not crossing.route or not crossing.call_id:
            raise ConfigError("a token needs an audience, a route and a call: set the endpoint's audience")
        issued = int(crossing.now.timestamp())
        expires = issued + int(self._lifetime.total_seconds())
        domain, site = self._trust_domain, crossing.site
        claims = {
            "iss": f"spiffe://{domain}",
            "sub": workload_id(domain, site),
            "aud": [crossing.audience],
            "iat": issued,
            "nbf": issued,
            "exp": expires,
            "jti": crossing.call_id,
            "scope": crossing.route,
            "act": {
                "sub": workload_id(domain, site, "dispatch"),
                "act": {"sub": workload_id(domain, site, "admission")},
            },
            "waybill_tenant": self._name(crossing.audience, crossing.tenant),
            **more,
        }
        ref = CredentialRef(
            method="minted",
            token_id=crossing.call_id,
            audience=crossing.audience,
            scope=crossing.route,
            expires_at_utc=datetime.fromtimestamp(expires, UTC),
        )
        return Minted(SecretStr(self._key.sign(claims)), ref)

    def _name(self, *parts: str) -> str:
        """Give a keyed hash of these parts, 32 hex digits; who has not the key cannot try names out."""
        # each part's size goes first, so that no two lists of parts are the same bytes
        message = b"".join(len(raw).to_bytes(4) + raw for raw in (part.encode("utf-8", "replace") for part in parts))
        return hmac.digest(self._names_key, message, "sha256").hex()[:32]


def check_presented(token: str, keys: KeySet, *, audience: str, now: datetime, leeway_s: float = 30) -> Presented:
    """Check a minted token as a destination does.

    Args:
        token: the compact JWS.
        keys: the deployment's public keys.
        audience: what the destination is called.
        now: the moment, in UTC.
        leeway_s: seconds by which clocks may differ.

    Raises:
        RecordError: `bad_token`, `unknown_key`, `wrong_audience`, `expired_token`, `early_token`.
    """
    opened = open_token(token, keys)
    claims = opened.claims
    if opened.header.get("alg") == "EdDSA":
        raise RecordError("bad_token", "a JWT-SVID is not signed with EdDSA")
    sub, jti, scope, act = (claims.get(name) for name in ("sub", "jti", "scope", "act"))
    if not isinstance(sub, str) or not _SPIFFE.fullmatch(sub):
        raise RecordError("bad_token", "the token's sub is no SPIFFE id")
    aud = claims.get("aud")
    named = [aud] if isinstance(aud, str) else aud
    if not isinstance(named, list) or len(named) != 1 or named[0] != audience:
        raise RecordError("wrong_audience", "the token is not for this audience alone (aud)")
    _check_period(claims, now.timestamp(), leeway_s)
    if not _is_text(jti) or not _is_text(scope) or " " in str(scope):
        raise RecordError("bad_token", "the token has no id (jti), or not exactly one scope")
    waybill = claims.get("waybill")
    if waybill is not None and not _is_text(waybill):
        raise RecordError("bad_token", "the token's waybill is no text")
    return Presented(str(jti), sub, audience, str(scope), act if isinstance(act, dict) else {}, waybill)


def _check_period(claims: dict[str, Any], now: float, leeway_s: float) -> None:
    expires, issued, begins = (_moment(claims, name, now) for name in ("exp", "iat", "nbf"))
    if now >= expires + leeway_s:
        raise RecordError("expired_token", "the token has expired (exp)")
    if now < max(issued, begins) - leeway_s:
        raise RecordError("early_token", "the token is not valid yet (iat, nbf)")
    if expires - min(issued, now) > MAX_LIFETIME_S + leeway_s:
        raise RecordError("bad_token", f"the token lives longer than {MAX_LIFETIME_S:g} seconds")


def _moment(claims: dict[str, Any], name: str, now: float) -> float:
    value = claims.get(name, None if name == "exp" else now)
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < _LAST_SECOND:
        raise RecordError("bad_token", f"the token's {name} is missing or no moment")
    return float(value)


def _is_text(value: object) -> bool:
    return isinstance(value, str) and 0 < len(value) <= _MAX_TEXT and value.isprintable()
