"""The one writer of a log: rows in, signed commits out.

A commit is made in this order, each step durable before the next:

1. Parquet files, under names that hold their content's hash. Nobody reads them yet.
2. The tiles of the tree with the new rows. Those of a commit that does not come about are removed by the next writer,
   where a lock keeps others away; elsewhere they are what any writer would compute of the same records.
3. The commit's note, created exclusively. From here on the rows are evidence.
4. What is derived: a snapshot of what is live every so often; partial tiles that larger ones replace are removed.

A crash before 3 leaves files that no commit names, which the next writer removes; a crash after it leaves nothing to
do. Who takes a log over commits once before anything else, so a predecessor that still lives comes second with its
next number and is fenced.
"""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, date, datetime
from types import TracebackType
from typing import Any, Protocol, Self

import pyarrow as pa
import pyarrow.compute as pc

from evidence.errors import RetryableError, StoreError
from evidence.files.seam import AlreadyThere, Files, Held
from evidence.log.commits import Added, Commit, Lost, Source
from evidence.log.merkle import Tree
from evidence.log.notes import Signer
from evidence.log.ranges import Ranges, count, of
from evidence.log.tiles import right_tiles
from evidence.rows import leaf_hashes
from evidence.schema import EVENTS_SCHEMA
from evidence.store.encoding import days, encode, shifted
from evidence.store.history import Noted, read_note
from evidence.store.layout import LogPartition, commit_path, events_path, live_path, log_folder, statement_path
from evidence.store.live import Live, snapshots
from evidence.store.state import Head


class Fenced(RetryableError):  # noqa: N818 - named as the condition that operators search for
    """Another writer has taken the log over; what was not committed is read and stored again by it."""


class Signers(Protocol):
    """The keys of a site."""

    def newest(self) -> Signer:
        """Give the key that signs."""
        ...

    def signed(self, note: bytes) -> str:
        """Give the verifier key of the key that signed a note.

        Raises:
            ConfigError: none of the site's keys did.
            StoreError: it is no note.
        """
        ...

    def by_key(self, vkey: str) -> Signer:
        """Give the signer of a verifier key.

        Raises:
            ConfigError: it is not there any more.
        """
        ...


@dataclass(frozen=True, slots=True)
class Written:
    """A commit that is durable."""

    commit: Commit
    """What it says."""

    rows: int
    """Rows that it added."""

    size: int
    """Bytes of the files that it added."""


@dataclass(frozen=True, slots=True)
class Writing:
    """How a writer works."""

    files: Files
    """The store."""
    site: str
    """Whose it is."""
    signers: Signers
    """Its keys."""
    level: int
    """Of zstd."""
    now: Callable[[], float]
    """The wall clock, in seconds since 1970."""
    snapshot_commits: int
    """A snapshot of what is live follows each so many commits."""


