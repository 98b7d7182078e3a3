"""What a broker says of itself: whether it answers, how many nodes it has, which cluster it is."""

from __future__ import annotations

import asyncio
import hashlib
from contextlib import suppress

from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.errors import KafkaError

from evidence.errors import UnavailableError


async def listening(bootstrap: str) -> bool:
    """Whether anything accepts connections at the first address of `bootstrap` (quiet, where a client would log)."""
    host, _, port = bootstrap.split(",", 1)[0].rpartition(":")
    try:
        _, writer = await asyncio.open_connection(host, int(port))
    except OSError:
        return False
    writer.close()
    with suppress(OSError):  # it was there, which was the question
        await writer.wait_closed()
    return True


async def node_count(bootstrap: str) -> int:
    """How many brokers of the cluster are registered and serve now.

    Raises:
        UnavailableError: none answered.
    """
    return len((await _describe(bootstrap))["brokers"])


async def cluster_id(bootstrap: str) -> str:
    """The cluster's own id, as it was formatted with ("" where the broker has none).

    Raises:
        UnavailableError: none answered.
    """
    return str((await _describe(bootstrap)).get("cluster_id") or "")


def log_id_of(cluster: str) -> str:
    """A short identifier (12 hex digits) of the log that a cluster keeps; equal for equal cluster ids."""
    return hashlib.sha256(cluster.encode()).hexdigest()[:12]


async def _describe(bootstrap: str) -> dict[str, list[object]]:
    admin = AIOKafkaAdminClient(bootstrap_servers=bootstrap, request_timeout_ms=5000)
    try:
        await admin.start()
        answer: dict[str, list[object]] = await admin.describe_cluster()
    except (KafkaError, OSError) as error:
        raise UnavailableError(f"the Kafka broker at {bootstrap} does not answer: {error}") from error
    else:
        return answer
    finally:
        await admin.close()
