"""The page on approvals: its example runs as it stands there, and its codes are the code's."""

from __future__ import annotations

import ast
import asyncio
import re
from datetime import UTC, datetime

import pytest
from approvals_made import asked, parked
from approvals_process import stage_in_thread
from command_rig import Commands
from console_examples import DOCS, examples, plain
from topic_rig import topics

from streams.approvals import LONGEST_WAIT
from streams.envelope import APPROVAL_TYPE
from streams.transactions import Batch, Writer
from waybill.cli import approvals

PAGE = (DOCS / "approvals.md").read_text(encoding="utf-8")


@pytest.mark.kafka
def test_the_example_runs_as_it_is_shown(kafka, prefix, monkeypatch, capsys):
    """Each command of the page prints what stands below it, moments and event ids apart."""
    settings = asyncio.run(topics(kafka, prefix, partitions=1))

    async def park():
        writer = await Writer(settings, transactional_id="waybill-admission-0", group="g").start()
        await writer.write(Batch(parked(asked(1, now=datetime.now(UTC)), settings.name)))
        await writer.stop()

    asyncio.run(park())
    run = Commands(approvals.app, settings, monkeypatch, capsys)
    shown = examples("approvals.md")
    assert len(shown) == 2
    with stage_in_thread(settings):
        for arguments, output in shown:
            assert plain(run(*arguments).out) == plain(output), arguments


def test_every_code_of_an_answer_that_does_not_count_is_documented():
    """The table has each code that the rules and the stage give, and no other."""
    given = {"bad_approval"}
    for path in ("streams/approvals.py", "streams/stages/approvals.py"):
        for node in ast.walk(ast.parse((DOCS.parent / path).read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and ast.unparse(node.func) in {"_void", "self._reject"}:
                given |= {arg.value for arg in node.args[:2] if isinstance(arg, ast.Constant)} & set(
                    re.findall(r"[a-z]+_[a-z]+", ast.unparse(node))
                )
    table = PAGE.partition("| code |")[2].partition("\n\n")[0]
    assert set(re.findall(r"^\| `(\w+)` \|", table, flags=re.MULTILINE)) == given


def test_the_page_tells_the_numbers_of_the_code():
    """The longest wait and the type of the records are as the page says."""
    assert LONGEST_WAIT.days == 7
    assert "for seven days" in PAGE
    assert f"`{APPROVAL_TYPE}`" in PAGE
