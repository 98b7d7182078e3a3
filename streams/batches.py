"""Kafka's record batches, byte by byte: what is left to do where the library cannot read one.

https://kafka.apache.org/documentation/#recordbatch
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import Final, NamedTuple

from aiokafka.record.control_record import ABORT_MARKER, ControlRecord
from aiokafka.record.util import calc_crc32c

from evidence.errors import PermanentError, RecordError

MAGIC: Final = 2
"""The format of record batches, since Kafka 0.11."""

LENGTH_AT: Final = 8
"""Where the length of a batch stands, in every format."""
LOG_OVERHEAD: Final = 12
"""Bytes before those that the length counts, in every format."""

_HEADER: Final = struct.Struct(">qiibIhiqqqhii")
HEADER_BYTES: Final = _HEADER.size
"""Length of a batch's head."""
_MAGIC_AT: Final = 16
_CRC_AT: Final = 17
_CHECKED_AT: Final = 21
_ATTRIBUTES_AT: Final = 21

_OLD_HEADER_BYTES: Final = {0: 26, 1: 34}
"""Smallest message of the old formats: an empty key and value."""

_CODEC: Final = 0x07
_APPEND_TIME: Final = 0x08
_TRANSACTIONAL: Final = 0x10
_CONTROL: Final = 0x20

_VARINT_BYTES: Final = 10
_U64: Final = 2**64
_I64: Final = 2**63


class DamagedError(PermanentError):
    """Bytes are not what Kafka's protocol says; the text holds none of them."""


class Head(NamedTuple):
    """What a batch says of itself."""

    base_offset: int
    """Offset of its first record."""
    next_offset: int
    """Offset after its last one."""
    magic: int
    """Format."""
    attributes: int
    """Codec and marks."""
    first_timestamp: int
    """The time that records count from, in milliseconds since 1970."""
    max_timestamp: int
    """The newest record's."""
    producer_id: int
    """The producer's id, or -1."""
    records: int
    """How many records it says that it has."""

    @property
    def codec(self) -> int:
        """Return how it is compressed; 0 is not at all."""
        return self.attributes & _CODEC

    @property
    def timestamp_type(self) -> int:
        """Return 1 where times are the broker's, else 0."""
        return int(bool(self.attributes & _APPEND_TIME))

    @property
    def is_transactional(self) -> bool:
        """Tell whether a transaction wrote it."""
        return bool(self.attributes & _TRANSACTIONAL)

    @property
    def is_control(self) -> bool:
        """Tell whether it is the mark of a transaction."""
        return bool(self.attributes & _CONTROL)


class Found(NamedTuple):
    """A record as far as it could be read."""

    offset: int
    """Its offset."""
    timestamp: int
    """Its time, in milliseconds since 1970."""
    key: bytes | None
    """Its key."""
    value: bytes | None
    """Its value."""
    headers: tuple[tuple[str, bytes | None], ...]
    """Its headers; one whose name is not UTF-8 is left out."""
    error: RecordError | None
    """What could not be read."""


def head(data: bytes) -> Head:
    """Read the head of a batch, or of a message of the formats before.

    Raises:
        DamagedError: the batch is too short to have one, or its offsets run backwards.
    """
    if len(data) <= _MAGIC_AT:
        raise DamagedError("it is shorter than any batch")
    magic = data[_MAGIC_AT]
    if magic < MAGIC:
        if len(data) < _OLD_HEADER_BYTES[magic]:
            raise DamagedError("it is shorter than any message")
        base = struct.unpack_from(">q", data)[0]
        return Head(base, base + 1, magic, data[_MAGIC_AT + 1], -1, -1, -1, 1)
    if len(data) < HEADER_BYTES:
        raise DamagedError("it is shorter than any batch")
    base, _, _, _, _, attributes, last, first, newest, producer, _, _, count = _HEADER.unpack_from(data)
    if last < 0 or base < 0:
        raise DamagedError("its offsets run backwards")
    return Head(base, base + last + 1, magic, attributes, first, newest, producer, count)


def crc_is_good(data: bytes) -> bool:
    """Tell whether a batch's checksum is that of its bytes."""
    expected: int = struct.unpack_from(">I", data, _CRC_AT)[0]
    return bool(calc_crc32c(data[_CHECKED_AT:]) == expected)


