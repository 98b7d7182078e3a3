"""Who asks: tokens that hold, tokens that do not, and what is kept of either."""

from __future__ import annotations

import logging
import pickle
from datetime import timedelta

import pytest
from bad_tokens import AUDIENCE, CASES, ISSUER, KEY_CASES, NOW, BadKeys, BadToken, Issuer, claims
from hypothesis import given
from hypothesis import strategies as st

from evidence.errors import ConfigError, RecordError, UnavailableError
from policy.detection.detectors import Detectors
from policy.identity.jwks import KeySet
from policy.identity.jws import SigningKey, public_set
from policy.identity.verify import ClaimNames, Verifier, bearer, check_request, establish, unsigned

ISSUING = Issuer()


@pytest.fixture
def verifier() -> Verifier:
    """A verifier of the issuer's keys."""
    return ISSUING.verifier()


def test_good_token_gives_its_principal(verifier: Verifier) -> None:
    """What the token says of actor, tenant, roles, subject and expiry is what the principal says."""
    token = ISSUING.token(data_subject="bob", actor_kind="service", roles=["a", "b"])
    found = verifier.verify(token, NOW)
    assert (found.actor_id, found.actor_kind, found.tenant, found.subject) == ("ada", "service", "acme", "bob")
    assert found.roles == {"a", "b"}
    assert found.expires_at == NOW + timedelta(seconds=600)
    assert found.method == "jwt"


@pytest.mark.parametrize(
    ("alg", "kid"),
    [("ES256", ISSUING.key.kid), ("RS256", "rsa-1"), ("PS256", "rsa-2"), ("EdDSA", "ed-1")],
    ids=["ES256", "RS256", "PS256", "EdDSA"],
)
def test_each_algorithm_is_checked_with_its_own_key(verifier: Verifier, alg: str, kid: str) -> None:
    """A token of each of the four algorithms is taken, and no other key's signature passes for it."""
    header = ISSUING.header(alg=alg, kid=kid)
    assert verifier.verify(ISSUING.raw(header, claims(), alg), NOW).actor_id == "ada"
    forged = ISSUING.raw(header, claims(sub="eve"), "EdDSA" if alg != "EdDSA" else "ES256")
    with pytest.raises(RecordError):
        verifier.verify(forged, NOW)


def test_token_made_by_another_library_is_taken(verifier: Verifier) -> None:
    """PyJWT signs with the same keys, and both read each other's tokens."""
    jwt = pytest.importorskip("jwt")
    theirs = jwt.encode(claims(), ISSUING.key.pem().decode(), algorithm="ES256", headers={"kid": ISSUING.key.kid})
    assert verifier.verify(theirs, NOW).tenant == "acme"
    public = jwt.PyJWK(ISSUING.key.public_jwk()).key
    options = {"verify_exp": False, "verify_iat": False, "verify_nbf": False}
    assert jwt.decode(ISSUING.token(), public, ["ES256"], options=options, audience=AUDIENCE)["sub"] == "ada"


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_bad_token_is_refused_with_its_code(verifier: Verifier, case: BadToken) -> None:
    """Each bad token of the table gives its code, a text without any part of the token, and is not remembered."""
    token = case.make(ISSUING)
    with pytest.raises(RecordError) as caught:
        verifier.verify(token, NOW)
    assert caught.value.code == case.code
    assert all(part not in str(caught.value) for part in token.split(".") if len(part) > 3)
    assert len(verifier) == 0


def test_table_of_bad_tokens_is_a_table() -> None:
    """The tables hold at least twenty tokens and twenty key sets, each of its own name."""
    for cases in (CASES, KEY_CASES):
        assert len({case.name for case in cases}) == len(cases) >= 20


@pytest.mark.parametrize("case", KEY_CASES, ids=lambda case: case.name)
def test_bad_key_set_is_refused_where_it_is_wrong(case: BadKeys) -> None:
    """Each bad key set is one error that names file and place, and quotes no key."""
    text = case.make(ISSUING)
    with pytest.raises(ConfigError) as caught:
        KeySet.parse(text, "jwks.json")
    assert str(caught.value).startswith("jwks.json")
    assert case.says in str(caught.value)
    assert "\n" not in str(caught.value)


def test_single_key_needs_no_kid() -> None:
    """Where there is one key, a token without a kid is checked with it; with a wrong kid it is not."""
    key = SigningKey.generate()
    only = Issuer(key=key, rsa=ISSUING.rsa, ed=ISSUING.ed)
    one = Verifier(KeySet.parse(public_set(key), "x"), issuer=ISSUER, audience=AUDIENCE)
    assert one.verify(only.raw(only.header(kid=None), claims()), NOW).actor_id == "ada"
    with pytest.raises(RecordError, match="not in the key set"):
        one.verify(only.raw(only.header(kid="other"), claims()), NOW)
    assert one.unknown_keys == 1


