"""The compact JWS: taken apart and checked, or made with a private key of our own.

What is not its strict form is refused: other alphabets, padding, a member given twice, `crit`, and headers by which a
token brings its own key.
"""

from __future__ import annotations

from dataclasses import dataclass
from hashlib import sha256
from typing import Any, Final

import orjson
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature

from evidence.errors import ConfigError, RecordError
from policy.identity.jose import decoded, encoded, reason, strict_json
from policy.identity.jwks import ECDSA, P256_BYTES, Key, KeySet

MAX_TOKEN: Final = 65_536
"""Characters of the longest token that is looked at: issuers list a person's groups in it."""

_MAX_HEADER: Final = 8192
"""Characters of a token's header, which is read before its signature is checked."""


_FOREIGN_KEYS: Final = frozenset({"jwk", "jku", "x5u", "x5c"})
_TYPES: Final = frozenset({"jwt", "at+jwt"})
_PARTS: Final = 3


@dataclass(frozen=True, slots=True)
class Opened:
    """A token whose signature holds; nothing else of it has been checked."""

    header: dict[str, Any]
    """Its header."""
    claims: dict[str, Any]
    """Its claims."""


def open_token(token: str, keys: KeySet) -> Opened:
    """Take a compact JWS apart and check its signature.

    Raises:
        RecordError: `bad_token` where it has not the strict form or its signature does not hold, `unknown_key` where
            its key is not in the set. The text never quotes the token.
    """
    first, second, third = _parts(token)
    header = _part(first, "header")
    candidates = _keys_for(header, keys)
    message, signature = f"{first}.{second}".encode(), decoded(third, "signature")
    if not any(key.signed(message, signature) for key in candidates):
        raise RecordError("bad_token", "the token's signature does not hold")
    return Opened(header, _part(second, "claims"))


def unchecked(token: str) -> Opened:
    """Take a compact JWS apart without a look at its signature: for showing it to a person, and for nothing else.

    Raises:
        RecordError: `bad_token`: it has not the strict form.
    """
    first, second, _ = _parts(token)
    return Opened(_part(first, "header"), _part(second, "claims"))


def _parts(token: str) -> list[str]:
    if len(token) > MAX_TOKEN or not token.isascii():
        raise RecordError("bad_token", f"the token is longer than {MAX_TOKEN} characters, or not ASCII")
    parts = token.split(".")
    if len(parts) != _PARTS:
        raise RecordError("bad_token", "the token is not three parts with points between them")
    if len(parts[0]) > _MAX_HEADER:
        raise RecordError("bad_token", f"the token's header is longer than {_MAX_HEADER} characters")
    return parts


def _keys_for(header: dict[str, Any], keys: KeySet) -> tuple[Key, ...]:
    if "crit" in header or "b64" in header:
        raise RecordError("bad_token", "the token's header has `crit`: no extension is understood here")
    if brought := sorted(_FOREIGN_KEYS & header.keys()):
        raise RecordError("bad_token", f"the token's header brings its own key ({brought[0]})")
    typ = header.get("typ", "JWT")
    if not isinstance(typ, str) or typ.lower().removeprefix("application/") not in _TYPES:
        raise RecordError("bad_token", "the token's header says that it is something other than a JWT (typ)")
    kid = header.get("kid")
    if kid is not None and not isinstance(kid, str):
        raise RecordError("bad_token", "the token's kid is not a text")
    return keys.find(kid, header.get("alg"))


def _part(text: str, what: str) -> dict[str, Any]:
    try:
        value = strict_json(decoded(text, what).decode())
    except ValueError as error:
        raise RecordError("bad_token", f"the token's {what} is wrong: {reason(error)}") from None
    if not isinstance(value, dict):
        raise RecordError("bad_token", f"the token's {what} is no JSON object")
    return value


class SigningKey:
    """A private P-256 key of our own, and the name under which its public part is published."""

    def __init__(self, private: ec.EllipticCurvePrivateKey) -> None:
        """Take a key.

        Raises:
            ConfigError: it is on another curve.
        """
        if not isinstance(private.curve, ec.SECP256R1):
            raise ConfigError("the signing key is not on the curve P-256, which ES256 needs")
        self._private = private
        numbers = private.public_key().public_numbers()
        self._x, self._y = (encoded(each.to_bytes(P256_BYTES)) for each in (numbers.x, numbers.y))
        named = f'{{"crv":"P-256","kty":"EC","x":"{self._x}","y":"{self._y}"}}'
        self.kid: Final = encoded(sha256(named.encode()).digest())
        """The key's RFC 7638 thumbprint."""
        self._header = {
            typ: encoded(orjson.dumps({"alg": "ES256", "kid": self.kid, "typ": typ})) for typ in ("JWT", "at+jwt")
        }

    def __repr__(self) -> str:
        return f"SigningKey(kid={self.kid!r})"

    @classmethod
    def generate(cls) -> SigningKey:
        """Make a new key; the randomness is the operating system's."""
        return cls(ec.generate_private_key(ec.SECP256R1()))

    @classmethod
    def parse(cls, pem: bytes, source: str) -> SigningKey:
        """Read a private key in PEM, without a password.

        Raises:
            ConfigError: it is none, or not one for ES256.
        """
        try:
            private = serialization.load_pem_private_key(pem, password=None)
        except (ValueError, TypeError, UnsupportedAlgorithm):
            raise ConfigError(
                f"{source}: not a private key in PEM without a password: `waybill identity keygen` makes one"
            ) from None  # the library's text may quote the file
        if not isinstance(private, ec.EllipticCurvePrivateKey):
            raise ConfigError(f"{source}: not a P-256 key: `waybill identity keygen` makes one")
        try:
            return cls(private)
        except ConfigError as error:
            raise ConfigError(f"{source}: {error}") from None

    def pem(self) -> bytes:
        """Give the private key in PEM (PKCS 8, no password)."""
        return self._private.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )

    def secret(self) -> bytes:
        """Give the private number, for deriving other keys from it; never written anywhere."""
        return self._private.private_numbers().private_value.to_bytes(P256_BYTES)

    def public_jwk(self) -> dict[str, str]:
        """Give the public part as a JWK."""
        return {"kty": "EC", "crv": "P-256", "x": self._x, "y": self._y, "kid": self.kid, "alg": "ES256", "use": "sig"}

    def sign(self, claims: dict[str, Any], typ: str = "JWT") -> str:
        """Make a compact JWS over claims, by ES256."""
        message = f"{self._header[typ]}.{encoded(orjson.dumps(claims))}"
        r, s = decode_dss_signature(self._private.sign(message.encode(), ECDSA))
        return f"{message}.{encoded(r.to_bytes(P256_BYTES) + s.to_bytes(P256_BYTES))}"


def public_set(*keys: SigningKey) -> str:
    """Give the JWKS of these keys, as JSON for a person and for a file."""
    return orjson.dumps({"keys": [key.public_jwk() for key in keys]}, option=orjson.OPT_INDENT_2).decode() + "\n"
