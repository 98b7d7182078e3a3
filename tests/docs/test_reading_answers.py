"""The programs that send a request and read its answer work as they stand, in each language, on a pipeline."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from client_examples import EXAMPLES, LANGUAGES, ask
from dev_run import running

ROOT = EXAMPLES.parents[1]
REQUEST = json.loads((EXAMPLES / "request.json").read_text(encoding="utf-8"))
CALLS = Path("logs") / "stand-in-calls.jsonl"


@pytest.fixture(scope="module")
def dev(tmp_path_factory) -> Iterator[tuple[str, Path]]:
    """A running `waybill dev`: its broker, and its home."""
    home = tmp_path_factory.mktemp("answers") / "home"
    with running(home, "--local-model", "in-process") as run:
        yield run.until_ready().kafka, home


def asked(language: str, about: str, **changes: Any) -> dict[str, Any]:
    """Give the request of the examples under an id of its own."""
    return REQUEST | {"requestId": f"{language}-{about}"} | changes


def calls(home: Path) -> int:
    """Count the calls that the stand-in was sent."""
    path = home / CALLS
    return path.read_bytes().count(b"\n") if path.exists() else 0


@pytest.mark.parametrize("language", LANGUAGES)
def test_an_answer_is_read(language, dev, tmp_path):
    """The text of the answer is printed, and nothing else."""
    done = ask(language, dev[0], asked(language, "first"), tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("[stand-in] No model ran. 1 message(s), 39 characters came in")
    assert done.stderr == ""


@pytest.mark.parametrize("language", LANGUAGES)
def test_a_duplicate_brings_the_first_answer(language, dev, tmp_path):
    """The same request again, and the same work under another id, print the answer of the one call that was made."""
    before = calls(dev[1])
    first = ask(language, dev[0], asked(language, "once", idempotencyKey=f"{language}-key"), tmp_path)
    again = ask(language, dev[0], asked(language, "once", idempotencyKey=f"{language}-key"), tmp_path)
    other = ask(language, dev[0], asked(language, "other", idempotencyKey=f"{language}-key"), tmp_path)
    assert first.stdout.startswith("[stand-in]"), first.stderr
    assert (again.returncode, again.stdout) == (0, first.stdout), again.stderr
    assert (other.returncode, other.stdout) == (0, first.stdout), other.stderr
    assert calls(dev[1]) == before + 1


@pytest.mark.parametrize("language", LANGUAGES)
@pytest.mark.parametrize(
    ("about", "changes", "told"),
    [
        ("marketing", {"purpose": "marketing"}, "rejected: unknown_label: unknown purpose: use one of "),
        (
            "elsewhere",
            {"modelPolicy": {"placement": "hosted", "regions": ["mars"]}},
            "denied: denied: policy allows no",
        ),
        (
            "broken",
            {"input": {"messages": [{"role": "user", "content": "(stand-in: drop)"}]}},
            "unknown: disconnected: ",
        ),
    ],
    ids=["rejected", "denied", "unknown"],
)
def test_what_is_no_answer_is_an_error_with_its_reason(language, about, changes, told, dev, tmp_path):
    """Rejected, denied and unknown end the program with 1 and the reason, not with an empty answer."""
    done = ask(language, dev[0], asked(language, about, **changes), tmp_path)
    assert done.returncode == 1
    assert done.stdout == ""
    assert done.stderr.startswith(told), done.stderr


def test_readme_shows_the_python_program():
    """The README has the program that is run here, to the letter, and the request that it sends."""
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    blocks = dict(re.findall(r"^```(python|json)\n(.*?)^```$", readme, flags=re.MULTILINE | re.DOTALL))
    assert blocks["python"] == (EXAMPLES / "ask.py").read_text(encoding="utf-8")
    assert blocks["json"] == (EXAMPLES / "request.json").read_text(encoding="utf-8")


def test_the_guide_shows_all_three_programs():
    """The guide has each program to the letter."""
    guide = (ROOT / "docs" / "guides" / "01-send-and-read.md").read_text(encoding="utf-8")
    for path in ("ask.py", "node/ask.mjs", "java/Ask.java"):
        assert (EXAMPLES / path).read_text(encoding="utf-8") in guide, path
