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
from typing import Final, Protocol

from pydantic import SecretStr

from evidence.errors import ConfigError
from evidence.records import CredentialRef
from inference.errors import NotSent
from policy.identity.jws import SigningKey
from policy.identity.workload import Crossing, Minter

__all__ = [
    "Authorization",
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
