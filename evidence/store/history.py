"""The commits of a log as they lie: loose ones, and packs of older ones."""

from __future__ import annotations

import hashlib
import itertools
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Final

from evidence.errors import StoreError
from evidence.files.seam import AlreadyThere, Entry, Files, NotThere
from evidence.log.commits import Commit, parse
from evidence.store.layout import commit_numbers, commit_path, commits_folder, pack_path

MERGED: Final = 64
"""Small packs that become one large one."""

_SMALL: Final = 16_384
"""A pack of so many commits is large, and stays as it is: who wants one commit has to read it whole."""

_MOST_BYTES: Final = 256 * 1024 * 1024
_GRACE_S: Final = 900.0
_LOOKS: Final = 3
"""Times that a folder is listed: a list that is made while commits are packed may miss some."""
_TOLD: Final = "run `waybill verify`, which names what was changed"
_HEAD: Final = re.compile(rb"(\d{1,12}) (\d{1,9})\n")


@dataclass(frozen=True, slots=True)
class Noted:
    """A commit with the bytes that it was read from."""

    commit: Commit
    """What it says."""

    note: bytes
    """The whole file, signatures included."""

    @property
    def sha256(self) -> str:
        """SHA-256 of the file, in hex."""
        return hashlib.sha256(self.note).hexdigest()


def read_note(note: bytes) -> Noted:
    """Read a commit's file; its signatures are not checked.

    Raises:
        StoreError: it is no commit.
    """
    text, blank, _ = note.partition(b"\n\n")
    if not blank:
        raise StoreError("not a commit: no blank line before the signatures")
    try:
        return Noted(parse(text.decode() + "\n"), note)
    except UnicodeDecodeError:
        raise StoreError("not a commit: not UTF-8") from None


def packs(files: Files, log: str) -> list[tuple[int, int]]:
    """Give the first and last number of each pack, in order; of those that hold the same commits, the widest."""
    return _widest(_numbers(entry) for entry in files.list(commits_folder(log)))


def _numbers(entry: Entry) -> tuple[int, int] | None:
    return commit_numbers(entry.path.rsplit("/", maxsplit=1)[-1])


def _widest(found: Iterable[tuple[int, int] | None]) -> list[tuple[int, int]]:
    there = {numbers for numbers in found if numbers is not None and numbers[0] != numbers[1]}
    kept: list[tuple[int, int]] = []
    for first, last in sorted(there, key=lambda numbers: (numbers[0], -numbers[1])):
        if not kept or last > kept[-1][1]:
            kept.append((first, last))
    return kept


def newest(files: Files, log: str) -> int | None:
    """Give the newest commit's number, or None before the first.

    Raises:
        StoreError: a commit between two others is missing.
    """
    try:
        return _newest(files, log)
    except StoreError:
        return _newest(files, log)  # a list that was made while commits were packed may miss some


def _newest(files: Files, log: str) -> int | None:
    numbers: set[int] = set()
    packed = -1
    for entry in files.list(commits_folder(log)):
        match commit_numbers(entry.path.rsplit("/", maxsplit=1)[-1]):
            case None:
                raise StoreError(f"{entry.path} is no commit; move it out of the evidence store")
            case first, last if first == last:
                numbers.add(first)
            case _, last:
                packed = max(packed, last)
    loose = sorted(number for number in numbers if number > packed)
    for before, number in itertools.pairwise([packed, *loose]):
        if number != before + 1:
            raise StoreError(f"{log}: commit {before + 1} is missing; restore it from a backup")
    return loose[-1] if loose else (packed if packed >= 0 else None)


def read_commit(files: Files, log: str, number: int) -> Noted:
    """Read one commit, wherever it lies.

    Raises:
        NotThere: there is none of that number.
        StoreError: it is damaged.
    """
    try:
        return read_note(files.read(commit_path(log, number)))
    except NotThere:
        for first, last in packs(files, log):
            if first <= number <= last:
                return unpack(files.read(pack_path(log, first, last)), number - first, 1)[0]
        raise


def commits_after(files: Files, log: str, number: int) -> Iterator[Commit]:
    """Read the commits that follow a number, in order, as far as there are any.

    Raises:
        StoreError: one is damaged, or missing between others.
    """
    upcoming = number + 1
    known: list[tuple[int, int]] = []
    while True:
        try:
            noted = read_note(files.read(commit_path(log, upcoming)))
        except NotThere:
            # Packed commits are deleted in order, so that one whose predecessor lies by itself was never there. Most
            # questions end here, without a list of a folder that grows for years.
            if number >= 0 and _lies_alone(files, log, upcoming - 1):
                return
            if _covering(known, upcoming) is None:
                known = _look(files, log, upcoming)
            if (covering := _covering(known, upcoming)) is None:
                return
            try:
                packed = _of(files, log, covering, upcoming)
            except NotThere:
                known = []  # a wider pack has taken its place
                continue
            for noted in packed:
                yield noted.commit
            upcoming += len(packed)
        else:
            yield noted.commit
            upcoming += 1


