# ruff: noqa: RUF001 - look-alike characters are what these texts are about
"""Detection: what is found, where exactly, and what happens when scanning fails."""

from __future__ import annotations

import json
import time
import unicodedata
from hashlib import sha256
from pathlib import Path
from uuid import UUID

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from labelled_texts import CLEAN, HOLDING, SAMPLES, measure, report

from policy.detection import detectors as module
from policy.detection.detectors import DetectionError, Detectors, Finding, ScanResult, together
from policy.detection.folding import fold, offsets
from policy.detection.kinds import KINDS
from policy.detection.names import KINDS as BY_MODEL

DETECTORS = Detectors()
FOREIGN = st.text(st.sampled_from("äß漢字電話🙂é\u200d\u0301ﬁ½Ⅷ—\u00a0\u2028中"), max_size=12)
FRAGMENTS = st.lists(
    st.one_of(
        st.sampled_from([labelled.text for labelled in HOLDING + CLEAN]),
        st.sampled_from([labelled.value for labelled in HOLDING]),
        st.sampled_from(
            [
                "password: ",
                "tel ",
                "[EMAIL]",
                "[PHONE_1] ",
                "token=",
                "@",
                "\n",
                " ",
                ".",
                "-",
                "\x1e",
                "12 34",
                "eyJ",
                "(",
            ]
        ),
        FOREIGN,
        st.text(max_size=8),
        st.from_regex(r"[0-9 .()+/-]{1,30}", fullmatch=True),
    ),
    max_size=8,
).map("".join)


def _requests() -> list[str]:
    """Give real requests where shared data lies beside the repository, and the repository's own in any case."""
    found = list(SAMPLES)
    path = Path(__file__).resolve().parents[3] / "shared" / "data" / "gsm8k_test.jsonl"
    if path.exists():
        for line in path.read_text(encoding="utf-8").splitlines():
            record = json.loads(line)
            found += record["question"], record["answer"]
    return found


def test_labelled_texts_are_told_apart():
    """Of the labelled texts 95 in 100 are found, of each kind 3 in 4, and at most 2 near misses alarm."""
    scores = measure(DETECTORS)
    found, of = sum(score.found for score in scores.values()), sum(score.of for score in scores.values())
    assert found / of >= 0.95, report(DETECTORS)
    assert all(score.found / score.of >= 0.75 for score in scores.values() if score.of), report(DETECTORS)
    assert sum(score.wrong for score in scores.values()) <= 2, report(DETECTORS)


def test_every_kind_is_measured():
    """The labelled set holds every kind of the table but those of the names model, and the report names each."""
    assert {labelled.kind for labelled in HOLDING} == set(KINDS) - BY_MODEL
    assert all(f"| {kind} |" in report(DETECTORS) for kind in set(KINDS) - BY_MODEL)


def test_ordinary_requests_raise_no_alarm():
    """Word problems and everyday instructions hold nothing: at most one alarm in a thousand."""
    texts = _requests()
    alarms = [(text, DETECTORS.scan(text)) for text in texts if DETECTORS.scan(text)]
    assert len(alarms) <= len(texts) / 1000, alarms


@pytest.mark.parametrize("labelled", HOLDING, ids=lambda labelled: labelled.kind)
def test_something_as_severe_is_found_whatever_the_spelling(labelled):
    """A text that holds something has a finding that is at least as severe as its kind."""
    assert (
        max(KINDS[finding.kind].severity for finding in DETECTORS.scan(labelled.text)) >= KINDS[labelled.kind].severity
    )


@given(FRAGMENTS)
@settings(max_examples=max(300, settings().max_examples), deadline=None)
@example("4111 1111 1111 1111@example.com 078-05-1120")
@example("jörg ４１１１１１１１１１１１１１１１ \u200bx")
def test_findings_are_sorted_apart_and_inside(text):
    """Findings are non-empty places of the text, in order, without overlaps; scanning is repeatable."""
    findings = DETECTORS.scan(text)
    position = 0
    for finding in findings:
        assert position <= finding.start < finding.end <= len(text)
        assert finding.kind in KINDS
        position = finding.end
    assert DETECTORS.scan(text) == findings


