"""Records as every consumer of this process gets them: one that cannot be read is a value, never the end of a reader.

aiokafka raises where a batch cannot be read: at a header whose name is not UTF-8, an unknown codec, data that do not
decompress. The position stays where it is, so that whoever starts again meets the same batch, for ever. Here what can
be read of such a batch is read, and each of its other offsets is an `UnreadableRecord`, in its place: positions go on
as with any record, and each reader says what becomes of it. A compressed batch is expanded up to a bound.

There is no option for it in the library, so that its fetcher is given other classes, once, for the whole process: the
stages, the command line and Faust's own consumer read through the same one
(docs/decisions/0016-what-cannot-be-read-is-a-value.md).
"""

from __future__ import annotations

import mmap
import struct
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Final

import cramjam
from aiokafka.consumer import fetcher
from aiokafka.consumer.fetcher import READ_COMMITTED, PartitionRecords
from aiokafka.record.memory_records import MemoryRecords
from aiokafka.structs import ConsumerRecord, TopicPartition

from evidence.errors import RecordError
from streams import batches
from streams.batches import DamagedError, Found, Head

MAX_EXPANDED_BYTES: Final = 32 * 1024 * 1024
"""Largest batch, decompressed; a topic takes 1 MiB, which well-compressed JSON fills from some 20 MiB."""

_MAX_NAMED: Final = 100_000
"""Offsets of one batch that are each named as unreadable; one that claims more is named by its last."""

_READ_AGAIN: Final = 1
"""Times that a batch with a wrong checksum is fetched again: it may have been harmed on its way."""

_LEN: Final = struct.Struct(">i")
_SNAPPY_BLOCKS: Final = bytes((130, *b"SNAPPY", 0, 0, 0, 0, 1, 0, 0, 0, 1))
"""Begins a stream of snappy blocks, as Java's library writes it; anything else is one raw block."""


@dataclass
class UnreadableRecord(ConsumerRecord[bytes, bytes]):  # type: ignore[misc] # the library is untyped
    """A record, or its offset, of which not everything could be read; key, value and headers are what could."""

    failure: RecordError = RecordError("unreadable_record", "the record cannot be read")  # noqa: RUF009 - never changed
    """What is wrong: `bad_envelope` where it is a header alone, else `unreadable_record`."""


def failure_of(record: Any) -> RecordError | None:
    """Give what is wrong with the form of a record that a consumer gave; None where it could be read."""
    found: RecordError | None = getattr(record, "failure", None)
    return found


class Batches:
    """Takes aiokafka's `MemoryRecords`' place: the batches of one answer to a fetch, each with its bytes."""

    def __init__(self, data: bytes | None) -> None:
        self._data = bytes(data or b"")
        self._place = 0

    def size_in_bytes(self) -> int:
        """Return how much the broker gave."""
        return len(self._data)

    def has_next(self) -> bool:
        """Tell whether a whole batch is left; the last one may be cut off, and comes again."""
        return self._end() is not None

    def next_batch(self) -> bytes:
        """Return the bytes of the next batch."""
        begin, end = self._place, self._end()
        self._place = len(self._data) if end is None else end
        return self._data[begin : self._place]

    def _end(self) -> int | None:
        if len(self._data) - self._place < batches.LOG_OVERHEAD:
            return None
        length = _LEN.unpack_from(self._data, self._place + batches.LENGTH_AT)[0]
        end = self._place + batches.LOG_OVERHEAD + length
        if length < 0:
            return len(self._data)  # no batch has that: the rest of the answer cannot be told apart
        return end if end <= len(self._data) else None


