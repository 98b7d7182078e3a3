"""Retention: what is forbidden never gets past the filter, whatever the action."""

from __future__ import annotations

import pytest
from decisions import SCANNER, Broken
from hypothesis import given
from hypothesis import strategies as st

from inference.routes import AnswerConfig
from streams.processors.retention import keep

MAIL, IBAN = "anna@example.org", "DE89 3704 0044 0532 0130 00"
TEXT = f"Write to {MAIL} about {IBAN}."
TOKEN = "ghp_" + "a1B2c3D4e5" * 3 + "f6G7h8"


@pytest.mark.parametrize(
    ("forbid", "action", "text", "removed", "withheld"),
    [
        ((), "mask", TEXT, (), False),
        (("secret",), "refuse", TEXT, (), False),
        (("personal",), "mask", f"Write to [EMAIL] about {IBAN}.", ("email",), False),
        (("financial",), "drop", f"Write to {MAIL} about .", ("iban",), False),
        (("personal", "financial"), "mask", "Write to [EMAIL] about [IBAN].", ("email", "iban"), False),
        (("personal",), "refuse", "", ("email",), True),
    ],
)
def test_the_table_of_rules(forbid, action, text, removed, withheld):
    """A rule takes out what it forbids, leaves the rest, and names the kinds that it took."""
    kept = keep(TEXT, AnswerConfig(forbid=forbid, action=action), SCANNER.scan_closed(TEXT))
    assert (kept.text, kept.retained.removed, kept.withheld) == (text, removed, withheld)
    assert kept.retained.action == (action if removed else "keep")


def test_a_credential_is_taken_out_whatever_the_rule_says():
    """A rule that forbids nothing leaves personal data and still masks a credential."""
    text = f"{MAIL} uses {TOKEN}."
    kept = keep(text, AnswerConfig(), SCANNER.scan_closed(text))
    assert (kept.text, kept.retained.removed) == (f"{MAIL} uses [GITHUB].", ("github_token",))


@pytest.mark.parametrize("rule", [AnswerConfig(forbid=("secret",)), AnswerConfig()])
def test_an_answer_that_cannot_be_looked_at_is_withheld(rule):
    """Where detectors fail nothing is kept, whatever the rule: a credential may be in it."""
    kept = keep(TEXT, rule, Broken().scan_closed(TEXT))
    assert (kept.text, kept.withheld, kept.retained.removed) == ("", True, ("detector_failed",))


@given(
    before=st.text(st.characters(categories=["Ll", "Zs", "Po"]), max_size=30),
    after=st.text(max_size=30),
    action=st.sampled_from(["mask", "drop", "refuse"]),
    forbid=st.sampled_from([(), ("personal", "financial", "secret")]),
)
def test_a_planted_secret_never_gets_through(before, after, action, forbid):
    """Wherever a token stands in an answer, and whatever the rule forbids, what is kept does not hold it."""
    text = f"{before} {TOKEN} {after}"
    kept = keep(text, AnswerConfig(forbid=forbid, action=action), SCANNER.scan_closed(text))
    assert TOKEN not in kept.text
