"""A whole store: finds its logs, checks each, and what only shows across them."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

from evidence.verify.commits import CommitError
from evidence.verify.crew import Crew
from evidence.verify.notes import COSIGNATURE, ED25519, NoteError, VerifierKey, parse_key
from evidence.verify.report import Finding, Report
from evidence.verify.side import Since
from evidence.verify.source import LocalStore, Place, PlaceStore, ReadError, Store
from evidence.verify.walk import LogCheck

OPEN_AFTER: Final = timedelta(minutes=15)
"""How long behind its deadline a request may be without its end before it is named."""

_EVENT: Final = re.compile(
    r"events/site=[^/]+/date=\d{4}-\d\d-\d\d/(?P<log>.+)-\d{20}-\d{20}-[0-9a-f]{16}\.parquet", re.ASCII
)
_NAMED: Final = 10
_MOST_PARTITIONS: Final = 100_000
_FOLDERS: Final = frozenset({"events", "logs", "locks", "tmp"})


class UsageError(Exception):
    """What was asked for cannot be done; the text says why and what to do."""


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a check is."""

    phase: str
    """`commits`, `rows` or `end`."""

    rows: int
    """Rows of files that are done."""

    total: int
    """Rows that there are, as far as is known."""


def verify(
    store: str | Path | LocalStore | Place,
    keys: Sequence[str],
    *,
    witnesses: Sequence[str] = (),
    since: bytes | None = None,
    since_name: str = "the checkpoint that was kept",
    max_age: timedelta | None = None,
    partitions: int | None = None,
    accept_loss: bool = False,
    open_after: timedelta = OPEN_AFTER,
    jobs: int | None = None,
    progress: Callable[[Progress], None] | None = None,
    now: Callable[[], datetime] = lambda: datetime.now(UTC),
    pause_s: float = 2.0,
) -> Report:
    """Check a store against its own commits and some public keys.

    Args:
        store: its folder, or another place that the caller knows how to read.
        keys: verifier keys of the logs' signers, at least one.
        witnesses: verifier keys of witnesses, each of which must have cosigned the newest commit of each log.
        since: a commit or checkpoint that was kept earlier; the store must still contain it.
        since_name: where that came from, for messages.
        max_age: how old the newest commit of a log may be.
        partitions: how many logs each topic must have, whatever the commits say.
        accept_loss: whether offsets that were lost, and said to be lost, are in order.
        open_after: how long behind its deadline a request may be without its end.
        jobs: worker processes; None takes the machine's cores.
        progress: called now and then.
        now: the present moment.
        pause_s: seconds to wait before a file is called unlisted or missing in a store that is perhaps being written.

    Raises:
        UsageError: a key or the checkpoint cannot be read, or there is no such folder.
    """
    begun = time.monotonic()
    place = _store(store)
    if not place.exists():
        raise UsageError(f"{store} is no folder; name the evidence store's folder")
    if not keys:
        raise UsageError("a public key is needed; give the log's verifier key")
    asked = _Asked(
        place,
        [_key(text, ED25519, "log") for text in keys],
        [_key(text, COSIGNATURE, "witness") for text in witnesses],
        _since(since, since_name) if since is not None else None,
        max_age,
        partitions,
        open_after,
        progress or (lambda _: None),
        now,
        pause_s,
    )
    report = Report(str(place), accept_loss=accept_loss)
    crew = Crew(jobs)
    try:
        _Run(asked, report, crew).run()
    finally:
        crew.close()
    report.seconds = time.monotonic() - begun
    return report


def _store(store: str | Path | LocalStore | Place) -> Store:
    if isinstance(store, LocalStore):
        return store
    return LocalStore(str(store)) if isinstance(store, str | Path) else PlaceStore(store)


@dataclass(frozen=True, slots=True)
class _Asked:
    """What is to be checked, and against what."""

    place: Store
    keys: Sequence[VerifierKey]
    witnesses: Sequence[VerifierKey]
    since: Since | None
    max_age: timedelta | None
    partitions: int | None
    open_after: timedelta
    progress: Callable[[Progress], None]
    now: Callable[[], datetime]
    pause_s: float


