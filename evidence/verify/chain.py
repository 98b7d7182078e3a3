"""The commits of one log: read in order, each checked against the one before; what is live follows from them."""

from __future__ import annotations

import hashlib
from array import array
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, field

from evidence.verify.commits import Added, Commit, CommitError, Origin, Ranges, count, parse_commit, parse_pack
from evidence.verify.notes import Note, NoteError, Signature, VerifierKey, parse_note
from evidence.verify.report import Finding
from evidence.verify.source import LocalStore, ReadError
from evidence.verify.spans import cover, disjoint, inside, merged
from evidence.verify.tree import EMPTY_ROOT

PHASE_COMMITS = 1


@dataclass(slots=True)
class Segment:
    """Commits that one key signs."""

    begin: int
    """The first of them."""

    key: VerifierKey | None
    """The key, where a commit named it or it was given."""

    trusted: bool
    """Whether the key was given, or follows from one that was."""

    why: str = ""
    """Where the key comes from."""


@dataclass(slots=True)
class Kept:
    """One commit, as far as it is needed later on."""

    number: int
    sha256: str
    note: Note


@dataclass(slots=True)
class Chain:
    """What the commits of one log say, up to the last one read."""

    folder: str
    store: LocalStore
    keys: tuple[VerifierKey, ...]
    existing: Collection[str]
    found: Callable[[Finding], None]
    check: Callable[[bytes, bytes, VerifierKey, str, int], None]
    """Takes text, signature, key, path and number: verifies it, now or later."""

    visit: Callable[[int, bytes, Note, Commit], None] = lambda *_: None
    """Called for each commit that could be read."""

    origin: Origin | None = None
    last: Commit | None = None
    last_sha256: str = ""
    newest: Kept | None = None
    beginning: tuple[Signature, ...] = ()
    """The signatures of the first commit."""
    live: dict[str, Added] = field(default_factory=dict)
    removed: dict[str, str] = field(default_factory=dict)
    segments: list[Segment] = field(default_factory=list)
    coverage: int = 0
    numbers: array[int] = field(default_factory=lambda: array("q"))
    sizes: array[int] = field(default_factory=lambda: array("q"))
    nexts: array[int] = field(default_factory=lambda: array("q"))
    roots: bytearray = field(default_factory=bytearray)
    gone: list[tuple[int, int]] = field(default_factory=list)
    """Rejected and lost offsets, ascending."""
    expired: list[tuple[int, int]] = field(default_factory=list)
    lost_spans: list[tuple[int, int]] = field(default_factory=list)
    losses: list[Finding] = field(default_factory=list)
    source: str = ""
    statements: dict[str, int] = field(default_factory=dict)
    rejected: int = 0
    lost: int = 0
    exported: bool = False
    broken: bool = False
    """Whether a commit is missing or could not be read, so that later arithmetic would only repeat it."""

    def say(self, kind: str, number: int, what: str) -> None:
        """Report something that is wrong with a commit."""
        self.found(Finding(kind, f"logs/{self.folder}/commits/{number:012d}", what, (PHASE_COMMITS, number)))

    @property
    def size(self) -> int:
        """Rows so far."""
        return self.last.size if self.last else 0

    def read(self, numbers: Collection[int], packs: Collection[tuple[int, int, str]]) -> None:
        """Read the commits that follow the last one read; loose ones by their numbers, packs by first, last and path."""
        begin = self.last.number + 1 if self.last else 0
        for number, path, data in self._bytes(begin, sorted(numbers), sorted(packs)):
            self._take(number, path, data)

    def _bytes(
        self, begin: int, numbers: list[int], packs: list[tuple[int, int, str]]
    ) -> Iterator[tuple[int, str, bytes]]:
        """Give commits in order; those that lie twice must be the same, and gaps are reported."""
        loose = set(numbers)
        expected = begin
        for first, last, path in packs:
            for number, data in self._pack(first, last, path):
                if number in loose:
                    self._same(number, data, path)
                if number < expected:
                    continue
                self._gap(expected, number, loose)
                for between in range(expected, number):
                    if between in loose:
                        yield from self._loose(between)
                yield number, path, data
                expected = number + 1
        for number in numbers:
            if number >= expected:
                self._gap(expected, number, ())
                yield from self._loose(number)
                expected = number + 1

    def _gap(self, expected: int, number: int, loose: Collection[int]) -> None:
        missing = next((item for item in range(expected, number) if item not in loose), None)
        if missing is not None:
            self.broken = True
            self.say("commit-missing", missing, f"this commit is missing; a later one, number {number}, is there")

    def _loose(self, number: int) -> Iterator[tuple[int, str, bytes]]:
        path = f"logs/{self.folder}/commits/{number:012d}"
        try:
            yield number, path, self.store.read(path)
        except ReadError as error:
            self.broken = True
            self.say("commit-unreadable", number, f"cannot be read: {error}")

    def _same(self, number: int, data: bytes, pack: str) -> None:
        path = f"logs/{self.folder}/commits/{number:012d}"
        try:
            if self.store.read(path) != data:
                self.say("forked", number, f"differs from the same commit in {pack}: the log is forked")
        except ReadError as error:
            self.say("commit-unreadable", number, f"cannot be read: {error}")

    def _pack(self, first: int, last: int, path: str) -> Iterator[tuple[int, bytes]]:
        expected = first
        try:
            for number, data in parse_pack(self.store.read(path)):
                if number != expected or number > last:
                    raise CommitError(f"commit {number} stands where {expected} should")
                yield number, data
                expected += 1
            if expected != last + 1:
                raise CommitError(f"the pack ends before commit {expected}")
        except (CommitError, ReadError) as error:
            self.found(Finding("pack-broken", path, str(error), (PHASE_COMMITS, expected)))

    def _take(self, number: int, path: str, data: bytes) -> None:
        sha256 = hashlib.sha256(data).hexdigest()
        try:
            note = parse_note(data)
            commit = parse_commit(note.text)
        except (NoteError, CommitError) as error:
            self.say("commit-malformed", number, f"not a commit: {error}")
            self.broken, self.last_sha256 = True, sha256
            return
        if commit.number != number:
            self.say("commit-number", number, f"says that it is commit {commit.number}")
            self.broken, self.last_sha256 = True, sha256
            return
        if commit.origin.folder != self.folder:
            self.say("commit-origin", number, f"is of another log, {commit.origin}")
            self.broken, self.last_sha256 = True, sha256
            return
        if commit.previous is not None and self.last_sha256 and commit.previous != self.last_sha256:
            self.say(
                "previous-hash",
                number,
                f"follows another commit {number - 1} than the one that is here (hash {commit.previous[:16]}…, "
                f"here {self.last_sha256[:16]}…): one of the two was changed, or the log is forked",
            )
        self._signed(number, note, commit, path)
        self._follows(commit)
        self._files(commit)
        self.last, self.last_sha256 = commit, sha256
        self.newest = Kept(number, sha256, note)
        self.visit(number, data, note, commit)

    def _signed(self, number: int, note: Note, commit: Commit, path: str) -> None:
        if not self.segments:
            self.beginning = note.signatures
            self.segments.append(self._beginning(note, commit))
        segment = self.segments[-1]
        expected = [segment.key] if segment.key else []
        if commit.key is not None:
            expected.append(commit.key)
        for key in expected:
            signature = note.of(key)
            if signature is None:
                self.say("unsigned", number, f"is not signed by {key.name}+{key.key_id.hex()}, whose turn it is")
            else:
                self.check(note.text, signature.body, key, path, number)
        if segment.key and len(note.signatures) != len(expected):
            odd = next((item for item in note.signatures if not any(item.by(key) for key in expected)), None)
            whose = f"{odd.name}+{odd.key_id.hex()}" if odd else "the same key twice"
            self.say("signature-unknown", number, f"bears a signature that does not belong there: {whose}")
        if commit.key is not None:
            given = any(key == commit.key for key in self.keys)
            self.segments.append(
                Segment(number + 1, commit.key, given or segment.trusted, "given" if given else f"commit {number}")
            )

    def _beginning(self, note: Note, commit: Commit) -> Segment:
        for key in self.keys:
            if key.name == commit.origin.key_name and note.of(key) is not None:
                return Segment(commit.number, key, trusted=True, why="given")
        return Segment(commit.number, None, trusted=False)

    def _follows(self, commit: Commit) -> None:
        number, last = commit.number, self.last
        covered = commit.first or 0
        if last is None:
            self.origin, self.coverage = commit.origin, covered
            if number == 0 and commit.size != count(tuple(span for file in commit.added for span in file.leaves)):
                self.say("size", number, f"says {commit.size} rows; it adds others")
        else:
            covered = last.next
            if commit.origin != last.origin:
                self.say("commit-origin", number, f"is of another log, {commit.origin}")
            if commit.time < last.time:
                self.say("time-backwards", number, f"was made before commit {last.number}, says its time {commit.time}")
            if commit.next < last.next:
                self.say("next-backwards", number, f"`next` goes back from {last.next} to {commit.next}")
            if commit.size < last.size:
                self.say("size", number, f"the tree shrinks from {last.size} rows to {commit.size}")
            if commit.size == last.size and commit.root != last.root:
                self.say("root", number, "another root at the same size")
            if commit.partitions < last.partitions:
                self.say("partitions", number, f"{commit.partitions} partitions, after {last.partitions}")
            self._epoch(commit, last)
        if commit.size == 0 and commit.root != EMPTY_ROOT:
            self.say("root", number, "the root of an empty tree is another")
        if commit.origin.partition >= commit.partitions:
            self.say("partitions", number, f"partition {commit.origin.partition} of a topic with {commit.partitions}")
        self._offsets(commit, covered)
        if commit.source is not None:
            self.exported, self.source = True, str(commit.source[0])
        if commit.statement is not None:
            self.statements.setdefault(commit.statement, number)

    def _epoch(self, commit: Commit, last: Commit) -> None:
        number = commit.number
        if commit.epoch == last.epoch:
            if commit.writer != last.writer:
                self.say("epoch", number, f"two writers, {last.writer} and {commit.writer}, in epoch {commit.epoch}")
        elif commit.epoch != last.epoch + 1:
            self.say("epoch", number, f"epoch {commit.epoch} after {last.epoch}")
        elif commit.added and not commit.removed:
            self.say("epoch", number, f"the writer of epoch {commit.epoch} adds rows in its first commit")

    def _offsets(self, commit: Commit, covered: int) -> None:
        """See that what is rejected or lost lies in the commit's window, each offset once."""
        number = commit.number
        window = (covered, commit.next - 1)
        gone: list[tuple[int, int]] = []
        for spans, name in [(commit.rejected, "rejected"), *((spans, "lost") for spans, _ in commit.lost)]:
            if spans and not inside(spans, *window):
                self.say("window", number, f"{name} offsets outside its window {window[0]}-{window[1]}")
            gone.extend(spans)
        gone.sort()
        if not disjoint(gone):
            self.say("window", number, "an offset is rejected or lost twice")
        self.gone.extend(gone)
        self.rejected += count(commit.rejected)
        for spans, reason in commit.lost:
            self.lost += count(spans)
            self.lost_spans.extend(spans)
            where = f"logs/{self.folder}/commits/{number:012d}"
            what = f"{count(spans):,} offsets were lost before they were read ({reason}): {show(spans)}"
            self.losses.append(Finding("lost", where, what, (PHASE_COMMITS, number)))

    def _files(self, commit: Commit) -> None:
        """Keep the list of live files, and see that leaves neither appear nor vanish."""
        number, before = commit.number, self.size
        added: list[tuple[int, int]] = []
        for file in commit.added:
            if file.path in self.live:
                self.say("added-twice", number, f"adds {file.path}, which is live already")
            added.extend(file.leaves)
        expired = [span for spans, _ in commit.expired for span in spans]
        taken: list[tuple[int, int]] = []
        for path in commit.removed:
            file = self.live.pop(path, None)
            if file is None:
                if not self.broken:
                    self.say("removed-not-live", number, f"removes {path}, which is not live")
                continue
            taken.extend(file.leaves)
            if path in self.existing:
                self.removed[path] = file.sha256
        for file in commit.added:
            self.live[file.path] = file
            self.removed.pop(file.path, None)
        self.expired.extend(expired)
        if self.broken:
            self._keep(commit)
            return
        if commit.removed:
            self._replaced(commit, added + expired, taken)
        else:
            if expired:
                self.say("expire", number, "expires rows without removing their files")
            if not cover(added, before, commit.size):
                said = f"its files hold the leaves {show(tuple(merged(added))) if added else 'none'}"
                self.say("leaves", number, f"grows from {before} to {commit.size} rows, but {said}")
        self._keep(commit)

    def _replaced(self, commit: Commit, given: list[tuple[int, int]], taken: list[tuple[int, int]]) -> None:
        last = self.last
        if last is not None and (commit.size != last.size or commit.root != last.root):
            self.say("root", commit.number, "removes files and changes the tree at the same time")
        given.sort()
        if not disjoint(given):
            self.say("leaves", commit.number, "gives a leaf to two files, or to a file and to what expired")
        elif merged(given) != merged(taken):
            want, have = merged(taken), merged(given)
            lost = next((span for span in want if span not in have), None) or next(
                (span for span in have if span not in want), (0, 0)
            )
            self.say(
                "leaves",
                commit.number,
                f"the files that it adds, and what expires, are not the rows of those that it removes (near leaf {lost[0]})",
            )

    def _keep(self, commit: Commit) -> None:
        if not self.sizes or commit.size != self.sizes[-1] or commit.next != self.nexts[-1]:
            self.numbers.append(commit.number)
            self.sizes.append(commit.size)
            self.nexts.append(commit.next)
            self.roots += commit.root


def show(spans: Ranges, most: int = 4) -> str:
    """Write ranges for people, shortened."""
    parts = [str(low) if low == high else f"{low}-{high}" for low, high in spans[:most]]
    return ",".join(parts) + ("…" if len(spans) > most else "")