class ReadableRecords(PartitionRecords):  # type: ignore[misc] # the library is untyped
    """Takes aiokafka's `PartitionRecords`' place: the records of one partition in one answer to a fetch."""

    next_fetch_offset: int

    def _unpack_records(self) -> Iterator[ConsumerRecord[bytes, bytes]]:
        records: Batches = self._records
        while records.has_next():
            data = records.next_batch()
            try:
                head = batches.head(data)
            except DamagedError as damaged:
                # Nobody knows how far it reaches: one offset at a time.
                yield self._unreadable(self.next_fetch_offset, str(damaged))
                return
            if head.magic < batches.MAGIC:
                yield from self._old(data, head)
                continue
            if head.next_offset <= self.next_fetch_offset:
                continue
            if self._check_crcs and not batches.crc_is_good(data):
                if _read_again(self._tp, head.base_offset):
                    return  # the position stays, and the fetcher asks again
                yield from self._unreadable_batch(head, "its checksum is wrong")
                continue
            if self._is_skipped(data, head):
                self.next_fetch_offset = head.next_offset
                continue
            yield from self._records_of(data, head)
            self.next_fetch_offset = max(self.next_fetch_offset, head.next_offset)

    def _is_skipped(self, data: bytes, head: Head) -> bool:
        """Tell whether a batch holds no records: the mark of a transaction, or what an aborted one wrote."""
        if self._isolation_level == READ_COMMITTED and head.producer_id >= 0:
            self._consume_aborted_up_to(head.base_offset)
            if head.is_control and batches.is_abort(data):
                self._aborted_producers.discard(head.producer_id)
            if head.is_transactional and head.producer_id in self._aborted_producers:
                return True
        return head.is_control

    def _records_of(self, data: bytes, head: Head) -> Iterator[ConsumerRecord[bytes, bytes]]:
        if head.codec:
            try:
                data = batches.uncompressed(data, expand(head.codec, data[batches.HEADER_BYTES :]))
            except DamagedError as damaged:
                yield from self._unreadable_batch(head, str(damaged))
                return
        expected = head.base_offset
        try:
            for record in MemoryRecords(data).next_batch():
                # Else the position would leave the batch, and miss what lies behind it.
                if not expected <= record.offset < head.next_offset:
                    raise DamagedError("a record's offset is not one of the batch's")  # noqa: TRY301 - one way out
                expected = record.offset + 1
                if record.offset >= self.next_fetch_offset:
                    made = self._consumer_record(self._tp, record)
                    self.next_fetch_offset = record.offset + 1
                    yield made
        except Exception:  # noqa: BLE001 - whatever the library cannot do with it, record by record tells more
            yield from self._one_by_one(data, head)

    def _one_by_one(self, data: bytes, head: Head) -> Iterator[ConsumerRecord[bytes, bytes]]:
        try:
            for found in batches.records(data, head):
                if found.offset >= self.next_fetch_offset:
                    self.next_fetch_offset = found.offset + 1
                    yield self._made(found, head)
        except DamagedError as damaged:
            yield from self._unreadable_batch(head, str(damaged))

    def _made(self, found: Found, head: Head) -> ConsumerRecord[bytes, bytes]:
        plain = (
            self._tp.topic,
            self._tp.partition,
            found.offset,
            found.timestamp,
            head.timestamp_type,
            found.key,
            found.value,
            None,
            -1 if found.key is None else len(found.key),
            -1 if found.value is None else len(found.value),
            found.headers,
        )
        return ConsumerRecord(*plain) if found.error is None else UnreadableRecord(*plain, failure=found.error)

    def _old(self, data: bytes, head: Head) -> Iterator[ConsumerRecord[bytes, bytes]]:
        """Read a record of Kafka's message formats before 0.11, which brokers of this decade refuse."""
        try:
            if head.codec:
                raise DamagedError("it is compressed in a format older than Kafka 0.11")  # noqa: TRY301 - one way out
            batch = MemoryRecords(data).next_batch()
            if not batch.validate_crc():
                raise DamagedError("its checksum is wrong")  # noqa: TRY301 - the same
            found = [self._consumer_record(self._tp, record) for record in batch]
        except Exception as error:  # noqa: BLE001 - as above
            told = str(error) if isinstance(error, DamagedError) else "its form is not Kafka's"
            if head.base_offset >= self.next_fetch_offset:
                yield self._unreadable(head.base_offset, told)
            return
        for record in found:
            if record.offset >= self.next_fetch_offset:
                record.timestamp = -1 if record.timestamp is None else record.timestamp
                self.next_fetch_offset = record.offset + 1
                yield record

    def _unreadable_batch(self, head: Head, told: str) -> Iterator[UnreadableRecord]:
        first, last = max(self.next_fetch_offset, head.base_offset), head.next_offset - 1
        if last - first >= _MAX_NAMED:
            yield self._unreadable(last, f"{told}; so it is with every record from offset {first} on")
            return
        for offset in range(first, last + 1):
            yield self._unreadable(offset, told, batches.moment(head))

    def _unreadable(self, offset: int, told: str, timestamp: int = -1) -> UnreadableRecord:
        self.next_fetch_offset = offset + 1
        failure = RecordError("unreadable_record", f"the record, or the batch that it lies in, cannot be read: {told}")
        place = self._tp.topic, self._tp.partition, offset
        return UnreadableRecord(*place, timestamp, 0, None, None, None, -1, -1, (), failure=failure)


