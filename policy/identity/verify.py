"""Who asks: the signed token that comes with a request, checked against the issuer's keys.

A request carries `authorization: Bearer <JWT>` as a header of its Kafka record. Admission reads it, and it goes no
further: what is kept of it is a `Principal` and 16 hex digits of its hash. A Kafka principal cannot take its place: the
broker checks who writes, but tells no consumer.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from typing import Any, Final, Literal

from evidence.errors import ConfigError, RecordError, UnavailableError
from policy.identity.jwks import KeySet
from policy.identity.jws import MAX_TOKEN, open_token

HEADER: Final = "authorization"
"""The record header with the token; its name is compared without regard to case."""

MAX_LIFETIME_S: Final = 86_400.0
"""Seconds that a token may live where nothing else is set: a day."""

_SCHEME: Final = "bearer "
_LAST_SECOND: Final = 253_402_300_799
_MAX_ID: Final = 128
_MAX_ROLES: Final = 256
"""Roles of one actor: issuers put up to 200 groups into a token."""


Kind = Literal["user", "service"]
"""A person or a program."""


@dataclass(frozen=True, slots=True)
class Principal:
    """Who asks, as far as it is established; it never holds the token."""

    actor_id: str
    """On whose behalf: the token's `sub`."""
    actor_kind: Kind
    """A person or a program."""
    tenant: str
    """For which tenant."""
    roles: frozenset[str]
    """What the issuer says they are."""
    subject: str | None
    """The one person whom the data may be about, where the token says so."""
    expires_at: datetime | None
    """Until when this holds; None where nothing was signed."""
    token_sha256_16: str
    """The first 16 hex digits of the token's SHA-256; "" where there is none."""
    method: Literal["jwt", "unsigned"]
    """How it was established; evidence names it."""


@dataclass(frozen=True, slots=True)
class ClaimNames:
    """How the issuer calls what is read of a token beside `sub`, `iss`, `aud`, `exp`, `iat` and `nbf`."""

    tenant: str = "tenant"
    """The tenant; needed."""
    kind: str = "actor_kind"
    """`user` or `service`; a token without it is a user's."""
    roles: str = "roles"
    """A list of texts, or one text for one role; may be left out."""
    subject: str = "data_subject"
    """The person whom the data may be about; may be left out."""


def unsigned(actor_id: str, actor_kind: Kind, tenant: str) -> Principal:
    """Make a principal of what a request merely says, for `identity: unsigned`."""
    return Principal(actor_id, actor_kind, tenant, frozenset(), None, None, "", "unsigned")


def bearer(headers: Iterable[tuple[str, bytes | None]]) -> str:
    """Take the token from the headers of a record.

    Raises:
        RecordError: `no_identity` where there is none, `bad_token` where it is there twice or is no bearer token.
    """
    found = [value for name, value in headers if len(name) == len(HEADER) and name.lower() == HEADER]
    if not found:
        raise RecordError("no_identity", f"the record has no header `{HEADER}`: send `Bearer <JWT>`")
    if len(found) > 1:
        raise RecordError("bad_token", f"the header `{HEADER}` is there twice")
    value = found[0]
    if value is None or len(value) > MAX_TOKEN + len(_SCHEME):
        raise RecordError("bad_token", f"the header `{HEADER}` is empty or longer than {MAX_TOKEN} bytes")
    try:
        text = value.decode("ascii")
    except UnicodeDecodeError:
        text = ""
    if text[: len(_SCHEME)].lower() != _SCHEME:
        raise RecordError("bad_token", f"the header `{HEADER}` is not `Bearer <JWT>`")
    return text[len(_SCHEME) :]


def check_request(
    principal: Principal,
    request_actor_id: str,
    request_actor_kind: str,
    request_tenant: str,
    request_subject: str | None = None,
) -> None:
    """Compare what a request says of itself with who sent it.

    Raises:
        RecordError: `identity_mismatch`; its text names the field and neither value.
    """
    pairs = (
        ("actor.id", request_actor_id, principal.actor_id),
        ("actor.kind", request_actor_kind, principal.actor_kind),
        ("tenant.id", request_tenant, principal.tenant),
    )
    for field, said, proved in pairs:
        if said != proved:
            raise RecordError("identity_mismatch", f"{field} is not the one in the token")
    if principal.subject is not None and request_subject not in (None, principal.subject):
        raise RecordError("identity_mismatch", "the data's subject is not the one in the token")


