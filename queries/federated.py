"""The evidence of several sites as one read-only database: this site's own store, and the others' copies for it.

Each site is looked at on its own and at the same time: its commits are read and its signature checked before a file of
it counts. Who cannot be used is named in `FederatedEvidence.states`, and so is who has said nothing for too long.

In the views, `site` is a constant for the files of a site, so that a condition on it leaves out the others' files. Each
file was looked through for rows of another site before.
"""

from __future__ import annotations

import hashlib
import json
import threading
import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Final, Literal

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq

from evidence.errors import ConfigError, StoreError, UnavailableError, WaybillError
from evidence.federation.chain import Signed, read_signed
from evidence.files.local import LocalFiles
from evidence.files.seam import AlreadyThere, Files, NotThere
from evidence.log.commits import Added
from evidence.log.notes import Verifier
from evidence.store.layout import EVENTS, statement_path
from queries.database import Evidence, quoted
from queries.needs import needed
from queries.statement import check_statement
from queries.views import CROSSINGS, REQUESTS, events_view

DEFAULT_SITE_TIMEOUT_S: Final = 10.0
"""Seconds without anything from a site after which it counts as down."""

_POLL_S: Final = 0.05

Condition = Literal["ok", "stale", "down", "unverified", "closed"]
"""`stale` is used and told of; the others are told of and not used. `closed` is no fault: nothing may leave it."""


class OtherSite(StoreError):  # noqa: N818 - named as the condition
    """A file holds rows that say another site than the one whose file it is."""


@dataclass(frozen=True, slots=True)
class Remote:
    """A site whose copy is asked."""

    name: str
    """Its name, which every row of its copy says."""

    key: str
    """Its public key, as a verifier key."""

    files: Callable[[], Files]
    """Gives the copy's place."""

    max_age_s: float | None = None
    """Seconds after which its newest commit is too old; None for never."""

    granted: frozenset[str] | None = None
    """What its rows may hold, where the copy itself does not say so: columns, and fields as `<column>.<field>`."""


@dataclass(frozen=True, slots=True)
class SiteState:
    """What became of a site in an answer."""

    name: str
    """The site."""
    condition: Condition
    """Whether it is in the answer."""
    why: str = ""
    """What is wrong, as a sentence; empty where it is `ok`."""
    newest: datetime | None = None
    """Up to when its copy tells, where that is known."""
    files: int = 0
    """Its live files."""
    granted: frozenset[str] | None = None
    """What its rows may hold; None where that is not known, or everything."""

    @property
    def used(self) -> bool:
        """Whether it is in the answer."""
        return self.condition in ("ok", "stale")


@dataclass(frozen=True, slots=True)
class _Seen:
    """A site that can be used."""

    signed: Signed
    root: Path
    granted: frozenset[str] | None


class FederatedEvidence(Evidence):
    """The evidence of several sites, to be asked as `Evidence` is."""

    def __init__(
        self,
        where: Path | Files,
        site: str,
        remotes: Sequence[Remote],
        *,
        cache: Path,
        timeout_s: float = DEFAULT_SITE_TIMEOUT_S,
        now: Callable[[], float] = time.time,
        memory_limit: str = "2GB",
    ) -> None:
        """Look at every site, and open what can be used.

        Args:
            where: this site's own evidence store.
            site: this site.
            remotes: the others.
            cache: a folder for copies of files that do not lie on this machine.
            timeout_s: seconds without anything from a site after which it counts as down.
            now: the wall clock, in seconds since 1970.
            memory_limit: as for `Evidence`.

        Raises:
            ConfigError: a directory's name holds a character that stands for others in file patterns.
            OtherSite: a site's file holds rows of another site.
        """
        super().__init__(where, memory_limit=memory_limit)
        self._site = site
        self._checked: set[str] = set()
        looks = [_Look(remote, cache / remote.name) for remote in remotes]
        for look in looks:
            look.start()
        self._seen: dict[str, _Seen] = {}
        states = [SiteState(site, "ok")]
        for look in looks:
            seen = look.result(timeout_s)
            if isinstance(seen, _Seen):
                self._seen[look.remote.name] = seen
            states.append(_state(look.remote, seen, now()))
        self.states: Final = tuple(states)
        """What became of each site, this one first."""

    def withheld(self, sql: str) -> dict[str, tuple[str, ...]]:
        """Return what a statement needs and a site does not grant, by site: it is null in that site's rows.

        Raises:
            QueryError: it is not one statement that reads.
        """
        with duckdb.connect(":memory:") as parser:
            check_statement(sql, parser)
        wanted = needed(sql)
        holes = {
            state.name: tuple(sorted(wanted - state.granted))
            for state in self.states
            if state.used and state.granted is not None
        }
        return {name: paths for name, paths in holes.items() if paths}

    def _names(self, live: Sequence[Added]) -> tuple[str, ...]:
        fresh = [added.path for added in live if added.path not in self._checked]
        check_site(self._site, self._store, fresh)
        self._checked.update(fresh)
        return super()._names(live)

    def _events(self, connection: duckdb.DuckDBPyConnection, files: tuple[str, ...]) -> str:
        every = {self._site: files} | {
            name: tuple(str(seen.root / added.path) for added in seen.signed.files) for name, seen in self._seen.items()
        }
        begin = events_view(connection, ()).partition(" AS ")[0]
        parts = [
            f"SELECT * REPLACE (CAST({quoted(name)} AS VARCHAR) AS site) FROM "  # noqa: S608 - quoted, the rest is ours
            f"({events_view(connection, paths).removeprefix(begin + ' AS ')})"
            for name, paths in every.items()
        ]
        return f"{begin} AS {' UNION ALL BY NAME '.join(parts)}"

    def _readings(self) -> tuple[str, ...]:
        return REQUESTS_BY_SITE, CROSSINGS_BY_SITE

    def _folders(self) -> tuple[str, ...]:
        return (*super()._folders(), *(str(seen.root / EVENTS) for seen in self._seen.values()))


