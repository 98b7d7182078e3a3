"""The commits of one log: read in order, each checked against the one before; what is live follows from them."""

from __future__ import annotations

import hashlib
from array import array
from collections.abc import Callable, Collection
from dataclasses import dataclass, field

from evidence.verify.commits import Added, Commit, CommitError, Origin, Ranges, count, parse_commit
from evidence.verify.notes import Note, NoteError, Signature, VerifierKey, parse_note
from evidence.verify.reading import PHASE_COMMITS, CommitFiles, commit_path
from evidence.verify.report import Finding
from evidence.verify.source import Store
from evidence.verify.spans import cover, disjoint, inside, merged
from evidence.verify.tree import EMPTY_ROOT


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
class Chain:
    """What the commits of one log say, up to the last one read."""

    folder: str
    store: Store
    keys: tuple[VerifierKey, ...]
    existing: Collection[str]
    found: Callable[[Finding], None]
    check: Callable[[bytes, bytes, VerifierKey, str, int], None]
    """Takes text, signature, key, path and number: verifies it, now or later."""

    visit: Callable[[int, Note, Commit], None] = lambda *_: None
    """Called for each commit that could be read."""

    origin: Origin | None = None
    last: Commit | None = None
    last_sha256: str = ""
    newest: Note | None = None
    beginning: tuple[Signature, ...] = ()
    """The signatures of the first commit."""
    live: dict[str, Added] = field(default_factory=dict)
    removed: dict[str, str] = field(default_factory=dict)
    segments: list[Segment] = field(default_factory=list)
    coverage: int = 0
    numbers: array[int] = field(default_factory=lambda: array("q"))
    sizes: array[int] = field(default_factory=lambda: array("q"))
    nexts: array[int] = field(default_factory=lambda: array("q"))
    times: array[int] = field(default_factory=lambda: array("q"))
    """Seconds since 1970."""
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
        self.found(Finding(kind, commit_path(self.folder, number), what, (PHASE_COMMITS, number)))

    @property
    def size(self) -> int:
        """Rows so far."""
        return self.last.size if self.last else 0

    def read(self, numbers: Collection[int], packs: Collection[tuple[int, int, str]]) -> None:
        """Read the commits that follow the last one read; loose ones by number, packs by first, last and path."""
        begin = self.last.number + 1 if self.last else 0
        files = CommitFiles(self.folder, self.store, self.found)
        for number, path, data in files.read(begin, numbers, packs):
            self.broken |= files.broken
            self._take(number, path, data)
        self.broken |= files.broken

    def _take(self, number: int, path: str, data: bytes) -> None:
        sha256 = hashlib.sha256(data).hexdigest()
        read = self._parsed(number, data)
        if read is None:
            self.broken, self.last_sha256 = True, sha256
            return
        note, commit = read
        if commit.previous is not None and self.last_sha256 and commit.previous != self.last_sha256:
            self.say(
                "previous-hash",
                number,
                f"follows another commit {number - 1} than the one that is here (hash {commit.previous[:16]}…, "
                f"here {self.last_sha256[:16]}…): one of the two was changed, or the log is forked",
            )
        self._signed(number, note, commit, path)
        self._follows(commit)
        self._offsets(commit, self.last.next if self.last else self.coverage)
        self._files(commit)
        self.last, self.last_sha256, self.newest = commit, sha256, note
        self.visit(number, note, commit)

    def _parsed(self, number: int, data: bytes) -> tuple[Note, Commit] | None:
        try:
            note = parse_note(data)
            commit = parse_commit(note.text)
        except (NoteError, CommitError) as error:
            self.say("commit-malformed", number, f"not a commit: {error}")
            return None
        if commit.number != number:
            self.say("commit-number", number, f"says that it is commit {commit.number}")
            return None
        if commit.origin.folder != self.folder:
            self.say("commit-origin", number, f"is of another log, {commit.origin}")
            return None
        return note, commit

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
        if last is None:
            self.origin, self.coverage = commit.origin, commit.first or 0
        else:
            self._goes_on(commit, last)
        if commit.size == 0 and commit.root != EMPTY_ROOT:
            self.say("root", number, "the root of an empty tree is another")
        if commit.origin.partition >= commit.partitions:
            self.say("partitions", number, f"partition {commit.origin.partition} of a topic with {commit.partitions}")
        if commit.source is not None:
            self.exported, self.source = True, str(commit.source[0])
        if commit.statement is not None:
            self.statements.setdefault(commit.statement, number)

    def _goes_on(self, commit: Commit, last: Commit) -> None:
        """See that what may only grow, or must stay, does."""
        for kind, wrong, what in (
            ("commit-origin", commit.origin != last.origin, f"is of another log, {commit.origin}"),
            (
                "time-backwards",
                commit.time < last.time,
                f"was made before commit {last.number}, says its time {commit.time}",
            ),
            ("next-backwards", commit.next < last.next, f"`next` goes back from {last.next} to {commit.next}"),
            ("size", commit.size < last.size, f"the tree shrinks from {last.size} rows to {commit.size}"),
            ("root", commit.size == last.size and commit.root != last.root, "another root at the same size"),
            (
                "partitions",
                commit.partitions < last.partitions,
                f"{commit.partitions} partitions, after {last.partitions}",
            ),
        ):
            if wrong:
                self.say(kind, commit.number, what)
        self._epoch(commit, last)

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
            where = commit_path(self.folder, number)
            what = f"{count(spans):,} offsets were lost before they were read ({reason}): {show(spans)}"
            self.losses.append(Finding("lost", where, what, (PHASE_COMMITS, number)))

    def _files(self, commit: Commit) -> None:
        """Keep the list of live files, and see that leaves neither appear nor vanish."""
        number = commit.number
        for file in commit.added:
            if file.path in self.live:
                self.say("added-twice", number, f"adds {file.path}, which is live already")
        added = [span for file in commit.added for span in file.leaves]
        expired = [span for spans, _ in commit.expired for span in spans]
        taken = self._take_away(commit)
        for file in commit.added:
            self.live[file.path] = file
            self.removed.pop(file.path, None)
        self.expired.extend(expired)
        if self.broken:
            pass  # what was live before is not known for sure: arithmetic would only repeat that
        elif commit.removed:
            self._replaced(commit, added + expired, taken)
        elif expired:
            self.say("expire", number, "expires rows without removing their files")
        elif not cover(added, self.size, commit.size):
            said = f"its files hold the leaves {show(tuple(merged(added))) if added else 'none'}"
            self.say("leaves", number, f"grows from {self.size} to {commit.size} rows, but {said}")
        self._keep(commit)

    def _take_away(self, commit: Commit) -> list[tuple[int, int]]:
        """Take the removed files out of the list; gives the leaves that they held."""
        taken: list[tuple[int, int]] = []
        for path in commit.removed:
            file = self.live.get(path)
            if file is not None:
                del self.live[path]
                taken.extend(file.leaves)
                if path in self.existing:
                    self.removed[path] = file.sha256
            elif not self.broken:
                self.say("removed-not-live", commit.number, f"removes {path}, which is not live")
        return taken

    def _replaced(self, commit: Commit, given: list[tuple[int, int]], taken: list[tuple[int, int]]) -> None:
        last = self.last
        if last is not None and (commit.size != last.size or commit.root != last.root):
            self.say("root", commit.number, "removes files and changes the tree at the same time")
        given.sort()
        if not disjoint(given):
            self.say("leaves", commit.number, "gives a leaf to two files, or to a file and to what expired")
        elif merged(given) != merged(taken):
            want, have = set(merged(taken)), set(merged(given))
            near = min(want ^ have)[0]
            what = f"what it adds and what expires are not the rows of the files that it removes (near leaf {near})"
            self.say("leaves", commit.number, what)

    def _keep(self, commit: Commit) -> None:
        if not self.sizes or commit.size != self.sizes[-1] or commit.next != self.nexts[-1]:
            self.numbers.append(commit.number)
            self.sizes.append(commit.size)
            self.nexts.append(commit.next)
            self.times.append(int(commit.time.timestamp()))
            self.roots += commit.root


def show(spans: Ranges, most: int = 4) -> str:
    """Write ranges for people, shortened."""
    parts = [str(low) if low == high else f"{low}-{high}" for low, high in spans[:most]]
    return ",".join(parts) + ("…" if len(spans) > most else "")
