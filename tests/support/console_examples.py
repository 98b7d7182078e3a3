"""Examples of a page that show commands and what they print, to be run by a test."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

DOCS = Path(__file__).resolve().parents[2] / "docs"


def examples(page: str) -> list[tuple[list[str], str]]:
    """Give each command of a page's console blocks, without `waybill` and its group, and the lines below it."""
    text = (DOCS / page).read_text(encoding="utf-8")
    found = []
    for block in re.findall(r"^```console\n(.*?)^```", text, flags=re.DOTALL | re.MULTILINE):
        for part in re.split(r"^\$ ", block, flags=re.MULTILINE)[1:]:
            line, _, output = part.partition("\n")
            found.append((shlex.split(line)[2:], output))
    return found


def plain(text: str) -> list[str]:
    """Give what a command printed without what differs from run to run: times, event ids, padding and rulings."""
    text = re.sub(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", "<time>", text)
    text = re.sub(r"evidence [0-9a-f]{32}", "evidence <id>", text)
    lines = [re.sub(r"[\s│┃|]+", " ", line).strip() for line in text.splitlines()]
    return [line for line in lines if line and not re.fullmatch(r"[\s━┏┳┓┡╇┩└┴┘─╋├┼┤+-]+", line)]
