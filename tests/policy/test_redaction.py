# ruff: noqa: RUF001 - look-alike characters are what these texts are about
"""Redaction: nothing that was found survives, and nothing else changes."""

from __future__ import annotations

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from labelled_texts import CLEAN, HOLDING

from policy.detection.detectors import Detectors, Finding
from policy.detection.kinds import KINDS
from policy.redaction import Filtered, drop, filter_text, mask

DETECTORS = Detectors()
PLACEHOLDER = re.compile(r"\[[A-Z_]+(?:_\d+)?\]")
TEXTS = st.lists(
    st.one_of(
        st.sampled_from([labelled.text for labelled in HOLDING + CLEAN]),
        st.sampled_from([labelled.value for labelled in HOLDING]),
        st.sampled_from(
            [
                "password: ",
                "tel ",
                "[EMAIL]",
                "token=",
                "@",
                "\n",
                " ",
                "",
                "12 34 56",
                "é漢",
                "[",
                "]",
                ":",
                "my number ",
            ]
        ),
        st.text(max_size=6),
        st.from_regex(r"[0-9 .()+/-]{1,30}", fullmatch=True),
    ),
    max_size=7,
).map("".join)


@given(TEXTS)
@settings(max_examples=max(400, settings().max_examples), deadline=None)
def test_a_masked_text_holds_nothing_more(text):
    """Scanning masked text finds nothing new, in either style, so that masking twice changes nothing."""
    findings = DETECTORS.scan(text)
    for style in ("typed", "numbered"):
        masked = mask(text, findings, style=style)
        assert DETECTORS.scan(masked) == ()


@given(TEXTS)
@settings(max_examples=max(200, settings().max_examples), deadline=None)
def test_what_is_not_found_stays_as_it_is(text):
    """Between the placeholders stands the original, character for character."""
    findings = DETECTORS.scan(text)
    masked = mask(text, findings)
    position = at = 0
    for finding in findings:
        kept = text[at : finding.start]
        assert masked[position : position + len(kept)] == kept
        position += len(kept) + len(KINDS[finding.kind].placeholder) + 2
        at = finding.end
    assert masked[position:] == text[at:]


@pytest.mark.parametrize("labelled", HOLDING, ids=lambda labelled: labelled.kind)
def test_no_found_value_survives(labelled):
    """A value that was found is nowhere in the masked, dropped or refused text."""
    findings = DETECTORS.scan(labelled.text)
    values = [labelled.text[finding.start : finding.end] for finding in findings]
    for action in ("mask", "drop", "refuse"):
        filtered = filter_text(labelled.text, findings, action)
        assert all(value not in filtered.text for value in values if len(value) >= 4)
        assert sum(count for _, count in filtered.removed) == len(findings)
        assert labelled.value not in str(filtered.removed)


def test_placeholders_say_what_was_there():
    """Typed placeholders name the kind; numbered ones tell equal values from different ones."""
    text = "a@example.com wrote to b@example.com, then a@example.com paid with 4242424242424242"
    findings = DETECTORS.scan(text)
    assert mask(text, findings) == "[EMAIL] wrote to [EMAIL], then [EMAIL] paid with [CARD]"
    assert mask(text, findings, style="numbered") == "[EMAIL_1] wrote to [EMAIL_2], then [EMAIL_1] paid with [CARD_1]"


def test_foreign_text_around_is_untouched():
    """Places are right where characters take several bytes, or none that shows."""
    text = "电话：+86 138 0013 8000。Grüße, jörg@müller.de 🙂 card ４２４２４２４２４２４２４２４２！"
    assert mask(text, DETECTORS.scan(text)) == "电话：[PHONE]。Grüße, [EMAIL] 🙂 card [CARD]！"


def test_dropping_keeps_words_apart():
    """Dropped values leave nothing, and words on both sides do not grow together."""
    text = "call +12025550147now, or mail a@example.com today"
    findings = [Finding("phone", 5, 17), Finding("email", 30, 43)]
    assert drop(text, findings) == "call now, or mail  today"
    assert drop("xSECRETy", [Finding("assignment", 1, 7)]) == "x y"


def test_refusing_gives_back_nothing():
    """A refused text is empty and says so; a clean one passes whole."""
    text = "my ssn is 219-09-9999"
    assert filter_text(text, DETECTORS.scan(text), "refuse") == Filtered("", (("us_ssn", 1),), refused=True)
    assert filter_text("hello", (), "refuse") == Filtered("hello", (), refused=False)


@pytest.mark.parametrize(
    "findings",
    [
        [Finding("email", 3, 3)], [Finding("email", -1, 2)], [Finding("email", 2, 99)],
        [Finding("email", 4, 6), Finding("email", 1, 2)], [Finding("email", 1, 4), Finding("email", 3, 6)],
    ],
)  # fmt: skip
def test_places_of_another_text_are_refused(findings):
    """Findings that cannot be of this text, in this order, raise instead of masking the wrong characters."""
    for action in ("mask", "drop"):
        with pytest.raises(ValueError, match="sorted and without overlaps"):
            filter_text("0123456789", findings, action)


def test_an_unknown_action_is_an_error():
    """There is no default action."""
    with pytest.raises(ValueError, match="use mask, drop or refuse"):
        filter_text("x", (), "hide")  # type: ignore[arg-type]


def test_placeholders_are_no_findings():
    """No placeholder of any kind, numbered or not, is itself taken for something."""
    for kind in KINDS.values():
        for text in (
            f"[{kind.placeholder}]",
            f"[{kind.placeholder}_12]: 12345678",
            f"[{kind.placeholder}] = hunter2x9Z8",
        ):
            assert DETECTORS.scan(text) == ()
            assert PLACEHOLDER.search(text)
