"""What the page on detection shows and lists is what the code does and has."""

from __future__ import annotations

import dataclasses
import re
import subprocess
import sys
from typing import get_args

import pytest
from doc_pages import DOCS, ROOT, codes, read_table
from names_fixtures import need_names

from policy.detection.names import Limits, Reason

PAGE = (DOCS / "detection.md").read_text(encoding="utf-8")
EXAMPLES = re.findall(r"```python\n(.*?)```\n\nprints\n\n```text\n(.*?)```", PAGE, re.DOTALL)


@pytest.mark.parametrize(("program", "shown"), EXAMPLES, ids=["tier 1", "both tiers"])
def test_the_examples_print_what_they_show(program, shown):
    """Each example, run as it stands, prints what stands under it."""
    if "NamesDetector" in program:
        need_names()
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=False)
    assert (done.stdout, done.stderr) == (shown, "")


def test_every_reason_is_told():
    """The table of reasons has each that the detector gives."""
    assert codes(read_table("detection.md", "## When a detector is down")) == list(get_args(Reason))


def test_the_limits_are_told_as_they_are():
    """The table of limits has each of them, with its default."""
    rows = re.findall(r"^\| `(\w+)` \| ([\d.]+) \|", PAGE, re.MULTILINE)
    assert {name: float(value) for name, value in rows} == dataclasses.asdict(Limits())
