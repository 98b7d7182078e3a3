"""A crashed member does not block its group."""

import asyncio
import sys
import time
from pathlib import Path

import pytest
from aiokafka.admin import AIOKafkaAdminClient, NewTopic

from evidence.errors import UnavailableError
from streams.brokers.members import evict_members
from streams.brokers.process import Child, free_port

_MEMBER = Path(__file__).resolve().parents[1] / "support" / "group_member.py"


async def _create(bootstrap: str, topic: str, partitions: int) -> None:
    admin = AIOKafkaAdminClient(bootstrap_servers=bootstrap)
    await admin.start()
    try:
        await admin.create_topics([NewTopic(topic, partitions, 1)])
    finally:
        await admin.close()


def _member(name: str, bootstrap: str, group: str, topic: str, tmp_path: Path) -> Child:
    return Child(name, [sys.executable, str(_MEMBER), bootstrap, group, topic], log=tmp_path / f"{name}.log")


@pytest.fixture(params=["dev_broker", pytest.param("kafka", marks=pytest.mark.kafka)])
def bootstrap(request: pytest.FixtureRequest) -> str:
    """Each of the brokers in turn."""
    address: str = request.getfixturevalue(request.param)
    return address


async def test_evicting_a_killed_member_frees_its_partitions(bootstrap: str, prefix: str, tmp_path: Path) -> None:
    """A member killed with SIGKILL is made to leave, and the next member has all partitions within seconds."""
    group, topic = f"{prefix}group", f"{prefix}topic"
    await _create(bootstrap, topic, 4)
    first = _member("first", bootstrap, group, topic, tmp_path)
    second = _member("second", bootstrap, group, topic, tmp_path)

    async def first_has_all() -> bool:
        return "assigned 4" in first.tail()

    async def second_has_all() -> bool:
        return "assigned 4" in second.tail()

    try:
        await first.start()
        await first.wait_ready(first_has_all, timeout_s=30)
        first.kill()
        assert await evict_members(bootstrap, [group, f"{prefix}nobody"]) == 1
        began = time.monotonic()
        await second.start()
        await second.wait_ready(second_has_all, timeout_s=30)
        assert time.monotonic() - began < 15
    finally:
        await asyncio.gather(first.stop(), second.stop())


async def test_a_broker_that_is_gone_is_an_unavailable_error() -> None:
    """Eviction at a dead address says so instead of hanging."""
    bootstrap = f"127.0.0.1:{free_port()}"
    with pytest.raises(UnavailableError, match=bootstrap):
        await evict_members(bootstrap, ["group"], timeout_s=5)
