"""Classification: the higher of declared and found, and the highest where nothing can be known."""

from __future__ import annotations

from typing import Any

import pytest
from decisions import SCANNER, Broken
from hypothesis import given
from hypothesis import strategies as st
from requests_made import encoded, labels, request, source, with_context

from evidence.errors import RecordError
from policy.detection.detectors import Finding
from streams.processors.classification import NAMES_FAILED, Classified, classify
from streams.request import parse

CARD, MAIL = "4111 1111 1111 1111", "anna@example.org"
TOKEN = "ghp_" + "a1B2c3D4e5" * 3 + "f6G7h8"
LABELS = labels()
CLASSES = st.sampled_from(LABELS.classes)


def held(prompt: str = "hello", scanner: Any = SCANNER, names: Any = None, **changes: Any) -> Classified:
    """What a request is held to be."""
    return classify(parse(encoded(request("r1", prompt, **changes))), LABELS, scanner, names)


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
    found = held(text, classification=declared).classification
    assert (found.declared, found.detected, found.effective) == (declared, detected, effective)


def test_findings_are_kinds_and_never_texts():
    """Findings are sorted kinds, each once, with the categories and regulations that they bring."""
    found = held(f"{MAIL} {CARD} {MAIL}").classification
    assert found.findings == ("card", "email")
    assert (found.categories, found.regulations) == (("financial", "personal"), ("gdpr",))
    assert MAIL.encode() not in found.to_json()


def test_declared_categories_and_regulations_count_like_found_ones():
    """A category that a request declares raises its class and brings its regulations; a declared regulation stays."""
    found = held(dataCategories=["health"], dataRegulations=["home"]).classification
    assert (found.effective, found.detected) == ("restricted", None)
    assert (found.categories, found.regulations) == (("health",), ("gdpr", "home"))


def test_each_source_is_held_for_itself():
    """A source has its own class, need and findings; the whole is the join of all of them."""
    found = held(
        input=with_context(
            "hello",
            source("doc-1", f"Write to {MAIL} now", "useful"),
            source("doc-2", "nothing", "background", "confidential"),
            source("doc-3", f"Charge {CARD}."),
        )
    )
    assert [item.need for item in found.items] == ["useful", "background", "required"]
    assert [sorted(item.held.kinds) for item in found.items] == [["email"], [], ["card"]]
    assert [item.held.declared.cls for item in found.items] == ["public", "confidential", "public"]
    assert (found.held.declared.cls, found.held.kinds) == ("public", frozenset())
    assert found.classification.effective == "restricted"
    assert [len(part) for part in found.findings] == [0, 0, 1, 0, 0, 0, 1]


def test_a_source_id_is_looked_at_with_its_text():
    """The name of a source crosses with it, and so the detectors see it as part of that source."""
    found = held(input=with_context("one", source(f"mail/{MAIL}", "two")))
    assert found.items[0].held.kinds == {"email"}
    assert found.classification.effective == "confidential"


@pytest.mark.parametrize(
    "changes",
    [
        {"actor": {"id": TOKEN}},
        {"tenant": {"id": TOKEN}},
        {"session": TOKEN},
        {"correlationId": TOKEN},
        {"idempotencyKey": TOKEN},
        {"consent": {"basis": "contract", "reference": TOKEN}},
        {"consent": {"basis": "consent", "subject": TOKEN}},
        {"purpose": TOKEN},
        {"taskType": TOKEN},
        {"modelPolicy": {"regions": ["eu", TOKEN]}},
    ],
)
def test_a_credential_in_a_word_that_evidence_repeats_is_refused(changes):
    """Every word of the sender's that evidence would repeat is looked at, and the refusal repeats none of it."""
    with pytest.raises(RecordError) as caught:
        held(**changes)
    assert caught.value.code == "credential_in_id"
    assert TOKEN[:12] not in str(caught.value)


@given(label=CLASSES)
def test_broken_detectors_close_the_way(label):
    """Where detectors fail, all data counts as the highest class, and evidence says that they failed."""
    found = held("anything", Broken(), classification=label, input=with_context("x", source("d", "y")))
    assert (found.classification.effective, found.classification.detector) == ("restricted", "failed")
    assert {item.held.declared.cls for item in found.items} | {found.held.declared.cls} == {"restricted"}
    assert set(found.classification.categories) == {"personal", "financial", "secret"}


def test_names_join_what_letters_told():
    """What the detector of names found counts beside the rest, each part for itself."""
    names = [(Finding("person", 0, 4),), (), (Finding("place", 3, 6),)]
    found = held(input=with_context(f"Anna {MAIL}", source("doc", "in Ulm")), names=names)
    assert found.held.kinds == {"person", "email"}
    assert found.items[0].held.kinds == {"place"}
    assert found.classification.findings == ("email", "person", "place")
    assert [[finding.kind for finding in part] for part in found.findings] == [["person", "email"], [], ["place"]]


def test_a_detector_of_names_that_is_down_closes_the_way():
    """Where names could not be looked for, the data counts as the highest class, and evidence says which detector."""
    found = held(names=NAMES_FAILED).classification
    assert (found.effective, found.detector) == ("restricted", "names_failed")


@given(label=CLASSES, text=st.text(min_size=1, max_size=80))
def test_nothing_lowers_what_was_declared(label, text):
    """For any text the effective class is at least the declared one."""
    found = held(text, classification=label).classification
    assert LABELS.rank(found.effective) >= LABELS.rank(label)
