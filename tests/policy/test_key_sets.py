"""Key sets as issuers publish them: what is of no use here is passed over, key by key (RFC 7517 section 5)."""

from __future__ import annotations

import json
from typing import Any

import pytest
from bad_tokens import AUDIENCE, ISSUER, NOW, claims
from foreign_keys import ACCEPTED, FOREIGN, ISSUERS, ISSUING, OTHER, Published
from hypothesis import given
from hypothesis import strategies as st

from evidence.errors import ConfigError, RecordError
from policy.identity.jwks import KeySet
from policy.identity.verify import Verifier

WANTED = ISSUING.rsa_jwk(kid="wanted")


def verifier(*keys: Any) -> Verifier:
    """A verifier of the set of these keys."""
    return Verifier(KeySet.parse(json.dumps({"keys": keys}), "jwks.json"), issuer=ISSUER, audience=AUDIENCE)


def token(kid: str | None = "wanted", alg: str = "RS256", **changes: Any) -> str:
    """A token of the wanted key."""
    return ISSUING.raw(ISSUING.header(kid=kid, alg=alg), claims(**changes), alg)


@pytest.mark.parametrize("name", FOREIGN)
@pytest.mark.parametrize("first", [True, False], ids=["before", "after"])
def test_foreign_key_leaves_the_others_as_they_are(name: str, *, first: bool) -> None:
    """Whatever stands before or after it, a good key checks its tokens, and nothing else passes for one."""
    keys = (FOREIGN[name], WANTED) if first else (WANTED, FOREIGN[name])
    found = verifier(*keys)
    assert found.verify(token(), NOW).actor_id == "ada"
    forged = OTHER.raw(OTHER.header(kid="wanted", alg="RS256"), claims(sub="eve"), "RS256")
    with pytest.raises(RecordError, match="signature does not hold"):
        found.verify(forged, NOW)


@pytest.mark.parametrize("name", ACCEPTED)
def test_member_that_says_nothing_here_leaves_a_key_as_it_is(name: str) -> None:
    """Members that are null or empty count as left out, and unknown ones as not there."""
    found = verifier({**WANTED, **ACCEPTED[name]})
    assert found.verify(token(), NOW).actor_id == "ada"


@pytest.mark.parametrize("published", ISSUERS, ids=lambda one: one.name)
def test_key_set_of_a_known_issuer_is_read(published: Published) -> None:
    """A token signed as the issuer signs it is taken by the set in the form in which that issuer publishes it."""
    found = verifier(*published.keys())
    assert found.verify(token(published.kid), NOW).actor_id == "ada"


def test_keys_that_are_passed_over_are_named_without_what_they_hold() -> None:
    """The set says of each key that it passes over where it stands and why, and repeats nothing of a private one."""
    leaked = {**FOREIGN["a private key"]}
    found = KeySet.parse(json.dumps({"keys": [FOREIGN["RS512"], WANTED, leaked, FOREIGN["P-384"]]}), "x")
    assert [key.kid for key in found.keys] == ["wanted"]
    assert found.ignored == (
        "keys[0]: alg: a key of this type is used with RS256 or PS256 here",
        "keys[2]: d: a private key: publish its public part only, and replace the key",
        "keys[3]: its type or curve is not used here",
    )


def test_set_without_a_usable_key_is_refused_with_every_reason() -> None:
    """Where nothing is left, the error names file, line and the first reasons, and counts the rest."""
    with pytest.raises(ConfigError) as caught:
        KeySet.parse(json.dumps({"keys": [FOREIGN["P-384"]] * 10}), "jwks.json")
    assert str(caught.value).startswith("jwks.json:1: no key of this JWKS can check a token (keys[0]: its type")
    assert str(caught.value).endswith("and 2 more)")


def test_member_twice_in_one_key_spoils_that_key_alone() -> None:
    """A key in which a member stands twice is passed over; a set in which `keys` stands twice is refused."""
    twice = json.dumps(WANTED)[:-1] + ', "kid": "other"}'
    text = f'{{"keys": [{twice}, {json.dumps(WANTED)}]}}'
    found = KeySet.parse(text, "x")
    assert found.ignored == ("keys[0]: a member is given twice",)
    assert len(found.keys) == 1


