"""Classification: the higher of declared and found, and the highest where nothing can be known."""

from __future__ import annotations

import pytest
from decisions import SCANNER, Broken
from hypothesis import given
from hypothesis import strategies as st

from policy.labels import DataClass
from streams.processors.classification import classify

CARD, MAIL = "4111 1111 1111 1111", "anna@example.org"


@pytest.mark.parametrize(
    ("declared", "text", "detected", "effective"),
    [
        ("public", "hello", None, "public"),
        ("restricted", "hello", None, "restricted"),
        ("public", MAIL, "confidential", "confidential"),
        ("restricted", MAIL, "confidential", "restricted"),
        ("internal", CARD, "restricted", "restricted"),
        ("public", f"{MAIL} {CARD} {MAIL}", "restricted", "restricted"),
    ],
)
def test_the_effective_class_is_the_higher_one(declared, text, detected, effective):
    """Detection raises a label and never lowers it."""
    found = classify(DataClass(declared), text, SCANNER)
    assert (found.declared, found.detected, found.effective) == (declared, detected, effective)


def test_findings_are_kinds_and_never_texts():
    """Findings are sorted kinds, each once."""
    found = classify(DataClass.PUBLIC, f"{MAIL} {CARD} {MAIL}", SCANNER)
    assert found.findings == ("card", "email")
    assert MAIL.encode() not in found.to_json()


@given(label=st.sampled_from(list(DataClass)))
def test_broken_detectors_close_the_way(label):
    """Where detectors fail, the data counts as the highest class, and evidence says that they failed."""
    found = classify(label, "anything", Broken())
    assert (found.effective, found.detector) == ("restricted", "failed")


@given(label=st.sampled_from(list(DataClass)), text=st.text(max_size=80))
def test_nothing_lowers_what_was_declared(label, text):
    """For any text the effective class is at least the declared one."""
    assert DataClass(classify(label, text, SCANNER).effective) >= label