def establish(
    verifier: Verifier | None,
    headers: Iterable[tuple[str, bytes | None]],
    *,
    actor_id: str,
    actor_kind: Kind,
    tenant: str,
    subject: str | None,
    now: datetime,
) -> Principal:
    """Say who sent a record, and that its request says the same.

    Args:
        verifier: checks the token; None takes the request's word (`identity: unsigned`).
        headers: the record's headers.
        actor_id: on whose behalf, as the request says.
        actor_kind: a person or a program, as it says.
        tenant: for which tenant, as it says.
        subject: the person whom the data is about, as it says; None where it does not.
        now: the moment, in UTC.

    Raises:
        RecordError: as `bearer`, `Verifier.verify` and `check_request`.
        UnavailableError: as `Verifier.verify`.
    """
    if verifier is None:
        return unsigned(actor_id, actor_kind, tenant)
    principal = verifier.verify(bearer(headers), now)
    check_request(principal, actor_id, actor_kind, tenant, subject)
    return principal


@dataclass(frozen=True, slots=True)
class _Known:
    principal: Principal
    start: datetime
    end: datetime


class Verifier:
    """Checks tokens against one issuer's keys. It is synchronous, waits for nothing, and belongs to one thread.

    A token whose signature holds is remembered by its hash until it expires, so that the signature is checked once.

    Attributes:
        unknown_keys: how many tokens named a key that is not in the set: a sign that the set is old.
        checked: how many signatures were checked.
    """

    def __init__(
        self,
        keys: KeySet,
        *,
        issuer: str,
        audience: str,
        leeway_s: float = 30,
        cache: int = 10_000,
        max_lifetime_s: float = MAX_LIFETIME_S,
        claims: ClaimNames | None = None,
        fresh_until: datetime | None = None,
    ) -> None:
        """Prepare.

        Args:
            keys: the issuer's keys.
            issuer: what `iss` must be.
            audience: what `aud` must name.
            leeway_s: seconds by which clocks may differ.
            cache: how many tokens are remembered.
            max_lifetime_s: seconds between `iat` and `exp` at most.
            claims: how the issuer names the tenant and so on.
            fresh_until: after this the keys are too old to be trusted; None for ever.

        Raises:
            ConfigError: one of these is empty or out of range.
        """
        if not issuer or not audience:
            raise ConfigError("a signed identity needs an issuer and an audience: set both")
        if not 0 <= leeway_s <= 300 or cache < 1 or not 0 < max_lifetime_s <= 30 * MAX_LIFETIME_S:  # noqa: PLR2004 - said below
            raise ConfigError(
                "identity: leeway is 0 to 300 seconds, the cache at least 1, a token's life up to 30 days"
            )
        self._keys = keys
        self._issuer = issuer
        self._audience = audience
        self._leeway = timedelta(seconds=leeway_s)
        self._size = cache
        self._max_life = timedelta(seconds=max_lifetime_s)
        self._names = claims or ClaimNames()
        self._fresh_until = fresh_until
        self._known: dict[bytes, _Known] = {}
        self.unknown_keys = 0
        self.checked = 0

    def __len__(self) -> int:
        return len(self._known)

    @property
    def revision(self) -> str:
        """Which key set is in use."""
        return self._keys.revision

    def use(self, keys: KeySet, *, fresh_until: datetime | None = None) -> None:
        """Go on with these keys; where they differ from those before, every remembered token is forgotten."""
        self._fresh_until = fresh_until
        if keys.revision != self._keys.revision:
            self._keys = keys
            self._known.clear()

    def trust_until(self, moment: datetime) -> None:
        """Trust the same keys for longer."""
        self._fresh_until = moment

    def verify(self, token: str, now: datetime) -> Principal:
        """Say who sent a token.

        Args:
            token: the compact JWS, without `Bearer`.
            now: the moment, in UTC.

        Raises:
            RecordError: `bad_token`, `unknown_key`, `expired_token`, `early_token`, `wrong_issuer`, `wrong_audience`.
            UnavailableError: the keys are too old: nothing is let in until they are renewed.
        """
        if self._fresh_until is not None and now >= self._fresh_until:
            raise UnavailableError(
                "the issuer's keys are too old to be trusted: its JWKS could not be read for too long"
            )
        digest = sha256(token.encode("utf-8", "surrogatepass")).digest()
        known = self._known.get(digest)
        if known is not None:
            if known.start <= now < known.end:
                return known.principal
            del self._known[digest]
        try:
            self.checked += 1
            opened = open_token(token, self._keys)
        except RecordError as error:
            self.unknown_keys += error.code == "unknown_key"
            raise
        found = self._read(opened.claims, digest.hex()[:16], now)
        if len(self._known) >= self._size:
            del self._known[next(iter(self._known))]
        self._known[digest] = found
        return found.principal

    def _read(self, claims: dict[str, Any], digest: str, now: datetime) -> _Known:
        start, end = self._period(claims, now)
        if claims.get("iss") != self._issuer:
            raise RecordError("wrong_issuer", "the token is from another issuer (iss)")
        audience = claims.get("aud")
        audiences = [audience] if isinstance(audience, str) else audience
        if not isinstance(audiences, list) or self._audience not in audiences:
            raise RecordError("wrong_audience", "the token is for another audience (aud)")
        names = self._names
        kind: Any = "user" if claims.get(names.kind) is None else claims[names.kind]
        if kind not in ("user", "service"):
            raise RecordError("bad_token", "the token's kind of actor is neither `user` nor `service`")
        roles = claims.get(names.roles)
        # One role is written as a text by many issuers, as one audience is; a claim that is null says nothing.
        roles = [] if roles is None else [roles] if isinstance(roles, str) else roles
        if not isinstance(roles, list) or len(roles) > _MAX_ROLES:
            raise RecordError("bad_token", f"the token's roles are not a list of at most {_MAX_ROLES}")
        subject = claims.get(names.subject)
        principal = Principal(
            actor_id=_id(claims.get("sub"), "sub"),
            actor_kind=kind,
            tenant=_id(claims.get(names.tenant), "tenant"),
            roles=frozenset(_id(role, "roles") for role in roles),
            subject=None if subject is None else _id(subject, "data subject"),
            expires_at=end - self._leeway,
            token_sha256_16=digest,
            method="jwt",
        )
        return _Known(principal, start, end)

    def _period(self, claims: dict[str, Any], now: datetime) -> tuple[datetime, datetime]:
        """Give when the token may be used, leeway included, after checking that this is now."""
        ends = _moment(claims, "exp")
        if ends is None:
            raise RecordError("bad_token", "the token never expires (no exp)")
        issued, starts = _moment(claims, "iat"), _moment(claims, "nbf")
        if now >= ends + self._leeway:
            raise RecordError("expired_token", "the token has expired (exp)")
        begin = max((each for each in (issued, starts) if each is not None), default=now) - self._leeway
        if now < begin:
            raise RecordError("early_token", "the token is not valid yet (iat, nbf)")
        if ends - (issued or starts or now) > self._max_life:
            hours = self._max_life / timedelta(hours=1)
            raise RecordError("bad_token", f"the token lives too long: at most {hours:g} hours from iat to exp")
        return begin, ends + self._leeway


def _moment(claims: dict[str, Any], name: str) -> datetime | None:
    """Return a NumericDate (RFC 7519 section 2): seconds since 1970, which need not be whole; null is as left out."""
    value = claims.get(name)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < _LAST_SECOND - 86_400:
        raise RecordError("bad_token", f"the token's {name} is no moment")
    return datetime.fromtimestamp(value, UTC)


def _id(value: object, name: str) -> str:
    if (
        not isinstance(value, str)
        or not 1 <= len(value) <= _MAX_ID
        or not value.isprintable()
        or value != value.strip()
    ):
        raise RecordError("bad_token", f"the token's {name} is not a printable text of 1 to {_MAX_ID} characters")
    return value
