"""How a hosted destination learns who calls: one seam, `await credentials.authorize(crossing)`.

Three kinds that a hosted endpoint can be set to, and none at all; each passes the contract suite in
`tests/inference/test_credentials.py`:

    key        the workload's own provider key, the same for each call
    minted     a token made for this crossing (`policy.identity.workload`)
    exchange   a token that an RFC 8693 endpoint gives for a minted one (`inference.exchange`)

A user's own credential has no way in: a `Crossing` has no place for one.
"""

from __future__ import annotations

import os
import re
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Final, Literal, Protocol, Self

from pydantic import Field, SecretStr, model_validator

from evidence.errors import ConfigError
from evidence.records import CredentialRef
from inference.errors import NotSent
from policy.files import Config
from policy.identity.jws import SigningKey
from policy.identity.workload import LIFETIME_S, MAX_LIFETIME_S, Crossing, Minter

__all__ = [
    "Auth",
    "Authorization",
    "CredentialConfig",
    "Credentials",
    "Crossing",
    "KeyCredentials",
    "MintedCredentials",
    "NoCredentials",
    "bearer_header",
    "load_signing_key",
]

_VISIBLE: Final = re.compile(r"[!-~]+")
_MAX_KEY_FILE: Final = 16_384

Auth = Literal["key", "minted", "exchange", "none"]
"""How an endpoint is told who calls."""


@dataclass(frozen=True, slots=True)
class Authorization:
    """What one call carries."""

    header: SecretStr | None
    """The value of the `Authorization` header, scheme included; None sends none."""
    ref: CredentialRef
    """Its form in evidence."""


class Credentials(Protocol):
    """Gives a call its credential."""

    async def authorize(self, crossing: Crossing) -> Authorization:
        """Give the credential for one crossing.

        Raises:
            NotSent: there is none to be had; nothing has gone to the model.
        """
        ...

    async def close(self) -> None:
        """Give back connections; safe to call twice."""
        ...


class CredentialConfig(Config):
    """How one endpoint is told who calls."""

    auth: Auth = "key"
    """The workload's provider key, a token minted for each crossing, one from a token exchange, or nothing."""
    audience: Annotated[str, Field(min_length=1, max_length=256, pattern=r"^[!-~]+$")] | None = None
    """Whom tokens are for, as the destination calls itself."""
    token_url: Annotated[str, Field(min_length=1, max_length=2048)] | None = None
    """The RFC 8693 endpoint."""
    resource: Annotated[str, Field(min_length=1, max_length=2048)] | None = None
    """The `resource` that a token exchange asks for, where its endpoint wants one."""
    signing_key_file: Path | None = None
    """The private key that tokens are signed with (`waybill identity keygen`)."""
    trust_domain: Annotated[str, Field(min_length=1, max_length=255)] | None = None
    """The SPIFFE trust domain of this deployment, such as `example.org`."""
    token_seconds: float = Field(default=LIFETIME_S, ge=5, le=MAX_LIFETIME_S)
    """Seconds that a minted token lives."""

    @model_validator(mode="after")
    def _complete(self) -> Self:
        needed: tuple[str, ...] = ()
        if self.auth in ("minted", "exchange"):
            needed = ("audience", "signing_key_file", "trust_domain")
        if self.auth == "exchange":
            needed = (*needed, "token_url")
        if missing := [name for name in needed if getattr(self, name) is None]:
            raise ValueError(f"auth: {self.auth} needs {', '.join(missing)}")
        of_others = {"token_url": ("exchange",), "resource": ("exchange",), "audience": ("minted", "exchange"),
                     "signing_key_file": ("minted", "exchange"), "trust_domain": ("minted", "exchange"),
                     "token_seconds": ("minted", "exchange")}  # fmt: skip
        for name, kinds in of_others.items():
            if name in self.model_fields_set and getattr(self, name) is not None and self.auth not in kinds:
                raise ValueError(f"{name} is of no use with auth: {self.auth}")
        return self

    def build(self, name: str, key: SecretStr | None) -> Credentials:
        """Make the credentials of an endpoint; key files are read here, and nothing is connected yet.

        Args:
            name: what errors call the endpoint.
            key: its provider key, for `key` alone.

        Raises:
            ConfigError: a file or a value is wrong, or the key is missing or of no use.
        """
        if self.auth != "key" and key is not None:
            raise ConfigError(f"endpoint {name}: has a provider key, which is of no use with auth: {self.auth}")
        if self.auth == "none":
            return NoCredentials()
        if self.auth == "key":
            if key is None:
                raise ConfigError(f"endpoint {name}: auth: key needs the provider's key: set it, or write auth: none")
            return KeyCredentials(key, name)
        if self.signing_key_file is None or self.trust_domain is None or self.audience is None:
            raise ConfigError(f"endpoint {name}: auth: {self.auth} needs audience, signing_key_file and trust_domain")
        minter = Minter(
            load_signing_key(self.signing_key_file), trust_domain=self.trust_domain, lifetime_s=self.token_seconds
        )
        if self.auth == "minted":
            return MintedCredentials(minter)
        from inference.exchange import ExchangedCredentials  # noqa: PLC0415 - it imports this module

        return ExchangedCredentials(minter, token_url=self.token_url or "", resource=self.resource)


