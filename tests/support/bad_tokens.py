"""An issuer with real keys, and what it would never issue: tokens and key sets that must be refused, with the code."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from hashlib import sha256
from hmac import digest as hmac_digest
from typing import Any

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature

from policy.identity.jwks import KeySet
from policy.identity.jws import SigningKey
from policy.identity.verify import Verifier

NOW = datetime(2026, 11, 24, 12, 0, tzinfo=UTC)
ISSUER = "https://id.example.org"
AUDIENCE = "waybill"
_T = int(NOW.timestamp())


def b64(data: bytes) -> str:
    """Base64url without padding."""
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def claims(**changes: Any) -> dict[str, Any]:
    """The claims of a good token, of which a test changes some; None leaves one out."""
    good: dict[str, Any] = {
        "iss": ISSUER,
        "sub": "ada",
        "aud": AUDIENCE,
        "iat": _T - 10,
        "exp": _T + 600,
        "tenant": "acme",
        "actor_kind": "user",
        "roles": ["analyst"],
    }
    return {name: value for name, value in {**good, **changes}.items() if value is not None}


@dataclass
class Issuer:
    """Signs whatever it is told to; its public set holds a P-256, an RSA and an Ed25519 key."""

    key: SigningKey = field(default_factory=SigningKey.generate)
    stranger: SigningKey = field(default_factory=SigningKey.generate)
    rsa: rsa.RSAPrivateKey = field(default_factory=lambda: rsa.generate_private_key(65537, 2048))
    ed: ed25519.Ed25519PrivateKey = field(default_factory=ed25519.Ed25519PrivateKey.generate)

    def rsa_jwk(self, **more: Any) -> dict[str, Any]:
        """The RSA key's public part."""
        numbers = self.rsa.public_key().public_numbers()
        n, e = numbers.n.to_bytes(256), numbers.e.to_bytes(3)
        return {"kty": "RSA", "n": b64(n), "e": b64(e), "kid": "rsa-1", "alg": "RS256", **more}

    def ed_jwk(self) -> dict[str, Any]:
        """The Ed25519 key's public part."""
        return {"kty": "OKP", "crv": "Ed25519", "x": b64(self.ed.public_key().public_bytes_raw()), "kid": "ed-1"}

    def jwks(self) -> str:
        """The public set."""
        ps256 = self.rsa_jwk(kid="rsa-2", alg="PS256")
        return json.dumps({"keys": [self.key.public_jwk(), self.rsa_jwk(), ps256, self.ed_jwk()]}, indent=1)

    def keys(self) -> KeySet:
        """The public set, read."""
        return KeySet.parse(self.jwks(), "jwks.json")

    def verifier(self, **changes: Any) -> Verifier:
        """What admission has."""
        return Verifier(self.keys(), **{"issuer": ISSUER, "audience": AUDIENCE, **changes})

    def token(self, **changes: Any) -> str:
        """A token of the P-256 key."""
        return self.key.sign(claims(**changes))

    def raw(self, header: dict[str, Any] | str, body: dict[str, Any] | str, alg: str = "ES256") -> str:
        """A token with any header and body, truly signed by the algorithm's key."""
        parts = [each if isinstance(each, str) else json.dumps(each) for each in (header, body)]
        message = ".".join(b64(part.encode()) for part in parts)
        return f"{message}.{b64(self.signature(message.encode(), alg))}"

    def signature(self, message: bytes, alg: str) -> bytes:
        """Sign by an algorithm."""
        match alg:
            case "ES256":
                made = self.key._private.sign(message, ec.ECDSA(hashes.SHA256()))
                return b"".join(each.to_bytes(32) for each in decode_dss_signature(made))
            case "RS256":
                return self.rsa.sign(message, padding.PKCS1v15(), hashes.SHA256())
            case "PS256":
                pss = padding.PSS(mgf=padding.MGF1(hashes.SHA256()), salt_length=32)
                return self.rsa.sign(message, pss, hashes.SHA256())
            case "EdDSA":
                return self.ed.sign(message)
            case "HS256":  # with the public set as the secret: the classic confusion of keys
                return hmac_digest(json.dumps(self.rsa_jwk()).encode(), message, "sha256")
            case _:
                return b""

    def header(self, **changes: Any) -> dict[str, Any]:
        """The header of a good token; None leaves a member out."""
        good = {"alg": "ES256", "kid": self.key.kid, "typ": "JWT"}
        return {name: value for name, value in {**good, **changes}.items() if value is not None}