def test_leeway_is_granted_once_and_no_longer(verifier: Verifier) -> None:
    """A token is taken until its expiry plus the leeway, remembered or not, and not a moment later."""
    token = ISSUING.token()
    ends = NOW + timedelta(seconds=630)
    for each in (verifier, ISSUING.verifier()):
        assert each.verify(token, ends - timedelta(milliseconds=1))
        with pytest.raises(RecordError) as caught:
            each.verify(token, ends)
        assert caught.value.code == "expired_token"
    assert ISSUING.verifier(leeway_s=0).verify(token, NOW)


def test_signature_is_checked_once_for_many_requests(verifier: Verifier) -> None:
    """A remembered token costs no second check, and gives the same principal."""
    token = ISSUING.token()
    first = verifier.verify(token, NOW)
    assert all(verifier.verify(token, NOW) is first for _ in range(100))
    assert verifier.checked == 1


def test_remembered_token_is_not_valid_before_its_time(verifier: Verifier) -> None:
    """A clock that goes back does not make a remembered token valid before it begins."""
    token = ISSUING.token(nbf=int(NOW.timestamp()))
    assert verifier.verify(token, NOW)
    with pytest.raises(RecordError) as caught:
        verifier.verify(token, NOW - timedelta(seconds=60))
    assert caught.value.code == "early_token"


def test_cache_is_bounded() -> None:
    """However many tokens come, no more than asked for are remembered, and the oldest goes first."""
    small = ISSUING.verifier(cache=3)
    tokens = [ISSUING.token(sub=f"user-{number}") for number in range(5)]
    for token in tokens:
        small.verify(token, NOW)
    assert len(small) == 3
    small.verify(tokens[-1], NOW)
    assert small.checked == 5
    small.verify(tokens[0], NOW)
    assert small.checked == 6


def test_key_that_is_withdrawn_ends_what_it_signed(verifier: Verifier) -> None:
    """With a new key set every remembered token is forgotten; with the same set none is."""
    token = ISSUING.token()
    verifier.verify(token, NOW)
    verifier.use(ISSUING.keys())
    assert len(verifier) == 1
    verifier.use(KeySet.parse(public_set(ISSUING.stranger), "x"))
    assert len(verifier) == 0
    with pytest.raises(RecordError) as caught:
        verifier.verify(token, NOW)
    assert caught.value.code == "unknown_key"


def test_keys_that_are_too_old_let_nobody_in() -> None:
    """After the moment until which keys are trusted, even a remembered token waits (a retryable error)."""
    old = ISSUING.verifier(fresh_until=NOW + timedelta(seconds=1))
    token = ISSUING.token()
    assert old.verify(token, NOW)
    with pytest.raises(UnavailableError):
        old.verify(token, NOW + timedelta(seconds=1))
    old.trust_until(NOW + timedelta(hours=1))
    assert old.verify(token, NOW + timedelta(seconds=1))


def test_claims_may_have_the_issuers_names() -> None:
    """Another issuer's names for tenant, kind, roles and subject are read where they are set."""
    names = ClaimNames(tenant="org_id", kind="typ", roles="groups", subject="patient")
    other = ISSUING.verifier(claims=names)
    found = other.verify(ISSUING.token(org_id="o-1", typ="service", groups=["g"], patient="p-1"), NOW)
    assert (found.tenant, found.actor_kind, found.roles, found.subject) == ("o-1", "service", {"g"}, "p-1")


@pytest.mark.parametrize(
    "wrong",
    [{"issuer": ""}, {"audience": ""}, {"leeway_s": -1}, {"leeway_s": 301}, {"cache": 0}, {"max_lifetime_s": 0}],
)
def test_settings_out_of_range_are_refused(wrong: dict[str, object]) -> None:
    """A verifier that would check less than it says cannot be made."""
    with pytest.raises(ConfigError):
        ISSUING.verifier(**wrong)


@pytest.mark.parametrize(
    ("headers", "code"),
    [
        ([], "no_identity"),
        ([("ce_id", b"1")], "no_identity"),
        ([("authorization", b"Basic YTpi")], "bad_token"),
        ([("authorization", b"")], "bad_token"),
        ([("authorization", None)], "bad_token"),
        ([("authorization", b"Bearer \xff")], "bad_token"),
        ([("authorization", b"Bearer " + b"a" * 65_537)], "bad_token"),
        ([("authorization", b"Bearer a.b.c"), ("Authorization", b"Bearer d.e.f")], "bad_token"),
    ],
)
def test_header_without_exactly_one_bearer_token_is_refused(headers: list[tuple[str, bytes]], code: str) -> None:
    """No header, two, another scheme, or what is no text gives its code."""
    with pytest.raises(RecordError) as caught:
        bearer(headers)
    assert caught.value.code == code


