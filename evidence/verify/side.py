"""What lies beside the commits: snapshots of what is live, witnesses' notes, and a checkpoint from earlier."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from evidence.verify.commits import Added, Commit, CommitError, Origin, checkpoint, parse_commit, ranges
from evidence.verify.notes import COSIGNATURE, Note, NoteError, VerifierKey, parse_note
from evidence.verify.report import Finding

PHASE_COMMITS = 1


def snapshot(data: bytes, number: int, live: Mapping[str, Added]) -> str | None:
    """Tell what is wrong with a snapshot of the live files after a commit, or None."""
    try:
        document = json.loads(data)
    except (ValueError, RecursionError):
        return "not JSON"
    if not isinstance(document, dict) or set(document) != {"commit", "live", "removed"}:
        return "not an object with `commit`, `live` and `removed`"
    if document["commit"] != number or isinstance(document["commit"], bool):
        return "says that it is of another commit"
    files, removed = document["live"], document["removed"]
    if not isinstance(files, list) or not isinstance(removed, dict):
        return "`live` is no list, or `removed` no object"
    seen: dict[str, Any] = {}
    for file in files:
        if not isinstance(file, dict) or set(file) != {"path", "rows", "bytes", "sha256", "leaves"}:
            return "a file in it has other members than path, rows, bytes, sha256 and leaves"
        path = file["path"]
        if not isinstance(path, str) or path in seen or path not in live:
            return f"lists {str(path)[:300]!r} twice, or it is not live after commit {number}"
        seen[path] = file
        known = live[path]
        try:
            leaves = ranges(file["leaves"]) if isinstance(file["leaves"], str) else None
        except CommitError:
            leaves = None
        said = (file["rows"], file["bytes"], file["sha256"], leaves)
        if said != (known.rows, known.size, known.sha256, known.leaves) or isinstance(file["rows"], bool):
            return f"says other things of {path} than the commits"
    missing = next((path for path in live if path not in seen), None)
    return f"does not list {missing}, which is live after commit {number}" if missing else None


@dataclass(slots=True)
class Witnesses:
    """The notes that second parties signed."""

    folder: str
    keys: Sequence[VerifierKey]
    newest: dict[str, tuple[int, int, int]] = field(default_factory=dict)
    """For each witness's key, the newest commit that it signed well, when, and how many rows there were."""
    unknown: set[str] = field(default_factory=set)
    count: int = 0

    def take(self, path: str, data: bytes, number: int, note: Note, commit: Commit) -> Iterator[Finding]:
        """Check one witness's note of a commit."""
        order = (PHASE_COMMITS, number)
        name = path.removeprefix(f"logs/{self.folder}/witness/").rpartition("/")[0]
        try:
            theirs = parse_note(data)
        except NoteError as error:
            yield Finding("witness", path, f"not a signed note: {error}", order)
            return
        if theirs.text != note.text:
            what = f"the witness signed another text than commit {number} of {commit.origin} has: the log is forked"
            yield Finding("witness", path, what, order)
            return
        self.count += 1
        good = False
        own = {signature.line for signature in note.signatures}
        if own - {signature.line for signature in theirs.signatures}:
            yield Finding(
                "witness",
                path,
                f"is not commit {number} with a cosignature: the log's own signature is not in it",
                order,
            )
        for signature in theirs.signatures:
            if signature.line in own:
                continue
            key = next((item for item in self.keys if signature.by(item)), None)
            if key is None:
                self.unknown.add(signature.name)
            elif not key.signed(note.text, signature.body):
                yield Finding("witness", path, f"the cosignature of {key.name} is not good for this text", order)
            else:
                good = True
                self.newest[str(key)] = max(
                    self.newest.get(str(key), (-1, 0, 0)), (number, signature.seconds, commit.size)
                )
        if not good and any(_folder(key.name) == _folder(name) for key in self.keys):
            yield Finding("witness", path, f"bears no good cosignature of {name}", order)

    def behind(self, number: int, size: int) -> Iterator[Finding]:
        """Tell which witnesses have not signed the newest rows; commits that added none need no new cosignature."""
        where = f"logs/{self.folder}"
        for key in self.keys:
            at = self.newest.get(str(key))
            if at is None:
                yield Finding(
                    "witness-absent", where, f"{key.name} cosigned no commit of this log", (PHASE_COMMITS, number)
                )
            elif at[2] < size:
                what = (
                    f"{key.name} cosigned commit {at[0]} of {at[2]} rows, {number - at[0]} commits and "
                    f"{size - at[2]} rows behind the newest"
                )
                yield Finding("witness-behind", where, what, (PHASE_COMMITS, number))

    def lag(self, number: int, time: datetime) -> str:
        """Say in a few words how far the witnesses have come."""
        del time
        parts = []
        for key in self.keys:
            at = self.newest.get(str(key))
            if at is not None:
                when = _when(at[1])
                parts.append(f"cosigned by {key.name} at commit {at[0]} of {number} ({when})")
        return "; ".join(parts)

    def notes(self) -> Iterator[str]:
        """Say what could not be checked."""
        if self.unknown:
            names = ", ".join(sorted(self.unknown)[:5])
            yield f"logs/{self.folder}: cosignatures not checked, for want of the witness's key: {names}"


