"""The public keys that tokens are checked with, as an issuer publishes them: a JWKS (RFC 7517).

A key says itself what it is good for: the algorithm of a token must be that of its key, so that no token chooses how it
is checked. Symmetric keys and `none` do not exist here.

A published set serves many readers. Each key that is of no use here is passed over by itself (RFC 7517 section 5), and
the set says why; it is wrong as a whole only where no key is left.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from hashlib import sha256
from typing import Any, Final

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature

from evidence.errors import ConfigError, RecordError
from policy.files import Document
from policy.identity.jose import decoded, no_constant, reason

MAX_KEYS: Final = 1000
"""Keys in the largest set."""

MIN_RSA_BITS: Final = 2048
"""Size of the smallest RSA key that is taken."""

P256_BYTES: Final = 32
"""Bytes of a number of P-256."""

_MAX_RSA_BITS: Final = 8192
_MAX_NAME: Final = 256
_MAX_TOLD: Final = 8
"""Keys that an error names."""

_BOM: Final = "\ufeff"
_SECRET_MEMBERS: Final = frozenset({"d", "p", "q", "dp", "dq", "qi", "oth", "k"})
_SHA256: Final = hashes.SHA256()
ECDSA: Final = ec.ECDSA(_SHA256)
"""How ES256 signs."""

_PSS: Final = padding.PSS(mgf=padding.MGF1(_SHA256), salt_length=_SHA256.digest_size)

Public = ec.EllipticCurvePublicKey | rsa.RSAPublicKey | ed25519.Ed25519PublicKey
"""The public keys that are known here."""


@dataclass(frozen=True, slots=True)
class Key:
    """One public key."""

    kid: str | None
    """Its name in tokens; None where it has none."""
    alg: str
    """The only algorithm that it is used with: ES256, RS256, PS256 or EdDSA."""
    public: Public
    """The key itself."""

    def signed(self, message: bytes, signature: bytes) -> bool:
        """Say whether the signature is this key's over the message."""
        public = self.public
        try:
            if isinstance(public, ec.EllipticCurvePublicKey):
                if len(signature) != 2 * P256_BYTES:
                    return False
                r, s = (int.from_bytes(half) for half in (signature[:P256_BYTES], signature[P256_BYTES:]))
                public.verify(encode_dss_signature(r, s), message, ECDSA)
            elif isinstance(public, ed25519.Ed25519PublicKey):
                public.verify(signature, message)
            else:
                public.verify(signature, message, _PSS if self.alg == "PS256" else padding.PKCS1v15(), _SHA256)
        except InvalidSignature:
            return False
        return True


@dataclass(frozen=True, slots=True)
class KeySet:
    """The public keys of an issuer, as one JWKS names them."""

    keys: tuple[Key, ...]
    """The keys that can check a token; never empty."""
    revision: str
    """The first 16 hex digits of the SHA-256 of the text."""
    ignored: tuple[str, ...] = ()
    """Keys of the set that are passed over, each `keys[N]: why`."""

    @classmethod
    def parse(cls, text: str, source: str) -> KeySet:
        """Read a JWKS (RFC 7517); a byte order mark before it is skipped.

        Args:
            text: the JSON.
            source: what errors call it.

        Raises:
            ConfigError: it is none, or no key in it can check a token.
        """
        text = text.removeprefix(_BOM)
        try:
            content = json.loads(text, object_pairs_hook=_noted, parse_constant=no_constant)
        except ValueError as error:
            line = f":{error.lineno}" if isinstance(error, json.JSONDecodeError) else ""
            raise ConfigError(f"{source}{line}: not a JWKS: {reason(error)}") from None
        except RecursionError:
            raise ConfigError(f"{source}: not a JWKS: nested too deep") from None
        listed = content.get("keys") if isinstance(content, dict) else None
        if isinstance(content, _Twice):
            raise ConfigError(f"{source}: not a JWKS: a member is given twice")
        if not isinstance(listed, list) or not 1 <= len(listed) <= MAX_KEYS:
            raise ConfigError(f"{source}:1: not a JWKS: write an object whose `keys` lists 1 to {MAX_KEYS} keys")
        keys: list[Key] = []
        ignored: dict[int, str] = {}
        for number, entry in enumerate(listed):
            try:
                keys.append(_key(entry))
            except ValueError as error:
                ignored[number] = f"keys[{number}]: {error}"
        if not keys:
            why = "; ".join([*ignored.values()][:_MAX_TOLD])
            more = f"; and {len(ignored) - _MAX_TOLD} more" if len(ignored) > _MAX_TOLD else ""
            raise ConfigError(f"{_where(text, source, 0)}: no key of this JWKS can check a token ({why}{more})")
        return cls(tuple(keys), sha256(text.encode()).hexdigest()[:16], tuple(ignored.values()))

    def find(self, kid: str | None, alg: object) -> tuple[Key, ...]:
        """Return the keys that a token can be signed with: of its name and its algorithm, seldom more than one.

        A token without a name is checked with the only key, or with the only key of its algorithm without a name.

        Raises:
            RecordError: `unknown_key` where no key has the name, `bad_token` where its key has another algorithm.
        """
        named = tuple(key for key in self.keys if key.kid == kid)
        if kid is None and len(self.keys) == 1:
            named = self.keys
        if not named:
            if kid is None:
                raise RecordError("unknown_key", "the token names no key (kid), and there are several")
            raise RecordError("unknown_key", "the token is signed with a key that is not in the key set")
        found = tuple(key for key in named if key.alg == alg)
        if not found:
            known = " or ".join(sorted({key.alg for key in named}))
            raise RecordError("bad_token", f"the token's algorithm is not that of its key, {known}")
        if kid is None and len(found) > 1:
            raise RecordError("unknown_key", "the token names no key (kid), and there are several of its algorithm")
        return found


