"""Whether a topic still is the one whose records a log holds.

A topic that was deleted and made anew has the old one's name, cluster and offsets. Once it has grown past what is
stored, offsets alone do not tell them apart, and the log would go on with another history.

So the record of the last row is read again, and its leaf hash compared with the one in the log's tree. That needs
nothing that is not stored already, and it finds a topic that was put back from elsewhere, too, which an id of the topic
would not. Where retention has removed that record, nothing can be compared; what is gone with it is named as lost.
"""

from __future__ import annotations

import asyncio
import logging
from typing import Any, Final

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.errors import KafkaError

from evidence.files.seam import Files
from evidence.log.tiles import HASH_BYTES, HEIGHT, WIDTH, TileRef
from evidence.rows import leaf_hashes
from evidence.store.layout import events_file
from evidence.store.state import tile_reader
from evidence.store.writer import PartitionWriter
from streams import kafka
from streams.errors import BrokerUnavailable, LogMismatch
from streams.kafka import KafkaSettings
from streams.stages.sink_partition import parse_records

log = logging.getLogger(__name__)

_LIMIT_S: Final = 15.0
"""Seconds that reading one record may take."""
_POLL_MS: Final = 200


async def check_same_topic(settings: KafkaSettings, files: Files, writer: PartitionWriter, tp: TopicPartition) -> None:
    """See that the record of a log's last row lies where it lay.

    Args:
        settings: how to reach the broker.
        files: the store.
        writer: the log's writer; nothing is written.
        tp: the partition that it is about to go on with.

    Raises:
        LogMismatch: another record lies there, or none.
        BrokerUnavailable: the broker does not give it, so that nobody can say; nothing may be stored.
        StoreError: the store is damaged.
        UnavailableError: the store cannot be read.
    """
    last = await asyncio.to_thread(_last_row, files, writer)
    if last is None:
        return
    offset, leaf = last
    reader = kafka.consumer(settings, group=None)
    try:
        async with asyncio.timeout(_LIMIT_S):
            await reader.start()
            record = await _record(reader, tp, offset)
            if record is None and (await reader.beginning_offsets([tp]))[tp] > offset:
                log.warning(
                    "%s: record %d, of the last row, is gone from the topic, so that the topic cannot be compared with "
                    "the log", writer.log, offset,
                )  # fmt: skip
                return
    except (KafkaError, OSError, TimeoutError) as error:
        raise BrokerUnavailable(
            f"{writer.log}: record {offset} could not be read from {settings.bootstrap}, to see that the topic is "
            f"still the one that is stored: {error or 'too slow'}"
        ) from error
    finally:
        await reader.stop()
    if record is None or leaf_hashes(parse_records([record], tp.partition).table) != leaf:
        raise LogMismatch(
            f"{writer.log}: offset {offset} of the topic holds {'nothing' if record is None else 'another record'} "
            "where the log has its last row: the topic was made anew, or put back from elsewhere, under the same log "
            "id. Nothing was stored of it. Give the sink another log id (WAYBILL_LOG_ID) or another evidence "
            "directory, which stores the new topic from its beginning, or restore the old topic"
        )


def _last_row(files: Files, writer: PartitionWriter) -> tuple[int, bytes] | None:
    """Give the offset and the leaf hash of a log's last row; None where there is none, or it has expired."""
    number = writer.commit.size - 1
    newest = max(writer.live.files.values(), key=lambda added: events_file(added.path).last, default=None)
    if newest is None or newest.leaves[-1][1] != number:
        return None
    tile = tile_reader(files, writer.log)(TileRef(0, number >> HEIGHT, number % WIDTH + 1))
    return events_file(newest.path).last, tile[-HASH_BYTES:]


async def _record(reader: AIOKafkaConsumer, tp: TopicPartition, offset: int) -> Any:
    """Give the record at an offset; None where something else follows it, or a marker or an aborted record is there."""
    reader.assign([tp])
    reader.seek(tp, offset)
    while True:
        for record in (await reader.getmany(tp, timeout_ms=_POLL_MS)).get(tp, ()):
            return record if record.offset == offset else None
        if await reader.position(tp) > offset:
            return None