def test_header_gives_its_token() -> None:
    """The scheme and the name of the header are compared without regard to case."""
    assert bearer([("x", b"y"), ("Authorization", b"bearer a.b.c")]) == "a.b.c"


@pytest.mark.parametrize(
    ("said", "field"),
    [
        (("eve", "user", "acme"), "actor.id"),
        (("ada", "service", "acme"), "actor.kind"),
        (("ada", "user", "other"), "tenant.id"),
        (("ada", "user", "acme", "eve"), "subject"),
    ],
)
def test_request_that_says_another_than_the_token_is_refused(
    verifier: Verifier, said: tuple[str, ...], field: str
) -> None:
    """A request for another actor, kind, tenant or subject is `identity_mismatch`, and neither value is told."""
    principal = verifier.verify(ISSUING.token(data_subject="bob"), NOW)
    check_request(principal, "ada", "user", "acme")
    check_request(principal, "ada", "user", "acme", "bob")
    with pytest.raises(RecordError) as caught:
        check_request(principal, *said)
    assert caught.value.code == "identity_mismatch"
    assert field in str(caught.value)
    assert not any(name in str(caught.value) for name in ("eve", "ada", "acme", "bob"))


def test_unsigned_identity_says_so() -> None:
    """What a request merely says makes a principal without roles, token or expiry, whose method is `unsigned`."""
    found = unsigned("ada", "user", "acme")
    assert (found.method, found.roles, found.token_sha256_16, found.expires_at) == ("unsigned", frozenset(), "", None)
    check_request(found, "ada", "user", "acme")


def test_record_without_a_token_is_believed_only_where_nothing_is_checked(verifier: Verifier) -> None:
    """With a verifier a record needs a token that agrees with its request; without one its word is taken."""
    said = {"actor_id": "ada", "actor_kind": "user", "tenant": "acme", "subject": None, "now": NOW}
    headers = [("authorization", f"Bearer {ISSUING.token()}".encode())]
    assert establish(verifier, headers, **said).method == "jwt"
    assert establish(None, [], **said).method == "unsigned"
    for wrong, code in (([], "no_identity"), (headers, "identity_mismatch")):
        with pytest.raises(RecordError) as caught:
            establish(verifier, wrong, **{**said, "tenant": "other"})
        assert caught.value.code == code


def test_token_is_in_nothing_that_is_kept(verifier: Verifier, caplog: pytest.LogCaptureFixture) -> None:
    """Principal, verifier, their texts and pickles, and the log hold no part of the token."""
    token = ISSUING.token()
    with caplog.at_level(logging.DEBUG):
        principal = verifier.verify(token, NOW)
    kept = [repr(principal), str(verifier.__dict__), caplog.text, pickle.dumps(principal).decode("latin-1")]
    for part in token.split("."):
        assert not any(part in text for text in kept)


@given(st.binary(max_size=400), st.integers(0, 2))
def test_any_bytes_are_refused_with_a_code(data: bytes, place: int) -> None:
    """Whatever stands in one part of a token, the answer is a record error and never another exception."""
    parts = ISSUING_TOKEN.split(".")
    parts[place] = data.decode("latin-1")
    with pytest.raises(RecordError):
        VERIFIER.verify(".".join(parts), NOW)


ISSUING_TOKEN = ISSUING.token()
VERIFIER = ISSUING.verifier()


@pytest.mark.parametrize(
    "text",
    [
        "My token is {token}, why does it fail?",
        "curl -H 'Authorization: Bearer {token}' https://api.example.org/v1",
        '{{"headers": {{"authorization": "Bearer {opaque}"}}}}',
        "the provider's key is sk-proj-4fQx81LmZt07VbNcRyKe93WaUdHs and it stopped working",
        "OPENAI_API_KEY=sk-proj-4fQx81LmZt07VbNcRyKe93WaUdHs",
        "please use api_key: 9f8Zk2Lq7Xw4Tn6Rb1Vc",
    ],
)
def test_users_own_credential_in_a_message_is_found_as_a_secret(text: str) -> None:
    """Tokens, bearer headers and keys that a user writes into a message are findings of the category `secret`."""
    opaque = "mF9kB5f41JqMz0XbW7tYh2Rc"
    told = text.format(token=ISSUING.token(), opaque=opaque)
    found = Detectors().scan(told)
    assert any(finding.category == "secret" for finding in found)


def test_remembered_token_is_not_checked_again(verifier: Verifier) -> None:
    """The signature of a token that comes again is checked once."""
    tokens = [ISSUING.token(sub=f"user-{number}") for number in range(200)]
    for token in tokens * 2:
        verifier.verify(token, NOW)
    assert verifier.checked == 200
