"""Brokers for tests: one Apache Kafka for a whole run, one development broker for each of its processes.

They are started when the first test asks for them, and three nodes for a module that asks for those. They run in no
event loop (`Child` belongs to none), so tests may use any loop scope.
"""

from __future__ import annotations

import asyncio
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from uuid import uuid4

import pytest
from shared_servers import run_folder, shared

from streams.brokers.apache import ApacheKafka
from streams.brokers.jars import Missing, missing_reason
from streams.brokers.noida import DevelopmentBroker

KAFKA_CACHE = Path(__file__).resolve().parents[2] / ".cache" / "kafka"
"""Where the jars lie between test runs (git-ignored)."""

# Brokers of tests live for seconds: what the second compiler would do for them costs more than it gives back.
os.environ.setdefault("JDK_JAVA_OPTIONS", "-XX:TieredStopAtLevel=1")


def unique_prefix(name: str = "t") -> str:
    """A prefix for topics, groups and transactional ids, so that tests share a broker; ends with a dot."""
    return f"{name}.{uuid4().hex[:8]}."


def need_kafka() -> None:
    """Skip the test, with the reason, where Apache Kafka cannot run; with `CI=true` that is a failure."""
    if reason := missing_reason(KAFKA_CACHE):
        _absent(reason)


def _absent(reason: str) -> None:
    if os.environ.get("CI") == "true":
        pytest.fail(f"CI must run the Apache Kafka tests: {reason}", pytrace=False)
    pytest.skip(reason)


@contextmanager
def running_kafka(nodes: int = 1) -> Iterator[ApacheKafka]:
    """Apache Kafka with this many nodes, its data in a temporary folder that goes with it."""
    need_kafka()
    # In /tmp itself, not in pytest's tmp_path: that one is kept for three sessions, with all the data.
    with tempfile.TemporaryDirectory(prefix="waybill-kafka-") as home:
        broker = ApacheKafka(Path(home), cache=KAFKA_CACHE, nodes=nodes)
        try:
            asyncio.run(broker.start())
        except Missing as error:
            _absent(str(error))
        try:
            yield broker
        finally:
            broker.kill()


@contextmanager
def _one_node() -> Iterator[str]:
    with running_kafka() as broker:
        yield broker.bootstrap


@pytest.fixture(scope="session")
def kafka(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The bootstrap address of a one-node Apache Kafka that all processes of the test run share."""
    need_kafka()
    with shared(run_folder(tmp_path_factory), "kafka", _one_node) as bootstrap:
        yield bootstrap


@pytest.fixture(scope="module")
def kafka3() -> Iterator[ApacheKafka]:
    """A cluster of three Apache Kafka nodes for the tests of one module, to kill nodes in."""
    with running_kafka(nodes=3) as broker:
        yield broker


@pytest.fixture(scope="session")
def dev_broker() -> Iterator[str]:
    """The bootstrap address of a development broker (noida-db) that the whole session shares."""
    with tempfile.TemporaryDirectory(prefix="waybill-broker-") as home:
        broker = DevelopmentBroker(Path(home))
        bootstrap = asyncio.run(broker.start())
        try:
            yield bootstrap
        finally:
            broker.kill()


@pytest.fixture
def prefix() -> str:
    """A prefix of this test alone for topics, groups and transactional ids."""
    return unique_prefix()
