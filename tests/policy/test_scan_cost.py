"""Detection: what a scan costs grows with the length of the text and no faster, whatever the text."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, example, given, settings
from scan_cost import PIECES, count_calls, repeated

from policy.detection.detectors import Detectors
from policy.redaction import filter_text

DETECTORS = Detectors()
LONG_SEARCH = settings.get_current_profile_name() == "fuzz"
SIZE = 25_000 if LONG_SEARCH else 2_000
"""Characters of the shorter of two texts; the longer one has four times as many."""

MOST = 120
"""Calls for each character at most; the most that was found by searching is about half of that."""

KNOWN = (
    *("fe80::", "::", "1 ", "0 1 1 ", "4444 ", "tel 1234567;", "8.1(.)517(.)7 ", "3.(9(. 5-/_3). 6_5_\n)2", "a@b.c "),
    *("token=", "token: ", "'password' ", "password\n:\n", "--token ", "value=", "mysql -", "://a:b@", "a at a.b "),
    *("-----BEGIN PRIVATE KEY-----", "PuTTY-User-Key-File-2", '\\"', "%40", "%2525", "&quot;", "\0", "\x1e1", "é1"),
)


def _cost(text: str) -> int:
    return count_calls(lambda: DETECTORS.scan_closed(text))


def _grows_with_the_text(piece: str) -> None:
    short, long = (_cost(repeated(piece, size)) for size in (SIZE, 4 * SIZE))
    assert long <= 5 * short + 20_000, f"{short} calls became {long} for {piece!r}"
    assert long <= MOST * 4 * SIZE, f"{long / 4 / SIZE:.0f} calls for each character of {piece!r}"


@pytest.mark.parametrize("piece", KNOWN)
def test_no_known_trigger_costs_more_than_its_length(piece):
    """Four times the text is about four times the work, for repetitions of what costs the most."""
    _grows_with_the_text(piece)


@settings(max_examples=1_500 if LONG_SEARCH else 60, suppress_health_check=list(HealthCheck), deadline=None)
@given(PIECES)
@example("SK11122332326\n|> \t\t > e\\\r\n|  \t4e\r\n | |> \t 8\\\n8\r\n")
def test_no_text_costs_more_than_its_length(piece):
    """The same for repetitions of anything that a detector looks for, of characters, and of several in a row."""
    _grows_with_the_text(piece)


@pytest.mark.parametrize("action", ["mask", "drop"])
def test_taking_out_many_findings_costs_no_more_than_their_number(action):
    """Four times the findings are four times the work, and the result is as long as it should be."""
    costs = []
    for count in (500, 2_000):
        text = "a@b.com ab " * count
        findings = DETECTORS.scan(text)
        assert len(findings) == count
        costs.append(count_calls(lambda text=text, found=findings: filter_text(text, found, action)))
    assert costs[1] <= 5 * costs[0]
