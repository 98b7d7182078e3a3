"""How much work a scan is, counted and not timed; and texts that are made to be much work."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable
from typing import Any

from hypothesis import strategies as st

from policy.detection import escapes, numbers
from policy.detection.detectors import FINDERS

_CHARACTERS = "0147aezAFZ \t\n.,:;@-_/\\+=\"'`()[]{}<>|&%$#*~\0é\u0661漢\u200b"
_WORDS = (
    *("fe80::", "4111 ", "0 1 ", "(0", "tel ", "card ", "ssn", " at ", " dot ", "token=", "password: ", '"secret"'),
    *("--token ", "-----BEGIN PRIVATE KEY-----", "PuTTY-User-Key-File-2", "-----END", "eyJ", "Bearer ", "curl -u "),
    *("://a:", "&quot;", '\\"', "%3D", '"name": "', "version ", "2026-11-29", "1.1.1.1", "DE89", "[EMAIL]", "\x1e"),
)


def count_calls(work: Callable[[], object]) -> int:
    """Return how many functions are called, in Python and in C, while `work` runs: the same in every run."""
    calls = 0

    def count(frame: Any, event: str, argument: Any) -> None:
        nonlocal calls
        del frame, argument
        if event in ("call", "c_call"):
            calls += 1

    before = sys.getprofile()
    sys.setprofile(count)
    try:
        work()
    finally:
        sys.setprofile(before)
    return calls


def _from(expression: bytes) -> st.SearchStrategy[str]:
    """Return texts that an expression of RE2 matches."""
    return st.from_regex(re.compile(expression), fullmatch=True).map(lambda found: found.decode("latin-1"))


def _piece() -> st.SearchStrategy[str]:
    known = [_from(expression) for one in FINDERS for expression in (one.trigger, one.span.pattern)]
    short = [st.sampled_from(_CHARACTERS), st.sampled_from(_WORDS), _from(numbers.TRIGGER), _from(escapes.TRIGGER)]
    return st.one_of(*short, *known).map(lambda text: text[:400])


PIECES = st.one_of(_piece(), st.lists(_piece(), min_size=1, max_size=4).map("".join)).filter(bool)
"""Texts to be repeated: what each detector looks for, single characters, and several of these in a row."""


def repeated(piece: str, size: int) -> str:
    """Return a text of `size` characters that is nothing but repetitions of `piece`."""
    return (piece * (size // len(piece) + 1))[:size]
