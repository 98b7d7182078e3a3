"""Writes record batches byte by byte, as any client of Kafka may: also what the library's producers refuse to write."""

from __future__ import annotations

import struct
import time
from collections.abc import Sequence
from typing import NamedTuple, Self
from zlib import compressobj

import cramjam
from aiokafka.client import AIOKafkaClient
from aiokafka.errors import KafkaConnectionError
from aiokafka.protocol.produce import ProduceRequest
from aiokafka.record.util import calc_crc32c
from aiokafka.structs import TopicPartition

CODECS = {"none": 0, "gzip": 1, "snappy": 2, "lz4": 3, "zstd": 4}


class Raw(NamedTuple):
    """A record; every part may be anything."""

    value: bytes | None = None
    key: bytes | None = None
    headers: Sequence[tuple[bytes, bytes | None]] = ()
    after_ms: int = 0
    """Its time, counted from the batch's."""


def varint(number: int) -> bytes:
    """Encode a number as Kafka does: zigzag, seven bits at a time."""
    left, found = (number << 1) ^ (number >> 63), bytearray()
    left %= 2**64
    while left > 0x7F:
        found.append(left & 0x7F | 0x80)
        left >>= 7
    found.append(left)
    return bytes(found)


def field(value: bytes | None) -> bytes:
    """Encode nullable bytes with their length before them."""
    return varint(-1) if value is None else varint(len(value)) + value


def record(raw: Raw, place: int) -> bytes:
    """Encode a record of a batch."""
    headers = b"".join(field(name) + field(value) for name, value in raw.headers)
    count = varint(len(raw.headers))
    body = b"\x00" + varint(raw.after_ms) + varint(place) + field(raw.key) + field(raw.value) + count + headers
    return varint(len(body)) + body


def compress(data: bytes, codec: int) -> bytes:
    """Compress as a producer does."""
    match codec:
        case 1:
            made = compressobj(wbits=31)
            return made.compress(data) + made.flush()
        case 2:
            return bytes(cramjam.snappy.compress_raw(data))
        case 3:
            return bytes(cramjam.lz4.compress(data))
        case 4:
            return bytes(cramjam.zstd.compress(data))
    return data


def seal(
    attributes: int, payload: bytes, *, count: int, first_ms: int, newest_ms: int, last: int | None = None
) -> bytes:
    """Give a batch with a right checksum around a payload, whatever that is."""
    last = count - 1 if last is None else last
    checked = struct.pack(">hiqqqhii", attributes, last, first_ms, newest_ms, -1, -1, -1, count) + payload
    return struct.pack(">qiibI", 0, len(checked) + 9, -1, 2, calc_crc32c(checked)) + checked


def batch(*raws: Raw, codec: str = "none", timestamp_ms: int | None = None) -> bytes:
    """Give a whole batch of format 2."""
    first = int(time.time() * 1000) if timestamp_ms is None else timestamp_ms
    payload = b"".join(record(raw, place) for place, raw in enumerate(raws))
    newest = max(first + raw.after_ms for raw in raws)
    number = CODECS[codec]
    return seal(number, compress(payload, number), count=len(raws), first_ms=first, newest_ms=newest)


class RawProducer:
    """Sends batches as they are."""

    def __init__(self, bootstrap: str) -> None:
        self._client = AIOKafkaClient(bootstrap_servers=bootstrap)

    async def __aenter__(self) -> Self:
        await self._client.bootstrap()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._client.close()

    async def send(self, topic: str, partition: int, data: bytes) -> tuple[int, int]:
        """Send a batch; give the broker's error code, 0 where it was taken, and the offset of its first record.

        The code is -1 where the broker hung up.
        """
        await self._client.add_topic(topic)
        node = self._client.cluster.leader_for_partition(TopicPartition(topic, partition))
        if node is None:
            await self._client.force_metadata_update()
            node = self._client.cluster.leader_for_partition(TopicPartition(topic, partition))
        try:
            answer = await self._client.send(node, ProduceRequest(None, -1, 30_000, [(topic, [(partition, data)])]))
        except KafkaConnectionError:
            return -1, -1  # a broker may hang up at what it takes for no batch at all
        ((_, ((_, code, offset, *_),)),) = answer.topics
        return code, offset
