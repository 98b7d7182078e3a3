"""Whatever bytes lie in a batch, a consumer gives what can be read of it, and names the rest in its place."""

from __future__ import annotations

import struct
import tracemalloc
from random import Random
from typing import Any
from zlib import crc32

import cramjam
import pytest
from aiokafka.consumer import fetcher
from aiokafka.record.util import calc_crc32c
from aiokafka.structs import TopicPartition
from raw_batches import CODECS, Raw, batch, compress, record, seal

from streams import kafka, readable
from streams.readable import MAX_EXPANDED_BYTES, Batches, ReadableRecords, failure_of

HERE = TopicPartition("topic", 0)
GOOD = Raw(b"value", b"key", [(b"name", b"text")])


def at(data: bytes, offset: int) -> bytes:
    """Give a batch the offset at which a broker has put it."""
    return struct.pack(">q", offset) + data[8:]


def read(data: bytes, offset: int = 0, *, committed: bool = True) -> list[Any]:
    """Read an answer to a fetch from an offset on."""
    return list(ReadableRecords(HERE, Batches(data), None, offset, None, None, True, int(committed)))  # noqa: FBT003


def codes(found: list[Any]) -> list[str | None]:
    """Give what is wrong with each."""
    return [None if (error := failure_of(one)) is None else error.code for one in found]


def test_every_consumer_of_the_process_reads_so():
    """The library's own fetcher makes its records with these classes as soon as clients are made here."""
    assert kafka.consumer is not None
    assert (fetcher.MemoryRecords, fetcher.PartitionRecords) == (readable.Batches, readable.ReadableRecords)


@pytest.mark.parametrize("codec", CODECS)
def test_each_codec_is_read(codec):
    """Records compressed with any of Kafka's codecs come as they were written."""
    found = read(batch(GOOD, Raw(None, None), codec=codec))
    assert [(one.value, one.key, one.headers, one.offset) for one in found] == [
        (b"value", b"key", (("name", b"text"),), 0), (None, None, (), 1),
    ]  # fmt: skip
    assert codes(found) == [None, None]


def test_blocks_of_snappy_are_read():
    """Java's producers write snappy in blocks behind a head of their own."""
    payload = record(GOOD, 0) + record(GOOD, 1)
    blocks = [bytes(cramjam.snappy.compress_raw(part)) for part in (payload[:20], payload[20:])]
    head = bytes((130,)) + b"SNAPPY\0" + struct.pack(">ii", 1, 1)
    data = head + b"".join(struct.pack(">i", len(block)) + block for block in blocks)
    assert [one.value for one in read(seal(2, data, count=2, first_ms=1, newest_ms=1))] == [b"value", b"value"]


@pytest.mark.parametrize("codec", CODECS)
def test_a_header_name_that_is_not_utf8_is_one_records_fault(codec):
    """That record alone is named, with its value and key; those before and after it in the batch are read."""
    found = read(batch(GOOD, Raw(b"bad", b"k", [(b"x-\xff\xfe", b"1"), (b"ok", None)]), GOOD, codec=codec))
    assert codes(found) == [None, "bad_envelope", None]
    assert (found[1].value, found[1].key, found[1].headers, found[1].offset) == (b"bad", b"k", (("ok", None),), 1)


@pytest.mark.parametrize("number", [5, 6, 7])
def test_an_unknown_codec_is_named_at_each_offset(number):
    """Nothing of such a batch can be read; its offsets are named, and the batch after it is read."""
    found = read(at(seal(number, b"any", count=3, first_ms=1, newest_ms=1), 4) + at(batch(GOOD), 7), 5)
    assert [one.offset for one in found] == [5, 6, 7]
    assert codes(found) == ["unreadable_record", "unreadable_record", None]


@pytest.mark.parametrize("codec", ["gzip", "snappy", "lz4", "zstd"])
def test_data_that_do_not_decompress_are_named(codec):
    """Noise, nothing, and data that are cut off, marked as compressed."""
    whole = compress(record(Raw(b"x" * 5000), 0), CODECS[codec])
    for payload in (b"noise, and more of it", b"", whole[:-3], whole + b"tail"):
        found = read(seal(CODECS[codec], payload, count=1, first_ms=1, newest_ms=1))
        assert [one.offset for one in found] == [0], payload[:20]
        if payload != whole + b"tail":
            assert codes(found) == ["unreadable_record"], payload[:20]


@pytest.mark.parametrize("codec", ["gzip", "snappy", "lz4", "zstd"])
def test_a_bomb_takes_no_more_memory_than_the_bound(codec):
    """A batch that would be ten times the bound is named; not more than twice the bound is ever taken for it."""
    data = seal(
        CODECS[codec], compress(bytes(10 * MAX_EXPANDED_BYTES), CODECS[codec]), count=1, first_ms=1, newest_ms=1
    )
    tracemalloc.start()
    try:
        assert codes(read(data)) == ["unreadable_record"]
        assert tracemalloc.get_traced_memory()[1] < 2 * MAX_EXPANDED_BYTES + len(data) * 3
    finally:
        tracemalloc.stop()