class NoCredentials:
    """Sends none, to destinations that ask for none."""

    async def authorize(self, crossing: Crossing) -> Authorization:
        """Give nothing; evidence says so."""
        del crossing
        return Authorization(None, CredentialRef(method="none"))

    async def close(self) -> None:
        """Do nothing."""


class KeyCredentials:
    """The workload's own provider key."""

    def __init__(self, key: SecretStr, name: str) -> None:
        """Take a key.

        Raises:
            ConfigError: no header can carry it.
        """
        if not _VISIBLE.fullmatch(key.get_secret_value()):
            raise ConfigError(f"endpoint {name}: its key is empty or has characters that no header can carry")
        self._header = bearer_header(key)

    def __repr__(self) -> str:
        return "KeyCredentials(**********)"

    async def authorize(self, crossing: Crossing) -> Authorization:
        """Give the key."""
        ref = CredentialRef(method="key", audience=crossing.audience or None, scope=crossing.route)
        return Authorization(self._header, ref)

    async def close(self) -> None:
        """Do nothing."""


class MintedCredentials:
    """A token for each crossing, signed here."""

    def __init__(self, minter: Minter) -> None:
        self._minter = minter

    def __repr__(self) -> str:
        return f"MintedCredentials({self._minter!r})"

    async def authorize(self, crossing: Crossing) -> Authorization:
        """Mint a token for this crossing; see `Credentials.authorize`."""
        try:
            minted = self._minter.mint(crossing)
        except ConfigError as error:
            raise NotSent("no_credential", f"no token can be made for this call: {error}") from None
        return Authorization(bearer_header(minted.token), minted.ref)

    async def close(self) -> None:
        """Do nothing."""


def bearer_header(token: SecretStr) -> SecretStr:
    """Give the header's value for a token."""
    return SecretStr(f"Bearer {token.get_secret_value()}")


def load_signing_key(path: Path) -> SigningKey:
    """Read a private key that only its owner can read.

    Raises:
        ConfigError: it cannot be read, others can read it, or it is no P-256 key.
    """
    try:
        with path.open("rb") as file:
            mode = stat.S_IMODE(os.fstat(file.fileno()).st_mode)
            pem = file.read(_MAX_KEY_FILE + 1)
    except OSError as error:
        raise ConfigError(f"cannot read the signing key {path}: {error.strerror}") from error
    if os.name == "posix" and mode & 0o077:
        raise ConfigError(f"{path}: others can read this private key (mode {mode:04o}): run `chmod 600 {path}`")
    if len(pem) > _MAX_KEY_FILE:
        raise ConfigError(f"{path}: {len(pem)} bytes are too many for a private key")
    return SigningKey.parse(pem, str(path))
