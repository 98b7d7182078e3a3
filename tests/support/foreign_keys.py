"""Keys that stand in real key sets beside the one that is wanted, and whole sets in the form of well-known issuers."""

from __future__ import annotations

import base64
from collections.abc import Callable
from dataclasses import dataclass
from hashlib import sha1, sha256
from typing import Any

from bad_tokens import Issuer, b64
from cryptography.hazmat.primitives.asymmetric import ec, ed448, rsa, x25519

ISSUING = Issuer()
"""Its RSA key is the one that signs, under the name `wanted` (or the issuer's own form of a name)."""

OTHER = Issuer()
"""Its keys stand beside."""


def rsa_members(size: int = 2048) -> dict[str, Any]:
    """The public members of a new RSA key."""
    numbers = rsa.generate_private_key(65537, size).public_key().public_numbers()
    return {"kty": "RSA", "n": b64(numbers.n.to_bytes((size + 7) // 8)), "e": "AQAB"}


def ec_members(curve: ec.EllipticCurve, name: str) -> dict[str, Any]:
    """The public members of a new key on a curve."""
    numbers = ec.generate_private_key(curve).public_key().public_numbers()
    size = (curve.key_size + 7) // 8
    return {"kty": "EC", "crv": name, "x": b64(numbers.x.to_bytes(size)), "y": b64(numbers.y.to_bytes(size))}


def _wanted(**more: Any) -> dict[str, Any]:
    return ISSUING.rsa_jwk(kid="wanted", **more)


_P256 = ec_members(ec.SECP256R1(), "P-256")
_RSA = rsa_members()
_X25519 = b64(x25519.X25519PrivateKey.generate().public_key().public_bytes_raw())
_ED448 = b64(ed448.Ed448PrivateKey.generate().public_key().public_bytes_raw())

FOREIGN: dict[str, Any] = {
    "EC for ECDH-ES without use": {**_P256, "kid": "a", "alg": "ECDH-ES"},
    "EC for ECDH-ES+A256KW for encryption": {**_P256, "kid": "a", "alg": "ECDH-ES+A256KW", "use": "enc"},
    "P-384": {**ec_members(ec.SECP384R1(), "P-384"), "kid": "a", "alg": "ES384"},
    "P-521": {**ec_members(ec.SECP521R1(), "P-521"), "kid": "a", "alg": "ES512", "use": "sig"},
    "secp256k1": {**ec_members(ec.SECP256K1(), "secp256k1"), "kid": "a", "alg": "ES256K"},
    "no curve": {"kty": "EC", "kid": "a", "x": _P256["x"], "y": _P256["y"]},
    "a curve that is a list": {**_P256, "kid": "a", "crv": ["P-256"]},
    "X25519": {"kty": "OKP", "crv": "X25519", "x": _X25519, "kid": "a"},
    "Ed448": {"kty": "OKP", "crv": "Ed448", "x": _ED448, "kid": "a", "alg": "EdDSA"},
    "ML-DSA": {"kty": "AKP", "alg": "ML-DSA-44", "pub": b64(b"p" * 1312), "kid": "a"},
    "a type of the future": {"kty": "XYZ", "kid": "a"},
    "no type": {"kid": "a", "n": _RSA["n"], "e": "AQAB"},
    "a type that is a number": {"kty": 3, "kid": "a"},
    "RSA for encryption": {**_RSA, "kid": "a", "alg": "RSA-OAEP", "use": "enc"},
    "RSA-OAEP without use": {**_RSA, "kid": "a", "alg": "RSA-OAEP-256"},
    "RS512": {**_RSA, "kid": "a", "alg": "RS512", "use": "sig"},
    "an algorithm of the future": {**_RSA, "kid": "a", "alg": "RS256-NG"},
    "an algorithm that is a list": {**_RSA, "kid": "a", "alg": ["RS256"]},
    "RSA of 1024 bits": {**rsa_members(1024), "kid": "a", "alg": "RS256"},
    "RSA of 16,384 bits": {"kty": "RSA", "kid": "a", "n": b64(b"\xff" * 2048), "e": "AQAB"},
    "RSA with an even exponent": {**_RSA, "kid": "a", "e": "BA"},
    "RSA with padding": {**_RSA, "kid": "a", "n": _RSA["n"] + "=="},
    "RSA without n": {"kty": "RSA", "kid": "a", "e": "AQAB"},
    "RSA whose n is a number": {"kty": "RSA", "kid": "a", "n": 17, "e": "AQAB"},
    "P-256 off its curve": {**_P256, "kid": "a", "x": b64(sha256(b"x").digest())},
    "P-256 of 31 bytes": {**_P256, "kid": "a", "x": b64(b"x" * 31)},
    "no kid": {**_RSA, "alg": "RS256"},
    "an empty kid": {**_RSA, "kid": "", "alg": "RS256"},
    "a kid that is a number": {**_RSA, "kid": 7, "alg": "RS256"},
    "a kid of 300 characters": {**_RSA, "kid": "k" * 300, "alg": "RS256"},
    "the same kid, another type": {**_P256, "kid": "wanted", "alg": "ES256"},
    "the same kid, the same type, for encryption": {**_RSA, "kid": "wanted", "alg": "RSA-OAEP", "use": "enc"},
    "the same kid and algorithm, another key": {**_RSA, "kid": "wanted", "alg": "RS256"},
    "the same key again": _wanted(),
    "key_ops for encryption": {**_RSA, "kid": "a", "key_ops": ["encrypt", "wrapKey"]},
    "key_ops that are a text": {**_RSA, "kid": "a", "key_ops": "verify"},
    "key_ops for signing": {**_RSA, "kid": "a", "key_ops": ["sign"]},
    "a use of their own": {**_RSA, "kid": "a", "use": "tls"},
    "a use that is an object": {**_RSA, "kid": "a", "use": {}},
    "a symmetric key": {"kty": "oct", "k": "c2VjcmV0", "kid": "a", "alg": "HS256"},
    "a private key": {**_RSA, "kid": "a", "d": "c2VjcmV0"},
    "a text": "key",
    "null": None,
    "a list": [],
    "an empty object": {},
}
"""Each beside the wanted key leaves that one as good as it was."""

ACCEPTED: dict[str, dict[str, Any]] = {
    "key_ops null": {"key_ops": None},
    "key_ops empty": {"key_ops": []},
    "use null": {"use": None},
    "alg null": {"alg": None},
    "private members null": {"d": None, "p": None, "q": None, "dp": None, "dq": None, "qi": None, "oth": [], "k": None},
    "unknown members": {"issuer": "https://x", "x5c": ["MIIC"], "x5t": "a", "nbf": 1, "ext": {"a": [1, {"b": None}]}},
}
"""Each in the wanted key itself leaves it as good as it was."""


@dataclass(frozen=True)
class Published:
    """A key set as an issuer publishes it, with the key by which it signs."""

    name: str
    kid: str
    keys: Callable[[], list[dict[str, Any]]]


def _certificate(seed: bytes) -> str:
    return base64.b64encode(seed * 40).decode()


def _entra() -> list[dict[str, Any]]:
    def one(members: dict[str, Any], seed: bytes) -> dict[str, Any]:
        kid = b64(sha1(seed).digest())  # noqa: S324 - the form of a thumbprint
        return {
            "kty": "RSA", "use": "sig", "kid": kid, "x5t": kid, "n": members["n"], "e": "AQAB",
            "x5c": [_certificate(seed)], "cloud_instance_name": "microsoftonline.com",
            "issuer": "https://login.microsoftonline.com/9122040d-6c67-4c5b-b112-36a304b66dad/v2.0",
        }  # fmt: skip

    return [one(rsa_members(), b"b"), one(ISSUING.rsa_jwk(), b"a")]


def _keycloak() -> list[dict[str, Any]]:
    def one(members: dict[str, Any], kid: str, alg: str, use: str) -> dict[str, Any]:
        return {
            "kid": kid, "kty": "RSA", "alg": alg, "use": use, "x5c": [_certificate(b"k")], "x5t": b64(b"t" * 20),
            "x5t#S256": b64(b"t" * 32), "n": members["n"], "e": "AQAB",
        }  # fmt: skip

    return [one(_RSA, "5N2m", "RSA-OAEP", "enc"), one(ISSUING.rsa_jwk(), "wanted", "RS256", "sig")]


def _cognito() -> list[dict[str, Any]]:
    def one(members: dict[str, Any], kid: str) -> dict[str, Any]:
        return {"alg": "RS256", "e": "AQAB", "kid": kid, "kty": "RSA", "n": members["n"], "use": "sig"}

    return [one(ISSUING.rsa_jwk(), "abcdefghijklmnopqrsexample="), one(_RSA, "fgjhlkhjlkhexample=")]


def _auth0() -> list[dict[str, Any]]:
    return [
        {
            "alg": "RS256", "kty": "RSA", "use": "sig", "x5c": [_certificate(b"0")], "n": ISSUING.rsa_jwk()["n"],
            "e": "AQAB", "kid": "wanted", "x5t": "NjVBRjY5MDlCMUIwNzU4RTA2QzZFMDQ4QzQ2MDAyQjVDNjk1RTM2Qg",
        }
    ]  # fmt: skip


ISSUERS = (
    Published("Entra ID", b64(sha1(b"a").digest()), _entra),  # noqa: S324 - as above
    Published("Okta", "wanted", lambda: [
        {"kty": "RSA", "alg": "RS256", "kid": "wanted", "use": "sig", "e": "AQAB", "n": ISSUING.rsa_jwk()["n"]},
        {"kty": "RSA", "alg": "RS256", "kid": "next", "use": "sig", "e": "AQAB", "n": _RSA["n"], "status": "NEXT"},
    ]),
    Published("Keycloak", "wanted", _keycloak),
    Published("Google", "wanted", lambda: [
        {"n": _RSA["n"], "use": "sig", "e": "AQAB", "alg": "RS256", "kty": "RSA", "kid": "0f1c"},
        {"kid": "wanted", "kty": "RSA", "alg": "RS256", "use": "sig", "n": ISSUING.rsa_jwk()["n"], "e": "AQAB"},
    ]),
    Published("Auth0", "wanted", _auth0),
    Published("AWS Cognito", "abcdefghijklmnopqrsexample=", _cognito),
    Published("GitHub Actions", "wanted", lambda: [
        {"kty": "RSA", "alg": "RS256", "use": "sig", "kid": "cc413527", "x5t": b64(b"g" * 20), "e": "AQAB",
         "n": _RSA["n"], "x5c": [_certificate(b"g")]},
        {"n": ISSUING.rsa_jwk()["n"], "kty": "RSA", "kid": "wanted", "alg": "RS256", "e": "AQAB", "use": "sig",
         "x5c": [_certificate(b"h")], "x5t": b64(b"h" * 20)},
    ]),
    Published("Kubernetes", "wanted", lambda: [
        {"use": "sig", "kty": "RSA", "kid": "wanted", "alg": "RS256", "n": ISSUING.rsa_jwk()["n"], "e": "AQAB"},
    ]),
)  # fmt: skip
"""The forms of eight issuers, with keys made here."""
