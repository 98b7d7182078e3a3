"""A plain writer of evidence stores, made from the format's page alone: slow, simple, row by row."""

from __future__ import annotations

import base64
import hashlib
import io
import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from itertools import groupby
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

NOON = datetime(2026, 11, 24, 12, tzinfo=UTC)
"""When the first made-up request arrives."""

FEW = pa.dictionary(pa.int32(), pa.string())
UTC_US = pa.timestamp("us", tz="UTC")

SCHEMA = pa.schema(
    [
        pa.field("evidence_version", FEW, nullable=False),
        pa.field("event_id", pa.string(), nullable=False),
        pa.field("event_type", FEW, nullable=False),
        pa.field("request_id", pa.string(), nullable=False),
        pa.field("intake_id", pa.string(), nullable=False),
        pa.field("sequence", pa.int64(), nullable=False),
        pa.field("occurred_at", UTC_US, nullable=False),
        pa.field("stage", FEW, nullable=False),
        pa.field("site", FEW, nullable=False),
        pa.field("purpose", FEW),
        pa.field("deadline", UTC_US),
        pa.field(
            "classification",
            pa.struct([("declared", pa.string()), ("detected", pa.string()), ("findings", pa.list_(pa.string()))]),
        ),
        pa.field(
            "usage",
            pa.struct([("input_tokens", pa.int64()), ("cost_usd", pa.float64()), ("expires_at", UTC_US)]),
        ),
        pa.field("fallbacks", pa.list_(pa.string())),
        pa.field("retryable", pa.bool_()),
        pa.field("duration_ms", pa.float64()),
        pa.field("output_bytes", pa.int64()),
        pa.field("detail", pa.string()),
        pa.field("log_partition", pa.int32(), nullable=False),
        pa.field("log_offset", pa.int64(), nullable=False),
        pa.field("log_timestamp", pa.timestamp("ms", tz="UTC")),
    ]
)
"""A table of evidence, smaller than the real one, with every type that the format knows."""


# Rows


def told(number: int, at: datetime, *, events: int = 4, end: bool = True) -> list[dict[str, Any]]:
    """Give the events of one made-up request, without their places in the log."""
    intake = hashlib.sha256(f"intake {number}".encode()).hexdigest()[:32]
    rows = []
    for sequence in range(events):
        kind = "model.completed"
        if sequence == 0:
            kind = "request.admitted"
        elif end and sequence == events - 1:
            kind = "request.ended"
        row: dict[str, Any] = {
            "evidence_version": "1.0",
            "event_id": hashlib.sha256(f"{intake}#{sequence}".encode()).hexdigest()[:32],
            "event_type": kind,
            "request_id": f"req-{number:05d}",
            "intake_id": intake,
            "sequence": sequence,
            "occurred_at": at + timedelta(microseconds=1371 * sequence),
            "stage": "admission" if sequence == 0 else "dispatch",
            "site": "home",
            "deadline": at + timedelta(minutes=5),
            "log_timestamp": at.replace(microsecond=0) + timedelta(milliseconds=sequence),
        }
        if sequence == 0:
            row |= {"purpose": "support", "classification": {"declared": "internal", "findings": []}}
        elif kind == "model.completed":
            row |= {
                "classification": {"declared": "public", "detected": "confidential", "findings": ["email", 'a "b"']},
                "usage": {"input_tokens": 17 * number, "cost_usd": 1e-7 * (number + 1), "expires_at": None},
                "fallbacks": ["hosted-eu", "hosted-us"][: number % 3],
                "duration_ms": 0.1 + number,
                "retryable": number % 2 == 0,
            }
        else:
            row |= {"output_bytes": number, "duration_ms": 12.0, "detail": "tab\there, \x01, café, 𝄞, back\\slash"}
        rows.append(row)
    return rows


def table(rows: Sequence[dict[str, Any]]) -> pa.Table:
    """Give rows as a table."""
    return pa.Table.from_pylist(list(rows), schema=SCHEMA)


def parquet(rows: Sequence[dict[str, Any]], schema: pa.Schema = SCHEMA) -> bytes:
    """Give rows as the bytes of a Parquet file."""
    sink = io.BytesIO()
    made = pa.Table.from_pylist(list(rows), schema=schema)
    pq.write_table(made, sink, compression="zstd", row_group_size=64, write_page_checksum=True)
    return sink.getvalue()


