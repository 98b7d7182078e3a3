"""Making dead members leave their consumer groups.

The development broker never enforces a session time-out: a member that crashed keeps its partitions for ever, and the
group waits for it. Whoever knows that the members are dead (the supervisor, after the worker's end) makes them leave.
On Apache Kafka this only shortens the wait for the session time-out. A member that lives is thrown out too, and joins
again: call this only when nothing of the group is running.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import Any, TypeVar

from aiokafka.client import AIOKafkaClient, CoordinationType
from aiokafka.errors import (
    CoordinatorLoadInProgressError,
    CoordinatorNotAvailableError,
    KafkaError,
    NoError,
    NotCoordinatorError,
    UnknownMemberIdError,
    for_code,
)
from aiokafka.protocol.admin import DescribeGroupsRequest
from aiokafka.protocol.group import LeaveGroupRequest

from evidence.errors import UnavailableError

T = TypeVar("T")

_RETRY_S = 0.1
_MOVED = (CoordinatorLoadInProgressError, CoordinatorNotAvailableError, NotCoordinatorError)


async def evict_members(bootstrap: str, groups: Iterable[str], *, timeout_s: float = 15) -> int:
    """Make every member of these consumer groups leave.

    Args:
        bootstrap: the broker's address, `HOST:PORT[,HOST:PORT…]`.
        groups: the consumer groups; one that does not exist has no members.
        timeout_s: how long all of it may take, in seconds.

    Returns:
        How many members were made to leave.

    Raises:
        UnavailableError: the broker did not answer, or not in time.
    """
    names = sorted(set(groups))
    client = AIOKafkaClient(bootstrap_servers=bootstrap)
    try:
        async with asyncio.timeout(timeout_s):
            await client.bootstrap()
            return sum([await _evict(client, group) for group in names])
    except (KafkaError, TimeoutError) as error:
        reason = str(error) or f"no answer within {timeout_s:g} s"
        raise UnavailableError(
            f"could not make the members of {', '.join(names)} leave at {bootstrap}: {reason}",
        ) from error
    finally:
        await client.close()


async def count_members(options: Mapping[str, Any], groups: Iterable[str], *, timeout_s: float = 15) -> dict[str, int]:
    """Return how many members each consumer group has, of those that have any.

    Args:
        options: how to reach the broker, as aiokafka's clients take it.
        groups: the consumer groups.
        timeout_s: how long all of it may take, in seconds.

    Raises:
        UnavailableError: the broker did not answer, or not in time.
    """
    client = AIOKafkaClient(**options)
    try:
        async with asyncio.timeout(timeout_s):
            await client.bootstrap()
            found = {group: len((await _patiently(_members, client, group))[1]) for group in sorted(set(groups))}
    except (KafkaError, TimeoutError) as error:
        reason = str(error) or f"no answer within {timeout_s:g} s"
        raise UnavailableError(f"the broker at {options['bootstrap_servers']} does not answer: {reason}") from error
    finally:
        await client.close()
    return {group: count for group, count in found.items() if count}


async def _evict(client: AIOKafkaClient, group: str) -> int:
    return await _patiently(_evict_once, client, group)


async def _patiently(ask: Callable[[AIOKafkaClient, str], Awaitable[T]], client: AIOKafkaClient, group: str) -> T:
    while True:
        try:
            return await ask(client, group)
        except _MOVED:
            await asyncio.sleep(_RETRY_S)


async def _members(client: AIOKafkaClient, group: str) -> tuple[int, list[str]]:
    """Return a group's coordinator, and the ids of its members."""
    coordinator = await client.coordinator_lookup(CoordinationType.GROUP, group)
    if not await client.ready(coordinator):
        raise CoordinatorNotAvailableError(f"the coordinator of group {group}, node {coordinator}, is not reachable")
    # One group in each request: aiokafka reads the newest answer by the schema before it, which fits one group only.
    described = await client.send(coordinator, DescribeGroupsRequest([group]))
    code, _group, _state, _protocol_type, _protocol, members, *_ = described.groups[0]
    _check(code)
    return coordinator, [member_id for member_id, *_rest in members]


async def _evict_once(client: AIOKafkaClient, group: str) -> int:
    coordinator, members = await _members(client, group)
    left = 0
    for member_id in members:
        answer = await client.send(coordinator, LeaveGroupRequest(group, member_id))
        if for_code(answer.error_code) is not UnknownMemberIdError:  # it has left by itself in this moment
            _check(answer.error_code)
            left += 1
    return left


def _check(code: int) -> None:
    error = for_code(code)
    if error is not NoError:
        raise error
