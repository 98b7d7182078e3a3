"""Consent without a broker: keys, entries, what counts, and when the register refuses to say."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from evidence.errors import RecordError
from streams.consent import NONE, UNKNOWN, ConsentEntry, ConsentRegister, ConsentTable, Scope
from streams.kafka import KafkaSettings
from streams.topics import APPROVALS, CONSENT

NOON = datetime(2026, 11, 24, 12, tzinfo=UTC)
PARTS = st.text(min_size=1, max_size=20).filter(lambda text: not any("\ud800" <= letter <= "\udfff" for letter in text))


def entry(**changes):
    """Give a grant of acme's subject s1 for support."""
    given_ = {"tenant": "acme", "subject": "s1", "purpose": "support", "state": "granted"}
    return ConsentEntry(**{**given_, "recorded_at_utc": NOON, "recorded_by": "human:ann", **changes})


def table(*entries):
    """Give a table that has taken these entries, at offsets from 0 on."""
    made = ConsentTable()
    for offset, each in enumerate(entries):
        assert made.take(each.scope.key.encode(), each.to_json(), 2, offset)
    return made


@given(PARTS, PARTS, PARTS)
def test_a_key_says_exactly_its_scope(tenant, subject, purpose):
    """Whatever stands in the parts, a key is read back as they were, so that no two scopes share one."""
    scope = Scope(tenant, subject, purpose)
    assert scope.key.isascii()
    assert Scope.of_key(scope.key.encode()) == scope


@pytest.mark.parametrize(
    "key", [None, b"", b"a/b", b"a/b/c/d", b"a//c", b"a/b%2fc/d", b"a/\xff/c", b"a/b c/d", b"a/%zz/c"]
)
def test_a_key_that_we_would_not_write_is_none(key):
    """Keys of another form, and second spellings of the same scope, are refused."""
    with pytest.raises(RecordError, match="tenant/subject/purpose"):
        Scope.of_key(key)


def test_the_last_word_counts():
    """A grant, its withdrawal and a new grant: each stands until the next, with its own revision."""
    grant, withdrawal = entry(), entry(state="withdrawn")
    told = [
        table(*part).state("acme", "s1", "support", NOON)
        for part in ([], [grant], [grant, withdrawal], [grant, withdrawal, grant])
    ]
    assert told == [NONE, ("granted", "2:0"), ("withdrawn", "2:1"), ("granted", "2:2")]


@pytest.mark.parametrize("other", [("globex", "s1", "support"), ("acme", "s2", "support"), ("acme", "s1", "training")])
def test_consent_is_for_one_scope(other):
    """Another tenant, subject or purpose has no part in a grant."""
    assert table(entry()).state(*other, NOON) == NONE


def test_a_withdrawal_of_everything_stands_above_any_grant():
    """With `*` withdrawn no purpose of the subject is granted, whether its grant came before or after."""
    made = table(entry(), entry(purpose="*", state="withdrawn"), entry(purpose="training"))
    assert {made.state("acme", "s1", purpose, NOON) for purpose in ("support", "training", "new")} == {
        ("withdrawn", "2:1")
    }
    assert made.state("acme", "s2", "support", NOON) == NONE


def test_a_grant_ends_at_its_moment():
    """Up to its expiry a grant holds; from that moment on nobody has said anything."""
    made = table(entry(expires_at_utc=NOON))
    assert made.state("acme", "s1", "support", NOON - timedelta(microseconds=1)).state == "granted"
    assert made.state("acme", "s1", "support", NOON) == ("none", "2:0")


def test_a_tombstone_forgets():
    """After a tombstone nothing is held of the scope."""
    made = table(entry(), entry(subject="s2"))
    assert made.take(b"acme/s1/support", None, 2, 9)
    assert made.state("acme", "s1", "support", NOON) == NONE
    assert set(made.held) == {("acme", "s2", "support")}


