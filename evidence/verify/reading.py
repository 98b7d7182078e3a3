"""Commits as they lie there: loose or in packs, each number once, in order."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, field

from evidence.verify.commits import CommitError, parse_pack
from evidence.verify.report import Finding
from evidence.verify.source import MissingError, ReadError, Store

PHASE_COMMITS = 1


def commit_path(folder: str, number: int) -> str:
    """Give where a commit lies, or would lie by itself."""
    return f"logs/{folder}/commits/{number:012d}"


@dataclass(slots=True)
class CommitFiles:
    """Reads the commits of one log."""

    folder: str
    store: Store
    found: Callable[[Finding], None]
    broken: bool = False
    """Whether one is missing or cannot be read."""
    _loose: frozenset[int] = field(default=frozenset())
    _packs: Collection[tuple[int, int, str]] = ()

    def read(
        self, begin: int, loose: Collection[int], packs: Collection[tuple[int, int, str]]
    ) -> Iterator[tuple[int, str, bytes]]:
        """Give commits from a number on, with where each was read.

        Those that lie twice must be the same, and gaps are reported.

        Args:
            begin: the first number that is wanted.
            loose: numbers of commits that lie by themselves.
            packs: first and last number and path of each pack.
        """
        self._loose, self._packs = frozenset(loose), packs
        expected = begin
        ordered = sorted(packs)
        twice: dict[int, bytes] = {}  # hashes of commits that lie in a later pack, too
        for place, (first, last, path) in enumerate(ordered):
            if last < begin:
                continue  # read before
            shared = ordered[place + 1][0] if place + 1 < len(ordered) else last + 1
            for number, data in self._pack(first, last, path):
                if number in self._loose:
                    self._same(number, data, path)
                if number in twice or number >= shared:
                    sha256 = hashlib.sha256(data).digest()
                    if twice.setdefault(number, sha256) != sha256:
                        self._say("forked", number, f"differs in {path} from another pack: the log is forked")
                if number >= expected:
                    yield from self._between(expected, number)
                    yield number, path, data
                    expected = number + 1
        for number in sorted(self._loose):
            if number >= expected:
                yield from self._between(expected, number)
                yield from self._alone(number)
                expected = number + 1

    def _say(self, kind: str, number: int, what: str) -> None:
        self.found(Finding(kind, commit_path(self.folder, number), what, (PHASE_COMMITS, number)))

    def _between(self, expected: int, number: int) -> Iterator[tuple[int, str, bytes]]:
        """Give the loose commits in front of one; says so if one is missing. A gap may be absurdly long."""
        for there in sorted(item for item in self._loose if expected <= item < number):
            if there > expected:
                self._missing(expected, there)
            yield from self._alone(there)
            expected = there + 1
        if expected < number:
            self._missing(expected, number)

    def _missing(self, number: int, later: int) -> None:
        self.broken = True
        self._say("commit-missing", number, f"this commit is missing; a later one, number {later}, is there")

    def _alone(self, number: int) -> Iterator[tuple[int, str, bytes]]:
        path = commit_path(self.folder, number)
        try:
            yield number, path, self.store.read(path)
        except ReadError as error:
            self.broken = True
            self._say("commit-unreadable", number, f"cannot be read: {error}")

    def _same(self, number: int, data: bytes, pack: str) -> None:
        try:
            if self.store.read(commit_path(self.folder, number)) != data:
                self._say("forked", number, f"differs from the same commit in {pack}: the log is forked")
        except MissingError:
            return  # deleted since the folder was listed, because the pack holds it
        except ReadError as error:
            self._say("commit-unreadable", number, f"cannot be read: {error}")

    def _pack(self, first: int, last: int, path: str) -> Iterator[tuple[int, bytes]]:
        expected, wrong = first, ""
        try:
            for number, data in parse_pack(self.store.read(path)):
                if number != expected or number > last:
                    wrong = f"commit {number} stands where {expected} should"
                    break
                yield number, data
                expected += 1
            if not wrong and expected != last + 1:
                wrong = f"the pack ends before commit {expected}"
        except (CommitError, ReadError) as error:
            if isinstance(error, MissingError) and self._covered(first, last, path):
                return  # deleted since the folder was listed, because the other pack holds all of it
            wrong = str(error)
        if wrong:
            self.found(Finding("pack-broken", path, wrong, (PHASE_COMMITS, expected)))

    def _covered(self, first: int, last: int, path: str) -> bool:
        """Tell whether another pack has all commits of one."""
        return any(low <= first and last <= high for low, high, other in self._packs if other != path)
