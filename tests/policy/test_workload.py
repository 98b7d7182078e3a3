"""The token of one crossing: what it says, what it never says, and how a destination checks it."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import timedelta

import pytest
from bad_tokens import NOW
from hypothesis import given
from hypothesis import strategies as st

from evidence.errors import ConfigError, RecordError
from policy.identity.jwks import KeySet
from policy.identity.jws import SigningKey, open_token, public_set, unchecked
from policy.identity.workload import Crossing, Minter, check_presented, workload_id

KEY = SigningKey.generate()
KEYS = KeySet.parse(public_set(KEY), "jwks.json")
MINTER = Minter(KEY, trust_domain="example.org")
AUDIENCE = "https://api.example.com"
CROSSING = Crossing(
    call_id="0b1f5a52-0003",
    route="hosted-small",
    audience=AUDIENCE,
    tenant="acme",
    actor_ref="ada@example.org",
    waybill_hash="ab" * 32,
    site="paris-1",
    now=NOW,
)


def minted(**changes: object) -> str:
    """The token of a crossing."""
    return MINTER.mint(replace(CROSSING, **changes)).token.get_secret_value()


def test_token_has_the_shape_of_a_jwt_svid() -> None:
    """ES256 with a kid, a SPIFFE id as sub, exactly one audience, and minutes to live."""
    opened = open_token(minted(), KEYS)
    assert opened.header == {"alg": "ES256", "kid": KEY.kid, "typ": "JWT"}
    said = opened.claims
    assert said["sub"] == "spiffe://example.org/waybill/paris-1"
    assert said["aud"] == [AUDIENCE]
    assert said["exp"] - said["iat"] == 120
    assert (said["iat"], said["nbf"]) == (int(NOW.timestamp()),) * 2


def test_token_is_for_this_crossing_alone() -> None:
    """Its id is the intent's, its scope the route, and it names the waybill under which data crosses."""
    said = open_token(minted(), KEYS).claims
    assert (said["jti"], said["scope"], said["waybill"]) == ("0b1f5a52-0003", "hosted-small", "ab" * 32)


def test_delegation_shows_as_a_chain_of_actors() -> None:
    """The outer actor is dispatch, the one before it admission (RFC 8693, 4.1)."""
    act = open_token(minted(), KEYS).claims["act"]
    assert act == {
        "sub": "spiffe://example.org/waybill/paris-1/dispatch",
        "act": {"sub": "spiffe://example.org/waybill/paris-1/admission"},
    }


@given(st.text(min_size=4, max_size=60), st.text(min_size=4, max_size=60))
def test_neither_person_nor_tenant_is_named(actor: str, tenant: str) -> None:
    """Whatever they are called, the claims hold keyed hashes of a fixed size in their place."""
    # their names made long, so that they are not by chance a part of something else
    actor, tenant = f"who-{actor}-who", f"which-{tenant}-which"
    said = open_token(minted(actor_ref=actor, tenant=tenant), KEYS).claims
    assert {len(said["waybill_actor"]), len(said["waybill_tenant"])} == {32}
    text = json.dumps(said, ensure_ascii=False)
    assert actor not in text
    assert tenant not in text


def test_names_differ_by_audience_tenant_and_key() -> None:
    """One person has another name at each destination, in each tenant and under each key, and the same one twice."""

    def name(minter: Minter, **changes: str) -> object:
        return unchecked(minter.mint(replace(CROSSING, **changes)).token.get_secret_value()).claims["waybill_actor"]

    other = name(Minter(SigningKey.generate(), trust_domain="example.org"))
    names = [name(MINTER), name(MINTER, audience="x"), name(MINTER, tenant="x"), name(MINTER, actor_ref="x"), other]
    assert len(set(names)) == 5
    assert name(MINTER, call_id="another", route="another") == names[0]
    assert name(MINTER, tenant="ac", actor_ref="me-ada") != name(MINTER, tenant="acme", actor_ref="-ada")


def test_evidence_names_the_token_and_does_not_hold_it() -> None:
    """The reference has id, audience, scope and expiry; no text of it or of the minter holds a secret."""
    made = MINTER.mint(CROSSING)
    ref = made.ref
    assert (ref.method, ref.token_id, ref.audience, ref.scope) == ("minted", CROSSING.call_id, AUDIENCE, "hosted-small")
    assert ref.expires_at_utc == NOW + timedelta(seconds=120)
    told = ref.to_json().decode() + repr(made) + repr(MINTER) + repr(KEY)
    assert not any(part in told for part in made.token.get_secret_value().split("."))
    assert KEY.pem().decode().splitlines()[1] not in told