@dataclass(frozen=True)
class BadToken:
    """A token that must be refused."""

    name: str
    make: Callable[[Issuer], str]
    code: str


def _claim(name: str, code: str, **changes: Any) -> BadToken:
    return BadToken(name, lambda issuer: issuer.token(**changes), code)


def _header(name: str, code: str, signed: str = "ES256", **changes: Any) -> BadToken:
    return BadToken(name, lambda issuer: issuer.raw(issuer.header(**changes), claims(), signed), code)


def _text(name: str, change: Callable[[str], str], code: str = "bad_token") -> BadToken:
    return BadToken(name, lambda issuer: change(issuer.token()), code)


def _body(name: str, change: Callable[[str], str]) -> BadToken:
    return BadToken(name, lambda issuer: issuer.raw(issuer.header(), change(json.dumps(claims()))), "bad_token")


def _swap(token: str, place: int, part: str) -> str:
    parts = token.split(".")
    parts[place] = part
    return ".".join(parts)


def _other_spelling(token: str) -> str:
    """The same signature with other unused bits in its last letter: 64 bytes leave four of them."""
    alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
    return token[:-1] + alphabet[alphabet.index(token[-1]) ^ 1]


def _stretched(token: str) -> str:
    signature = base64.urlsafe_b64decode(token.rsplit(".", 1)[1] + "==")
    return b64(signature[:32] + b"\0" + signature[32:])


def _der(issuer: Issuer) -> str:
    token = issuer.token()
    message = token[: token.rindex(".")]
    return f"{message}.{b64(issuer.key._private.sign(message.encode(), ec.ECDSA(hashes.SHA256())))}"


