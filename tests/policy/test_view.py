"""The redacted view: what is taken out is gone, the same value has one name, and places are those of each part."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from policy.detection.detectors import Detectors, Finding
from policy.detection.kinds import KINDS
from policy.questions import Style
from policy.view import ALWAYS, Redactor, by_part

SCANNER = Detectors()
MAIL, OTHER, PHONE = "anna@example.org", "bert@example.org", "+49 30 901820"
TOKEN = "ghp_" + "a1B2c3D4e5" * 3 + "f6G7h8"
KEY = b"k" * 32
EVERY = {"personal", "financial", "secret"}
FACE = "\U0001f600"
"""Beyond the basic plane: two units of UTF-16, four bytes of UTF-8, one character here."""


def viewed(styles: dict[str, Style], *parts: str, key: bytes = KEY) -> tuple[list[str], Redactor]:
    """What is left of each part of one request, and the redactor that did it."""
    redactor = Redactor(styles, key)
    findings = by_part(parts, SCANNER.scan("\n".join(parts)))
    return [redactor.take_out(part, found) for part, found in zip(parts, findings, strict=True)], redactor


def test_a_value_has_one_pseudonym_in_all_parts():
    """The same value gets the same name wherever it stands in a request, another value another one."""
    texts, redactor = viewed(
        {"personal": Style.PSEUDONYM}, f"From {MAIL} to {OTHER} now", "no finding", f"Ask {OTHER}, not {MAIL} now"
    )
    assert texts == ["From [EMAIL_1] to [EMAIL_2] now", "no finding", "Ask [EMAIL_2], not [EMAIL_1] now"]
    assert redactor.originals == {"[EMAIL_1]": MAIL, "[EMAIL_2]": OTHER}
    assert redactor.removed == {"email": 4}


def test_another_request_begins_to_count_anew():
    """Pseudonyms say nothing beyond their request: the first of the next one is number one again."""
    for mail in (MAIL, OTHER):
        texts, redactor = viewed({"personal": Style.PSEUDONYM}, f"Ask {mail} now")
        assert (texts, redactor.originals) == (["Ask [EMAIL_1] now"], {"[EMAIL_1]": mail})


def test_a_hash_is_keyed_by_tenant():
    """With one key a value has one hash, over requests; with another tenant's key it has another one."""
    hashed = {"personal": Style.HASH}
    one, again, other = (viewed(hashed, f"Ask {MAIL} now", key=key)[0] for key in (KEY, KEY, b"o" * 32))
    assert one == again
    assert one != other
    assert re.fullmatch(r"Ask \[EMAIL:[0-9a-f]{12}\] now", one[0])
    assert viewed(hashed, f"Ask {OTHER} now")[0] != one
    assert viewed(hashed, f"Ask {MAIL} now")[1].originals == {}


@pytest.mark.parametrize(
    ("style", "left"),
    [(Style.MASK, "Ask [EMAIL] now"), (Style.DROP, "Ask  now"), (Style.PSEUDONYM, "Ask [EMAIL_1] now")],
)
def test_each_style_leaves_what_it_says(style, left):
    """A mask leaves the kind, a drop nothing at all, a pseudonym a number."""
    texts, redactor = viewed({"personal": style}, f"Ask {MAIL} now")
    assert texts == [left]
    assert bool(redactor.originals) is (style is Style.PSEUDONYM)


def test_a_part_of_which_nothing_is_left_is_empty():
    """A drop of the whole part leaves an empty text."""
    assert viewed({"personal": Style.DROP}, MAIL)[0] == [""]


def test_what_no_style_speaks_of_stays():
    """Only the named categories are taken out."""
    texts, redactor = viewed({"financial": Style.MASK}, f"Ask {MAIL} about DE89 3704 0044 0532 0130 00 now")
    assert texts == [f"Ask {MAIL} about [IBAN] now"]
    assert redactor.removed == {"iban": 1}


@pytest.mark.parametrize("styles", [{}, {"secret": Style.PSEUDONYM}, {"secret": Style.HASH}, {"secret": Style.MASK}])
def test_a_credential_is_never_kept(styles):
    """A secret is masked whatever a policy says: it gets no pseudonym whose original would be kept, and no hash."""
    texts, redactor = viewed(styles, f"Use {TOKEN} now")
    assert texts == ["Use [GITHUB] now"]
    assert redactor.originals == {}
    assert viewed({"secret": Style.DROP}, f"Use {TOKEN} now")[0] == ["Use  now"]
    assert ALWAYS == {"secret": Style.MASK}


