"""The guides: ten tasks, each numbered and listed, and what they show is what comes out."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from dev_run import running
from doc_pages import ROOT, commands, help_text
from guide_runs import GUIDES, Command, run, steps

pytestmark = pytest.mark.timeout(600)  # a guide starts many commands, one after the other

PAGES = sorted(GUIDES.glob("[0-9][0-9]-*.md"))
LIVE = ("01-send-and-read.md", "02-batches.md", "05-what-left.md", "06-prove-a-request.md", "08-hold-reveal-erase.md")
"""Those whose commands want a running pipeline."""


def test_there_are_ten_and_the_index_has_each():
    """Ten guides, each headed by its number, and the index has them in order under their own titles."""
    heads = [page.read_text(encoding="utf-8").splitlines()[0] for page in PAGES]
    assert [head.partition(".")[0] for head in heads] == [f"# {number}" for number in range(1, 11)]
    index = (GUIDES / "README.md").read_text(encoding="utf-8")
    listed = re.findall(r"^\d+\. \[([^\]]+)\]\(([^)]+)\)", index, flags=re.MULTILINE)
    assert listed == [(head.partition(". ")[2], page.name) for head, page in zip(heads, PAGES, strict=True)]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_commands_exist_with_their_options(page: Path):
    """Each `waybill …` of a guide, in blocks and sentences, is a command with these options."""
    text = page.read_text(encoding="utf-8")
    blocks = re.findall(r"^```(?:console|sh|bash)\n(.*?)^```$", text, flags=re.MULTILINE | re.DOTALL)
    lines = [line.removeprefix("$ ") for block in blocks for line in block.splitlines()]
    named = [match for line in [*lines, *re.findall(r"`([^`\n]+)`", text)]
             for match in re.findall(r"(?:^|[;&|(] *)(?:[A-Z_]+=\S* )*waybill ([a-z][^|;&$]*)", line)]  # fmt: skip
    assert named
    for line in named:
        name = next((each for each in commands() if f"{line.strip()} ".startswith(f"{each} ")), None)
        assert name, line
        shown = help_text(name)
        assert all(option in shown for option in re.findall(r"(?<!\S)--[a-z-]+", line)), line


@pytest.fixture(scope="module")
def home(tmp_path_factory) -> Iterator[Path]:
    """The home of a running `waybill dev` that has served the sample requests."""
    folder = tmp_path_factory.mktemp("guides") / ".waybill"
    with running(folder, "--local-model", "in-process", "--requests", "config/requests.jsonl") as dev:
        dev.until(lambda: "running; Ctrl-C stops" in dev.said(), 150)
        yield folder


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A folder with a deployment of its own."""
    shutil.copytree(ROOT / "config", tmp_path / "config")
    return tmp_path


@pytest.mark.parametrize("guide", LIVE)
def test_a_guide_is_followed_on_a_running_pipeline(guide, home, place):
    """Each command prints what the guide shows."""
    assert run(guide, place, {"WAYBILL_HOME": str(home)}) > 1


def test_a_route_is_added_as_the_guide_says(place):
    """The guide on routes needs nothing that runs; in the end the new route is in force and checked."""
    assert run("04-add-a-route.md", place, {}) > 5


def test_a_site_is_federated_as_the_guide_says(home, place):
    """On the edge and on hq each command prints what the guide shows, with the edge's own evidence."""
    assert run("07-federate-a-site.md", place, {"EDGE": str(home)}) > 5


def test_evidence_comes_back_out_of_its_copy(home, place):
    """What was backed up is checked, put back into an empty home, and answers as before."""
    assert run("10-back-up-and-restore.md", place, {"WAYBILL_HOME": str(home)}) > 5


def test_what_guides_show_of_endpoints_is_what_the_doctor_says(place):
    """Each mistake of the guide on providers is found by `waybill doctor`, in these words."""
    for step in steps((GUIDES / "03-hosted-provider.md").read_text(encoding="utf-8")):
        if isinstance(step, Command):
            assert step.line.startswith(("waybill ", "WAYBILL_"))
    assert run("03-hosted-provider.md", place, {"WAYBILL_HOME": str(place / "home")}) > 1