# Canonical bytes, one value at a time


def camel(name: str) -> str:
    """Give a column's name as a member's."""
    head, *tail = name.split("_")
    return head + "".join(part.capitalize() for part in tail)


def number_text(value: float) -> str:
    """Write a number as ECMAScript does (Number::toString), from its shortest digits."""
    if value == 0:
        return "0"
    sign, digits, exponent = Decimal(repr(value)).normalize().as_tuple()
    assert isinstance(exponent, int)
    text, k = "".join(map(str, digits)), len(digits)
    n = k + exponent
    if k <= n <= 21:
        made = text + "0" * (n - k)
    elif 0 < n <= 21:
        made = f"{text[:n]}.{text[n:]}"
    elif -6 < n <= 0:
        made = "0." + "0" * -n + text
    else:
        e = f"e{'+' if n > 0 else '-'}{abs(n - 1)}"
        made = text + e if k == 1 else f"{text[0]}.{text[1:]}{e}"
    return "-" * sign + made


def json_text(value: Any, kind: pa.DataType) -> str:
    """Write a value that is not null."""
    if pa.types.is_struct(kind):
        fields = [kind.field(place) for place in range(kind.num_fields)]
        return object_text({item.name: value.get(item.name) for item in fields}, fields)
    if pa.types.is_list(kind):
        return "[" + ",".join(json_text(item, kind.value_type) for item in value) + "]"
    if pa.types.is_timestamp(kind):
        return f'"{value.isoformat(timespec="microseconds").replace("+00:00", "Z")}"'
    if pa.types.is_boolean(kind):
        return "true" if value else "false"
    if pa.types.is_floating(kind):
        return number_text(value)
    if pa.types.is_integer(kind):
        return str(value)
    return json.dumps(value, ensure_ascii=False)


def object_text(row: dict[str, Any], fields: Iterable[pa.Field]) -> str:
    """Write an object: members sorted, nulls left out."""
    members = {}
    for item in fields:
        if row.get(item.name) is not None:
            name = camel(item.name) + ("Utc" if pa.types.is_timestamp(item.type) else "")
            members[name] = json_text(row[item.name], item.type)
    return "{" + ",".join(f'"{name}":{members[name]}' for name in sorted(members)) + "}"


def canonical(row: dict[str, Any], schema: pa.Schema = SCHEMA) -> bytes:
    """Give a row's canonical bytes."""
    return object_text(row, schema).encode()


# The tree, as RFC 6962 defines it


def leaf(data: bytes) -> bytes:
    """Give the hash of a leaf."""
    return hashlib.sha256(b"\x00" + data).digest()


def head(leaves: Sequence[bytes]) -> bytes:
    """Give the Merkle tree hash of leaf hashes."""
    if not leaves:
        return hashlib.sha256(b"").digest()
    if len(leaves) == 1:
        return leaves[0]
    k = 1 << (len(leaves) - 1).bit_length() - 1
    return hashlib.sha256(b"\x01" + head(leaves[:k]) + head(leaves[k:])).digest()


def tile_name(number: int) -> str:
    """Give a tile's number as a path."""
    made = f"{number % 1000:03d}"
    while number := number // 1000:
        made = f"x{number % 1000:03d}/{made}"
    return made


# Keys and notes


@dataclass(frozen=True)
class Signer:
    """A key that signs notes."""

    name: str
    private: Ed25519PrivateKey
    kind: int = 1

    @classmethod
    def make(cls, name: str, seed: int, kind: int = 1) -> Signer:
        """Make a key, the same one for the same seed."""
        return cls(name, Ed25519PrivateKey.from_private_bytes(bytes([seed]) * 32), kind)

    @property
    def public(self) -> bytes:
        """Give the type and the public key."""
        return bytes([self.kind]) + self.private.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)

    @property
    def key_id(self) -> bytes:
        """Give the key's id."""
        return hashlib.sha256(self.name.encode() + b"\n" + self.public).digest()[:4]

    @property
    def verifier(self) -> str:
        """Give the verifier key."""
        return f"{self.name}+{self.key_id.hex()}+{base64.b64encode(self.public).decode()}"

    def line(self, text: str, at: int = 1_800_000_000) -> str:
        """Give the signature line for a text."""
        if self.kind == 4:
            stamp = at.to_bytes(8, "big")
            body = stamp + self.private.sign(f"cosignature/v1\ntime {at}\n{text}".encode())
        else:
            body = self.private.sign(text.encode())
        return f"— {self.name} {base64.b64encode(self.key_id + body).decode()}\n"