@given(FOREIGN, FOREIGN)
@settings(max_examples=max(200, settings().max_examples), deadline=None)
def test_offsets_are_characters_of_the_original(before, after):
    """Foreign text around an address moves its place by exactly its own length."""
    text = f"{before} \tjane@example.com\t {after}"
    found = [finding for finding in DETECTORS.scan(text) if finding.kind == "email"]
    assert [text[finding.start : finding.end] for finding in found] == ["jane@example.com"]


@given(st.text(max_size=60) | FOREIGN)
def test_folding_keeps_the_way_back(text):
    """Folded text is ASCII, and each of its characters leads back to one of the original, never backwards."""
    folded, back = fold(text), offsets(text)
    assert folded.isascii()
    places = [back.span(index, index + 1) for index in range(len(folded))]
    assert all(0 <= start < end <= len(text) for start, end in places)
    assert places == sorted(places)
    if text.isascii() and not any(unicodedata.category(character) == "Cc" for character in text):
        assert folded == text
        assert back.span(2, 5) == (2, 5)


def test_disguised_digits_are_seen():
    """Full-width digits, zero-width characters, keycaps and exotic dashes hide nothing, and spans cover them."""
    for disguised in (
        "４２４２４２４２４２４２４２４２",
        "4242\u200b4242\u20604242\u00ad4242",
        "4242‑4242–4242—4242",
        "4️⃣242 4242 4242 4242",
    ):
        (finding,) = DETECTORS.scan(f"é {disguised} é")
        assert (finding.kind, finding.start, finding.end) == ("card", 2, 2 + len(disguised))


def test_lone_surrogates_are_no_failure():
    """Text that no encoding can write is scanned like any other."""
    (finding,) = DETECTORS.scan("\ud800 jane@example.com \udfff")
    assert finding == Finding("email", 2, 18)


def test_overlaps_become_one_finding_of_the_gravest_kind():
    """A credential that runs into an address gives one finding that covers both, and counts as the secret."""
    text = "see https://root:pa55word@example.com/x"
    (finding,) = DETECTORS.scan(text)
    assert finding.kind == "url_password"
    assert "pa55word@example.com" in text[finding.start : finding.end]


def test_secrets_and_cards_are_more_severe_than_the_rest():
    """Where findings overlap, a secret or a card names them; every kind has a placeholder of its own."""
    for name, kind in KINDS.items():
        assert kind.severity == (2 if kind.category == "secret" or name == "card" else 1)
    assert len({kind.placeholder for kind in KINDS.values()}) == len(KINDS)


def test_findings_of_two_tiers_become_one_list():
    """Names are laid over what was found before: sorted, apart, and nothing of either is lost."""
    text = "Ana Lopez <ana.lopez@example.com> lives in Vigo"
    names = [Finding("person", 0, 9), Finding("person", 11, 20), Finding("place", 43, 47)]
    assert together(DETECTORS.scan(text), names) == (
        Finding("person", 0, 9),
        Finding("email", 11, 32),
        Finding("place", 43, 47),
    )


class _ExhaustedSet:
    """Answers as RE2's set does when its automaton runs out of memory; the real one cannot be brought to it at will."""

    def Match(self, data: bytes) -> None:  # noqa: N802 - re2's own name
        """Give no match at all."""


def test_a_prefilter_without_an_answer_is_an_error_and_not_a_clean_text():
    """RE2 answers "nothing" when it runs out of memory; the scanner notices, and counts the text as restricted."""
    starved = Detectors()
    starved._set = _ExhaustedSet()
    with pytest.raises(DetectionError, match="highest class"):
        starved.scan("hello")
    result = starved.scan_closed("hello")
    assert (result.failed, result.findings) == (True, ())


def test_little_memory_changes_no_answer():
    """With the least memory that compiles, the prefilter is slower and finds the same."""
    starved = Detectors(max_memory=256 << 10)
    for labelled in HOLDING + CLEAN:
        assert starved.scan(labelled.text) == DETECTORS.scan(labelled.text)


