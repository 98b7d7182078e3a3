"""Consistency proofs, the writer's side; docs/proofs.md says what is in one."""

from __future__ import annotations

import base64
from typing import Final

import orjson

from evidence.errors import StoreError
from evidence.files.seam import Files
from evidence.log.proofs import consistency
from evidence.pack import key_changes
from evidence.store.history import read_note
from evidence.store.layout import LogPartition
from evidence.store.state import read_head, tile_reader

PROOF_TYPE: Final = "urn:waybill:consistency-proof:1"
"""What a proof's file says that it is."""


def prove(files: Files, log: str, old: bytes, new: bytes) -> bytes:
    """Give the proof that a log's newer checkpoint goes on from an older one, as a file.

    It is made from the tiles, whatever the checkpoints say: where one is of another history, the proof does not lead
    from the older to the newer, and whoever checks it is told.

    Args:
        files: the store.
        log: name of the log.
        old: the older commit's note.
        new: the newer commit's note.

    Raises:
        StoreError: a note is no commit, the log is not there or is damaged, or it has fewer rows than the newer note.
        UnavailableError: the store cannot be read.
    """
    before, after = read_note(old).commit, read_note(new).commit
    head = read_head(files, LogPartition.named(log))
    if head is None:
        raise StoreError(f"{files.url('')} has no log {log}")
    if after.size > head.commit.size:
        raise StoreError(
            f"{log}: SHRUNK: the newer checkpoint states {after.size} rows, and the store has {head.commit.size}; "
            "it is behind, or rows were cut off"
        )
    proof: tuple[bytes, ...] = ()
    if before.size <= after.size:
        proof = consistency(before.size, after.size, tile_reader(files, log), stored=head.commit.size)
    last = min(after.number, head.commit.number)
    changes = [note for note in key_changes(files, log, before.number, last) if note.split(b"\n\n")[0] != _text(old)]
    return orjson.dumps(
        {
            "type": PROOF_TYPE,
            "old": old.decode(),
            "new": new.decode(),
            "commits": [note.decode() for note in changes],
            "proof": [base64.b64encode(part).decode() for part in proof],
        },
        option=orjson.OPT_APPEND_NEWLINE,
    )


def _text(note: bytes) -> bytes:
    return note.rpartition(b"\n\n")[0]