OWN = Signer.make("waybill/home", 1)
"""The key that signs from the beginning."""
NEXT = Signer.make("waybill/home", 2)
"""The key that signs after a change of keys."""
STRANGER = Signer.make("waybill/home", 3)
"""A key of nobody's."""
WITNESS = Signer.make("witness.example", 4, kind=4)
"""The second party."""


def signed(text: str, *signers: Signer) -> bytes:
    """Give a signed note."""
    return (text + "\n" + "".join(signer.line(text) for signer in signers)).encode()


def spans(numbers: Iterable[int]) -> str:
    """Write numbers as ranges."""
    parts = []
    for _, run in groupby(enumerate(sorted(numbers)), lambda item: item[1] - item[0]):
        items = [number for _, number in run]
        parts.append(f"{items[0]}" if len(items) == 1 else f"{items[0]}-{items[-1]}")
    return ",".join(parts)


@dataclass
class PlainFile:
    """A file of evidence."""

    path: str
    rows: list[dict[str, Any]]
    leaves: list[int]
    data: bytes

    @property
    def line(self) -> str:
        """Give the line that adds it."""
        sha256 = hashlib.sha256(self.data).hexdigest()
        return f"add {self.path} {len(self.rows)} {len(self.data)} {sha256} {spans(self.leaves)}"


