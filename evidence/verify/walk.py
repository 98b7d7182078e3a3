"""One log, from its commits to its rows: reads what lies there, derives it anew, and tells what differs."""

from __future__ import annotations

import re
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Collection, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from typing import Final

from evidence.verify.chain import Chain
from evidence.verify.commits import Added, Commit
from evidence.verify.crew import Crew
from evidence.verify.ends import absent, ahead, committed, keys_given, left_over, removed, statements, tiles_ahead
from evidence.verify.files import PHASE_FILES, Checked, FileJob, LogFacts, check_files
from evidence.verify.lying import Lying
from evidence.verify.notes import Note, VerifierKey, ed25519
from evidence.verify.reading import commit_path
from evidence.verify.report import Finding, LogSummary
from evidence.verify.side import Since, Witnesses, snapshot
from evidence.verify.source import MissingError, ReadError, Store
from evidence.verify.spans import Span, merged, overlaps
from evidence.verify.stories import Stories
from evidence.verify.tiles import Folded, Tiles, TreeCheck, fold_chunk
from evidence.verify.tree import HASH

TASK_ROWS: Final = 128 * 1024
"""Rows of small files that are checked as one piece of work."""

POOL_ROWS: Final = 150_000
"""With fewer rows, starting workers costs more than they save."""

_SIGNATURES: Final = 500
_LONGEST_STORY_S: Final = 31 * 86_400  # what expired longer before or after a story's events was no part of it
_ATTEMPTS: Final = 4  # to read a store that is being written meanwhile
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