def test_places_are_characters_whatever_they_are_made_of():
    """Letters beyond the basic plane, combining ones and ones of several bytes move nothing."""
    parts = (f"{FACE}{FACE} ü {MAIL} {FACE}", f"e\u0301 {FACE}", f"{PHONE} {FACE}{MAIL}")
    texts, redactor = viewed({"personal": Style.PSEUDONYM}, *parts)
    assert texts == [f"{FACE}{FACE} ü [EMAIL_1] {FACE}", f"e\u0301 {FACE}", f"[PHONE_1] {FACE}[EMAIL_1]"]
    assert redactor.originals == {"[EMAIL_1]": MAIL, "[PHONE_1]": PHONE}


def test_a_finding_over_a_border_is_one_of_both_parts():
    """What is split over two parts, or three, is taken out of each of them, and the glue between belongs to none."""
    assert by_part(["abcd", "ef"], [Finding("email", 2, 7)]) == [[Finding("email", 2, 4)], [Finding("email", 0, 2)]]
    assert by_part(["ab", "cd", "ef"], [Finding("email", 1, 7)]) == [
        [Finding("email", 1, 2)], [Finding("email", 0, 2)], [Finding("email", 0, 1)],
    ]  # fmt: skip
    assert by_part(["ab", "cd"], [Finding("email", 2, 3)]) == [[], []]
    assert by_part(["ab", "", "cd"], [Finding("email", 1, 5)]) == [
        [Finding("email", 1, 2)], [], [Finding("email", 0, 1)],
    ]  # fmt: skip
    texts, _ = viewed({"personal": Style.MASK}, "Write to anna@", "example.org now")
    assert "anna@" not in texts[0]
    assert "example.org" not in texts[1]


PARTS = st.lists(
    st.lists(st.sampled_from([MAIL, OTHER, PHONE, TOKEN, "word", FACE, "ü", "1.2.3.4", "4111 1111 1111 1111", " ",
                              "."]), max_size=6).map(" ".join),
    min_size=1, max_size=5,
)  # fmt: skip


@given(parts=PARTS, style=st.sampled_from([Style.MASK, Style.HASH, Style.PSEUDONYM]))
def test_nothing_that_was_found_is_left(parts, style):
    """No value that was taken out stands in what is left, and a second look finds nothing of those categories."""
    texts, redactor = viewed(dict.fromkeys(EVERY, style), *parts)
    for value in (MAIL, OTHER, PHONE, TOKEN, "1.2.3.4", "4111 1111 1111 1111"):
        assert all(value not in text for text in texts)
    assert all(f" {name} " not in f" {value} " for name, value in redactor.originals.items())
    if style is not Style.HASH:  # twelve digits may look like a number
        assert SCANNER.scan("\n".join(texts)) == ()


@given(parts=PARTS)
def test_pseudonyms_can_be_put_back(parts):
    """Putting the originals in the place of their names gives each text back as it was, secrets apart."""
    texts, redactor = viewed(dict.fromkeys(EVERY, Style.PSEUDONYM), *parts)
    back = [re.sub(r"\[[A-Z]+_\d+\]", lambda found: redactor.originals[found[0]], text) for text in texts]
    wanted, _ = viewed({}, *parts)
    assert back == wanted


@given(
    parts=st.lists(st.text(max_size=6), min_size=1, max_size=6),
    data=st.data(),
)
def test_every_character_of_a_finding_is_in_its_part(parts, data):
    """For any parts and places, each character that is found in the whole is found in its part, and no other."""
    whole = "\n".join(parts)
    cuts = sorted(data.draw(st.sets(st.integers(0, len(whole)), max_size=6)))
    findings = [Finding("email", start, end) for start, end in zip(cuts[::2], cuts[1::2], strict=False)]
    found = by_part(parts, findings)
    wanted, begin = [], 0
    for part in parts:
        places = {place for item in findings for place in range(item.start, item.end)}
        wanted.append({place - begin for place in places if begin <= place < begin + len(part)})
        begin += len(part) + 1
    assert [{place for item in some for place in range(item.start, item.end)} for some in found] == wanted


@pytest.mark.parametrize(
    "findings", [[Finding("email", 3, 9)], [Finding("email", 2, 2)], [Finding("email", 2, 4), Finding("email", 1, 3)]]
)
def test_places_of_another_text_are_an_error(findings):
    """Findings that are no sorted places of a text are refused: half a redaction is none."""
    with pytest.raises(ValueError, match="no place of a text of 6"):
        Redactor({"personal": Style.MASK}, KEY).take_out("abcdef", findings)


def test_every_kind_has_a_word_of_its_own():
    """No two kinds share a placeholder, so that pseudonyms of two kinds are never one."""
    assert len({kind.placeholder for kind in KINDS.values()}) == len(KINDS)