@dataclass
class PlainLog:
    """One log of a store, with all that its writer remembers."""

    root: Path
    partition: int = 0
    partitions: int = 1
    signer: Signer = OWN
    site: str = "home"
    log_id: str = "5kfQYbtFR5SxUzNyM4kkNg"
    topic: str = "ai.evidence"
    now: datetime = NOON
    epoch: int = 1
    writer: str = "6f1c2a9be07d4410"
    offset: int = 0
    first: int | None = None
    leaves: list[bytes] = field(default_factory=list)
    live: dict[str, PlainFile] = field(default_factory=dict)
    commits: list[bytes] = field(default_factory=list)
    signers: list[tuple[Signer, ...]] = field(default_factory=list)

    @property
    def folder(self) -> str:
        """Give the log's name."""
        return f"{self.log_id}.{self.topic}-{self.partition}"

    @property
    def home(self) -> Path:
        """Give the log's folder."""
        return self.root / "logs" / self.folder

    @property
    def origin(self) -> str:
        """Give the log's origin."""
        return f"waybill/{self.site}/{self.log_id}/{self.topic}-{self.partition}"

    def commit_path(self, number: int) -> Path:
        """Give where a commit lies."""
        return self.home / "commits" / f"{number:012d}"

    def write(self, path: str | Path, data: bytes) -> Path:
        """Write a file."""
        full = self.root / path
        full.parent.mkdir(parents=True, exist_ok=True)
        full.write_bytes(data)
        return full

    def moved(self, root: Path) -> PlainLog:
        """Give the same log in a copy of the store."""
        return replace(
            self,
            root=root,
            leaves=list(self.leaves),
            live=dict(self.live),
            commits=list(self.commits),
            signers=list(self.signers),
        )

    # The three things that a commit is made of

    def place(self, rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
        """Give events their offsets, the next ones."""
        placed = []
        for row in rows:
            placed.append({**row, "log_partition": self.partition, "log_offset": self.offset})
            self.offset += 1
        return placed

    def file(
        self,
        rows: Sequence[dict[str, Any]],
        leaves: Sequence[int],
        *,
        data: bytes | None = None,
        day: date | None = None,
    ) -> PlainFile:
        """Write a file of evidence; its rows are of one day, in any order."""
        made = parquet(rows) if data is None else data
        offsets = [row["log_offset"] for row in rows]
        day = day or rows[0]["occurred_at"].date()
        name = f"{self.folder}-{min(offsets):020d}-{max(offsets):020d}-{hashlib.sha256(made).hexdigest()[:16]}.parquet"
        path = f"events/site={self.site}/date={day.isoformat()}/{name}"
        self.write(path, made)
        return PlainFile(path, list(rows), sorted(leaves), made)

    def tiles(self) -> None:
        """Write the tiles of all leaves, and remove partial ones that are not needed any more."""
        hashes, level = self.leaves, 0
        while hashes:
            for number in range(-(-len(hashes) // 256)):
                tile = hashes[number * 256 : (number + 1) * 256]
                name = f"{tile_name(number)}.p/{len(tile)}" if len(tile) < 256 else tile_name(number)
                base = self.home / "tile" / str(level)
                for old in (base / f"{tile_name(number)}.p").glob("*"):
                    old.unlink()
                if not (base / name).exists():
                    self.write(base / name, b"".join(tile))
            hashes = [head(hashes[at : at + 256]) for at in range(0, len(hashes) - 255, 256)]
            level += 1

    def say(self, *lines: str, key: Signer | None = None, **changed: Any) -> bytes:
        """Write a commit with these lines behind the ones that each has; `changed` replaces what those say."""
        number = len(self.commits)
        previous = hashlib.sha256(self.commits[-1]).hexdigest() if self.commits else "none"
        self.now += timedelta(seconds=1)
        known = {
            "commit": number,
            "previous": previous,
            "time": self.now.strftime("%Y-%m-%dT%H:%M:%S.%fZ"),
            "writer": f"{self.epoch} {self.writer}",
            "partitions": self.partitions,
            "next": self.offset,
        } | {name: value for name, value in changed.items() if name not in {"size", "root", "origin"}}
        top = [
            changed.get("origin", self.origin),
            str(changed.get("size", len(self.leaves))),
            base64.b64encode(changed.get("root", head(self.leaves))).decode(),
        ]
        body = [f"{name} {value}" for name, value in known.items()]
        if number == 0 and self.first is not None:
            body.append(f"first {self.first}")
        order = ["rejected", "lost", "add", "remove", "expire", "statement", "source", "withheld", "key"]
        more = sorted(lines, key=lambda line: order.index(line.split(" ")[0]) if line.split(" ")[0] in order else 99)
        if key is not None:
            more.append(f"key {key.verifier}")
        text = "".join(f"{line}\n" for line in [*top, *body, *more])
        signers = (self.signer,) if key is None else (self.signer, key)
        made = signed(text, *signers)
        self.write(self.commit_path(number), made)
        self.commits.append(made)
        self.signers.append(signers)
        if key is not None:
            self.signer = key
        return made

    # What a writer does

    def open(self) -> None:
        """Take the log over."""
        if self.commits:
            self.epoch += 1
        self.say()

    def append(self, rows: Sequence[dict[str, Any]], *lines: str) -> list[PlainFile]:
        """Commit events, a file for each day."""
        placed = self.place(rows)
        begin = len(self.leaves)
        self.leaves += [leaf(canonical(row)) for row in placed]
        files = []
        numbered = sorted(zip(placed, range(begin, begin + len(placed)), strict=True), key=lambda item: day_of(item[0]))
        for _, group in groupby(numbered, lambda item: day_of(item[0])):
            items = list(group)
            files.append(self.file([row for row, _ in items], [number for _, number in items]))
        self.tiles()
        self.live |= {file.path: file for file in files}
        self.say(*[file.line for file in files], *lines)
        return files

    def compact(self, files: Sequence[PlainFile] | None = None, *, delete: bool = True) -> PlainFile:
        """Put files of one day together, sorted by time."""
        old = list(files if files is not None else self.live.values())
        rows = sorted(
            (row for file in old for row in file.rows), key=lambda row: (row["occurred_at"], -row["log_offset"])
        )
        new = self.file(rows, [number for file in old for number in file.leaves])
        return self.swap(old, [new], delete=delete)[0]

    def swap(self, old: Sequence[PlainFile], new: list[PlainFile], *lines: str, delete: bool = True) -> list[PlainFile]:
        """Commit new files in place of old ones."""
        for file in old:
            del self.live[file.path]
        self.live |= {file.path: file for file in new}
        self.say(*[file.line for file in new], *[f"remove {file.path}" for file in old], *lines)
        for file in old:
            if delete:
                (self.root / file.path).unlink()
        return new

    def expire(self, file: PlainFile, rule: str = "max-90d", *lines: str) -> None:
        """Remove a file for ever."""
        self.swap([file], [], f"expire {spans(file.leaves)} {rule}", *lines)

    def pack(self, first: int, last: int, *, keep: bool = False) -> Path:
        """Put commits into one file."""
        data = b"".join(f"{n} {len(self.commits[n])}\n".encode() + self.commits[n] for n in range(first, last + 1))
        if not keep:
            for number in range(first, last + 1):
                self.commit_path(number).unlink()
        return self.write(self.home / "commits" / f"{first:012d}-{last:012d}.pack", data)

    def snapshot(self) -> Path:
        """Write which files are live."""
        number = len(self.commits) - 1
        files = [
            {
                "path": file.path,
                "rows": len(file.rows),
                "bytes": len(file.data),
                "sha256": hashlib.sha256(file.data).hexdigest(),
                "leaves": spans(file.leaves),
            }
            for file in self.live.values()
        ]
        document = {"commit": number, "live": files, "removed": {}}
        return self.write(self.home / "live" / f"{number:012d}.json", json.dumps(document).encode())

    def cosign(self, number: int, witness: Signer = WITNESS) -> Path:
        """Let a witness sign a commit."""
        text = self.text(number)
        data = self.commits[number] + witness.line(text).encode()
        return self.write(self.home / "witness" / witness.name / f"{number:012d}", data)

    def statement(self, document: dict[str, Any]) -> str:
        """Write a document and give the line that names it."""
        data = json.dumps(document).encode()
        sha256 = hashlib.sha256(data).hexdigest()
        self.write(self.home / "statements" / f"{sha256}.json", data)
        return f"statement {sha256}"

    # What a forger does

    def text(self, number: int) -> str:
        """Give a commit's text, without its signatures."""
        return self.commits[number].decode().rpartition("\n\n")[0] + "\n"

    def edit(self, number: int, change: Callable[[str], str], *signers: Signer) -> None:
        """Change a commit's text and sign it again, by the same keys unless told; what follows stays as it is."""
        text = change(self.text(number))
        self.commits[number] = signed(text, *(signers or self.signers[number]))
        self.write(self.commit_path(number), self.commits[number])

    def keep_signature(self, number: int, change: Callable[[str], str]) -> None:
        """Change a commit's text and leave the old signatures behind it."""
        tail = self.commits[number].decode().rpartition("\n\n")[2]
        self.commits[number] = (change(self.text(number)) + "\n" + tail).encode()
        self.write(self.commit_path(number), self.commits[number])

    def chain_anew(self, begin: int, *signers: Signer) -> None:
        """Give all commits from one on the hash of the one before, and sign them again."""
        for number in range(max(begin, 1), len(self.commits)):
            previous = hashlib.sha256(self.commits[number - 1]).hexdigest()

            def change(text: str, previous: str = previous) -> str:
                return "".join(
                    f"previous {previous}\n" if line.startswith("previous ") else line
                    for line in text.splitlines(keepends=True)
                )

            self.edit(number, change, *signers)


def day_of(row: dict[str, Any]) -> date:
    """Give the day of a row."""
    return row["occurred_at"].date()


def stories(begin: int, count: int, at: datetime = NOON, *, events: int = 4) -> list[dict[str, Any]]:
    """Give the events of some requests, one after the other."""
    return [
        row
        for number in range(begin, begin + count)
        for row in told(number, at + timedelta(seconds=number), events=events)
    ]


def rich(root: Path) -> list[PlainLog]:
    """Write a store that holds all that a store can hold: two partitions, one of them with a long history."""
    log = PlainLog(root, partitions=2)
    log.open()
    log.append(stories(0, 20))
    mixed = stories(20, 20)
    log.append(mixed[:33])  # a story goes on in the next commit
    log.append(mixed[33:])
    log.say()
    rejected = f"rejected {log.offset},{log.offset + 2}-{log.offset + 3}"
    log.offset += 5  # one of them was no record at all
    log.append(stories(40, 10), rejected)
    before = stories(50, 5, NOON + timedelta(hours=11, minutes=59, seconds=7))  # over midnight
    log.append(before)
    log.compact([file for file in log.live.values() if "2026-11-24" in file.path])
    log.say(key=NEXT)
    log.open()
    log.append(stories(60, 20, NOON + timedelta(days=1)))
    log.append(stories(80, 5, NOON + timedelta(days=1)))
    late = list(log.live.values())[-2:]
    log.compact(late, delete=False)
    log.say()
    log.pack(0, 4)
    log.pack(5, 6, keep=True)
    log.snapshot()
    log.cosign(len(log.commits) - 1)
    other = PlainLog(root, partition=1, partitions=2)
    other.open()
    other.append(stories(1000, 5))
    other.say()
    other.cosign(2)
    return [log, other]
