"""The commits of a log as they lie: loose ones, and packs of older ones."""

from __future__ import annotations

import hashlib
import itertools
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from evidence.errors import StoreError
from evidence.files.seam import Files, NotThere
from evidence.log.commits import Commit, parse
from evidence.store.layout import commit_numbers, commit_path, commits_folder, pack_path

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
    """Give the first and last number of each pack, in order."""
    found = [commit_numbers(entry.path.rsplit("/", maxsplit=1)[-1]) for entry in files.list(commits_folder(log))]
    return sorted(numbers for numbers in found if numbers is not None and numbers[0] != numbers[1])


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
                return unpack(files.read(pack_path(log, first, last)))[number - first]
        raise


def commits_after(files: Files, log: str, number: int) -> Iterator[Commit]:
    """Read the commits that follow a number, in order, as far as there are any.

    Raises:
        StoreError: one is damaged.
    """
    upcoming = number + 1
    if number < 0:
        for first, last in packs(files, log):
            for noted in unpack(files.read(pack_path(log, first, last))):
                yield noted.commit
            upcoming = last + 1
    while True:
        try:
            yield read_note(files.read(commit_path(log, upcoming))).commit
            upcoming += 1
        except NotThere:
            later = [(first, last) for first, last in packs(files, log) if first <= upcoming <= last]
            if not later:
                return
            [(first, last)] = later
            for noted in unpack(files.read(pack_path(log, first, last)))[upcoming - first :]:
                yield noted.commit
            upcoming = last + 1


def pack(notes: list[tuple[int, bytes]]) -> bytes:
    """Put consecutive commits into the bytes of one file."""
    return b"".join(b"%d %d\n%s" % (number, len(note), note) for number, note in notes)


def unpack(data: bytes) -> list[Noted]:
    """Read a pack.

    Raises:
        StoreError: it is damaged.
    """
    found, place = [], 0
    while place < len(data):
        head = _HEAD.match(data, place)
        if head is None or head.end() + int(head[2]) > len(data):
            raise StoreError("a damaged pack of commits")
        found.append(read_note(data[head.end() : head.end() + int(head[2])]))
        place = head.end() + int(head[2])
    return found
