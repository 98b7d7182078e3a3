"""Retention rules: what a file may say, which rule counts, and what has to go when."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from bad_retention import CASES
from hypothesis import given
from hypothesis import strategies as st

from evidence.errors import ConfigError
from policy.files import Document
from policy.retention import (
    AnswerRule,
    Group,
    Kept,
    RetentionRules,
    bounds,
    destroyable,
    expired,
    join_answer_rules,
    load,
    parse,
)
from policy.vault.keys import TRANSIT, Bucket, KeyId, KeyInfo

CLASSES = ("public", "internal", "confidential", "restricted")
CATEGORIES = frozenset({"personal", "financial", "secret"})
PURPOSES = ("support", "research")
SAMPLE = Path(__file__).resolve().parents[2] / "config" / "policy" / "retention.yaml"
NOW = datetime(2026, 11, 24, 12, tzinfo=UTC)
SEVERITY = {"mask": 0, "drop": 1, "refuse": 2}

RULES = """
version: 1
rules:
  - {classes: [restricted], purposes: ["*"], payload: none, pseudonym_days: 7}
  - {classes: [confidential], purposes: [support], payload: keep, min_days: 5, max_days: 20, pseudonym_days: 7}
  - {classes: ["*"], purposes: [support], payload: keep, min_days: 10, max_days: 40, pseudonym_days: 30}
  - {classes: ["*"], purposes: ["*"], payload: none, pseudonym_days: 0}
"""

answer_rules = st.builds(
    AnswerRule,
    forbid=st.lists(st.sampled_from(sorted(CATEGORIES)), unique=True).map(tuple),
    action=st.sampled_from(list(SEVERITY)),
)


def read(text: str, purposes: tuple[str, ...] | None = None) -> RetentionRules:
    """Read rules from a text."""
    return parse(Document(text, "retention.yaml"), classes=CLASSES, categories=CATEGORIES, purposes=purposes)


@pytest.mark.parametrize(("text", "said"), [case[1:] for case in CASES], ids=[case[0] for case in CASES])
def test_a_bad_file_is_one_clear_error_with_its_line(text, said):
    """What is wrong with a file is told with file, line and field, before anything is done under it."""
    with pytest.raises(ConfigError) as error:
        read(text, PURPOSES)
    assert f"retention.yaml{said}" in str(error.value)


def test_there_are_enough_bad_files():
    """Every bad file of the table has a name of its own."""
    assert len({name for name, _, _ in CASES}) == len(CASES) >= 10


def test_the_sample_file_is_right():
    """The file that a deployment copies loads, and keeps no prompts or answers of confidential data."""
    rules = load(SAMPLE, classes=CLASSES, categories=CATEGORIES, purposes=None)
    assert rules.rule_for("internal", "customer-support").payload == "keep"
    for name in ("confidential", "restricted"):
        assert rules.bucket_for(name, "customer-support", "request") is None
        assert rules.bucket_for(name, "customer-support", "response") is None
    assert rules.transit == TRANSIT


@pytest.mark.parametrize(
    ("data_class", "purpose", "kind", "bucket"),
    [
        ("internal", "support", "request", Bucket("keep", 10, 40, "month")),
        ("internal", "support", "pseudonyms", Bucket("keep", 0, 30, "month")),
        ("confidential", "support", "response", Bucket("keep", 5, 20, "month")),
        ("restricted", "support", "response", None),
        ("restricted", "anything", "pseudonyms", Bucket("keep", 0, 7, "month")),
        ("internal", "anything", "pseudonyms", None),
    ],
)
def test_the_first_rule_that_matches_counts(data_class, purpose, kind, bucket):
    """Class and purpose choose the rule in the order of the file, and the kind of object chooses the term."""
    text = RULES.replace("pseudonym_days: 7}\n  - {classes: [conf", "pseudonym_days: 0}\n  - {classes: [conf")
    rules = read(text if (data_class, purpose) != ("restricted", "anything") else RULES.replace("days: 0}", "days: 7}"))
    assert rules.bucket_for(data_class, purpose, kind) == bucket


def test_bounds_count_from_the_moment_of_sealing():
    """Minimum and maximum are days from the moment at which the object was sealed."""
    assert bounds(Bucket("keep", 10, 40), NOW) == (NOW + timedelta(days=10), NOW + timedelta(days=40))


# Rules on answers


@given(answer_rules, answer_rules)
def test_joined_answer_rules_are_never_laxer_than_either(a, b):
    """What either forbids stays forbidden, and no action is milder than that of a rule that forbids something."""
    joined = join_answer_rules(a, b)
    assert set(joined.forbid) == set(a.forbid) | set(b.forbid)
    for rule in (a, b):
        assert not rule.forbid or SEVERITY[joined.action] >= SEVERITY[rule.action]


@given(answer_rules, answer_rules, answer_rules)
def test_the_order_of_joining_does_not_matter(a, b, c):
    """Joining is commutative, associative and idempotent, and a rule that forbids nothing changes nothing."""
    assert join_answer_rules(a, b) == join_answer_rules(b, a)
    assert join_answer_rules(join_answer_rules(a, b), c) == join_answer_rules(a, join_answer_rules(b, c))
    joined = join_answer_rules(a, b)
    assert join_answer_rules(joined, joined) == joined
    assert join_answer_rules(joined, AnswerRule(action="refuse")) == joined


# What has to go

instants = st.integers(-100, 100).map(lambda days: NOW + timedelta(days=days))


@given(instants, st.integers(0, 50), st.integers(0, 50), st.booleans())
def test_nothing_expires_before_its_minimum_or_under_a_hold(created, low, more, held):
    """An object has to go exactly when its maximum is reached and nobody holds it; so never before its minimum."""
    item = Kept(
        kind="request",
        intake_id="i",
        request_id="r",
        tenant="t",
        subject=None,
        data_class="internal",
        purpose="support",
        created=created,
        keep_until_min=created + timedelta(days=low),
        keep_until_max=created + timedelta(days=low + more),
        legal_hold=held,
    )
    assert expired(item, NOW) == (not held and item.keep_until_max <= NOW)
    assert not (expired(item, NOW) and item.keep_until_min > NOW)


@given(st.lists(st.tuples(st.integers(0, 60), st.integers(-30, 30), st.booleans()), max_size=8))
def test_a_key_goes_only_with_everything_under_it(objects):
    """A key is destroyable exactly when its own term is over and no object under it is younger or held."""
    keys = [
        KeyInfo(KeyId.of("acme", Bucket("keep", 0, 30, "day"), NOW - timedelta(days=age)), "acme") for age in range(61)
    ]
    groups = []
    for age, left, held in objects:
        key, end = keys[age].key, NOW + timedelta(days=left)
        groups.append(Group(key, "acme", "internal", "support", "request", 1, int(held), NOW, end, end, 0))
    gone = set(destroyable(keys, groups, NOW))
    for info in keys:
        under = [group for group in groups if group.key == info.key]
        free = all(group.held == 0 and group.last_expiry <= NOW for group in under)
        assert (info in gone) == (free and info.key.due <= NOW)


def test_a_key_without_objects_goes_when_its_term_is_over():
    """A key that only sealed work records is destroyed its days after the end of its period, and not before."""
    info = KeyInfo(KeyId.of("acme", TRANSIT, NOW), "acme")
    due = datetime(2026, 12, 2, tzinfo=UTC)
    assert destroyable([info], [], due - timedelta(microseconds=1)) == ()
    assert destroyable([info], [], due) == (info,)