REQUESTS_BY_SITE: Final = REQUESTS.replace("\n    intake_id,\n", "\n    site,\n    intake_id,\n", 1).replace(
    "GROUP BY intake_id", "GROUP BY site, intake_id"
)
"""`requests`, with the site in front; grouped by it too, so that a condition on it reaches the files."""

CROSSINGS_BY_SITE: Final = CROSSINGS.replace("\nSELECT\n", "\nSELECT\n    intent.site,\n", 1).replace(
    "ON ending.intent_id = intent.event_id", "ON ending.intent_id = intent.event_id AND ending.site = intent.site"
)
"""`crossings`, with the site in front."""


class _Look(threading.Thread):
    """Looks at one site. A site that hangs is left alone: the thread does not keep the program from ending."""

    def __init__(self, remote: Remote, cache: Path) -> None:
        super().__init__(name=f"site-{remote.name}", daemon=True)
        self.remote = remote
        self._cache = cache
        self._moved = time.monotonic()
        self._found: _Seen | WaybillError | None = None

    def run(self) -> None:
        """Look; what is found, or what went wrong, is there for `result`."""
        try:
            self._found = self._look()
        except WaybillError as error:
            self._found = error
        except Exception as error:  # noqa: BLE001 - of a thread that nobody else would hear of
            self._found = UnavailableError(f"{type(error).__name__}: {error}")

    def result(self, timeout_s: float) -> _Seen | WaybillError:
        """Give what was found.

        Raises:
            OtherSite: a file holds rows of another site.
        """
        while self.is_alive() and time.monotonic() - self._moved < timeout_s:
            self.join(_POLL_S)
        if isinstance(self._found, OtherSite):
            raise self._found
        return self._found or UnavailableError(f"nothing came from it for {timeout_s:g} s")

    def _look(self) -> _Seen:
        files, verifier = self.remote.files(), Verifier.from_vkey(self.remote.key)
        try:
            signed = read_signed(files, verifier, self.remote.name)
        except StoreError:  # an export may just have packed its commits, or replaced its files: look once more
            signed = read_signed(files, verifier, self.remote.name)
        self._moved = time.monotonic()
        here = files if isinstance(files, LocalFiles) else self._fetched(files, signed.files)
        root = here.root.resolve()
        if any(sign in str(root) for sign in "*?["):
            raise ConfigError(f"{root}: a directory whose name holds `*`, `?` or `[` cannot be queried")
        for added in signed.files:
            check_site(self.remote.name, here, [added.path])
            self._moved = time.monotonic()
        return _Seen(signed, root, _granted(files, signed) or self.remote.granted)

    def _fetched(self, files: Files, wanted: Collection[Added]) -> LocalFiles:
        """Bring the files here that are not here yet; a file's name holds its hash, and its commit the whole of it."""
        here = LocalFiles(self._cache)
        there = {entry.path: entry.size for entry in here.list(f"{EVENTS}/")}
        for added in wanted:
            if there.pop(added.path, None) == added.size:
                continue
            data = files.read(added.path)
            if hashlib.sha256(data).hexdigest() != added.sha256:
                raise StoreError(f"{files.url(added.path)} is not the file that its commit names")
            try:
                here.create(added.path, data)
            except AlreadyThere:
                here.replace(added.path, data)
            self._moved = time.monotonic()
        for path in there:
            here.delete(path)
        return here


def _granted(files: Files, signed: Signed) -> frozenset[str] | None:
    """Return what all export waybills of a copy let leave; None where there is none."""
    found: frozenset[str] | None = None
    for log, sha256 in signed.statements:
        try:
            document = files.read(statement_path(log, sha256))
            said = json.loads(document) if hashlib.sha256(document).hexdigest() == sha256 else None
        except (NotThere, ValueError):
            continue
        columns = said.get("columns") if isinstance(said, dict) else None
        if isinstance(columns, list):
            found = frozenset(columns) if found is None else found & frozenset(columns)
    return found


def check_site(site: str, files: Files, paths: Sequence[str]) -> None:
    """See that files hold rows of one site only. All rows are looked at, not what the file says of them.

    Raises:
        OtherSite: one holds others.
        StoreError: one cannot be read.
    """
    for path in paths:
        try:
            with files.reader(path) as file:
                found = pq.read_table(file, columns=["site"]).column("site").unique().to_pylist()
        except (OSError, pa.ArrowException) as error:
            raise StoreError(f"{files.url(path)} cannot be read: {error}") from None
        if wrong := [name for name in found if name != site]:
            raise OtherSite(f"{files.url(path)} is evidence of site {site!r} but holds rows of {str(wrong[0])[:80]!r}")


def _state(remote: Remote, seen: _Seen | WaybillError, now: float) -> SiteState:
    match seen:
        case _Seen(signed, _, granted):
            age = now - signed.newest.timestamp()
            if remote.max_age_s is not None and age > remote.max_age_s:
                why = f"its newest commit is {age:.0f} s old, and {remote.max_age_s:g} s are allowed"
                return SiteState(remote.name, "stale", why, signed.newest, len(signed.files), granted)
            return SiteState(remote.name, "ok", "", signed.newest, len(signed.files), granted)
        case StoreError() if not isinstance(seen, NotThere):
            return SiteState(remote.name, "unverified", str(seen))
        case _:
            return SiteState(remote.name, "down", str(seen))
