"""The README's commands exist, its blocks run, and what it shows is sent is what admission takes."""

from __future__ import annotations

import asyncio
import json
import os
import re
import shutil
import subprocess
from datetime import UTC, datetime
from pathlib import Path

import pytest
from aiokafka import TopicPartition
from decisions import rules as made_rules
from doc_pages import ROOT, commands, help_text

from evidence.records import Position
from inference.routes import Endpoint
from inference.rulebook import load
from queries.database import Evidence
from streams.kafka import KafkaSettings, consumer, create_topics
from streams.stages.admit import Admitted, Incoming, Rules, admit
from streams.topics import REQUESTS

README = (ROOT / "README.md").read_text(encoding="utf-8")
ADDRESS = "127.0.0.1:9092"
SEND_S = 30


def blocks(language: str) -> list[str]:
    """Give the code blocks of a language."""
    return re.findall(rf"^```{language}\n(.*?)^```$", README, flags=re.MULTILINE | re.DOTALL)


def named() -> list[str]:
    """Give every command of ours that the README names, in blocks and in sentences."""
    lines = [line for block in blocks("sh") for line in block.splitlines()]
    return [match[1] for text in [*lines, *re.findall(r"`([^`\n]+)`", README)]
            if (match := re.match(r"(?:\.venv/bin/)?waybill ([a-z].*)", text))]  # fmt: skip


def test_commands_of_ours_exist_with_their_options():
    """Each `waybill …` is a command, and so is each of its options."""
    assert len(named()) > 3
    for line in named():
        name = next((each for each in commands() if f"{line} ".startswith(f"{each} ")), None)
        assert name, line
        shown = help_text(name)
        assert all(option in shown for option in re.findall(r"(?<!\S)--[a-z-]+", line)), line


def test_make_targets_exist():
    """Each `make …` is a target."""
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), flags=re.MULTILINE))
    found = set(re.findall(r"(?:^|`)make ([a-z]+)", README, flags=re.MULTILINE))
    assert found
    assert found <= targets


def test_the_quickstart_is_short():
    """A newcomer types ten lines at most."""
    quickstart = README.partition("## Quickstart")[2]
    block = re.search(r"^```sh\n(.*?)^```$", quickstart, flags=re.MULTILINE | re.DOTALL)
    assert block
    assert len(block[1].splitlines()) <= 10


def test_the_first_screen_says_what_it_is_for():
    """Before the quickstart stand one sentence, three uses and one picture, and all of it fits on a screen."""
    first = README.partition("## Quickstart")[0]
    assert len(first.splitlines()) <= 24
    assert first.count("\n- **") == 3
    assert first.count("```text") == 1
    assert max(map(len, re.findall(r"```text\n(.*?)```", first, flags=re.DOTALL)[0].splitlines())) <= 80


def test_every_promise_has_its_state():
    """README and status page have each promise once, by one name, and give it the same state."""
    status = (ROOT / "docs" / "status.md").read_text(encoding="utf-8")
    pattern = r"(works|partly|not yet) \|"
    rows = re.findall(rf"^\| (P\d+) ([^|]+?) \| {pattern} [^|]+ \|$", status, flags=re.MULTILINE)
    assert [promise for promise, _, _ in rows] == [f"P{number}" for number in range(1, 11)]
    told = re.findall(rf"^\| (P\d+) \| ([^|]+?) \| [^|]+ \| {pattern}$", README, flags=re.MULTILINE)
    assert told == rows


def test_what_is_partly_there_says_what_is_missing():
    """Of each promise that is not kept wholly the status page says why, and the README in short too."""
    status = (ROOT / "docs" / "status.md").read_text(encoding="utf-8")
    partly = re.findall(r"^\| (P\d+) [^|]+\| partly \| ([^|]+) \|$", status, flags=re.MULTILINE)
    short = next(line for line in README.splitlines() if line.startswith("In short: "))
    for promise, why in partly:
        assert re.search(r"Known to fail|There are no|Nothing reconciles", why), promise
        assert f"({promise})" in short
    assert short.count("(P") == len(partly)


def test_the_query_runs(tmp_path: Path):
    """The README's SQL is valid, and gives the columns that its output shows."""
    query = re.search(r'^waybill sql "(.+)"$', README, flags=re.MULTILINE)
    assert query
    with Evidence(tmp_path) as evidence, evidence.query(query[1]) as answer:
        columns = answer.columns
    head = next(line for line in README.splitlines() if line.startswith("┃ purpose"))
    assert [cell.strip() for cell in head.strip("┃").split("┃")] == list(columns)


@pytest.fixture
async def broker(dev_broker: str) -> KafkaSettings:
    """A broker with `ai.requests` under its plain name, as the README writes it."""
    settings = KafkaSettings(dev_broker)
    await create_topics(settings, partitions=2, replication=1, topics=[REQUESTS])
    return settings


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with the README's `request.json`."""
    (block,) = blocks("json")
    (tmp_path / "request.json").write_text(block, encoding="utf-8")
    return tmp_path


async def sent_by(argv: list[str], settings: KafkaSettings, folder: Path) -> Admitted:
    """Run a producer, and give what admission makes of the record that it wrote."""
    reader = consumer(settings, group=None)
    await reader.start()
    try:
        partitions = sorted(reader.partitions_for_topic(REQUESTS.name) or ())
        places = [TopicPartition(REQUESTS.name, number) for number in partitions]
        reader.assign(places)
        for place, end in (await reader.end_offsets(places)).items():
            reader.seek(place, end)
        process = await asyncio.create_subprocess_exec(
            *argv, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
        )
        said, _ = await asyncio.wait_for(process.communicate(), SEND_S)
        assert process.returncode == 0, said.decode()
        async with asyncio.timeout(SEND_S):
            while not (found := [each for batch in (await reader.getmany(timeout_ms=200)).values() for each in batch]):
                pass
    finally:
        await reader.stop()
    (record,) = found
    assert record.key == b"order-4711"
    place = Position(topic=record.topic, partition=record.partition, offset=record.offset)
    return admit(Incoming(place, record.timestamp, record.value, record.headers), rules(), datetime.now(UTC))


def rules() -> Rules:
    """What admission decides by: the sample deployment."""
    endpoints = {name: Endpoint(name, name, "loopback") for name in ("hosted", "local")}
    return made_rules(load(ROOT / "config" / "policy", ROOT / "config" / "routes.yaml", endpoints))


def admitted(result: Admitted) -> None:
    """See that the request goes to a hosted model, under a waybill."""
    assert result.result == "admitted", result.reason
    (work,) = [json.loads(record.value) for record in result.records if record.topic == "ai.work.hosted"]
    assert work["said"]["requestId"] == "order-4711"
    assert set(work["waybills"]) == {"hosted-general"}


async def test_a_shell_producer_takes_part(broker, folder):
    """The README's `kcat` lines send a request that admission takes."""
    if shutil.which("kcat") is None:
        told = "there is no kcat program: install the Debian package kcat"
        if os.environ.get("CI") == "true":
            pytest.fail(told, pytrace=False)
        pytest.skip(told)
    (code,) = [block for block in blocks("sh") if block.startswith("kcat ")]
    admitted(await sent_by(["sh", "-c", code.replace(ADDRESS, broker.bootstrap)], broker, folder))
