"""What the topics still keep of a request, beside its evidence: contracts, and the receipt."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

import orjson
from aiokafka.structs import ConsumerRecord

from evidence.pack import Documents
from streams import envelope
from streams.errors import BrokerUnavailable
from streams.kafka import KafkaSettings
from streams.topics import WORK_HOSTED, WORK_LOCAL
from waybill.cli.reading import tail
from waybill.cli.traffic import find_response

_POLL_MS: Final = 500
_SHOWN: Final = ("requestId", "outcome", "endedAtUtc", "failure", "receipt")
"""What of a response goes into a pack; the answer does not."""


async def documents(
    kafka: KafkaSettings, request_id: str, named: Mapping[str, Sequence[str]], timeout_s: float
) -> Documents:
    """Look for the receipt of a request, and for the contracts that its rows name.

    Args:
        kafka: how to reach the broker.
        request_id: the request.
        named: digests of contracts, by intake.
        timeout_s: seconds that each look through topics may take.

    Raises:
        BrokerUnavailable: no broker answers, or not in time.
        TopicMismatch: a topic is not there.
    """
    response = await find_response(kafka, request_id, timeout_s)
    receipt = (response or {}).get("receipt") or {}
    mine = receipt.get("intakeId") in named
    found = dict(_contracts([receipt.get("waybill")]))
    wanted = {digest for digests in named.values() for digest in digests}
    if not wanted <= found.keys():
        found |= await _from_work(kafka, list(named), wanted, timeout_s)
    kept = orjson.dumps({name: response[name] for name in _SHOWN if name in response}) if response and mine else None
    return Documents(tuple(found[digest] for digest in sorted(wanted & found.keys())), kept)


async def _from_work(
    kafka: KafkaSettings, intakes: Sequence[str], wanted: set[str], timeout_s: float
) -> dict[str, bytes]:
    """Look through the work records: each has the contract of every hosted route that it may take."""
    found: dict[str, bytes] = {}
    reader = await tail(kafka, (WORK_HOSTED, WORK_LOCAL), from_start=True)
    try:
        async with asyncio.timeout(timeout_s):
            ends = await reader.end_offsets(list(reader.assignment()))
            open_ = {partition for partition, end in ends.items() if await reader.position(partition) < end}
            while open_ and not wanted <= found.keys():
                batch = await reader.getmany(*open_, timeout_ms=_POLL_MS)
                for record in (record for records in batch.values() for record in records):
                    found |= _of_record(record, intakes)
                open_ = {partition for partition in open_ if await reader.position(partition) < ends[partition]}
    except TimeoutError:
        raise BrokerUnavailable(
            f"the work records at {kafka.bootstrap} could not be looked through within {timeout_s:g} s"
        ) from None
    finally:
        await reader.stop()
    return found


def _of_record(record: ConsumerRecord[Any, Any], intakes: Sequence[str]) -> dict[str, bytes]:
    value = record.value or b""
    if not any(intake.encode() in value for intake in intakes):  # most are of others, and cost no parsing
        return {}
    work = envelope.content(value, "intakeId", objects=("waybills",))
    if work is None or work["intakeId"] not in intakes:
        return {}
    return dict(_contracts(work["waybills"].values()))


def _contracts(values: Iterable[Any]) -> Iterable[tuple[str, bytes]]:
    """Give contracts in canonical form, by their digests."""
    for value in values:
        if value is not None:
            text = orjson.dumps(value, option=orjson.OPT_SORT_KEYS)
            yield hashlib.sha256(text).hexdigest(), text