CASES: tuple[BadToken, ...] = (
    _text("empty", lambda _: ""),
    _text("no token at all", lambda _: "not-a-token"),
    _text("two parts", lambda token: token[: token.rindex(".")]),
    _text("four parts", lambda token: f"{token}.x"),
    _text("longer than 8 kB", lambda token: token + "A" * 8192),
    _text("not ASCII", lambda token: token + "é"),
    _text("a blank in it", lambda token: token[:40] + " " + token[40:]),
    _text("padding", lambda token: f"{token}=="),
    _text("the alphabet of plain base64", lambda token: _swap(token, 2, "+/" + token.rsplit(".", 1)[1][2:])),
    _text("another spelling of the same signature", _other_spelling),
    _text("no signature", lambda token: _swap(token, 2, "")),
    _text("claims of another token", lambda token: _swap(token, 1, b64(json.dumps(claims(sub="eve")).encode()))),
    _text("a signature of zeros", lambda token: _swap(token, 2, b64(bytes(64)))),
    _text("a signature with a zero in its middle", lambda token: _swap(token, 2, _stretched(token))),
    BadToken("a signature in DER", _der, "bad_token"),
    BadToken(
        "a stranger's key under our kid", lambda issuer: issuer.raw(issuer.header(), claims(), "RS256"), "bad_token"
    ),
    BadToken("a stranger's key", lambda issuer: issuer.stranger.sign(claims()), "unknown_key"),
    _header("alg none", "bad_token", "none", alg="none"),
    _header("alg none in capitals", "bad_token", "none", alg="NONE"),
    _header("no alg", "bad_token", alg=None),
    _header("alg HS256 with the public key as the secret", "bad_token", "HS256", alg="HS256", kid="rsa-1"),
    _header("RS256 by a key for PS256", "bad_token", "RS256", alg="RS256", kid="rsa-2"),
    _header("PS256 by a key for RS256", "bad_token", "PS256", alg="PS256", kid="rsa-1"),
    _header("EdDSA under a P-256 key's name", "bad_token", "EdDSA", alg="EdDSA"),
    _header("no kid where there are several keys", "unknown_key", kid=None),
    _header("kid is a number", "bad_token", kid=7),
    _header("crit", "bad_token", crit=["exp"]),
    _header("b64 false", "bad_token", b64=False),
    _header("brings its own key", "bad_token", jwk={"kty": "EC"}),
    _header("says where its key is", "bad_token", jku="https://evil.example/jwks.json"),
    _header("brings its own certificate", "bad_token", x5c=["MIIB"]),
    _header("another type of token", "bad_token", typ="dpop+jwt"),
    BadToken(
        "alg twice in the header",
        lambda issuer: issuer.raw('{"alg":"none","alg":"ES256","kid":"' + issuer.key.kid + '"}', claims()),
        "bad_token",
    ),
    BadToken("a header that is a list", lambda issuer: issuer.raw("[1]", claims()), "bad_token"),
    _body("sub twice", lambda body: body[:-1] + ', "sub": "eve"}'),
    _body("a member twice further inside", lambda body: body[:-1] + ', "x": {"a": 1, "a": 2}}'),
    _body("claims that are a text", lambda _: '"ada"'),
    _body("claims that are no JSON", lambda body: body[:-1]),
    _body("claims nested a thousand deep", lambda _: "[" * 2900 + "]" * 2900),
    _body("exp is NaN", lambda body: body.replace(str(_T + 600), "NaN")),
    _body("exp is infinite", lambda body: body.replace(str(_T + 600), "1e400")),
    _body("exp is -Infinity", lambda body: body.replace(str(_T + 600), "-Infinity")),
    _body("exp is minus zero", lambda body: body.replace(str(_T + 600), "-0.0")),
    _body("exp is a negative float", lambda body: body.replace(str(_T + 600), f"-{_T + 600}.5")),
    _body("exp has 5,000 digits", lambda body: body.replace(str(_T + 600), "1" * 5000)),
    _body("exp is a fraction in quotes", lambda body: body.replace(str(_T + 600), f'"{_T + 600}.5"')),
    _claim("no exp", "bad_token", exp=None),
    _claim("exp is a text", "bad_token", exp=str(_T + 600)),
    _claim("exp is true", "bad_token", exp=True),
    _claim("exp is before all time", "bad_token", exp=-1),
    _claim("exp is after all time", "bad_token", exp=10**15),
    _claim("expired by more than the leeway", "expired_token", exp=_T - 31),
    _claim("lives for two days", "bad_token", exp=_T + 2 * 86_400),
    _claim("lives for two days, no iat", "bad_token", iat=None, exp=_T + 2 * 86_400),
    _claim("iat in the future", "early_token", iat=_T + 60),
    _claim("nbf in the future", "early_token", nbf=_T + 60),
    _claim("iat is a text", "bad_token", iat="now"),
    _claim("another issuer", "wrong_issuer", iss="https://id.example.com"),
    _claim("no issuer", "wrong_issuer", iss=None),
    _claim("the issuer in a list", "wrong_issuer", iss=[ISSUER]),
    _claim("another audience", "wrong_audience", aud="billing"),
    _claim("no audience", "wrong_audience", aud=None),
    _claim("a list of other audiences", "wrong_audience", aud=["billing", "waybills"]),
    _claim("an audience that is an object", "wrong_audience", aud={"waybill": 1}),
    _claim("no sub", "bad_token", sub=None),
    _claim("an empty sub", "bad_token", sub=""),
    _claim("a sub with a line end", "bad_token", sub="ada\nadmin"),
    _claim("a sub of 129 characters", "bad_token", sub="a" * 129),
    _claim("a sub that is a number", "bad_token", sub=7),
    _claim("no tenant", "bad_token", tenant=None),
    _claim("two tenants", "bad_token", tenant=["acme", "other"]),
    _claim("a kind of actor that does not exist", "bad_token", actor_kind="admin"),
    _claim("roles that are an object", "bad_token", roles={"admin": True}),
    _claim("one role that is empty", "bad_token", roles=""),
    _claim("a role that is a number", "bad_token", roles=[1]),
    _claim("257 roles", "bad_token", roles=[f"r{n}" for n in range(257)]),
    _claim("a token of more than 65,536 characters", "bad_token", filler="x" * 50_000),
    _header("a header of more than 8,192 characters", "bad_token", filler="x" * 6_200),
)
"""At least one for each way in which a token can be wrong."""


