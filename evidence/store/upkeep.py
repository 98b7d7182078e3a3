"""Upkeep: what keeps a log in shape beside what comes in.

Each call does what is due for one log: removes what retention says, merges small files, deletes files that were
removed long enough ago, and packs old commits. Whatever of it fails, or is cut off, is due again at the next call.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import Final

from evidence.errors import StoreError
from evidence.files.seam import Files
from evidence.store.compaction import MAX_ROWS, compact, delete_removed, plans, utc_day
from evidence.store.history import merge_packs, newest, pack, packs, read_commit
from evidence.store.layout import commit_numbers, commit_path, commits_folder, pack_path
from evidence.store.live import snapshots
from evidence.store.writer import PartitionWriter

GRACE_S: Final = 900.0
"""Seconds that a removed file lies on: longer than any question may take."""

PACK_COMMITS: Final = 1024
"""Commits of a pack."""

_PACK_AFTER_S: Final = 3600.0


class Upkeep:
    """Keeps logs in shape; call it from a thread, for one log at a time."""

    def __init__(
        self,
        files: Files,
        *,
        grace_s: float = GRACE_S,
        max_rows: int = MAX_ROWS,
        pack_after_s: float = _PACK_AFTER_S,
        pack_commits: int = PACK_COMMITS,
        expire: Callable[[PartitionWriter], object] | None = None,
        now: Callable[[], float] = time.time,
    ) -> None:
        """Describe it.

        Args:
            files: the store.
            grace_s: seconds that a removed file lies on.
            max_rows: rows of a large file at most.
            pack_after_s: age at which commits are packed, in seconds.
            pack_commits: commits of a pack.
            expire: removes what retention says.
            now: the wall clock, in seconds since 1970.
        """
        self._files = files
        self._grace_s = grace_s
        self._max_rows = max_rows
        self._pack_after_s = pack_after_s
        self._pack_commits = pack_commits
        self._expire = expire
        self._now = now

    def __call__(self, writer: PartitionWriter) -> None:
        """Do what is due.

        Raises:
            Fenced: another writer has taken the log over.
            StoreError: what lies there is not what the commits say; what does not need it was done all the same.
            UnavailableError: the store cannot be read or written.
        """
        failed: StoreError | None = None
        for step in self._steps(writer):
            try:
                step()
            except StoreError as error:
                if not writer.usable:
                    raise
                failed = failed or error
        if failed is not None:
            raise failed

    def _steps(self, writer: PartitionWriter) -> Iterator[Callable[[], object]]:
        if self._expire is not None:
            yield partial(self._expire, writer)
        for plan in plans(writer.live, today=utc_day(self._now()), max_rows=self._max_rows):
            yield partial(compact, writer, self._files, plan)
        yield partial(delete_removed, writer, self._files, now=self._now(), grace_s=self._grace_s)
        yield partial(self._pack, str(writer.log))
        yield partial(merge_packs, self._files, str(writer.log), now=self._now())

    def _pack(self, log: str) -> None:
        """Put old commits together, as far as a snapshot saves readers from needing them one by one."""
        self._finish(log)
        known = snapshots(self._files, log)
        packed = packs(self._files, log)
        first = packed[-1][1] + 1 if packed else 0
        last = first + self._pack_commits - 1
        top = newest(self._files, log)
        if not known or known[-1] < last or top is None or top <= last:
            return
        age_s = self._now() - read_commit(self._files, log, last).commit.time.timestamp()
        if 0 <= age_s < self._pack_after_s:  # one from the future, of a clock that ran ahead, would never be old
            return
        notes = [(number, self._files.read(commit_path(log, number))) for number in range(first, last + 1)]
        self._files.create(pack_path(log, first, last), pack(notes))
        self._finish(log)

    def _finish(self, log: str) -> None:
        """Delete loose commits that a pack holds: those of the last pack too, should a process have died over it."""
        packed = packs(self._files, log)
        if not packed:
            return
        for entry in self._files.list(commits_folder(log)):
            numbers = commit_numbers(entry.path.rsplit("/", maxsplit=1)[-1])
            if numbers is not None and numbers[0] == numbers[1] <= packed[-1][1]:
                self._files.delete(entry.path)
