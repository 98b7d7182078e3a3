"""The README's commands exist, its blocks run, and what it shows is sent is what admission takes."""

from __future__ import annotations

import asyncio
import json
import os
import re
import shutil
import subprocess
import sys
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


def test_every_promise_has_its_state():
    """The status table has each promise once, and says works, partly or not yet."""
    rows = re.findall(r"^\| (P\d+) [^|]+\| (works|partly|not yet) \| [^|]+ \|$", README, flags=re.MULTILINE)
    assert [promise for promise, _ in rows] == [f"P{number}" for number in range(1, 11)]


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


async def test_a_python_producer_takes_part(broker, folder):
    """The README's Python sends a request that admission takes."""
    (code,) = blocks("python")
    assert len(code.strip().splitlines()) <= 12
    admitted(await sent_by([sys.executable, "-c", code.replace(ADDRESS, broker.bootstrap)], broker, folder))


async def test_a_shell_producer_takes_part(broker, folder):
    """The README's `kcat` lines send a request that admission takes."""
    if shutil.which("kcat") is None:
        told = "there is no kcat program: install the Debian package kcat"
        if os.environ.get("CI") == "true":
            pytest.fail(told, pytrace=False)
        pytest.skip(told)
    (code,) = [block for block in blocks("sh") if block.startswith("kcat ")]
    admitted(await sent_by(["sh", "-c", code.replace(ADDRESS, broker.bootstrap)], broker, folder))