def _folder(name: str) -> str:
    return "".join(letter if letter.isalnum() else "-" for letter in name).lower()


def _when(seconds: int) -> str:
    try:
        return datetime.fromtimestamp(seconds, UTC).isoformat()
    except (ValueError, OverflowError, OSError):
        return "at an impossible time"


class Since:
    """A checkpoint that someone kept: the store must still contain it."""

    def __init__(self, data: bytes, where: str) -> None:
        """Read it.

        Raises:
            NoteError, CommitError: it is no checkpoint of a log.
        """
        self.where, self.data = where, data
        self.note = parse_note(data)
        self.origin, self.size, self.root = checkpoint(self.note.text)
        self.number: int | None = None
        self.seen = False
        try:
            self.number = parse_commit(self.note.text).number
        except CommitError:
            self.number = None  # a plain checkpoint without the lines of a commit

    def of(self, origin: Origin | None) -> bool:
        """Tell whether it is of this log."""
        return origin == self.origin

    def visit(self, folder: str, number: int, note: Note, commit: Commit) -> Iterator[Finding]:
        """Compare it with the commit of the same number."""
        if self.number == number and self.of(commit.origin):
            self.seen = True
            if note.text != self.note.text:
                what = f"commit {number} is another one than the commit that was kept: the log was rewritten"
                yield Finding("rewritten", f"logs/{folder}/commits/{number:012d}", what, (PHASE_COMMITS, number))

    def contradiction(self, where: str) -> Finding:
        """Say that the log signs another root at the size that was kept."""
        what = f"signs another root for {self.size} rows than the checkpoint that was kept: the log was rewritten"
        return Finding("rewritten", where, what, (PHASE_COMMITS, 0))

    def end(self, size: int, newest: int, keys: Sequence[VerifierKey]) -> Iterator[Finding]:
        """Judge it against all that was read of its log."""
        where = f"logs/{self.origin.folder}"
        signed = [(key, self.note.of(key)) for key in keys if key.kind != COSIGNATURE]
        if not any(mine is not None and key.signed(self.note.text, mine.body) for key, mine in signed):
            what = "the checkpoint that was kept is not signed by any key of this log; it proves nothing"
            yield Finding("since-unsigned", self.where, what, (0, 0))
        if size < self.size:
            what = f"has {size} rows; the checkpoint that was kept has {self.size}: rows were cut off at the end"
            yield Finding("cut-off", where, what, (0, 0))
        elif self.number is not None and not self.seen:
            what = f"ends at commit {newest}; the commit that was kept is number {self.number}: commits were cut off"
            yield Finding("cut-off", where, what, (0, 0))
