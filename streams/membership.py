"""A consumer leaves its group at once when it is closed, and leaves no name behind that others wait for.

A broker holds the answer to a join back until every member it knows has joined again, or for as long as the rebalance
may take: up to a minute. aiokafka waits for that answer before it closes a consumer, so that a worker which is stopped
while a group assembles does not end. And it does not give back the name that it has from the broker where it is closed
before the join is complete: that name stays in the group as a member that never joins again, and is what the next
worker's join is held back for. Seen in workers that were stopped as they started.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Coroutine
from typing import Any, Final

from aiokafka.client import ConnectionGroup
from aiokafka.consumer import consumer as home
from aiokafka.consumer.group_coordinator import GroupCoordinator
from aiokafka.errors import KafkaError
from aiokafka.protocol.group import JoinGroupRequest, LeaveGroupRequest, SyncGroupRequest

log = logging.getLogger(__name__)

_LEAVE_S: Final = 2.0
"""How long a broker may take to hear that a member leaves; it finds out by itself when the session ends."""


class Membership(GroupCoordinator):  # type: ignore[misc] # the library is untyped
    """Membership in a consumer group, as aiokafka has it, that can be ended at any moment."""

    async def ensure_coordinator_known(self) -> None:
        """See aiokafka; joining gives up when the consumer is closed."""
        known = super().ensure_coordinator_known()
        # Heartbeats and commits ask for it too, and have an end of their own.
        await (self._unless_closing(known) if asyncio.current_task() is self._coordination_task else known)

    async def _send_req(self, request: Any) -> Any:
        if not isinstance(request, JoinGroupRequest | SyncGroupRequest):
            return await super()._send_req(request)
        return await self._unless_closing(super()._send_req(request))

    async def _unless_closing(self, asking: Coroutine[Any, Any, Any]) -> Any:
        """Wait for an answer, but not beyond the end of this consumer.

        Raises:
            KafkaError: the consumer is closed; aiokafka's routine takes it as a failed join, and looks up.
        """
        asked = asyncio.ensure_future(asking)
        try:
            await asyncio.wait({asked, self._closing}, return_when=asyncio.FIRST_COMPLETED)
            if asked.done():
                return asked.result()
        finally:
            if not asked.done():
                asked.cancel()
                await asyncio.wait({asked})
        # The broker reads nothing more from this connection before it has answered, so that leaving needs another one.
        connection = self._client._conns.get((self.coordinator_id, ConnectionGroup.COORDINATION))  # noqa: SLF001 - see above
        if connection is not None:
            connection.close()
        raise KafkaError("the consumer is closed")

    async def _maybe_leave_group(self) -> None:
        """Tell the broker that the name is free; aiokafka does so only after a complete join."""
        if self.member_id != JoinGroupRequest.UNKNOWN_MEMBER_ID and self._group_instance_id is None:
            try:
                async with asyncio.timeout(_LEAVE_S):
                    await self._send_req(LeaveGroupRequest(self.group_id, self.member_id))
            except (KafkaError, TimeoutError) as error:
                log.warning("group %s was not told that a member leaves: %r", self.group_id, error)
        self.reset_generation()


def mend() -> None:
    """Have every consumer of this process be such a member; calling it again changes nothing."""
    home.GroupCoordinator = Membership
