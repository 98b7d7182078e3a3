"""Runs a guide: writes the files that it shows, types its commands, and compares what they print.

A file is the block below `<!-- file: NAME -->`. In the output that a guide shows, `…` stands for anything within a
line, and a line of `…` alone for any lines; ids, moments, digests, keys and addresses may differ.
"""

from __future__ import annotations

import getpass
import os
import re
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from dev_run import environment

GUIDES = Path(__file__).resolve().parents[2] / "docs" / "guides"
_STEP = re.compile(
    r"^<!-- file: (?P<name>\S+) -->\n\n?```\w*\n(?P<content>.*?)^```$|^```console\n(?P<console>.*?)^```$",
    flags=re.DOTALL | re.MULTILINE,
)
_MASKS = (
    (r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}", "<uuid>"),
    (r"waybill/[\w-]+(?:/[0-9a-f]+)?\+[0-9a-f]{8}(?:\+[\w+/=]+)?", "<key>"),
    (r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d(?:\.\d+)?(?:Z| UTC)", "<time>"),
    (r"\d{4}-\d\d-\d\d", "<day>"),
    (r"127\.0\.0\.1:\d+", "<address>"),
    (r"\b(?=[0-9a-f]*\d)(?=[0-9a-f]*[a-f])[0-9a-f]{12,64}\b", "<hex>"),
    (r"[ \t│┃|]+", " "),
)
_RULE = re.compile(r"[\s━┏┳┓┡╇┩└┴┘─╋├┼┤╭╮╰╯+-]*")
_PROGRESS = re.compile(r"sent \d+/\d+, ended \d+")


@dataclass(frozen=True, slots=True)
class Command:
    """A command that a guide shows, with what it prints."""

    line: str
    """As one types it."""

    output: str
    """What stands below it."""


def steps(text: str) -> Iterator[tuple[str, str] | Command]:
    """Give the files, by name and content, and the commands of a guide, in order."""
    for found in _STEP.finditer(text):
        if found["name"]:
            yield found["name"], found["content"]
            continue
        for part in re.split(r"^\$ ", found["console"], flags=re.MULTILINE)[1:]:
            line, _, output = part.partition("\n")
            yield Command(line, output)


def run(guide: str, folder: Path, variables: Mapping[str, str]) -> int:
    """Run a guide in a folder; give how many of its commands were run.

    Args:
        guide: its file's name.
        folder: where it is run.
        variables: settings of the one who follows it.
    """
    count = 0
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    for step in steps((GUIDES / guide).read_text(encoding="utf-8")):
        if not isinstance(step, Command):
            place = folder / step[0]
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_text(step[1], encoding="utf-8")
            continue
        done = subprocess.run(
            ["sh", "-c", step.line],
            cwd=folder,
            env=environment(**variables) | {"PATH": path, "COLUMNS": "160"},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=120,
            check=False,
        )
        shown = f"$ {step.line}\n{done.stdout}"
        may_fail = any(line.startswith(("waybill: ", "✗")) for line in step.output.splitlines())
        assert done.returncode == 0 or may_fail, shown
        assert _pattern(step.output).fullmatch("".join(f"{line}\n" for line in _plain(done.stdout))), shown
        count += 1
    return count


def _pattern(output: str) -> re.Pattern[str]:
    lines = [r"(?:[^\n]*\n)*?" if line == "…" else f"{_any(line)}\n" for line in _plain(output)]
    return re.compile("".join(lines))


def _any(line: str) -> str:
    return r"[^\n]*?".join(re.escape(part) for part in line.split("…"))


def _plain(text: str) -> list[str]:
    text = text.replace(f"user:{getpass.getuser()}", "user:root")
    for pattern, mask in _MASKS:
        text = re.sub(pattern, mask, text)
    lines = [line.strip() for line in text.splitlines()]
    return [line for line in lines if line and not _RULE.fullmatch(line) and not _PROGRESS.match(line)]