class PartitionWriter:
    """Writes one log; blocking, so call it from a thread. Close it to give the log back."""

    def __init__(
        self, writing: Writing, log: LogPartition, held: Held, *, head: Head | None, live: Live, key: str, name: str
    ) -> None:
        """Describe the writer; `EvidenceStore.open` makes them.

        Args:
            writing: how it works.
            log: what it writes.
            held: the log's lock, given back at the end.
            head: the log's state; None before its first commit.
            live: its live files.
            key: the verifier key that signs its next commit.
            name: this writer's name.
        """
        self.log = log
        self._with = writing
        self._held = held
        self._head = head
        self._live = live
        self._key = key
        self._name = name
        self._epoch = 1 if head is None else head.commit.epoch + 1
        self._partitions = 1
        self._failed = False
        self._busy = threading.RLock()  # one commit at a time, and the log is not given back in the middle of one

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    @property
    def position(self) -> int:
        """The first offset that is not stored yet."""
        return self.commit.next

    @property
    def commit(self) -> Commit:
        """The newest commit."""
        if self._head is None:
            raise StoreError(f"{self.log}: nothing is committed yet")
        return self._head.commit

    @property
    def live(self) -> Live:
        """The live files."""
        return self._live

    @property
    def usable(self) -> bool:
        """Whether it can commit: not closed, and no commit of it has failed. Waits for a commit that is being made."""
        with self._busy:
            return not self._failed

    def close(self) -> None:
        """Give the log back, after the commit that is being made; safe to call twice."""
        with self._busy:
            self._failed = True
            self._held.release()

    def claim(self, *, beginning: int, partitions: int | None = None, source: Source | None = None) -> Commit:
        """Take the log over: the commit that fences whoever wrote it before.

        Args:
            beginning: where the log's coverage begins; of no effect once there is a commit.
            partitions: how many partitions the topic has; None says as many as before.
            source: of an export: what it is a copy of.

        Raises:
            Fenced: somebody else took it over in this moment.
        """
        before = 1 if self._head is None else self._head.commit.partitions
        self._partitions = before if partitions is None else partitions
        with self._busy:
            if self._head is not None:
                return self._commit(self._head.tree, {"source": source}).commit
            return self._commit(Tree.EMPTY, {"first": beginning, "next": beginning, "source": source}).commit

    def append(
        self,
        table: pa.Table,
        *,
        end: int,
        rejected: Sequence[int] = (),
        lost: Ranges = (),
        statement: bytes | None = None,
        **more: Any,
    ) -> Written:
        """Store the events of the offsets from `position` to `end` in one commit.

        When it fails, only the store can say whether the commit is there: the writer is then of no more use.

        Args:
            table: the events, in `EVENTS_SCHEMA`, in the order of their offsets; none is fine.
            end: the last offset that the caller has seen, at least that of the last event; `position - 1` says that
                nothing has come.
            rejected: offsets whose records were no evidence events.
            lost: offsets that the topic held no more.
            statement: a document that says more.
            more: further fields of the commit, for exports.

        Raises:
            Fenced: another writer has taken over.
            StoreError: the offsets do not go on from `position`, or the table is in another schema.
            UnavailableError: the store cannot be written.
        """
        with self._busy:  # a change of files that is being committed beside this is no failure
            self._check_open()
        offsets = table.column("log_offset")
        if not table.schema.equals(EVENTS_SCHEMA):
            raise StoreError(f"{self.log}: the table is not in the schema of the evidence events")
        first, last = (offsets[0].as_py(), offsets[-1].as_py()) if len(offsets) else (self.position, end)
        if not self.position <= first <= last + 1 <= end + 2 or last > end or end < self.position - 1:
            raise StoreError(
                f"{self.log}: events {first} to {last} cannot be stored as offsets {self.position} to {end}"
            )
        size = self.commit.size
        leaves = leaf_hashes(table)
        added = tuple(
            self.place(rows, day, shifted(places, size), about={"first": str(self.position), "last": str(end)})
            for day, rows, places in days(table)
        )
        with self._busy:
            if self._failed:
                self.discard(added)
            self._check_open()
            tree, tiles = self._tree.extend(leaves)
            before = self._tree.size
            self._guarded(
                lambda: self._with.files.replace_many((self._folder + tile.ref.path, tile.data) for tile in tiles)
            )
            fields = {
                "next": end + 1,
                "add": added,
                "rejected": of(rejected),
                "lost": (Lost(lost, "expired"),) if lost else (),
                "statement": self._state(statement),
            }
            written = self._commit(tree, fields | more)
            self._guarded(lambda: self._tidy(before, tree.size))
        return written

    def change(self, *, statement: bytes | None = None, **fields: Any) -> Written:
        """Commit a change of files that leaves the log as it is: compaction, and retention.

        Args:
            statement: a document that says more.
            fields: `add`, `remove` and `expire` of the commit.

        Raises:
            Fenced: another writer has taken over.
            StoreError: what is removed is not live, or the rows of the files do not add up.
            UnavailableError: the store cannot be written.
        """
        with self._busy:
            self._check_open()
            gone = sum(self._live.files[path].rows for path in fields["remove"] if path in self._live.files)
            kept = sum(added.rows for added in fields.get("add", ()))
            expired = sum(count(item.leaves) for item in fields.get("expire", ()))
            if gone != kept + expired:
                raise StoreError(
                    f"{self.log}: files of {gone} rows would be replaced by {kept}, with {expired} expired"
                )
            return self._commit(self._tree, fields | {"statement": self._state(statement)})

    def place(self, rows: pa.Table, day: date, leaves: Ranges, *, about: dict[str, str], large: bool = False) -> Added:
        """Make a file of one day's rows durable, and give what a commit has to say of it.

        Args:
            rows: the rows, in any order.
            day: the day on which they happened.
            leaves: their numbers in the log.
            about: what else the file says of itself.
            large: whether the file is one for long.

        Raises:
            UnavailableError: the store cannot be written.
        """
        log = self.log
        named = {"site": self._with.site, "log_id": log.log_id, "topic": log.topic, "partition": str(log.partition)}
        # No two writers ever make the same file: one that was fenced while it removed what lay about might delete it.
        named["writer"] = f"{self._epoch} {self._name}"
        encoded = encode(rows, named | about, level=self._with.level, large=large)
        ends = pc.min_max(rows.column("log_offset"))
        offsets = (ends["min"].as_py(), ends["max"].as_py())
        path = events_path(self._with.site, day, self.log, offsets, encoded.sha256)
        data = memoryview(encoded.data)
        try:
            self._with.files.create(path, data)
        except AlreadyThere:
            # Made by this writer before, for a commit that did not come about: the name holds the hash.
            if hashlib.sha256(self._with.files.read(path)).hexdigest() != encoded.sha256:
                raise StoreError(f"{path} is there already with another content; move it away") from None
        return Added(path, rows.num_rows, len(data), encoded.sha256, leaves)

    def discard(self, files: Sequence[Added]) -> None:
        """Remove files that `place` made for a commit that certainly did not come about; no other writer has the same.

        What cannot be removed now is removed by the next writer.
        """
        with suppress(RetryableError, StoreError):
            for added in files:
                if added.path not in self._live.files:
                    self._with.files.delete(added.path)

    def forget(self, paths: list[str], *, now: float) -> None:
        """No longer remember removed files: they were deleted.

        Args:
            paths: which.
            now: the moment, in seconds since 1970; what a clock that ran ahead has removed later is removed now.
        """
        with self._busy:
            self._live = self._live.without(paths, now=now)

    @property
    def _tree(self) -> Tree:
        return Tree.EMPTY if self._head is None else self._head.tree

    @property
    def _folder(self) -> str:
        return log_folder(str(self.log))

    def _check_open(self) -> None:
        if self._failed:
            raise StoreError(f"{self.log}: this writer is closed or has failed; open another one")

    def _guarded(self, step: Callable[[], None]) -> None:
        self._failed = True
        step()
        self._failed = False

    def _state(self, statement: bytes | None) -> str | None:
        if statement is None:
            return None
        sha256 = hashlib.sha256(statement).hexdigest()
        self._guarded(lambda: self._with.files.replace(statement_path(str(self.log), sha256), statement))
        return sha256

    def _commit(self, tree: Tree, fields: dict[str, Any]) -> Written:
        self._check_open()
        head = None if self._head is None else self._head.noted
        newest = self._with.signers.newest()
        said: dict[str, Any] = {
            "origin": self.log.origin(self._with.site),
            "size": tree.size,
            "root": tree.root(),
            "number": 0 if head is None else head.commit.number + 1,
            "previous": None if head is None else head.sha256,
            "time": self._time(head),
            "epoch": self._epoch,
            "writer": self._name,
            "partitions": self._partitions,
            "next": 0 if head is None else head.commit.next,
            "key": newest.vkey if newest.vkey != self._key else None,
        }
        commit = Commit(**(said | fields))
        signers = [self._with.signers.by_key(self._key)] + ([newest] if commit.key else [])
        noted = read_note(signers[0].sign(commit.text(), *signers[1:]))
        live = self._live.after(commit)
        self._failed = True
        try:
            self._with.files.create(commit_path(str(self.log), commit.number), noted.note)
        except AlreadyThere:
            self.discard(commit.add)
            raise Fenced(
                f"{self.log}: another writer made commit {commit.number}; this one stops, and what it had not "
                "committed is read again"
            ) from None
        self._head, self._live, self._key = Head(noted, tree), live, commit.key or self._key
        self._snapshot(commit.number)
        self._failed = False
        return Written(commit, sum(added.rows for added in commit.add), sum(added.size for added in commit.add))

    def _time(self, head: Noted | None) -> datetime:
        now = datetime.fromtimestamp(self._with.now(), UTC)
        return now if head is None else max(now, head.commit.time)  # a clock that was set back must not unsay a commit

    def _snapshot(self, number: int) -> None:
        if (number + 1) % self._with.snapshot_commits:
            return
        log = str(self.log)
        self._with.files.replace(live_path(log, number), self._live.to_json())
        for old in snapshots(self._with.files, log)[:-2]:
            self._with.files.delete(live_path(log, old))

    def _tidy(self, before: int, after: int) -> None:
        needed = {ref.path for ref in right_tiles(after)}
        for ref in right_tiles(before):
            if ref.path not in needed:
                self._with.files.delete(self._folder + ref.path)