def _lies_alone(files: Files, log: str, number: int) -> bool:
    try:
        files.read(commit_path(log, number))
    except NotThere:
        return False
    return True


def _covering(known: Iterable[tuple[int, int]], number: int) -> tuple[int, int] | None:
    return next((numbers for numbers in known if numbers[0] <= number <= numbers[1]), None)


def _look(files: Files, log: str, upcoming: int) -> list[tuple[int, int]]:
    """Give the packs, and a commit itself where it has come just now.

    Raises:
        StoreError: the commit is missing, and a later one is there.
    """
    for _ in range(_LOOKS):
        there = [numbers for entry in files.list(commits_folder(log)) if (numbers := _numbers(entry)) is not None]
        known = _widest(there)
        if (upcoming, upcoming) in there:
            return [(upcoming, upcoming), *known]
        if _covering(known, upcoming) is not None or all(first < upcoming for first, _ in there):
            return known
    raise StoreError(f"{log}: commit {upcoming} is missing; restore it from a backup")


def _of(files: Files, log: str, numbers: tuple[int, int], upcoming: int) -> list[Noted]:
    """Give the commits of a pack from a number on; none for a commit that is none."""
    first, last = numbers
    return [] if first == last else unpack(files.read(pack_path(log, first, last)), upcoming - first)


def merge_packs(files: Files, log: str, *, now: float, fan: int = MERGED, grace_s: float = _GRACE_S) -> None:
    """Put many small packs into one large one, and delete those that such a one has taken the place of.

    The large one is whole and durable before a small one goes, and that only after a while: a reader that has listed
    the small ones finds them. Cut off anywhere, both lie there, with the same bytes, and the next call goes on.

    Args:
        files: the store.
        log: name of the log.
        now: the wall clock, in seconds since 1970.
        fan: how many small packs become one; fewer than so many stay.
        grace_s: seconds for which small ones lie on beside the large one.

    Raises:
        StoreError: a pack is damaged, or there is a large one that holds something else.
        UnavailableError: the store cannot be read or written.
    """
    entries = {numbers: entry for entry in files.list(commits_folder(log)) if (numbers := _numbers(entry)) is not None}
    there = _widest(entries)
    for large in there:
        inside = [each for each in entries if large[0] <= each[0] < each[1] <= large[1] and each != large]
        if inside and now - entries[large].modified >= grace_s:
            _replace(files, log, [entries[each].path for each in inside], large)
    small = [numbers for numbers in there if numbers[1] - numbers[0] < _SMALL]
    run = small[:fan]
    together = all(before[1] + 1 == after[0] for before, after in itertools.pairwise(run))
    if len(run) < fan or not together or sum(entries[numbers].size for numbers in run) > _MOST_BYTES:
        return
    first, last = run[0][0], run[-1][1]
    data = b"".join(files.read(entries[numbers].path) for numbers in run)
    if [noted.commit.number for noted in unpack(data)] != list(range(first, last + 1)):
        raise StoreError(f"{log}: the packs of commits {first} to {last} do not hold them; {_TOLD}")
    try:
        files.create(pack_path(log, first, last), data)
    except AlreadyThere:
        if files.read(pack_path(log, first, last)) != data:
            raise StoreError(
                f"{log}: the pack of commits {first} to {last} is not what the smaller ones hold; {_TOLD}"
            ) from None


def _replace(files: Files, log: str, paths: list[str], large: tuple[int, int]) -> None:
    """Delete packs whose bytes a large one holds."""
    whole = files.read(pack_path(log, *large))
    for path in paths:
        if files.read(path) not in whole:
            raise StoreError(
                f"{files.url(path)} is not what the pack of commits {large[0]} to {large[1]} holds; {_TOLD}"
            )
        files.delete(path)


def pack(notes: list[tuple[int, bytes]]) -> bytes:
    """Put consecutive commits into the bytes of one file."""
    return b"".join(b"%d %d\n%s" % (number, len(note), note) for number, note in notes)


def unpack(data: bytes, skip: int = 0, most: int | None = None) -> list[Noted]:
    """Read a pack.

    Args:
        data: its bytes.
        skip: commits at its beginning that are not wanted.
        most: how many are wanted; None for all that follow.

    Raises:
        StoreError: it is damaged.
    """
    found: list[Noted] = []
    place, seen = 0, 0
    while place < len(data) and (most is None or len(found) < most):
        head = _HEAD.match(data, place)
        if head is None or head.end() + int(head[2]) > len(data):
            raise StoreError("a damaged pack of commits")
        end = head.end() + int(head[2])
        if seen >= skip:
            found.append(read_note(data[head.end() : end]))
        place, seen = end, seen + 1
    if most is not None and len(found) < most:
        raise StoreError("a damaged pack of commits: it ends too early")
    return found