def test_token_for_an_exchange_names_no_person_and_no_waybill() -> None:
    """What is exchanged for a token of several crossings says nothing that is true of one of them alone."""
    token = MINTER.mint_for_exchange(replace(CROSSING, audience="https://sts.example.org/token"))
    said = open_token(token.token.get_secret_value(), KEYS).claims
    assert said["aud"] == ["https://sts.example.org/token"]
    assert not {"waybill", "waybill_actor"} & said.keys()


def test_destination_learns_what_it_needs() -> None:
    """A good token gives id, workload, audience, scope, chain and waybill."""
    shown = check_presented(minted(), KEYS, audience=AUDIENCE, now=NOW)
    assert (shown.jti, shown.scope, shown.aud) == (CROSSING.call_id, CROSSING.route, AUDIENCE)
    assert shown.act["act"] == {"sub": workload_id("example.org", "paris-1", "admission")}


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"aud": "https://other.example.com"}, "wrong_audience"),
        ({"aud": [AUDIENCE, "https://other.example.com"]}, "wrong_audience"),
        ({"aud": []}, "wrong_audience"),
        ({"aud": None}, "wrong_audience"),
        ({"sub": "ada"}, "bad_token"),
        ({"sub": "https://example.org/waybill"}, "bad_token"),
        ({"exp": None}, "bad_token"),
        ({"exp": True}, "bad_token"),
        ({"exp": int(NOW.timestamp()) - 31}, "expired_token"),
        ({"exp": int(NOW.timestamp()) + 700}, "bad_token"),
        ({"iat": int(NOW.timestamp()) + 31}, "early_token"),
        ({"jti": ""}, "bad_token"),
        ({"scope": "hosted-small hosted-large"}, "bad_token"),
        ({"waybill": 7}, "bad_token"),
    ],
)
def test_destination_refuses_what_is_not_for_it(changes: dict[str, object], code: str) -> None:
    """Another or a second audience, no SPIFFE id, no id, two scopes, or a wrong time gives its code."""
    said = {**open_token(minted(), KEYS).claims, **changes}
    token = KEY.sign({name: value for name, value in said.items() if value is not None})
    with pytest.raises(RecordError) as caught:
        check_presented(token, KEYS, audience=AUDIENCE, now=NOW)
    assert caught.value.code == code


def test_destination_refuses_a_strangers_key() -> None:
    """A token that somebody else signed is not taken."""
    theirs = Minter(SigningKey.generate(), trust_domain="example.org").mint(CROSSING).token.get_secret_value()
    with pytest.raises(RecordError, match="not in the key set"):
        check_presented(theirs, KEYS, audience=AUDIENCE, now=NOW)


@pytest.mark.parametrize("lifetime", [0, 4.9, 600.1, -1, float("nan")])
def test_lifetime_is_minutes(lifetime: float) -> None:
    """A lifetime below 5 s or above 10 minutes is refused."""
    with pytest.raises(ConfigError, match="lifetime"):
        Minter(KEY, trust_domain="example.org", lifetime_s=lifetime)


@pytest.mark.parametrize("domain", ["", "Example.org", "example.org/x", "spiffe://example.org", "a" * 256])
def test_trust_domain_is_a_name(domain: str) -> None:
    """What cannot be a SPIFFE trust domain is refused when the minter is made."""
    with pytest.raises(ConfigError, match="trust_domain"):
        Minter(KEY, trust_domain=domain)


@pytest.mark.parametrize("changes", [{"audience": ""}, {"route": ""}, {"call_id": ""}, {"site": "a/b"}])
def test_crossing_without_audience_route_call_or_site_gets_none(changes: dict[str, str]) -> None:
    """A token that would be for everybody, for everything, or from nowhere is not made."""
    with pytest.raises(ConfigError):
        MINTER.mint(replace(CROSSING, **changes))


def test_key_on_another_curve_is_refused() -> None:
    """Only P-256 keys sign; the error names the file and the way out."""
    from cryptography.hazmat.primitives import serialization  # noqa: PLC0415 - for this test alone
    from cryptography.hazmat.primitives.asymmetric import ec, ed25519  # noqa: PLC0415 - the same

    form = (serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    for private in (ec.generate_private_key(ec.SECP384R1()), ed25519.Ed25519PrivateKey.generate()):
        with pytest.raises(ConfigError, match=r"^signing\.pem: .*P-256"):
            SigningKey.parse(private.private_bytes(*form), "signing.pem")
    with pytest.raises(ConfigError, match="waybill identity keygen"):
        SigningKey.parse(b"-----BEGIN nothing", "signing.pem")
    assert SigningKey.parse(KEY.pem(), "x").kid == KEY.kid