def test_key_is_found_by_name_and_algorithm() -> None:
    """Two keys of one name and of two types each check their own tokens, and neither the other's algorithm."""
    ec = {**ISSUING.key.public_jwk(), "kid": "wanted"}
    found = verifier(ec, WANTED)
    assert found.verify(token(), NOW)
    assert found.verify(token(alg="ES256"), NOW)
    for alg in ("PS256", "EdDSA", "HS256", "none"):
        with pytest.raises(RecordError) as caught:
            found.verify(token(alg=alg), NOW)
        assert caught.value.code == "bad_token"


def test_token_without_a_name_is_checked_with_the_one_key_that_has_none() -> None:
    """Among several keys, a nameless token fits the one nameless key of its algorithm, and no other."""
    nameless = {name: value for name, value in WANTED.items() if name != "kid"}
    ec = {name: value for name, value in ISSUING.key.public_jwk().items() if name != "kid"}
    assert verifier(nameless, ec, FOREIGN["P-384"]).verify(token(kid=None), NOW)
    for keys in ((WANTED, ISSUING.key.public_jwk()), (nameless, {**nameless, "n": OTHER.rsa_jwk()["n"]})):
        with pytest.raises(RecordError) as caught:
            verifier(*keys).verify(token(kid=None), NOW)
        assert caught.value.code == "unknown_key"


def test_byte_order_mark_before_a_key_set_is_skipped() -> None:
    """A set with a byte order mark is the same set, of the same revision."""
    text = json.dumps({"keys": [WANTED]})
    assert KeySet.parse("\ufeff" + text, "x") == KeySet.parse(text, "x")


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)
MEMBERS = st.sampled_from(["kty", "crv", "alg", "use", "kid", "key_ops", "n", "e", "x", "y", "d", "oth", "x5c"])
VALUES = JSON | st.sampled_from(
    ["RSA", "EC", "OKP", "P-256", "Ed25519", "RS256", "ES256", "sig", "enc", "AQAB", "wanted"]
)


@given(keys=st.lists(JSON | st.dictionaries(MEMBERS, VALUES, max_size=8), max_size=4), place=st.integers(0, 4))
def test_no_key_at_all_spoils_the_set(keys: list[Any], place: int) -> None:
    """Whatever JSON stands among the keys, the good one goes on checking its tokens."""
    beside = [*keys[:place], WANTED, *keys[place:]]
    assert verifier(*beside).verify(token(), NOW).actor_id == "ada"


@pytest.mark.parametrize(
    ("changes", "roles"),
    [
        ({"roles": None}, set()),
        ({"roles": "admin"}, {"admin"}),
        ({"roles": [f"{number:08d}-0000-4000-8000-000000000000" for number in range(200)]}, 200),
        ({"actor_kind": None}, {"analyst"}),
        ({"nbf": None, "iat": None, "data_subject": None}, {"analyst"}),
        ({"groups": ["g" * 40] * 1000}, {"analyst"}),
    ],
    ids=["roles null", "one role as a text", "200 roles", "kind null", "moments and subject null", "a token of 60 kB"],
)
def test_claim_that_is_null_or_large_is_read(changes: dict[str, Any], roles: set[str] | int) -> None:
    """A claim that is null counts as left out, one role may be a text, and lists of groups fit a token."""
    body = {**claims(), **changes}
    found = verifier(WANTED).verify(ISSUING.raw(ISSUING.header(kid="wanted", alg="RS256"), body, "RS256"), NOW)
    assert (found.actor_kind, found.subject) == ("user", None)
    assert len(found.roles) == roles if isinstance(roles, int) else found.roles == roles


@pytest.mark.parametrize("form", ["{}", "{}.0", "{}.5", "{}.999999999", "{}e0", "{}0E-1"])
def test_moment_need_not_be_whole(form: str) -> None:
    """RFC 7519 lets a moment be any JSON number: each spelling of one that is to come is taken."""
    body = json.dumps(claims(exp=0)).replace('"exp": 0', '"exp": ' + form.format(int(NOW.timestamp()) + 600))
    found = verifier(WANTED).verify(ISSUING.raw(ISSUING.header(kid="wanted", alg="RS256"), body, "RS256"), NOW)
    assert found.expires_at is not None
    assert 600 <= (found.expires_at - NOW).total_seconds() <= 601
