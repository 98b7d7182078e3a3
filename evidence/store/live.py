"""Which files of a store count: what readers ask, and what a writer hands on with each commit.

A snapshot (`live/<number>.json`) every few commits saves readers from going through all of them. It is derived: a
reader that finds none, or a damaged one, starts at the first commit.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Self

import orjson

from evidence.errors import StoreError
from evidence.files.seam import Files, NotThere
from evidence.log.commits import Added, Commit
from evidence.log.ranges import from_text, to_text
from evidence.store.history import commits_after
from evidence.store.layout import LOGS, live_folder, live_path


@dataclass(frozen=True, slots=True)
class Live:
    """The files of one log after a commit."""

    number: int = -1
    """The commit; -1 before the first."""

    files: Mapping[str, Added] = field(default_factory=dict)
    """Those that count, by path."""

    removed: Mapping[str, float] = field(default_factory=dict)
    """Those that count no longer and may still lie there: when they were removed, in seconds since 1970."""

    def after(self, commit: Commit) -> Live:
        """Give the files after the next commit.

        Raises:
            StoreError: it is not the next one, or removes what is not there.
        """
        if commit.number != self.number + 1:
            raise StoreError(f"{commit.origin}: commit {commit.number} follows commit {self.number}; one is missing")
        files = dict(self.files)
        for path in commit.remove:
            if files.pop(path, None) is None:
                raise StoreError(f"{commit.origin}: commit {commit.number} removes {path}, which is not live")
        files.update({added.path: added for added in commit.add})
        removed = {**self.removed, **dict.fromkeys(commit.remove, commit.time.timestamp())}
        return Live(commit.number, files, removed)

    def without(self, paths: Iterable[str], *, now: float) -> Live:
        """Give the same without the memory of files that were deleted, and of no other removal after `now`."""
        gone = set(paths)
        return Live(
            self.number, self.files, {path: min(at, now) for path, at in self.removed.items() if path not in gone}
        )

    def to_json(self) -> bytes:
        """Give the snapshot's bytes."""
        live = [
            {
                "path": added.path,
                "rows": added.rows,
                "bytes": added.size,
                "sha256": added.sha256,
                "leaves": to_text(added.leaves),
            }
            for added in self.files.values()
        ]
        return orjson.dumps({"commit": self.number, "live": live, "removed": dict(self.removed)})

    @classmethod
    def from_json(cls, data: bytes) -> Self:
        """Read a snapshot.

        Raises:
            StoreError: it is damaged.
        """
        try:
            said: dict[str, Any] = orjson.loads(data)
            files = [
                Added(item["path"], item["rows"], item["bytes"], item["sha256"], from_text(item["leaves"]))
                for item in said["live"]
            ]
            return cls(int(said["commit"]), {added.path: added for added in files}, dict(said["removed"]))
        except (ValueError, KeyError, TypeError) as error:
            raise StoreError(f"a damaged snapshot: {error}") from None


def snapshots(files: Files, log: str) -> list[int]:
    """Give the numbers of the snapshots that lie there, in order."""
    names = [entry.path.rsplit("/", maxsplit=1)[-1] for entry in files.list(live_folder(log))]
    return sorted(int(name.removesuffix(".json")) for name in names if name.removesuffix(".json").isdigit())


def read_live(files: Files, log: str, start: Live | None = None) -> Live:
    """Give what is live now.

    Args:
        files: the store.
        log: name of the log.
        start: what was live before; only what came since is read.

    Raises:
        StoreError: a commit is missing or damaged.
        UnavailableError: the store cannot be read.
    """
    live = start
    if live is None:
        live = Live()
        for number in reversed(snapshots(files, log)):
            try:
                live = Live.from_json(files.read(live_path(log, number)))
                break
            except (StoreError, NotThere):
                continue
    for commit in commits_after(files, log, live.number):
        live = live.after(commit)
    return live


class LiveReader:
    """Reads what is live, again and again; safe to use from several threads."""

    def __init__(self, files: Files) -> None:
        self._files = files
        self._lock = threading.Lock()
        self._logs: dict[str, Live] = {}

    def refresh(self) -> tuple[Added, ...]:
        """Give the live files of all logs, by path.

        Raises:
            StoreError: a commit is missing or damaged.
            UnavailableError: the store cannot be read.
        """
        with self._lock:
            for log in self._files.folders(f"{LOGS}/"):
                live = read_live(self._files, log, self._logs.get(log))
                self._logs[log] = Live(live.number, live.files)  # a reader has no use for a memory that only grows
            return tuple(sorted((file for live in self._logs.values() for file in live.files.values()), key=_path))


def _path(added: Added) -> str:
    return added.path
