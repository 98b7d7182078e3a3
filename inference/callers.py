"""What people set of how an endpoint is told who calls, and the credentials that this makes."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import Field, SecretStr, model_validator

from evidence.errors import ConfigError
from inference.credentials import (
    Credentials,
    KeyCredentials,
    MintedCredentials,
    NoCredentials,
    load_signing_key,
)
from inference.exchange import ExchangedCredentials
from policy.files import Config
from policy.identity.workload import LIFETIME_S, MAX_LIFETIME_S, Minter

Auth = Literal["key", "minted", "exchange", "none"]
"""How an endpoint is told who calls."""


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
        return ExchangedCredentials(minter, token_url=self.token_url or "", resource=self.resource)