class LogCheck:
    """The check of one log."""

    def __init__(
        self,
        store: Store,
        folder: str,
        *,
        keys: Sequence[VerifierKey],
        witnesses: Sequence[VerifierKey],
        since: Since | None,
        existing: Collection[str],
        crew: Crew,
        progress: Callable[[int], None],
        open_after: timedelta,
        pause: Callable[[], None],
    ) -> None:
        """Name the log; nothing is read yet."""
        self.store, self.folder, self.crew, self.progress = store, folder, crew, progress
        self.existing, self.open_after, self.pause = existing, open_after, pause
        self.findings: dict[tuple[str, str, str], Finding] = {}
        self.losses: list[Finding] = []
        self.notes: list[str] = []
        self.since = since
        self.witnesses = Witnesses(folder, witnesses)
        self.lying = Lying()
        self.chain = Chain(folder, store, tuple(keys), existing, self.found, self._signature, self._visit)
        self.rows = 0
        self._signatures: list[tuple[bytes, bytes, bytes, str, str, int]] = []
        self._done: set[str] = set()
        self._spans: list[tuple[int, int, int, int]] = []
        self._stories = Stories(self._excused)
        self._expired: list[Span] = []
        self._lost: list[Span] = []

    def found(self, finding: Finding) -> None:
        """Keep a finding, once."""
        self.findings.setdefault((finding.kind, finding.where, finding.what), finding)

    def read(self) -> None:
        """Read the commits."""
        self._list()
        for path in sorted(self.lying.unknown):
            self.found(Finding("unknown-file", path, "no file of a log is called so", (0, 0)))
        self.chain.read(self.lying.commits, self.lying.packs)
        self._verify_signatures()
        if self.chain.last is None:
            self.found(Finding("no-commits", f"logs/{self.folder}", "not one commit of this log can be read", (1, 0)))

    def check(self) -> None:
        """Check tiles, files and stories, and read commits again if the store is being written meanwhile."""
        for attempt in range(_ATTEMPTS):
            tiles, files, unlisted = self._tiles(), self._files(), self.unlisted()
            if not (tiles or files or unlisted):
                break
            if attempt == _ATTEMPTS - 1 or not self._advanced(again=bool(files)):
                for finding in absent(self.chain, tiles, files, unlisted):
                    self.found(finding)
                break
        self._order()
        for finding in (*statements(self.chain, self.lying), *ahead(self.chain, self.lying), *removed(self.chain)):
            self.found(finding)
        for item in keys_given(self.chain):
            if isinstance(item, Finding):
                self.found(item)
            else:
                self.notes.append(item)
        if self.chain.last is not None:
            self._expired, self._lost = self._windows_of(self.chain.expired), merged(self.chain.lost_spans)
            self._stories.exported = self.chain.exported
            now = (self.chain.last.time - _EPOCH) // timedelta(microseconds=1)
            wrong, losses = self._stories.end(self.folder, now, self.open_after // timedelta(microseconds=1))
            for finding in wrong:
                self.found(finding)
            self.losses = [*self.chain.losses, *losses]
            self._tell()

    def unlisted(self) -> list[str]:
        """Give files of this log below `events/` that no commit added."""
        mine = re.compile(re.escape(self.folder) + r"-\d{20}-\d{20}-")
        return sorted(
            path
            for path in self.existing
            if mine.match(path.rpartition("/")[2]) and path not in self.chain.live and path not in self.chain.removed
        )

    def summary(self) -> LogSummary:
        """Give the log in numbers."""
        chain, last = self.chain, self.chain.last
        made = LogSummary(origin=str(chain.origin or self.folder))
        if last is None:
            return made
        made.commits, made.size, made.root, made.next = last.number + 1, last.size, last.root.hex(), last.next
        made.time = last.time.strftime("%Y-%m-%dT%H:%M:%S.%fZ")
        made.files = len(chain.live)
        made.expired = sum(high - low + 1 for low, high in chain.expired)
        made.rejected, made.lost = chain.rejected, chain.lost
        made.stories, made.open = self._stories.complete, self._stories.open
        made.signed_from = next((part.begin for part in chain.segments if part.trusted), 0)
        made.cosigned = self.witnesses.lag(last.number, last.time)
        return made

    def _list(self) -> None:
        self.lying = Lying()
        try:
            for entry in self.store.list(f"logs/{self.folder}/"):
                if entry.odd:
                    self.found(Finding("odd-file", entry.path, f"{entry.odd}, where only plain files belong", (0, 0)))
                else:
                    self.lying.sort(self.folder, entry)
        except ReadError as error:
            self.found(Finding("unreadable", f"logs/{self.folder}", str(error), (0, 0)))

    def _signature(self, text: bytes, signature: bytes, key: VerifierKey, path: str, number: int) -> None:
        self._signatures.append((text, signature, key.public, str(key).rpartition("+")[0], path, number))
        if len(self._signatures) >= _SIGNATURES * self.crew.jobs * 4:
            self._verify_signatures()

    def _verify_signatures(self) -> None:
        pending, self._signatures = self._signatures, []
        cut = [pending[at : at + _SIGNATURES] for at in range(0, len(pending), _SIGNATURES)]
        work = (([item[:3] for item in part], part) for part in cut)
        for (_, part), good in self.crew.map(_good, work, pooled=len(pending) > 2 * _SIGNATURES):
            for (*_, key, path, number), fine in zip(part, good or (), strict=False):
                if not fine:
                    where = commit_path(self.folder, number)
                    what = f"the signature of {key} is not good for this text" + (
                        "" if path == where else f" (in {path})"
                    )
                    self.found(Finding("signature", where, what, (1, number)))

    def _visit(self, number: int, note: Note, commit: Commit) -> None:
        if number in self.lying.snapshots:
            self._snapshot(number)
        for path in sorted(self.lying.witness.get(number, ())):
            try:
                for finding in self.witnesses.take(path, self.store.read(path), number, note, commit):
                    self.found(finding)
            except MissingError:
                continue
            except ReadError as error:
                self.found(Finding("witness", path, f"cannot be read: {error}", (1, number)))
        if self.since is not None:
            for finding in self.since.visit(self.folder, number, note, commit):
                self.found(finding)

    def _snapshot(self, number: int) -> None:
        path = self.lying.snapshots[number]
        try:
            what = snapshot(self.store.read(path), number, self.chain.live)
        except MissingError:
            return  # only the newest are kept: it went away since the folder was read
        except ReadError as error:
            what = f"cannot be read: {error}"
        if what:
            self.found(Finding("snapshot", path, what, (1, number)))

    def _tiles(self) -> list[str]:
        chain = self.chain
        if chain.last is None or (chain.broken and not chain.sizes):
            return []
        expected: dict[int, tuple[bytes, str]] = {}
        for place, size in enumerate(chain.sizes):
            where = commit_path(self.folder, chain.numbers[place])
            expected.setdefault(size, (bytes(chain.roots[place * HASH : (place + 1) * HASH]), where))
        if self.since is not None and self.since.of(chain.origin) and self.since.size <= chain.size:
            at = expected.get(self.since.size)
            if at is None:
                expected[self.since.size] = (self.since.root, self.since.where)
            elif at[0] != self.since.root:
                self.found(self.since.contradiction(at[1]))
        tiles = Tiles(self.store, self.folder, chain.size)
        check = TreeCheck(tiles, expected, committed(chain, self.lying), self.found)
        work = ((self.store, job) for job in check.jobs())
        for (_, job), made in self.crew.map(fold_chunk, work, pooled=chain.size > POOL_ROWS):
            check.take(job, made or Folded(broken=True))
        check.end()
        return check.missing

    def _files(self) -> list[str]:
        chain = self.chain
        if chain.origin is None:
            return []
        facts = LogFacts(self.folder, chain.origin.partition, chain.size)
        live = [file for path, file in chain.live.items() if path not in self._done]
        live.sort(key=lambda file: (file.leaves[0][0], file.path))
        missing: list[str] = []
        rows = sum(file.rows for file in live)
        work = ((self.store, facts, [self._job(file) for file in part]) for part in _cut(live))
        for (_, _, jobs), made in self.crew.map(check_files, work, pooled=rows > POOL_ROWS):
            done: Checked = made if made is not None else self._died(jobs)
            for finding in done.wrong:
                self.found(finding)
            missing.extend(done.missing)
            self._done.update(job.path for job in jobs if job.path not in done.missing)
            self._spans.extend(done.spans)
            if done.stories is not None:
                self._stories.take(done.stories)
            self.rows += done.rows
            self.progress(sum(job.rows for job in jobs))
        return missing

    def _died(self, jobs: Sequence[FileJob]) -> Checked:
        names = ", ".join(job.path for job in jobs[:3])
        what = f"the program that read it died (one of {len(jobs)} files: {names})"
        return Checked(wrong=[Finding("file-deadly", jobs[0].path, what, (PHASE_FILES, jobs[0].leaves[0][0]))])

    def _job(self, file: Added) -> FileJob:
        chain = self.chain
        windows: list[tuple[int, int, int]] = []
        for low, high in file.leaves:
            place = bisect_right(chain.sizes, low)
            while place < len(chain.sizes) and not (windows and windows[-1][0] > high):
                if not windows or windows[-1][0] < chain.sizes[place]:
                    first = chain.nexts[place - 1] if place else chain.coverage
                    windows.append((chain.sizes[place], first, chain.nexts[place]))
                if chain.sizes[place] > high:
                    break
                place += 1
        gone = self._gone()
        begin = bisect_left(gone, (file.first, 0))
        begin -= begin > 0 and gone[begin - 1][1] >= file.first
        end = bisect_right(gone, (file.last, 1 << 63))
        return FileJob(
            file.path,
            file.rows,
            file.size,
            file.sha256,
            file.leaves,
            file.first,
            file.last,
            file.day,
            tuple(windows),
            tuple(gone[begin:end]),
        )

    def _gone(self) -> list[Span]:
        self.chain.gone.sort()  # nearly sorted already
        return self.chain.gone

    def _advanced(self, *, again: bool) -> bool:
        """Read commits again, after a pause; tells whether there were new ones.

        Where files went away, what was added up so far is forgotten: their rows lie in other files now.
        """
        before = self.chain.last
        self.pause()
        self._list()
        self.chain.read(self.lying.commits, self.lying.packs)
        self._verify_signatures()
        if self.chain.last is before:
            return False
        if again:
            self._done.clear()
            self._spans.clear()
            self._stories = Stories(self._excused)
            self.rows = 0
        return True

    def _order(self) -> None:
        """See that offsets ascend with leaves from file to file."""
        self._spans.sort()
        for one, other in zip(self._spans, self._spans[1:], strict=False):
            if one[3] >= other[2]:
                what = f"leaf {other[0]} has the offset {other[2]}, leaf {one[1]} before it has {one[3]}"
                self.found(Finding("row-order", f"logs/{self.folder}", what, (PHASE_FILES, other[0])))
                return

    def _windows_of(self, leaves: Sequence[Span]) -> list[Span]:
        """Give the offsets among which some leaves lay, as far as the commits tell."""
        chain, made = self.chain, []
        for low, high in leaves:
            first, last = bisect_right(chain.sizes, low), bisect_right(chain.sizes, high)
            if last < len(chain.nexts):
                made.append((chain.nexts[first - 1] if first else chain.coverage, chain.nexts[last] - 1))
        return merged(made)

    def _excused(self, low: int, high: int) -> str | None:
        if self._expired and overlaps(self._expired, *self._near(low + 1, high - 1)):
            return "expired"
        if overlaps(self._lost, low + 1, high - 1):
            return "lost"
        return "before" if low < 0 and self.chain.coverage > 0 else None

    def _near(self, low: int, high: int) -> Span:
        """Bound a stretch of offsets that is open at one end: what is missing there is not far from what is known."""
        chain, last = self.chain, len(self.chain.times) - 1
        if low <= 0:
            place = min(bisect_right(chain.nexts, high + 1), last)
            begin = bisect_left(chain.times, chain.times[place] - _LONGEST_STORY_S)
            low = chain.nexts[begin - 1] if begin else 0
        elif high > chain.nexts[last]:
            place = min(bisect_right(chain.nexts, low - 1), last)
            high = chain.nexts[min(bisect_right(chain.times, chain.times[place] + _LONGEST_STORY_S), last)]
        return low, high

    def _tell(self) -> None:
        stories = self._stories
        where = f"logs/{self.folder}"
        self.notes.extend(tiles_ahead(self.chain, self.lying))
        self.notes.extend(left_over(self.chain, self.lying))
        if stories.begun_before:
            self.notes.append(
                f"{where}: {stories.begun_before:,} stories began before the log does, at offset {self.chain.coverage}"
            )
        if stories.exported:
            self.notes.append(
                f"{where}: a copy of {self.chain.source}: stories are not judged, rows are withheld by design"
            )
        self.notes.extend(self.witnesses.notes())


def _good(items: Sequence[tuple[bytes, bytes, bytes]], _: object) -> list[bool]:
    return [ed25519(public, signature, text) for text, signature, public in items]


def _cut(files: Sequence[Added]) -> Iterator[list[Added]]:
    part: list[Added] = []
    rows = 0
    for file in files:
        if part and rows + file.rows > TASK_ROWS:
            yield part
            part, rows = [], 0
        part.append(file)
        rows += file.rows
    if part:
        yield part
