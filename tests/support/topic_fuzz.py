"""Makes records of every kind that a client of Kafka can write, and some that only a broken one would.

Everything follows from a seed. A third is noise; the rest begins as a good record of its topic and is changed a little,
since what is nearly right goes furthest.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from random import Random
from typing import Any, Final
from zlib import crc32

from aiokafka.record.util import calc_crc32c
from raw_batches import CODECS, Raw, batch, compress, record, seal

ODD: Final[Sequence[Any]] = (
    None, True, False, 0, -1, 2**31, 2**63, -(2**63) - 1, 10**40, 0.5, 1e308, -0.0, "", " ", "x" * 300, "y" * 5000, [],
    {}, [[]], {"": ""}, "9999-12-31T23:59:59Z", "9999-12-31T23:59:59.999999Z", "0001-01-01T00:00:00Z",
    "2026-02-30T00:00:00Z", "2016-12-31T23:59:60Z", "2026-11-29T12:00:00+14:00", "a\x00b", "\ud83d", "\u202e[red]",
    "../../etc/passwd", "1.9", "99", "ended", "operator", "request.ended",
)  # fmt: skip
"""Values that stand where others are expected; a lone surrogate is written as `\\ud83d`."""

TIMES: Final = (0, -1, 1, 253_402_300_799_999, 253_402_300_800_000, 2**62, -(2**62), 1_795_953_600_000_000)


@dataclass(frozen=True)
class Written:
    """A batch, and what was done to it."""

    topic: str
    partition: int
    data: bytes
    told: str
    records: int


class Fuzz:
    """Makes batches; the same seed and samples make the same ones."""

    def __init__(self, seed: int, partitions: int) -> None:
        self._random = Random(seed)  # noqa: S311 - records for a test
        self._partitions = partitions
        self._ways: Sequence[tuple[int, Callable[[list[Raw], int | None], bytes]]] = (
            (60, self._plain),
            (20, self._compressed),
            (4, self._bad_payload),
            (4, self._bad_codec),
            (2, self._bad_checksum),
            (3, self._old_format),
            (3, self._odd_head),
            (3, self._bomb),
            (4, self._flipped),
        )

    def write(self, topic: str, samples: Sequence[tuple[bytes | None, bytes | None, Any]]) -> Written:
        """Make a batch for a topic.

        Args:
            topic: its name on the broker.
            samples: key, value and headers of good records of it.
        """
        random = self._random
        raws = [
            self._record(random.choice(samples) if samples else (None, None, ()))
            for _ in range(random.choice((1, 1, 1, 2, 5)))
        ]
        weights = [weight for weight, _ in self._ways]
        way = random.choices([way for _, way in self._ways], weights)[0]
        timestamp = random.choice(TIMES) if random.random() < 0.2 else None
        data = way(raws, timestamp)
        return Written(topic, random.randrange(self._partitions), data, way.__name__, len(raws))

    def _record(self, sample: tuple[bytes | None, bytes | None, Any]) -> Raw:
        random = self._random
        key, value, headers = sample
        named = [(name.encode() if isinstance(name, str) else name, text) for name, text in headers]
        match random.randrange(6):
            case 0 | 1:
                value = self._noise()
            case 2:
                value = self._bytes_changed(value or b"")
            case _:
                value = self._json_changed(value or b"{}")
        if random.random() < 0.3:
            key = random.choice((None, b"", b"\xff\xfe", b"k" * 2000, self._noise(64), b"tenant/subject/*"))
        if random.random() < 0.4:
            named = self._headers_changed(named)
        return Raw(value, key, named, random.choice((0, 0, 0, -5, 2**40, -(2**40))))

    def _noise(self, most: int = 600) -> bytes | None:
        random = self._random
        return random.choice(
            (
                None,
                b"",
                b"null",
                b"[" * 2000,
                b'{"a":' * 500,
                random.randbytes(random.randrange(most)),
                b"NaN",
                b'"\\ud800"',
            )
        )

    def _bytes_changed(self, value: bytes) -> bytes:
        random, changed = self._random, bytearray(value)
        for _ in range(random.randrange(1, 4)):
            if changed:
                changed[random.randrange(len(changed))] = random.randrange(256)
        return bytes(changed[: random.randrange(len(changed) + 1)]) if random.random() < 0.2 else bytes(changed)

    def _json_changed(self, value: bytes) -> bytes:
        try:
            content = json.loads(value)
        except ValueError:
            return value
        for _ in range(self._random.choice((0, 1, 1, 1, 2, 4))):
            self._change(content)
        return json.dumps(content).encode()

    def _change(self, content: Any) -> None:
        random, here = self._random, content
        while isinstance(here, dict | list) and here:
            place = random.choice(list(here) if isinstance(here, dict) else range(len(here)))
            if not isinstance(here[place], dict | list) or not here[place] or random.random() < 0.4:
                match random.randrange(5):
                    case 0:
                        del here[place]
                    case 1 if isinstance(here, dict):
                        here[f"new{random.randrange(9)}"] = random.choice(ODD)
                    case _:
                        here[place] = random.choice(ODD)
                return
            here = here[place]

    def _headers_changed(self, named: list[tuple[bytes, bytes | None]]) -> list[tuple[bytes, bytes | None]]:
        random, found = self._random, list(named)
        for _ in range(random.randrange(1, 4)):
            one = random.choice(
                (
                    (b"x-\xff\xfe", b"1"),
                    (b"", None),
                    (b"ce_type", b"\xff"),
                    (b"content-type", None),
                    (b"traceparent", b"00-0-0-0"),
                    (random.randbytes(5), random.randbytes(9)),
                    (b"h" * 9000, b""),
                )
            )
            found.insert(random.randrange(len(found) + 1), one)
        return found * 40 if random.random() < 0.05 else found

    def _plain(self, raws: list[Raw], timestamp: int | None) -> bytes:
        return batch(*raws, timestamp_ms=timestamp)

    def _compressed(self, raws: list[Raw], timestamp: int | None) -> bytes:
        return batch(*raws, codec=self._random.choice(list(CODECS)), timestamp_ms=timestamp)

    def _bad_payload(self, raws: list[Raw], timestamp: int | None) -> bytes:
        payload = self._random.randbytes(40)
        return seal(
            self._random.randrange(8), payload, count=len(raws), first_ms=timestamp or 1, newest_ms=timestamp or 1
        )

    def _bad_codec(self, raws: list[Raw], timestamp: int | None) -> bytes:
        payload = b"".join(record(raw, place) for place, raw in enumerate(raws))
        return seal(
            self._random.randrange(1, 8), payload, count=len(raws), first_ms=timestamp or 1, newest_ms=timestamp or 1
        )

    def _bad_checksum(self, raws: list[Raw], timestamp: int | None) -> bytes:
        data = bytearray(batch(*raws, timestamp_ms=timestamp))
        data[-1] ^= 0xFF
        return bytes(data)

    def _old_format(self, raws: list[Raw], timestamp: int | None) -> bytes:
        key, value = raws[0].key, raws[0].value
        magic = self._random.randrange(2)
        parts = [struct.pack(">bb", magic, self._random.choice((0, 0, 1, 3)))]
        parts += [struct.pack(">q", timestamp or 1)] * magic
        for part in (key, value):
            parts.append(struct.pack(">i", -1) if part is None else struct.pack(">i", len(part)) + part)
        body = b"".join(parts)
        return struct.pack(">qiI", 0, len(body) + 4, crc32(body)) + body

    def _odd_head(self, raws: list[Raw], timestamp: int | None) -> bytes:
        random = self._random
        payload = b"".join(record(raw, place) for place, raw in enumerate(raws))
        return seal(
            random.choice((0, 0x10, 0x20, 0x30, 0x08, 0x40)),
            payload,
            count=random.choice((len(raws), 0, -1, 2**31 - 1)),
            last=random.choice((None, 0, 5, -1, 2**31 - 1)),
            first_ms=timestamp or 1,
            newest_ms=random.choice((0, -1, 2**62)),
        )

    def _bomb(self, raws: list[Raw], timestamp: int | None) -> bytes:
        del raws
        codec = self._random.choice((1, 4))
        payload = compress(record(Raw(bytes(40 * 2**20)), 0), codec)
        return seal(codec, payload, count=1, first_ms=timestamp or 1, newest_ms=timestamp or 1)

    def _flipped(self, raws: list[Raw], timestamp: int | None) -> bytes:
        random, data = self._random, bytearray(batch(*raws, timestamp_ms=timestamp))
        for _ in range(random.randrange(1, 4)):
            data[random.randrange(61, len(data))] = random.randrange(256)
        data[17:21] = struct.pack(">I", calc_crc32c(bytes(data[21:])))
        return bytes(data)


Samples = Mapping[str, Sequence[tuple[bytes | None, bytes | None, Any]]]
"""Good records by topic."""