class _Run:
    """One check of a store."""

    def __init__(self, asked: _Asked, report: Report, crew: Crew) -> None:
        self.asked, self.report, self.crew = asked, report, crew
        self.existing, self.folders = _list(asked.place, report)
        self.logs: list[LogCheck] = []
        self.rows = self.total = 0

    def run(self) -> None:
        """Check each log, and then what only shows across them."""
        self.logs = [self._log(folder, self.asked.keys) for folder in sorted(self.folders)]
        for log in self.logs:
            self._tell("commits")
            log.read()
        self._learn()
        self.total = sum(file.rows for log in self.logs for file in log.chain.live.values())
        for log in self.logs:
            log.check()
            self._judge(log)
            self.report.findings.extend(sorted(log.findings.values(), key=lambda finding: finding.order))
            self.report.losses.extend(log.losses)
            self.report.notes.extend(log.notes)
            self.report.logs.append(log.summary())
            self.report.rows += log.rows
        self._across()
        self._tell("end")

    def _tell(self, phase: str, rows: int = 0) -> None:
        self.rows += rows
        self.asked.progress(Progress(phase, self.rows, max(self.total, self.rows)))

    def _log(self, folder: str, keys: Sequence[VerifierKey]) -> LogCheck:
        asked = self.asked
        return LogCheck(
            asked.place,
            folder,
            keys=keys,
            witnesses=asked.witnesses,
            since=asked.since,
            existing=self.existing,
            crew=self.crew,
            progress=lambda rows: self._tell("rows", rows),
            open_after=asked.open_after,
            pause=lambda: time.sleep(asked.pause_s),
        )

    def _learn(self) -> None:
        """Read logs again whose key was not given, but is named by a trusted key of the same site in another log."""
        for place, log in enumerate(self.logs):
            learned = _learned(log, self.logs)
            if learned:
                self.logs[place] = self._log(log.folder, [*self.asked.keys, *learned])
                self.logs[place].read()
                self.report.notes.append(f"logs/{log.folder}: its key was not given; another log of the site names it")

    def _judge(self, log: LogCheck) -> None:
        """Compare a log with what the one who asks knows of it from elsewhere."""
        last, asked = log.chain.last, self.asked
        if last is None:
            return
        for finding in log.witnesses.behind(last.number, log.chain.size):
            log.found(finding)
        if asked.max_age is not None and asked.now() - last.time > asked.max_age:
            what = f"the last commit is of {last.time.isoformat()}: silence without a statement since then"
            log.found(Finding("silent", f"logs/{log.folder}", what, (6, 0)))
        if asked.since is not None and asked.since.of(log.chain.origin):
            more = [part.key for part in log.chain.segments if part.key is not None and part.trusted]
            for finding in asked.since.end(log.chain.size, last.number, [*asked.keys, *more]):
                log.found(finding)

    def _across(self) -> None:
        found, since = self.report.findings.append, self.asked.since
        if not self.logs:
            found(Finding("empty", str(self.asked.place), "there is not one log in this store"))
        if since is not None and not any(since.of(log.chain.origin) for log in self.logs):
            what = f"there is no log {since.origin}, of which a checkpoint was kept"
            found(Finding("log-missing", str(self.asked.place), what))
        _partitions(self.logs, self.asked.partitions, self.report)
        known = {log.folder for log in self.logs}
        for path in sorted(self.existing):
            match = _EVENT.fullmatch(path)
            if match is None:
                found(Finding("unknown-file", path, "no file of evidence is called so"))
            elif match["log"] not in known:
                what = f"there is no log {match['log']} whose commits could have added it"
                found(Finding("unlisted-file", path, what))


def _learned(log: LogCheck, logs: Sequence[LogCheck]) -> list[VerifierKey]:
    """Give keys by which a log can be trusted that none of the given keys signed."""
    if not log.chain.segments or any(part.trusted for part in log.chain.segments):
        return []
    known = [part.key for other in logs for part in other.chain.segments if part.trusted and part.key is not None]
    signers = {(item.name, item.key_id) for item in log.chain.beginning}
    return [key for key in known if (key.name, key.key_id) in signers]


def _list(place: Store, report: Report) -> tuple[set[str], set[str]]:
    existing: set[str] = set()
    folders: set[str] = set()
    strange: set[str] = set()
    try:
        for entry in place.list(""):
            head, _, rest = entry.path.partition("/")
            if head in {"events", "logs"} and entry.odd:
                what = f"{entry.odd}, where only plain files belong"
                if head == "events" or rest.count("/") == 0:
                    report.findings.append(Finding("odd-file", entry.path, what))
            elif head == "events":
                existing.add(entry.path)
            elif head == "logs" and "/" in rest:
                folders.add(rest.partition("/")[0])
            elif head == "logs":
                report.findings.append(Finding("unknown-file", entry.path, "no file of a log lies there"))
            elif head not in _FOLDERS:
                strange.add(head)
    except ReadError as error:
        report.findings.append(Finding("unreadable", str(place), str(error)))
    if strange:
        names = ", ".join(sorted(strange)[:5])
        report.notes.append(f"beside the evidence lies what is no part of it, and was not looked at: {names}")
    return existing, folders


def _partitions(logs: Sequence[LogCheck], wanted: int | None, report: Report) -> None:
    """See that there is a log for each partition that the commits speak of."""
    topics: dict[tuple[str, str, str], tuple[int, set[int]]] = {}
    for log in logs:
        origin, last = log.chain.origin, log.chain.last
        if origin is not None and last is not None:
            most, there = topics.get((origin.site, origin.log_id, origin.topic), (0, set()))
            topics[origin.site, origin.log_id, origin.topic] = (max(most, last.partitions), there | {origin.partition})
    for (site, log_id, topic), (most, there) in sorted(topics.items()):
        count = max(most, wanted or 0)
        missing = [number for number in range(min(count, _MOST_PARTITIONS)) if number not in there]
        if missing:
            names = ", ".join(str(number) for number in missing[:_NAMED]) + ("…" if missing[_NAMED:] else "")
            what = f"topic {topic} has {count} partitions; there is no log of number {names} (site {site})"
            report.findings.append(Finding("log-missing", f"logs/{log_id}.{topic}-{missing[0]}", what))


def _key(text: str, kind: int, whose: str) -> VerifierKey:
    try:
        key = parse_key(text.strip())
    except NoteError as error:
        raise UsageError(str(error)) from error
    if key.kind != kind:
        raise UsageError(f"{key.name}: this is not the key of a {whose}; give each kind of key with its own option")
    return key


def _since(data: bytes, name: str) -> Since:
    try:
        return Since(data, name)
    except (NoteError, CommitError) as error:
        raise UsageError(f"{name} is no checkpoint: {error}") from error
