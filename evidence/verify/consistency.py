"""A proof that a log only grew: two checkpoints, and the hashes that lead from one to the other."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from evidence.verify.notes import ED25519, VerifierKey
from evidence.verify.signed import Signed, Untrue, follow, parse_keys, read_signed
from evidence.verify.strict import ShapeError, hashes_of, list_of, load, members, text_of
from evidence.verify.tree import check_consistency

PROOF_TYPE: Final = "urn:waybill:consistency-proof:1"
"""What a proof's file says that it is."""


@dataclass(frozen=True, slots=True)
class ConsistencyReport:
    """The result of a check."""

    ok: bool
    """Whether the newer checkpoint goes on from the older one."""

    what: str
    """A sentence; where it is not so, it names FORK or SHRUNK or what is wrong with the proof."""

    kind: str = "consistent"
    """`consistent`, `fork`, `shrunk`, or another stable name for what is wrong."""

    signed: bool = False
    """Whether both are known to be signed by a key that is trusted."""


def verify_consistency(data: bytes, keys: Sequence[str | VerifierKey] = ()) -> ConsistencyReport:
    """Check a proof.

    Args:
        data: the file.
        keys: verifier keys of the log, any one of which signed it at or before the older checkpoint; without one only
            the hashes are checked, and anybody could have written both checkpoints.

    Raises:
        NoteError: a key is none of a log.
    """
    given = parse_keys(keys, ED25519)
    try:
        said = _of_type(members(load(data, "proof"), "proof", ("type", "old", "new", "commits", "proof")))
        old, new = (read_signed(text_of(said[name], name), name) for name in ("old", "new"))
        commits = [
            read_signed(text_of(text, "commit"), f"commit {place}")
            for place, text in enumerate(list_of(said["commits"], "`commits`"))
        ]
        return compare(old, new, hashes_of(said["proof"], "`proof`"), commits, given)
    except Untrue as error:
        return ConsistencyReport(ok=False, what=str(error), kind=error.kind)
    except ShapeError as error:
        return ConsistencyReport(ok=False, what=str(error), kind="form")


def _of_type(said: dict[str, Any]) -> dict[str, Any]:
    if said["type"] != PROOF_TYPE:
        raise Untrue("type", "proof", f"its type is not {PROOF_TYPE}")
    return said


def compare(
    old: Signed, new: Signed, proof: Sequence[bytes], commits: Sequence[Signed], given: Sequence[VerifierKey]
) -> ConsistencyReport:
    """Compare two checkpoints of one log.

    Args:
        old: the older one.
        new: the newer one.
        proof: the consistency proof.
        commits: the commits between the two by which the key changed, in order.
        given: the keys that are trusted; none leaves signatures unchecked.

    Raises:
        Untrue: a signature is not good, or a commit is none of this log's.
    """
    before, after = old.commit, new.commit
    if before.origin != after.origin:
        raise Untrue("other-log", old.where, f"is of {before.origin}, and the other one of {after.origin}")
    kind, what = _judge(old, new, proof)
    if given and kind == "consistent" and before.number < after.number:
        if follow([old, *commits, new], given, others=True).trusted[0] is not old:
            raise Untrue("untrusted", old.where, "is signed by none of the keys that were given")
    elif given:
        keys = [*given, *(follow(commits, given).keys if commits else ())]
        for note in (old, new):
            _check_signature(note, keys)
    return ConsistencyReport(ok=kind == "consistent", what=f"{after.origin}: {what}", kind=kind, signed=bool(given))


def _check_signature(signed: Signed, keys: Sequence[VerifierKey]) -> None:
    """Check that one of several keys signed: two checkpoints that contradict each other have no order."""
    lines = [(key, line) for key in keys if (line := signed.note.of(key)) is not None]
    if not lines:
        raise Untrue("untrusted", signed.where, "is signed by none of the keys that were given")
    for key, line in lines:
        if not key.signed(signed.note.text, line.body):
            raise Untrue("signature", signed.where, f"the signature of {key.name}+{key.key_id.hex()} is not good")


def _judge(old: Signed, new: Signed, proof: Sequence[bytes]) -> tuple[str, str]:
    before, after = old.commit, new.commit
    if before.size > after.size or before.number > after.number:
        was, now = f"{before.size} rows by commit {before.number}", f"{after.size} by commit {after.number}"
        return "shrunk", f"SHRUNK: it had {was}, and now states {now}"
    if before.number == after.number and old.note.text != new.note.text:
        return "fork", f"FORK: there are two commits {after.number}"
    if before.size == after.size and before.root != after.root:
        return "fork", f"FORK: two roots are signed for the same {after.size} rows"
    if not check_consistency(before.size, after.size, before.root, after.root, proof):
        return "fork", f"FORK: its {after.size} rows are not shown to begin with the {before.size} that it had"
    return (
        "consistent",
        f"the {after.size} rows of commit {after.number} begin with the {before.size} of commit {before.number}",
    )
