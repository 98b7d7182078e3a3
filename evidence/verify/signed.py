"""A few commits of one log, in order: who signed them, and whether that is somebody who is trusted.

Trust begins with a key that was given. It goes forward from there: the holder of a key says, in a commit that both keys
sign, which key follows.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

from evidence.verify.commits import Commit, CommitError, Origin, parse_commit
from evidence.verify.notes import ED25519, Note, NoteError, VerifierKey, parse_key, parse_note


class Untrue(ValueError):  # noqa: N818 - what it says of a document: not an error of the program
    """Something that a document says is not so.

    Attributes:
        kind: a stable, lower-case name for its sort.
        where: the part of the document.
        what: a sentence.
    """

    def __init__(self, kind: str, where: str, what: str) -> None:
        super().__init__(f"{where}: {what}")
        self.kind, self.where, self.what = kind, where, what


@dataclass(frozen=True, slots=True)
class Signed:
    """A commit as it was signed."""

    where: str
    """Its place in the document."""

    data: bytes
    """The whole note."""

    note: Note
    """The note, taken apart."""

    commit: Commit
    """What it says."""


def read_signed(text: str, where: str) -> Signed:
    """Take a commit's note apart; no signature is checked.

    Raises:
        Untrue: it is no commit.
    """
    data = text.encode()
    try:
        note = parse_note(data)
        return Signed(where, data, note, parse_commit(note.text))
    except (NoteError, CommitError) as error:
        raise Untrue("note", where, f"not a commit: {error}") from None


@dataclass(slots=True)
class Followed:
    """What is known after the commits of a log were followed."""

    origin: Origin
    """Which log."""

    keys: list[VerifierKey] = field(default_factory=list)
    """The keys that are trusted, the oldest first; the last ones are in force."""

    in_force: tuple[VerifierKey, ...] = ()
    """The keys that may speak for the log at its last commit."""

    trusted: list[Signed] = field(default_factory=list)
    """The commits that a trusted key signed, in order."""


def follow(commits: Sequence[Signed], given: Collection[VerifierKey], *, others: bool = False) -> Followed:
    """Check commits of one log, whose numbers ascend, and who signed them.

    Commits before the first that a given key signed are passed over: nobody who is trusted vouches for them.

    Args:
        commits: the commits.
        given: the keys that are trusted.
        others: whether a commit may bear signatures of keys that are not known, such as those of witnesses.

    Raises:
        Untrue: they are of several logs or out of order, a signature is not good, or the last one is signed by nobody
            who is trusted.
    """
    last = commits[-1]
    found = Followed(last.commit.origin)
    for one in commits:
        if one.commit.origin != found.origin:
            raise Untrue("other-log", one.where, f"is of {one.commit.origin}, and not of {found.origin}")
    for one, other in pairwise(commits):
        _check_order(one, other, whole=not others)
    force: VerifierKey | None = None
    for signed in commits:
        key = signed.commit.key
        more = others
        if force is None:
            chosen = [one for one in given if one.kind == ED25519 and one.name == found.origin.key_name]
            signers = [one for one in chosen if signed.note.of(one)]
            force = next((one for one in signers if one != key), signers[0] if signers else None)
            if force is None:
                continue
            found.keys.append(force)
            more = others or force == key  # the key before it signed too, and is not known
        _check_signatures(signed, [force] if key is None or key == force else [force, key], others=more)
        found.trusted.append(signed)
        found.in_force = (force,)
        if key is not None and key != force:
            found.keys.append(key)
            found.in_force = (force, key)
            force = key
    if not found.trusted or found.trusted[-1] is not last:
        names = ", ".join(f"{line.name}+{line.key_id.hex()}" for line in last.note.signatures)
        what = f"is signed by {names}, and by no key that was given; a key of {found.origin.key_name} is needed"
        raise Untrue("untrusted", last.where, what)
    return found


def _check_order(one: Signed, other: Signed, *, whole: bool) -> None:
    earlier, later = one.commit, other.commit
    if earlier.number >= later.number or earlier.size > later.size or earlier.time > later.time:
        raise Untrue("order", one.where, f"commit {earlier.number} does not come before commit {later.number}")
    # A commit that was kept may bear cosignatures that the log's own file has not.
    if whole and later.number == earlier.number + 1 and later.previous != hashlib.sha256(one.data).hexdigest():
        raise Untrue("order", other.where, f"commit {later.number} names another commit as the one before it")


def _check_signatures(signed: Signed, keys: list[VerifierKey], *, others: bool) -> None:
    for key in keys:
        line = signed.note.of(key)
        if line is None:
            raise Untrue("signature", signed.where, f"{key.name}+{key.key_id.hex()} should have signed, and did not")
        if not key.signed(signed.note.text, line.body):
            raise Untrue("signature", signed.where, f"the signature of {key.name}+{key.key_id.hex()} is not good")
    if not others and len(signed.note.signatures) != len(keys):
        odd = [line for line in signed.note.signatures if not any(line.by(key) for key in keys)]
        names = ", ".join(f"{line.name}+{line.key_id.hex()}" for line in odd) or "one that stands twice"
        raise Untrue("signature", signed.where, f"there is a signature that does not belong there: {names}")


def parse_keys(keys: Sequence[str | VerifierKey], kind: int) -> list[VerifierKey]:
    """Read verifier keys.

    Raises:
        NoteError: one is none, or of the other kind.
    """
    made = [parse_key(key.strip()) if isinstance(key, str) else key for key in keys]
    for key in made:
        if key.kind != kind:
            whose = "log" if kind == ED25519 else "witness"
            raise NoteError(f"{key.name}: this is not the key of a {whose}; give each kind of key with its own option")
    return made


def cosigned(note: Note, witnesses: Collection[VerifierKey], where: str) -> Iterator[VerifierKey]:
    """Give the witnesses that signed a note.

    Raises:
        Untrue: a cosignature of one of them is not good.
    """
    for key in witnesses:
        line = note.of(key)
        if line is not None and not key.signed(note.text, line.body):
            raise Untrue("witness", where, f"the cosignature of {key.name} is not good for this text")
        if line is not None:
            yield key
