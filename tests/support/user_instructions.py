"""Instructions that people wrote for everyday tools, as requests of our contract.

The instructions are `../shared/data/user_instructions.jsonl`, beside the repository. Where that folder is absent, as
many requests are made of a short list of texts instead, so that the test that sends them always has something to
prove.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice, product
from pathlib import Path
from typing import Any

import orjson
from dev_run import ROOT
from requests_made import request

FILE = ROOT.parent / "shared" / "data" / "user_instructions.jsonl"
COUNT = 252
LOCAL_TOKENS = 8
"""What a local model may write: it is slow, and the way is what is proved."""

PRIVATE = frozenset({"Messenger", "Telegram", "Wysa"})
"""Tools whose texts are between people: confidential, so that they stay local."""
WORK = frozenset({"Gmail", "Google Calendar", "Google Docs", "Google Meet", "Indeed", "Jira", "LinkedIn", "Notion"})
"""Tools of the office: internal."""

_TASKS = (
    "Rewrite the sentence so that it is shorter.",
    "Say in one word how the writer feels.",
    "Suggest a title.",
    "Translate into French.",
    "Name three related words.",
    "Correct the grammar.",
    "Give the opposite.",
)
_TEXTS = (
    "The train was late again, and nobody at the station could say why.",
    "We would of come earlier if the road had been open.",
    "A good soup needs time, salt and a lid that fits.",
    "The museum opens at nine, except on Mondays.",
    "Nothing in the drawer fits the lock of the blue door.",
    "Her garden has more bees than flowers this year.",
)
_TOOLS = ("Grammarly", "Gmail", "Netflix", "Jira", "Tasty", "Wikipedia", "Twitter", "Overleaf", "Spotify", "IMDB")


@dataclass(frozen=True, slots=True)
class Instruction:
    """One instruction."""

    number: int
    """Its place in the file, from 1."""
    tool: str
    """The tool that it was written for."""
    text: str
    """What is asked."""
    given: str
    """What it is asked about; may be empty."""


def instructions(file: Path = FILE) -> tuple[Instruction, ...]:
    """Give the file's instructions, or as many of our own where it is not there."""
    found = _read(file.read_bytes().splitlines()) if file.is_file() else _own()
    return tuple(found)


def to_request(instruction: Instruction) -> dict[str, Any]:
    """Map an instruction to a request: the tool decides on purpose, class and what the answer may be."""
    level = _classification(instruction.tool)
    prompt = f"{instruction.text}\n\n{instruction.given}" if instruction.given else instruction.text
    return request(
        f"instruction-{instruction.number:04d}",
        prompt,
        tenant={"id": "everyday-tools"},
        actor={"id": f"user-of-{instruction.tool.lower().replace(' ', '-')}"},
        correlationId=f"tool-{instruction.tool}",
        taskType="instruction",
        purpose={"public": "product-research", "internal": "internal-productivity"}.get(level, "personal-use"),
        classification=level,
        modelPolicy={"maxTokens": LOCAL_TOKENS if level == "confidential" else 200},
    )


def _classification(tool: str) -> str:
    if tool in PRIVATE:
        return "confidential"
    return "internal" if tool in WORK or tool.startswith("MS ") else "public"


def _read(lines: Iterable[bytes]) -> Iterator[Instruction]:
    for number, line in enumerate(lines, start=1):
        content = orjson.loads(line)
        yield Instruction(number, content["motivation_app"], content["instruction"], content["instances"][0]["input"])


def _own() -> Iterator[Instruction]:
    combinations = islice(product(_TASKS, _TEXTS, range(COUNT)), 0, None, COUNT // (len(_TASKS) * len(_TEXTS)))
    for number, (task, text, copy) in enumerate(islice(combinations, COUNT), start=1):
        tool = "Messenger" if number % (COUNT // 12) == 0 else _TOOLS[number % len(_TOOLS)]
        yield Instruction(number, tool, task, f"{text} ({copy})")