def test_a_wrong_checksum_is_fetched_once_more_and_then_named():
    """The bytes may have been harmed on their way: nothing is given at first, so that the same offset is asked for."""
    data = bytearray(batch(GOOD))
    data[-1] ^= 1
    assert read(bytes(data)) == []
    assert codes(read(bytes(data))) == ["unreadable_record"]
    assert read(bytes(data)) == []
    assert codes(read(batch(GOOD))) == [None]


def test_a_record_that_is_broken_inside_its_length_is_one_records_fault():
    """Its length says where the next one begins."""
    broken = record(GOOD, 0) + b"\x0a\x00\x00\x02\xff\xff" + record(GOOD, 2)
    assert codes(read(seal(0, broken, count=3, first_ms=1, newest_ms=1))) == [None, "unreadable_record", None]


def test_where_a_record_has_no_end_the_rest_is_named():
    """Nobody knows where the next record begins; each offset that is left is named all the same."""
    broken = record(GOOD, 0) + b"\xe8\x07\x00\x00" + record(GOOD, 2)
    found = read(seal(0, broken, count=3, first_ms=1, newest_ms=1))
    assert codes(found) == [None, "unreadable_record", "unreadable_record"]
    assert [one.offset for one in found] == [0, 1, 2]


def test_a_claim_of_two_billion_records_is_named_once():
    """By its last offset, so that the position goes on behind it."""
    found = read(seal(5, b"", count=1, last=2**31 - 1, first_ms=1, newest_ms=1))
    assert [(one.offset, failure_of(one).code) for one in found] == [(2**31 - 1, "unreadable_record")]


@pytest.mark.parametrize("magic", [0, 1])
def test_messages_of_the_old_formats_are_read_or_named(magic):
    """A plain one is read, without a time in the oldest format; a compressed or harmed one is named."""

    def old(attributes: int, crc: int = 0) -> bytes:
        body = (
            struct.pack(">bb", magic, attributes)
            + struct.pack(">q", 7) * magic
            + struct.pack(">i1si1s", 1, b"k", 1, b"v")
        )
        return struct.pack(">qiI", 0, len(body) + 4, crc32(body) ^ crc) + body

    (one,) = read(old(0))
    assert (one.key, one.value, one.timestamp, failure_of(one)) == (b"k", b"v", 7 if magic else -1, None)
    assert codes(read(old(1))) == codes(read(old(0, crc=1))) == ["unreadable_record"]


def test_marks_and_what_was_aborted_are_passed_over():
    """A reader of committed records gets neither; one that reads everything gets what was aborted."""

    def sent(attributes: int, payload: bytes) -> bytes:
        data = bytearray(seal(attributes, payload, count=1, first_ms=1, newest_ms=1))
        data[43:51] = struct.pack(">q", 9)
        data[17:21] = struct.pack(">I", calc_crc32c(bytes(data[21:])))
        return bytes(data)

    mark = record(Raw(b"\0\0\0\0\0\0", b"\0\0\0\0"), 0)
    log = sent(0x10, record(GOOD, 0)) + at(sent(0x30, mark), 1) + at(sent(0x10, record(GOOD, 0)), 2)
    aborted = ReadableRecords(HERE, Batches(log), [(9, 0)], 0, None, None, True, 1)  # noqa: FBT003
    assert [one.offset for one in aborted] == [2]
    assert aborted.next_fetch_offset == 3
    assert [one.offset for one in read(log, committed=False)] == [0, 2]
    nonsense = sent(0x30, record(Raw(b"", b""), 0))
    assert read(nonsense) == []


@pytest.mark.parametrize("batches", [400, pytest.param(3000, marks=pytest.mark.soak)])
def test_any_change_of_any_byte_leaves_a_reader_that_goes_on(batches):
    """Offsets rise, nothing is raised, and reading ends: batches with a right checksum around changed bytes."""
    random = Random(5)  # noqa: S311 - bytes for a test
    for _ in range(batches):
        data = bytearray(batch(GOOD, Raw(b"x" * 30, b"k", [(b"h", b"v")]), GOOD, codec=random.choice(list(CODECS))))
        for _ in range(random.randrange(1, 6)):
            data[random.randrange(21, len(data))] = random.randrange(256)
        data[17:21] = struct.pack(">I", calc_crc32c(bytes(data[21:])))
        offsets = [one.offset for one in read(bytes(data))]
        assert offsets == sorted(set(offsets)), bytes(data)


@pytest.mark.parametrize(
    ("places", "last", "good"),
    [((2**40,), 0, []), ((0, 2**40), 1, [0]), ((0, 0), 1, [0]), ((5, 6), 5, [5]), ((-3,), 0, [])],
)
def test_an_offset_outside_of_its_batch_moves_nobody_on(places, last, good):
    """The position stays within the batch, every offset comes once at most, and the next batch is read."""
    payload = b"".join(record(GOOD, place) for place in places)
    odd = seal(0, payload, count=len(places), first_ms=1, newest_ms=1, last=last)
    found = read(odd + at(batch(GOOD), last + 1))
    offsets = [one.offset for one in found]
    assert offsets == sorted(set(offsets))
    assert [one.offset for one in found if failure_of(one) is None] == [*good, last + 1]
    assert offsets[-1] == last + 1
