"""The prefilter: it may pass a text over only where its finder would find nothing."""

from __future__ import annotations

import re2
from hypothesis import example, given
from hypothesis import strategies as st

from policy.detection.detectors import Detectors
from policy.detection.secrets import SECRETS

KEY = "proj-Ab3dEf6hIj9kLm2nOp5qRs8t"
(FINDER,) = [finder for finder in SECRETS if finder.kind == "openai_key"]
PIECES = [
    "sk-",
    "SK-",
    "task-",
    "risk-7",
    "_sk-",
    ".sk-",
    KEY,
    KEY[:14],
    KEY[14:],
    "\n",
    "\\\r\n> ",
    " ",
    "7",
    '"',
    "é",
]


@given(st.lists(st.sampled_from(PIECES), max_size=8).map("".join))
@example(f"sk-\n{KEY}")
@example(f"export_sk-{KEY}")
def test_what_the_finder_of_such_keys_finds_its_trigger_hits(text: str) -> None:
    """No key that the finder would find, whatever stands before it or wherever its line breaks, is passed over."""
    text = text.encode("ascii", "replace").decode()
    data = text.encode()
    if list(FINDER.find(text, data)):
        assert re2.search(FINDER.trigger, data)
        assert any(finding.category == "secret" for finding in Detectors().scan(text))


def test_words_that_end_like_the_prefix_of_a_key_cost_no_second_look() -> None:
    """`task-7` and its like, which stand in every other text, do not start the search for keys."""
    for word in ("task-7", "desk-top", "risk-free", "disk-2"):
        assert not re2.search(FINDER.trigger, f"see {word} here".encode())
