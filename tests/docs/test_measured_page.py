"""The page of figures says what was measured."""

from __future__ import annotations

import json
import re

from doc_pages import DOCS, ROOT

from bench.__main__ import PARTS
from bench.page import RESULTS, renewed

PAGE = (DOCS / "measured.md").read_text(encoding="utf-8")


def test_the_figures_are_those_of_the_results():
    """Every table on the page is told by `bench/results.json`; `python -m bench.page` writes them anew."""
    assert renewed(PAGE, json.loads(RESULTS.read_text(encoding="utf-8"))) == PAGE


def test_the_commands_name_parts_that_there_are():
    """Each part that the page tells to measure exists."""
    named = re.findall(r"-m bench ((?:[a-z]+ ?)+)", PAGE)
    assert named
    assert {part for words in named for part in words.split()} <= PARTS.keys()
    assert (ROOT / "bench" / "page.py").is_file()