def test_patterns_that_do_not_fit_stop_the_start():
    """Too little memory to compile is an error when detectors are made, with its remedy."""
    with pytest.raises(DetectionError, match="give more"):
        Detectors(max_memory=1 << 10)


def test_closed_scans_say_what_open_scans_say():
    """Where scanning works, the closed form gives the same findings."""
    result = DETECTORS.scan_closed("card 4242 4242 4242 4242")
    assert (result.failed, [finding.kind for finding in result.findings]) == (False, ["card"])
    assert DETECTORS.scan_closed("nothing here") == ScanResult((), failed=False)


def test_any_failure_inside_is_closed(monkeypatch):
    """Even a defect of the scanner itself is a scan that failed, and no clean text."""
    monkeypatch.setattr(module, "fold", lambda _: 1 // 0)
    assert DETECTORS.scan_closed("hello").failed


@pytest.mark.parametrize(
    "unit",
    [
        "4111 1111 1111 1112 ",
        "eyJ",
        "a@",
        "+1 ",
        "1.2.3.4.",
        "de89 3704 0044 ",
        "password: ",
        "1",
        "-",
        "sk-a1",
        "2001:",
        "at dot ",
        "://a:",
    ],
)
def test_hostile_repetition_stays_linear(unit):
    """A hundred kilobytes of almost-matches take a bounded time for each byte."""
    text = (unit * (100_000 // len(unit)))[:100_000]
    began = time.process_time()
    DETECTORS.scan_closed(text)
    assert time.process_time() - began < 5


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("Write to anna@example.org. Thanks for all.", ["anna@example.org"]),
        ("Write to anna@example.org. thanks for all", ["anna@example.org"]),
        ("mail anna@example.org . ok", ["anna@example.org"]),
        ("anna @ example.org. thanks", ["anna @ example.org"]),
        ("anna@example.org. bert@example.org. done", ["anna@example.org", "bert@example.org"]),
        ("anna@example.org.\nBert writes", ["anna@example.org"]),
        ("anna@example.org.\nbert@example.org", ["anna@example.org", "bert@example.org"]),
        ("anna@mail. example. org", ["anna@mail. example. org"]),
        ("anna@mail.example.\norg", ["anna@mail.example.\norg"]),
        ("Sat. lunch @ Nobu. Then home", []),
        ("see @ nobu.bar. then home", []),
        ("icon@2x.png. then", []),
    ],
)
def test_an_address_ends_with_its_sentence(text, found):
    """An address before a full stop is found whatever sentence follows, and the next sentence is no part of it."""
    assert [text[finding.start : finding.end] for finding in DETECTORS.scan(text)] == found


@pytest.mark.parametrize(
    "text",
    [
        "".join(f"2026-11-29 08:{n // 60:02}:{n % 60:02},001 INFO app: step {n} done\n" for n in range(3_000)),
        "".join(f"{sha256(bytes([n % 256, n // 256])).hexdigest()}\n" for n in range(1_500)),
        "".join(f"{UUID(int=n * 2**97 // 7 % 2**128)}\n" for n in range(4_000)),
        "".join(f"2026-01-{n % 28 + 1:02};{n};{n / 10}\n" for n in range(2_000)),
        "".join(f"10.0.{n % 250}.{n % 200} - {n}\n" for n in range(3_000)),
    ],
    ids=["log", "hashes", "uuids", "csv", "addresses"],
)
def test_an_ordinary_log_or_list_is_looked_at_however_many_numbers_it_has(text):
    """Thousands of groups of digits in logs, hashes, UUIDs and tables are no failure, and a card between is found."""
    assert not DETECTORS.scan_closed(text).failed
    half = text.index("\n", len(text) // 2)
    planted = f"{text[:half]}\ncard 4111 1111 1111 1111{text[half:]}"
    cards = [finding for finding in DETECTORS.scan(planted) if finding.kind == "card"]
    assert any(finding.start <= half + 6 and finding.end >= half + 25 for finding in cards)