class _Twice(dict[str, Any]):
    """An object in which a member is given twice."""


def _noted(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    return made if len(made) == len(pairs) else _Twice(made)


def _key(entry: object) -> Key:
    """Make a key of a JWK; a `ValueError` says why it is of no use here."""
    if not isinstance(entry, dict):
        raise ValueError("a key is an object")  # noqa: TRY004 - the caller turns ValueError into a reason
    if isinstance(entry, _Twice):
        raise ValueError("a member is given twice")  # noqa: TRY004 - as above
    # A member that is null or empty says no more than one that is left out: libraries write them for what is not there.
    entry = {name: value for name, value in entry.items() if value is not None and value != []}
    _refuse_secrets(entry)
    kid, alg = entry.get("kid"), entry.get("alg")
    if kid is not None and (not isinstance(kid, str) or not 0 < len(kid) <= _MAX_NAME):
        raise ValueError(f"kid: must be a text of 1 to {_MAX_NAME} characters")
    operations = entry.get("key_ops", ["verify"])
    if entry.get("use", "sig") != "sig" or not isinstance(operations, list) or "verify" not in operations:
        raise ValueError("not for signatures")
    match entry.get("kty"), entry.get("crv"):
        case "EC", "P-256":
            return Key(kid, _only(alg, "ES256"), _p256(entry))
        case "OKP", "Ed25519":
            return Key(kid, _only(alg, "EdDSA"), _ed25519(entry))
        case "RSA", _:
            return Key(kid, _only(alg, "RS256", "PS256"), _rsa(entry))
        case _:
            raise ValueError("its type or curve is not used here")


def _refuse_secrets(entry: dict[str, Any]) -> None:
    kty, alg = entry.get("kty"), entry.get("alg")
    if not isinstance(kty, str):
        raise ValueError("kty: is needed")  # noqa: TRY004 - as above
    if kty == "oct" or (isinstance(alg, str) and alg.startswith("HS")):
        raise ValueError("kty: a symmetric key: whoever can check with it can sign; publish public keys only")
    if leaked := sorted(_SECRET_MEMBERS & entry.keys()):
        raise ValueError(f"{leaked[0]}: a private key: publish its public part only, and replace the key")


def _ed25519(entry: dict[str, Any]) -> ed25519.Ed25519PublicKey:
    try:
        return ed25519.Ed25519PublicKey.from_public_bytes(_member(entry, "x"))
    except ValueError as error:
        raise ValueError(f"x: {error}" if not str(error).startswith("x:") else str(error)) from None


def _only(alg: object, *known: str) -> str:
    """Give the key's algorithm, by default the first that fits its type."""
    if alg is None:
        return known[0]
    if not isinstance(alg, str) or alg not in known:
        raise ValueError(f"alg: a key of this type is used with {' or '.join(known)} here")
    return alg


def _p256(entry: dict[str, Any]) -> ec.EllipticCurvePublicKey:
    x, y = _member(entry, "x"), _member(entry, "y")
    if len(x) != P256_BYTES or len(y) != P256_BYTES:
        raise ValueError("x, y: must have 32 bytes each")
    try:
        return ec.EllipticCurvePublicNumbers(int.from_bytes(x), int.from_bytes(y), ec.SECP256R1()).public_key()
    except ValueError:
        raise ValueError("x, y: not a point of P-256") from None


def _rsa(entry: dict[str, Any]) -> rsa.RSAPublicKey:
    n, e = (int.from_bytes(_member(entry, name)) for name in ("n", "e"))
    if not MIN_RSA_BITS <= n.bit_length() <= _MAX_RSA_BITS:
        raise ValueError(f"n: has {n.bit_length()} bits; use {MIN_RSA_BITS} to {_MAX_RSA_BITS}")
    try:
        return rsa.RSAPublicNumbers(e, n).public_key()
    except ValueError:
        raise ValueError("e: not an exponent for this n") from None


def _member(entry: dict[str, Any], name: str) -> bytes:
    value = entry.get(name)
    if not isinstance(value, str):
        raise ValueError(f"{name}: is needed, as base64url")  # noqa: TRY004 - as above
    try:
        return decoded(value, name)
    except RecordError:
        raise ValueError(f"{name}: not base64url without padding") from None


def _where(text: str, source: str, number: int) -> str:
    """Give file and line of a key; JSON is YAML but for tabs, and then the number of the key has to do."""
    try:
        return Document(text, source).where(("keys", number))
    except ConfigError:
        return source
