"""Whether a topic still is the one whose records a log holds.

A topic that was deleted and made anew has the old one's name, cluster and offsets. Once it has grown past what is
stored, offsets alone do not tell them apart, and the log would go on with another history.

So the record of the last row is read again, and its leaf hash compared with the one in the log's tree. That needs
nothing that is not stored already, and it finds a topic that was put back from elsewhere, too, which an id of the topic
would not. Where retention has removed that record, nothing can be compared; what is gone with it is named as lost.

Another version of the program may make another row of the same record, or refuse it. That is no other topic: the
record's time, and the event's id in it, tell.
"""

from __future__ import annotations

import asyncio
import logging
from typing import Any, Final

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.errors import KafkaError

from evidence.files.seam import Files
from evidence.log.commits import Added
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
    newest = _newest(writer)
    if newest is None:
        return
    offset = events_file(newest.path).last
    leaf = await asyncio.to_thread(_last_leaf, files, writer)
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
    if record is not None:
        if leaf_hashes(parse_records([record], tp.partition).table) == leaf:
            return
        if await asyncio.to_thread(_is_of, record, files, newest):
            log.warning(
                "%s: record %d is the one of the last row, of which another version of this program has made another "
                "row than this one would; the log goes on", writer.log, offset,
            )  # fmt: skip
            return
    raise LogMismatch(
        f"{writer.log}: offset {offset} of the topic holds {'nothing' if record is None else 'another record'} "
        "where the log has its last row: the topic was made anew, or put back from elsewhere, under the same log "
        "id. Nothing was stored of it. Give the sink another log id (WAYBILL_LOG_ID) or another evidence "
        "directory, which stores the new topic from its beginning, or restore the old topic"
    )


def _newest(writer: PartitionWriter) -> Added | None:
    """Give the file that holds a log's last row; None where there is none, or the row has expired."""
    newest = max(writer.live.files.values(), key=lambda added: events_file(added.path).last, default=None)
    return None if newest is None or newest.leaves[-1][1] != writer.commit.size - 1 else newest


def _last_leaf(files: Files, writer: PartitionWriter) -> bytes:
    number = writer.commit.size - 1
    return tile_reader(files, writer.log)(TileRef(0, number >> HEIGHT, number % WIDTH + 1))[-HASH_BYTES:]


def _is_of(record: Any, files: Files, added: Added) -> bool:
    """Tell whether the last row of a file was made of a record, whatever was made of it: its time and id are there."""
    try:
        there = pq.ParquetFile(pa.BufferReader(files.read(added.path)))
        rows = there.read(["log_offset", "log_timestamp", "event_id"])
    except pa.ArrowException:
        return False
    last = rows.filter(pc.equal(rows["log_offset"], record.offset))
    moment = record.timestamp if record.timestamp >= 0 else None
    return (
        last.num_rows == 1
        and last["log_timestamp"].cast(pa.int64())[0].as_py() == moment
        and last["event_id"][0].as_py().encode() in (record.value or b"")
    )


async def _record(reader: AIOKafkaConsumer, tp: TopicPartition, offset: int) -> Any:
    """Give the record at an offset; None where something else follows it, or a marker or an aborted record is there."""
    reader.assign([tp])
    reader.seek(tp, offset)
    while True:
        for record in (await reader.getmany(tp, timeout_ms=_POLL_MS)).get(tp, ()):
            return record if record.offset == offset else None
        if await reader.position(tp) > offset:
            return None