def uncompressed(data: bytes, records: bytes) -> bytes:
    """Return a batch with its records as they were before they were compressed; its checksum is not made anew."""
    attributes = struct.unpack_from(">h", data, _ATTRIBUTES_AT)[0] & ~_CODEC
    length = HEADER_BYTES - LOG_OVERHEAD + len(records)
    before, after = data[:LENGTH_AT], data[_ATTRIBUTES_AT + 2 : HEADER_BYTES]
    between = data[LOG_OVERHEAD:_ATTRIBUTES_AT]
    return b"".join((before, struct.pack(">i", length), between, struct.pack(">h", attributes), after, records))


def is_abort(data: bytes) -> bool:
    """Tell whether a control batch ends a transaction by undoing it."""
    try:
        mark = next(records(data, head(data)))
        return bool(ControlRecord.parse(mark.key) == ABORT_MARKER)
    except Exception:  # noqa: BLE001 - a mark that cannot be read, or is missing, marks nothing
        return False


def moment(head: Head) -> int:
    """Return the time of a batch's first record, in milliseconds since 1970."""
    return head.max_timestamp if head.timestamp_type else head.first_timestamp


def records(data: bytes, head: Head) -> Iterator[Found]:
    """Read an uncompressed batch record by record; each is given, however broken it is within its length.

    Raises:
        DamagedError: a record has no end, so that nobody knows where the next one begins; none of the rest is given.
    """
    place, end = HEADER_BYTES, len(data)
    expected = head.base_offset
    for _ in range(max(0, min(head.records, head.next_offset - head.base_offset))):
        if expected >= head.next_offset:
            raise DamagedError("it has more records than offsets")
        length, begin = _varint(data, place, end)
        if not 0 <= length <= end - begin:
            raise DamagedError("a record's length is more than the batch has")
        place = begin + length
        found = _record(data, begin, place, head, expected)
        if not expected <= found.offset < head.next_offset:
            found = _broken(expected, head, "its offset is not one of the batch's")
        expected = found.offset + 1
        yield found
    if place != end:
        raise DamagedError("it has more bytes than records")


def _record(data: bytes, at: int, end: int, head: Head, expected: int) -> Found:
    try:
        _, at = _varint(data, at, end)
        after, at = _varint(data, at, end)
        distance, at = _varint(data, at, end)
        offset = head.base_offset + distance
        time = head.max_timestamp if head.timestamp_type else head.first_timestamp + after
        if not -_I64 <= time < _I64:
            time = -1
        key, at = _bytes(data, at, end)
        value, at = _bytes(data, at, end)
    except DamagedError as damaged:
        return _broken(expected, head, str(damaged))
    headers, error = _headers(data, at, end)
    return Found(offset, time, key, value, headers, error)


def _headers(data: bytes, at: int, end: int) -> tuple[tuple[tuple[str, bytes | None], ...], RecordError | None]:
    found: list[tuple[str, bytes | None]] = []
    error = None
    try:
        count, at = _varint(data, at, end)
        if not 0 <= count <= end - at:
            raise DamagedError("it has more headers than bytes")  # noqa: TRY301 - one way out for all headers
        for _ in range(count):
            name, at = _bytes(data, at, end)
            value, at = _bytes(data, at, end)
            try:
                found.append(((name or b"").decode(), value))
            except UnicodeDecodeError:
                error = RecordError("bad_envelope", "the name of a header is not UTF-8")
        if at != end:
            raise DamagedError("it is longer than what it holds")  # noqa: TRY301 - the same
    except DamagedError as damaged:
        error = RecordError("bad_envelope", f"its headers cannot be read: {damaged}")
    return tuple(found), error


def _broken(offset: int, head: Head, told: str) -> Found:
    error = RecordError("unreadable_record", f"the record cannot be read: {told}")
    return Found(offset, moment(head), None, None, (), error)


def _bytes(data: bytes, at: int, end: int) -> tuple[bytes | None, int]:
    length, at = _varint(data, at, end)
    if length < 0:
        return None, at
    if length > end - at:
        raise DamagedError("a field's length is more than the record has")
    return data[at : at + length], at + length


def _varint(data: bytes, at: int, end: int) -> tuple[int, int]:
    raw = shift = 0
    for place in range(at, min(end, at + _VARINT_BYTES)):
        raw |= (data[place] & 0x7F) << shift
        shift += 7
        if data[place] < 0x80:  # noqa: PLR2004 - the mark of a number's last byte
            raw %= _U64
            return (raw >> 1) ^ -(raw & 1), place + 1
    raise DamagedError("a number has no end")
