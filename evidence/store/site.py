"""The evidence store of one site."""

from __future__ import annotations

import itertools
import secrets
import time
from collections.abc import Callable
from pathlib import Path

from evidence.errors import ConfigError, StoreError
from evidence.files.local import LocalFiles
from evidence.files.seam import Files, Held, NotThere
from evidence.log.commits import Source
from evidence.log.tiles import HEIGHT, WIDTH, TileRef, right_tiles
from evidence.store.layout import EVENTS, LogPartition, check_site, events_file, log_folder
from evidence.store.live import read_live
from evidence.store.state import Head, read_head
from evidence.store.writer import Fenced, PartitionWriter, Signers, Writing

_CLAIMS = 5
"""Times that a writer tries to take a log over while others do the same."""

_LEVELS = 8
"""Levels of tiles; more rows than they can count never come."""

_LEFTOVER_S = 3600.0
"""Temporary files of this age belong to nobody."""


class EvidenceStore:
    """The evidence of one site, in a folder or in an object store."""

    def __init__(
        self,
        where: Path | Files,
        site: str,
        signers: Signers,
        *,
        compression_level: int = 1,
        lock_wait_s: float = 30.0,
        now: Callable[[], float] = time.time,
        snapshot_commits: int = 64,
    ) -> None:
        """Name the store; nothing is read or written yet.

        Args:
            where: the folder, made if it is not there, or another place for files.
            site: the site whose logs are stored here.
            signers: the site's keys.
            compression_level: of zstd.
            lock_wait_s: seconds to wait for a log's lock; more than a dying writer needs to go away.
            now: the wall clock, in seconds since 1970.
            snapshot_commits: a snapshot of what is live follows each so many commits.

        Raises:
            ConfigError: the site cannot be a folder's name.
        """
        self.files: Files = LocalFiles(where) if isinstance(where, Path) else where
        self.site = check_site(site)
        self.signers = signers
        self.compression_level = compression_level
        self.lock_wait_s = lock_wait_s
        self._now = now
        self._snapshot_commits = snapshot_commits

    def head(self, log_id: str, topic: str, partition: int) -> Head | None:
        """Give the state of a log, or None before its first commit.

        Raises:
            StoreError: a commit is missing or damaged.
            UnavailableError: the store cannot be read.
        """
        return read_head(self.files, LogPartition(log_id, topic, partition))

    def resume(self, log_id: str, topic: str, partition: int) -> int | None:
        """Give the first offset of a log that is not stored yet, or None before its first commit.

        Raises:
            StoreError: a commit is missing or damaged.
            UnavailableError: the store cannot be read.
        """
        head = self.head(log_id, topic, partition)
        return None if head is None else head.commit.next

    def open(
        self,
        log_id: str,
        topic: str,
        partition: int,
        *,
        beginning: int = 0,
        partitions: int | None = None,
        source: Source | None = None,
        wait_s: float | None = None,
    ) -> PartitionWriter:
        """Become the one writer of a log: whoever was it before is fenced from here on.

        Args:
            log_id: identity of the cluster.
            topic: topic name.
            partition: partition number.
            beginning: the offset that the coverage begins with; of no effect once there is a commit.
            partitions: how many partitions the topic has; None says as many as before.
            source: of an export: what it is a copy of.
            wait_s: seconds to wait for another writer; None takes the store's.

        Raises:
            ConfigError: the log id or the topic cannot be in a file name, or the log's key is not there.
            PartitionHeld: another process still writes this log after that time.
            StoreError: the log is not as one writer left it.
            UnavailableError: the store cannot be written.
        """
        log = LogPartition(log_id, topic, partition)
        held = self.files.lock(str(log), self.lock_wait_s if wait_s is None else wait_s)
        try:
            for attempt in range(_CLAIMS):
                there = self._there(log)
                writer = self._writer(log, held)
                try:
                    writer.claim(beginning=beginning, partitions=partitions, source=source)
                except Fenced:
                    if attempt == _CLAIMS - 1:
                        raise
                else:
                    self._clear(writer, there)
                    return writer
        except BaseException:
            held.release()
            raise
        raise AssertionError("unreachable")

    def _writer(self, log: LogPartition, held: Held) -> PartitionWriter:
        head = read_head(self.files, log)
        live = read_live(self.files, str(log))
        if head is not None and head.commit.number != live.number:
            live = read_live(self.files, str(log), live)
        if head is not None and head.commit.origin != log.origin(self.site):
            raise ConfigError(
                f"{self.files.url('')} holds the evidence of {head.commit.origin}, and this is site {self.site!r}; "
                "a site has a store of its own"
            )
        newest = self.signers.newest()  # asked first: it finds keys that another process has made and signed with
        key = newest.vkey if head is None else self._key(head)
        writing = Writing(
            self.files, self.site, self.signers, self.compression_level, self._now, self._snapshot_commits
        )
        return PartitionWriter(writing, log, held, head=head, live=live, key=key, name=secrets.token_hex(8))

    def _key(self, head: Head) -> str:
        """Give the verifier key that signs after a commit."""
        return head.commit.key or self.signers.signed(head.noted.note)

    def _there(self, log: LogPartition) -> list[str]:
        """Give the files of a log's events, whether a commit has them or not."""
        found = []
        for entry in self.files.list(f"{EVENTS}/site={self.site}/"):
            try:
                file = events_file(entry.path)
            except StoreError:
                continue  # not ours to touch; `verify` names it
            if file.log == str(log):
                found.append(entry.path)
        return found

    def _clear(self, writer: PartitionWriter, there: list[str]) -> None:
        """Remove what a predecessor left that died before its commit.

        A file that was there before this writer's claim, and is in no commit up to it, can never be in one: its writer
        is fenced. No clock is asked; a bucket's knows whole seconds only.
        """
        known = writer.live.files.keys() | writer.live.removed.keys()
        for path in there:
            if path not in known:
                self.files.delete(path)
        if isinstance(self.files, LocalFiles):
            self._clear_tiles(writer)
            self.files.clean(_LEFTOVER_S)

    def _clear_tiles(self, writer: PartitionWriter) -> None:
        """Remove the tiles of a commit that did not come about: other rows may come in the place of its rows.

        Only where a lock keeps others away: the tiles of a successor would have the same names.
        """
        size, folder = writer.commit.size, log_folder(str(writer.log))
        needed = {folder + ref.path for ref in right_tiles(size)}
        left: list[str] = []
        for level in range(_LEVELS):
            for index in itertools.count(size >> HEIGHT * (level + 1)):
                full = folder + TileRef(level, index, WIDTH).path
                left += [entry.path for entry in self.files.list(f"{full}.p/") if entry.path not in needed]
                try:
                    self.files.read(full)
                except NotThere:
                    break
                left.append(full)
        for path in reversed(left):  # the last ones first, so that who dies over it leaves no gap to look behind
            self.files.delete(path)
