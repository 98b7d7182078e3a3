"""What a site's store is taken to hold by somebody who has nothing but the site's public key.

The newest commit is signed, each commit holds the hash of the one before, and commits name files with their hashes. So
the one signature vouches for the whole list of files. Snapshots of what is live are not signed, and not read here.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime

from evidence.errors import StoreError
from evidence.files.seam import Files, NotThere
from evidence.log.commits import Added, Commit
from evidence.log.notes import Verifier, open_note
from evidence.store.history import Noted, packs, read_note, unpack
from evidence.store.layout import (
    EVENTS,
    LOGS,
    LogPartition,
    commit_numbers,
    commits_folder,
    events_file,
    pack_path,
)
from evidence.store.live import Live


@dataclass(frozen=True, slots=True)
class Signed:
    """A store whose commits are signed by its site."""

    files: tuple[Added, ...]
    """The live files of all its logs, by path."""

    newest: datetime
    """When the log that is behind all others was last told of: up to then the copy is whole."""

    statements: tuple[tuple[str, str], ...] = ()
    """The documents that its commits name, each by log and SHA-256."""


def read_signed(files: Files, verifier: Verifier, site: str) -> Signed:
    """Read what a site says of its store, and check that the site says it.

    Of the files themselves, only that they are there and how large they are is looked at.

    Args:
        files: the store.
        verifier: the site's public key.
        site: its name.

    Raises:
        NotThere: there is no log.
        StoreError: a commit is missing, changed or not signed by that key, or a file is not there or of another size.
        UnavailableError: the store cannot be read.
    """
    names = files.folders(f"{LOGS}/")
    if not names:
        raise NotThere(f"{files.url('')} holds no evidence")
    found: list[Added] = []
    newest: list[datetime] = []
    named: dict[tuple[str, str], None] = {}
    for name in names:
        commit, live, statements = _log(files, name, verifier, site)
        named |= dict.fromkeys((name, statement) for statement in statements)
        newest.append(commit.time)
        found.extend(live.files.values())
    sizes = {entry.path: entry.size for entry in files.list(f"{EVENTS}/")}
    for added in found:
        if (about := events_file(added.path)).site != site:
            raise StoreError(f"{added.path} lies in the folder of site {about.site!r}, and this is {site!r}")
        if sizes.get(added.path) != added.size:
            there = f"has {sizes[added.path]} bytes" if added.path in sizes else "is not there"
            raise StoreError(f"{added.path} {there}, and its commit says {added.size} bytes")
    return Signed(tuple(sorted(found, key=lambda added: added.path)), min(newest), tuple(named))


def _log(files: Files, name: str, verifier: Verifier, site: str) -> tuple[Commit, Live, list[str]]:
    origin = LogPartition.named(name).origin(site)
    live, before = Live(), None
    statements: list[str] = []
    for noted in commits(files, name):
        commit = noted.commit
        if commit.origin != origin:
            raise StoreError(f"{name}: commit {commit.number} is of {commit.origin}, and this is {origin}")
        if commit.previous != (None if before is None else before.sha256):
            raise StoreError(f"{name}: commit {commit.number} does not follow from the one before; one was changed")
        live, before = live.after(commit), noted
        if commit.statement is not None:
            statements.append(commit.statement)
    if before is None:
        raise StoreError(f"{name}: there is no commit")
    open_note(before.note, [verifier])
    return before.commit, live, statements


def commits(files: Files, log: str) -> Iterator[Noted]:
    """Give all commits of a log with their bytes, in order; whether they follow each other is not looked at.

    Raises:
        StoreError: one is damaged.
        UnavailableError: the store cannot be read.
    """
    packed = -1
    for first, last in packs(files, log):
        yield from unpack(files.read(pack_path(log, first, last)))
        packed = last
    for entry in files.list(commits_folder(log)):
        numbers = commit_numbers(entry.path.rsplit("/", maxsplit=1)[-1])
        if numbers is not None and numbers[0] == numbers[1] > packed:
            yield read_note(files.read(entry.path))