@dataclass(frozen=True)
class BadKeys:
    """A key set that must be refused."""

    name: str
    make: Callable[[Issuer], str]
    says: str


def _set(*keys: object) -> str:
    return json.dumps({"keys": list(keys)}, indent=1)


def _key(name: str, says: str, **changes: Any) -> BadKeys:
    return BadKeys(
        name,
        lambda issuer: _set({k: v for k, v in {**issuer.key.public_jwk(), **changes}.items() if v is not None}),
        says,
    )


def _private(issuer: Issuer) -> str:
    return _set({**issuer.key.public_jwk(), "d": b64(issuer.key.secret())})


def _small_rsa(issuer: Issuer) -> str:
    del issuer
    small = rsa.generate_private_key(65537, 1024).public_key().public_numbers()  # noqa: S505 - what must be refused
    return _set({"kty": "RSA", "n": b64(small.n.to_bytes(128)), "e": "AQAB"})


KEY_CASES: tuple[BadKeys, ...] = (
    BadKeys("no JSON", lambda _: "keys:\n", "jwks.json:1: not a JWKS"),
    BadKeys("no object", lambda _: "[]", "jwks.json:1: not a JWKS: write an object"),
    BadKeys("no keys", lambda _: '{"keys": []}', "lists 1 to 1000 keys"),
    BadKeys("keys twice", lambda _: '{"keys": [1], "keys": [2]}', "a member is given twice"),
    BadKeys("1,001 keys", lambda issuer: _set(*[issuer.key.public_jwk()] * 1001), "lists 1 to 1000 keys"),
    BadKeys(
        "a key that is a text", lambda _: _set("k"), "jwks.json:3: no key of this JWKS can check a token (keys[0]: a"
    ),
    BadKeys("a private key alone", _private, "keys[0]: d: a private key"),
    BadKeys("a symmetric key alone", lambda _: _set({"kty": "oct", "k": "c2VjcmV0"}), "keys[0]: kty: a symmetric"),
    _key("a symmetric algorithm", "keys[0]: kty: a symmetric key", alg="HS256"),
    _key("no type", "keys[0]: kty: is needed", kty=None),
    _key("an algorithm that does not fit", "keys[0]: alg: a key of this type is used with ES256 here", alg="RS256"),
    _key("no x", "keys[0]: x: is needed", x=None),
    _key("x is not base64url", "keys[0]: x: not base64url", x="+++="),
    _key("x is too short", "keys[0]: x, y: must have 32 bytes", x="AAAA"),
    _key("a point that is not on the curve", "keys[0]: x, y: not a point", x=b64(sha256(b"x").digest())),
    _key("an empty kid", "keys[0]: kid: must be", kid=""),
    BadKeys("RSA with 1024 bits", _small_rsa, "keys[0]: n: has 1024 bits"),
    BadKeys("an even RSA exponent", lambda issuer: _set(issuer.rsa_jwk(e="BA")), "keys[0]: e: not an exponent"),
    BadKeys("an Ed25519 key of 3 bytes", lambda issuer: _set({**issuer.ed_jwk(), "x": "AAAA"}), "keys[0]: x: "),
    _key("only keys for encryption", "no key of this JWKS can check a token", use="enc"),
    _key("only keys on other curves", "no key of this JWKS can check a token", crv="P-384"),
)
"""At least one for each way in which a key set can be wrong."""