@pytest.mark.parametrize(
    "value",
    [b"", b"{", b"[]", entry(tenant="globex").to_json(), b'{"state": "granted"}', entry().to_json()[:-1] + b',"x":1}'],
)
def test_a_broken_record_makes_its_scope_unknown(value):
    """A record that cannot be read, or is of another scope than its key, fails closed until a good one follows."""
    made = table(entry())
    assert not made.take(b"acme/s1/support", value, 2, 7)
    assert made.state("acme", "s1", "support", NOON) == ("unknown", "2:7")
    assert made.bad == 1
    made.take(b"acme/s1/support", entry().to_json(), 2, 8)
    assert made.state("acme", "s1", "support", NOON) == ("granted", "2:8")


def test_a_broken_withdrawal_of_everything_makes_everything_unknown():
    """A record under `*` that cannot be read may have been a withdrawal."""
    made = table(entry())
    made.take(b"acme/s1/*", b"{", 2, 7)
    assert made.state("acme", "s1", "support", NOON).state == "unknown"


def test_a_record_that_names_nobody_is_counted_and_changes_nothing():
    """A key that is none of ours is a bad record and no more."""
    made = table(entry())
    assert not made.take(b"junk", entry(state="withdrawn").to_json(), 2, 7)
    assert (made.bad, made.state("acme", "s1", "support", NOON)) == (1, ("granted", "2:0"))


@pytest.mark.parametrize("changes", [
    {"purpose": "*"}, {"state": "withdrawn", "expires_at_utc": NOON}, {"subject": ""}, {"state": "maybe"},
    {"expires_at_utc": NOON.replace(tzinfo=None)}, {"recorded_by": "x" * 257},
])  # fmt: skip
def test_an_entry_that_makes_no_sense_is_refused(changes):
    """A grant of everything, a withdrawal that expires, empty names and naive times are errors."""
    with pytest.raises(ValidationError):
        entry(**changes)


class Steady:
    """Clocks that a test sets."""

    def __init__(self):
        self.seconds, self.wall = 100.0, NOON

    def register(self):
        """Give a register that has just proved that it is up to date."""
        made = ConsentRegister(KafkaSettings("nowhere:1"), clock=lambda: self.wall, monotonic=lambda: self.seconds)
        made._table = table(entry())
        made._trust(self.seconds)
        return made


def test_a_register_that_has_read_nothing_says_unknown():
    """Before it has caught up, nothing is granted and nothing is merely absent."""
    register = ConsentRegister(KafkaSettings("nowhere:1"), clock=lambda: NOON)
    assert register.state("acme", "s1", "support", NOON) is UNKNOWN
    assert not register.fresh


def test_a_register_that_hears_nothing_says_unknown():
    """After ten seconds without a proof the answer is unknown, whichever of the two clocks shows it."""
    clocks = Steady()
    register = clocks.register()
    assert register.state("acme", "s1", "support", NOON).state == "granted"
    assert register.state("acme", "s1", "support", NOON + timedelta(seconds=11)) is UNKNOWN
    clocks.seconds += 9.9
    assert register.state("acme", "s1", "support", NOON).state == "granted"
    clocks.seconds += 0.2
    assert register.state("acme", "s1", "support", NOON) is UNKNOWN
    register._trust(clocks.seconds)
    assert register.state("acme", "s1", "support", NOON).state == "granted"


async def test_who_depends_on_it_can_wait():
    """`caught_up` returns once there is a proof that is still good, and not on an old one."""
    clocks = Steady()
    register = clocks.register()
    await asyncio.wait_for(register.caught_up(), 1)
    clocks.seconds += 60
    waiting = asyncio.create_task(register.caught_up())
    await asyncio.sleep(0.05)
    assert not waiting.done()
    register._trust(clocks.seconds)
    await asyncio.wait_for(waiting, 1)


def test_consent_is_kept_for_ever_on_every_broker():
    """The topic is compacted and nothing on it grows old, also where a broker keeps other topics for an hour."""
    settings = CONSENT.settings(retention_ms=3_600_000)
    assert (settings["cleanup.policy"], settings["retention.ms"]) == ("compact", "-1")
    assert CONSENT.kept == "for ever, compacted"
    assert APPROVALS.settings(retention_ms=3_600_000)["cleanup.policy"] == "delete"


async def test_a_closed_register_says_unknown():
    """What is no longer followed is not answered from memory."""
    register = Steady().register()
    await register.close()
    assert register.state("acme", "s1", "support", NOON) is UNKNOWN
