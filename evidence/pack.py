"""Proof packs, the writer's side: the rows of one request, and all that somebody far away needs to believe them.

docs/proofs.md says what is in a pack, and `evidence.verify.pack` checks one; it shares no code with this.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, Final

import orjson

from evidence.errors import StoreError
from evidence.files.seam import Files, NotThere
from evidence.log.commits import Commit
from evidence.log.merkle import leaf_hash
from evidence.log.notes import Signer
from evidence.log.proofs import Proof, ProofError, check_inclusion, consistency, inclusion
from evidence.log.ranges import Ranges, of, to_text
from evidence.pack_rows import Found, Gap, Place, find, gaps_of
from evidence.store.history import Noted, packs, read_commit, read_note, unpack
from evidence.store.layout import LOGS, LogPartition, pack_path
from evidence.store.state import Head, read_head, tile_reader
from evidence.store.writer import Signers

PAYLOAD_TYPE: Final = "application/vnd.in-toto+json"
"""Type of what the envelope holds."""

PREDICATE_TYPE: Final = "urn:waybill:proof-pack:1"
"""Type of what the statement says."""

_STATEMENT_TYPE: Final = "https://in-toto.io/Statement/v1"
_TRIES: Final = 5  # a busy store may take away, between two reads, what a newer commit replaced
_LAST: Final = ("request.ended", "request.rejected")
_OPERATOR: Final = "operator"


@dataclass(frozen=True, slots=True)
class Documents:
    """What the topics still have of a request."""

    waybills: Sequence[bytes] = ()
    """Contracts in canonical form; those that no row names are left out."""

    receipt: bytes | None = None
    """The response with its route receipt, without the answer, as JSON; only a signed pack holds it."""


@dataclass(frozen=True, slots=True)
class Pack:
    """A pack."""

    data: bytes
    """The file."""

    rows: int
    """Rows in it."""

    waybills: tuple[str, ...]
    """Digests of the waybills in it."""

    wanted: tuple[str, ...]
    """Digests of waybills that its rows name and that were not given."""


def build(
    files: Files,
    request_id: str,
    *,
    places: Iterable[Place] | None = None,
    documents: Callable[[Mapping[str, Sequence[str]]], Documents] = lambda _: Documents(),
    signers: Signers | None,
) -> Pack | None:
    """Make the pack of a request, or None where evidence holds nothing of it.

    Args:
        files: the store.
        request_id: the application's id of the request.
        places: where its rows lie, if an index knows; None looks through all live files.
        documents: gives what there is beside evidence; it is asked with the digests of waybills that the rows of
            each intake name.
        signers: the site's keys; None leaves the envelope unsigned, and the receipt out.

    Raises:
        StoreError: the store is damaged, or does not hold rows where they should be.
        ConfigError: the key that is in force is not there.
        UnavailableError: the store cannot be read.
    """
    known = None if places is None else frozenset(places)
    for _ in range(_TRIES):
        try:
            logs = [log for name in files.folders(f"{LOGS}/") if (log := _Log.read(files, name, request_id, known))]
            break
        except NotThere:
            continue
    else:
        raise StoreError(f"{files.url('')} changes faster than it can be read, or a file is missing: `waybill verify`")
    shown = sum(len(log.rows) for log in logs)
    if known is not None and shown != len(known):
        raise StoreError(
            f"{files.url('')}: {len(known)} rows of {request_id!r} are in an index, and {shown} in files; run it again"
        )
    if not shown:
        return None
    logs.sort(key=lambda log: log.head.commit.origin)
    rows = [(log, found) for log in logs for found in log.rows]
    named: dict[str, list[str]] = {}
    for _, found in rows:
        hashes = named.setdefault(str(found.said["intakeId"]), [])
        if (digest := found.said.get("waybillHash")) is not None and digest not in hashes:
            hashes.append(digest)
    given = documents(named)
    wanted = {digest for hashes in named.values() for digest in hashes}
    waybills = {hashlib.sha256(text).hexdigest(): text for text in given.waybills}
    waybills = {digest: text for digest, text in sorted(waybills.items()) if digest in wanted}
    predicate: dict[str, Any] = {
        "requestId": request_id,
        "logs": [log.told() for log in logs],
        "rows": [log.proved(found) for log, found in rows],
        "stories": _stories([found for _, found in rows]),
        "waybills": [text.decode() for text in waybills.values()],
    }
    if given.receipt is not None and signers is not None:
        predicate["receipt"] = given.receipt.decode()
    statement = {
        "_type": _STATEMENT_TYPE,
        "subject": [
            {"name": found.said["eventId"], "digest": {"sha256": hashlib.sha256(found.row).hexdigest()}}
            for _, found in rows
        ],
        "predicateType": PREDICATE_TYPE,
        "predicate": predicate,
    }
    signer = None if signers is None else _in_force(logs[0].head, signers)
    data = envelope(orjson.dumps(statement), signer)
    return Pack(data, shown, tuple(waybills), tuple(sorted(wanted - set(waybills))))


def envelope(payload: bytes, signer: Signer | None) -> bytes:
    """Give a statement in its DSSE envelope.

    Args:
        payload: the statement.
        signer: whose signature it bears; None leaves it unsigned.
    """
    signatures = []
    if signer is not None:
        kind = PAYLOAD_TYPE.encode()
        signed = b"DSSEv1 %d %b %d %b" % (len(kind), kind, len(payload), payload)
        keyid = f"{signer.name}+{signer.verifier.key_id.hex()}"
        signatures.append({"keyid": keyid, "sig": _base64(signer.key.sign(signed))})
    made = {"payload": _base64(payload), "payloadType": PAYLOAD_TYPE, "signatures": signatures}
    return orjson.dumps(made, option=orjson.OPT_APPEND_NEWLINE)


def key_changes(files: Files, log: str, old: int, new: int) -> Iterator[bytes]:
    """Give the notes of the commits, from one number to before another, by which the key changed, in order.

    Which key signed shows in each note, and none comes back, so that few commits have to be read.

    Raises:
        NotThere: a commit is missing.
        StoreError: a commit is damaged.
    """
    signed_by = cache(lambda number: _signed_by(read_commit(files, log, number).note))

    def between(low: int, high: int) -> Iterator[bytes]:
        if low >= high or signed_by(low) == signed_by(high):
            return
        if high == low + 1:
            yield read_commit(files, log, low).note
            return
        middle = (low + high) // 2
        yield from between(low, middle)
        yield from between(middle, high)

    return between(old, new)


def _signed_by(note: bytes) -> bytes:
    """Give name and id of the key that signed a commit first: where the key changes, that is the old one."""
    line = note.rpartition(b"\n\n")[2].split(b"\n")[0]
    name, _, data = line.rpartition(b" ")
    return name + base64.b64decode(data)[:4]


def _in_force(head: Head, signers: Signers) -> Signer:
    return signers.by_key(head.commit.key or signers.signed(head.noted.note))


@dataclass(frozen=True, slots=True)
class _Log:
    """One log, with the rows of the request in it."""

    files: Files
    name: str
    head: Head
    rows: tuple[Found, ...]
    commits: tuple[bytes, ...]
    """Earlier commits that the pack leans on: by which the key changed, or which say why rows are missing."""
    witnesses: tuple[dict[str, Any], ...]
    proofs: dict[int, list[str]]

    @classmethod
    def read(cls, files: Files, name: str, request_id: str, places: frozenset[Place] | None) -> _Log | None:
        """Read what there is of a request, or give None.

        Raises:
            NotThere: a file is gone that was there a moment ago.
        """
        log = LogPartition.named(name)
        found = find(files, log, request_id, places)
        head = read_head(files, log)
        if not found or head is None:
            return None
        commit, read = head.commit, tile_reader(files, log)
        commits = dict.fromkeys(key_changes(files, name, 0, commit.number))
        if gaps := list(gaps_of(found)):
            commits |= dict.fromkeys(_reasons(files, name, commit.number, gaps))
        proofs = {one.number: inclusion(one.number, commit.size, read) for one in found}
        for one in found:
            _check(one, commit, proofs[one.number])
        numbered = sorted((read_note(note).commit.number, note) for note in commits)
        return cls(
            files,
            name,
            head,
            tuple(found),
            tuple(note for _, note in numbered),
            tuple(_witnessed(files, name, commit)),
            {number: [_base64(part) for part in proof] for number, proof in proofs.items()},
        )

    def told(self) -> dict[str, Any]:
        """Give what the pack says of the log."""
        return {
            "checkpoint": self.head.noted.note.decode(),
            "commits": [note.decode() for note in self.commits],
            "witnesses": list(self.witnesses),
        }

    def proved(self, found: Found) -> dict[str, Any]:
        """Give what the pack says of a row."""
        return {
            "log": self.head.commit.origin,
            "number": found.number,
            "row": found.row.decode(),
            "proof": self.proofs[found.number],
        }


def _check(found: Found, commit: Commit, proof: Proof) -> None:
    try:
        check_inclusion(leaf_hash(found.row), found.number, commit.size, commit.root, proof)
    except ProofError as error:
        raise StoreError(
            f"{commit.origin}: row {found.number} is not what the log hashed, or a tile was changed ({error}); "
            "`waybill verify` tells more"
        ) from None


def _stories(rows: Sequence[Found]) -> list[dict[str, Any]]:
    told: dict[str, list[Found]] = {}
    for found in rows:
        told.setdefault(found.said["intakeId"], []).append(found)
    return [
        {
            "intakeId": intake,
            "events": to_text(of(found.said["sequence"] for found in mine)),
            "ended": mine[-1].said["eventType"] in _LAST or mine[-1].said["stage"] == _OPERATOR,
        }
        for intake, mine in told.items()
    ]


def _reasons(files: Files, log: str, newest: int, gaps: Sequence[Gap]) -> Iterator[bytes]:
    """Give the commits that say why rows are missing; all are read, which only a gap is worth."""
    for noted in _commits(files, log, newest):
        commit = noted.commit
        expired = [spans.leaves for spans in commit.expire]
        lost = [spans.offsets for spans in commit.lost]
        for gap in gaps:
            if (
                any(_between(spans, gap.numbers) for spans in expired)
                or any(_between(spans, gap.offsets) for spans in lost)
                or (commit.first and gap.numbers[0] < 0)
                or commit.source is not None
            ):
                yield noted.note
                break


def _between(spans: Ranges, bounds: tuple[int, int]) -> bool:
    return any(first < bounds[1] and last > bounds[0] for first, last in spans)


def _commits(files: Files, log: str, newest: int) -> Iterator[Noted]:
    """Give the commits before the newest one."""
    upcoming = 0
    for first, last in packs(files, log):
        for noted in unpack(files.read(pack_path(log, first, last)))[upcoming - first :]:
            if noted.commit.number < newest:
                yield noted
        upcoming = last + 1
    for number in range(upcoming, newest):
        yield read_commit(files, log, number)


def _witnessed(files: Files, log: str, newest: Commit) -> Iterator[dict[str, Any]]:
    """Give the newest note of each witness, with the proof that the log goes on from there."""
    folder = f"{LOGS}/{log}/witness/"
    latest: dict[str, str] = {}
    for entry in files.list(folder):
        latest[entry.path.removeprefix(folder).rpartition("/")[0]] = entry.path  # sorted: the newest is the last
    for path in latest.values():
        note = files.read(path)
        commit = read_note(note).commit
        if commit.number > newest.number:
            raise NotThere(f"commit {commit.number} was made while this one was read")
        proof = consistency(commit.size, newest.size, tile_reader(files, log))
        yield {"note": note.decode(), "proof": [_base64(part) for part in proof]}


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode()