_harmed: Final[dict[TopicPartition, tuple[int, int]]] = {}
"""Batches whose checksum was wrong: where the newest one of a partition begins, and how often it was seen."""


def _read_again(partition: TopicPartition, offset: int) -> bool:
    """Tell whether a batch with a wrong checksum is to be fetched again."""
    place, times = _harmed.get(partition, (offset, 0))
    times = times if place == offset else 0
    if times >= _READ_AGAIN:
        del _harmed[partition]
        return False
    _harmed[partition] = offset, times + 1
    return True


def expand(codec: int, data: bytes) -> bytes:
    """Return what was compressed, with any of Kafka's four codecs.

    Raises:
        DamagedError: it cannot be, there is no such codec, or it is larger than `MAX_EXPANDED_BYTES`.
    """
    if codec not in _EXPAND:
        raise DamagedError(f"it is compressed with codec {codec}, which Kafka does not have")
    name, decompress = _EXPAND[codec]
    try:
        return decompress(data)
    except (KeyboardInterrupt, SystemExit):
        raise
    except DamagedError:
        raise
    except BaseException:  # noqa: BLE001 - a panic of the library is no Exception
        raise DamagedError(
            f"its {name} data are broken, or have more than {MAX_EXPANDED_BYTES // 2**20} MiB when decompressed"
        ) from None


def _gunzip(data: bytes) -> bytes:
    found = bytearray()
    while data:
        one = zlib.decompressobj(wbits=31)
        found += one.decompress(data, MAX_EXPANDED_BYTES + 1 - len(found))
        if not one.eof:
            raise ValueError("cut off, or too large")
        data = one.unused_data
    return bytes(found)


def _into(decompress: Callable[[bytes, mmap.mmap], int]) -> Callable[[bytes], bytes]:
    """Return a function that decompresses into so much memory and no more; what is not used is never taken."""

    def bounded(data: bytes) -> bytes:
        with mmap.mmap(-1, MAX_EXPANDED_BYTES) as room:
            return room[: decompress(data, room)]

    return bounded


def _unsnap(data: bytes) -> bytes:
    if not data.startswith(_SNAPPY_BLOCKS[:8]):
        return _unsnapped(data, MAX_EXPANDED_BYTES)
    found, place = bytearray(), len(_SNAPPY_BLOCKS)
    while place < len(data):
        size = _LEN.unpack_from(data, place)[0]
        if size < 0 or place + 4 + size > len(data):
            raise ValueError("a block is cut off")
        found += _unsnapped(data[place + 4 : place + 4 + size], MAX_EXPANDED_BYTES - len(found))
        place += 4 + size
    return bytes(found)


def _unsnapped(data: bytes, limit: int) -> bytes:
    if cramjam.snappy.decompress_raw_len(data) > limit:
        raise ValueError("too large")
    return bytes(cramjam.snappy.decompress_raw(data))


_EXPAND: Final[dict[int, tuple[str, Callable[[bytes], bytes]]]] = {
    1: ("gzip", _gunzip),
    2: ("snappy", _unsnap),
    3: ("lz4", _into(cramjam.lz4.decompress_into)),
    4: ("zstd", _into(cramjam.zstd.decompress_into)),
}


def mend() -> None:
    """Have every consumer of this process read so; calling it again changes nothing."""
    fetcher.MemoryRecords = Batches
    fetcher.PartitionRecords = ReadableRecords
