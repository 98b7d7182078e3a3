"""Where evidence lies: the names of a store's files, relative to its root (docs/evidence-format.md).

events/site=<site>/date=YYYY-MM-DD/<log>-<first>-<last>-<hash>.parquet
logs/<log>/commits/<number>   logs/<log>/commits/<first>-<last>.pack
logs/<log>/live/<number>.json logs/<log>/statements/<sha256>.json   logs/<log>/tile/…
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import date
from typing import Final

from evidence.errors import ConfigError, StoreError

EVENTS: Final = "events"
"""Folder of the table, below the root."""

LOGS: Final = "logs"
"""Folder of the logs, below the root."""

_LOG_ID: Final = re.compile(r"[A-Za-z0-9_-]{1,96}")
_TOPIC: Final = re.compile(r"[A-Za-z0-9._-]{1,120}")
_SITE: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_LOG: Final = re.compile(r"(?P<log>[A-Za-z0-9_-]+)\.(?P<topic>[A-Za-z0-9._-]+)-(?P<partition>\d{1,9})")
_FILE: Final = re.compile(
    r"events/site=(?P<site>[^/]+)/date=(?P<day>\d{4}-\d\d-\d\d)/"
    r"(?P<log>[^/]+)-(?P<first>\d{20})-(?P<last>\d{20})-(?P<hash>[0-9a-f]{16})\.parquet"
)
_COMMIT: Final = re.compile(r"\d{12}")
_PACK: Final = re.compile(r"(\d{12})-(\d{12})\.pack")


@dataclass(frozen=True, slots=True)
class LogPartition:
    """One partition of one topic of one cluster, named for ever."""

    log_id: str
    """Identity of the cluster, so that a new broker on an old address is not taken for the old one."""

    topic: str
    """Topic name on that cluster."""

    partition: int
    """Partition number."""

    def __post_init__(self) -> None:
        if not _LOG_ID.fullmatch(self.log_id):
            raise ConfigError(
                f"log id {self.log_id!r}: only letters, digits, `_` and `-`, at most 96, can be in file names"
            )
        if not _TOPIC.fullmatch(self.topic):
            raise ConfigError(f"topic {self.topic!r}: only letters, digits, `.`, `_` and `-`, at most 120")

    def __str__(self) -> str:
        return f"{self.log_id}.{self.topic}-{self.partition}"

    def origin(self, site: str) -> str:
        """Give the log's name in its checkpoints."""
        return f"waybill/{site}/{self.log_id}/{self.topic}-{self.partition}"

    @classmethod
    def named(cls, name: str) -> LogPartition:
        """Read a log's name.

        Raises:
            StoreError: it is not one.
        """
        match = _LOG.fullmatch(name)
        if match is None:
            raise StoreError(f"{name!r} is no log of Waybill's")
        return cls(match["log"], match["topic"], int(match["partition"]))


@dataclass(frozen=True, slots=True)
class EventsFile:
    """What the path of a file of events says."""

    path: str
    """The path."""
    site: str
    """Whose evidence it is."""
    day: date
    """On which UTC day its events happened."""
    log: str
    """Name of the log."""
    first: int
    """Offset that its first event is not before."""
    last: int
    """Offset that its last event is not behind."""
    hash: str
    """First 16 hex digits of its SHA-256."""


def check_site(site: str) -> str:
    """Give the site's name back if it can be a folder's name.

    Raises:
        ConfigError: it cannot.
    """
    if not _SITE.fullmatch(site):
        raise ConfigError(
            f"site {site!r}: letters, digits, `.`, `_` and `-`, at most 64, beginning with a letter or digit"
        )
    return site


def events_path(site: str, day: date, log: LogPartition, offsets: tuple[int, int], sha256: str) -> str:
    """Give the path of a file of events."""
    first, last = offsets
    return f"{EVENTS}/site={site}/date={day.isoformat()}/{log}-{first:020d}-{last:020d}-{sha256[:16]}.parquet"


def events_file(path: str) -> EventsFile:
    """Read such a path.

    Raises:
        StoreError: it is not one.
    """
    match = _FILE.fullmatch(path)
    if match is None:
        raise StoreError(f"{path} is not evidence of Waybill's; move it out of the evidence store")
    return EventsFile(
        path,
        match["site"],
        date.fromisoformat(match["day"]),
        match["log"],
        int(match["first"]),
        int(match["last"]),
        match["hash"],
    )


def commits_folder(log: str) -> str:
    """Give the folder of a log's commits."""
    return f"{LOGS}/{log}/commits/"


def commit_path(log: str, number: int) -> str:
    """Give the path of a commit."""
    return f"{commits_folder(log)}{number:012d}"


def pack_path(log: str, first: int, last: int) -> str:
    """Give the path of a pack of commits."""
    return f"{commits_folder(log)}{first:012d}-{last:012d}.pack"


def commit_numbers(name: str) -> tuple[int, int] | None:
    """Give which commits a file in that folder holds, or None if it is neither a commit nor a pack."""
    if _COMMIT.fullmatch(name):
        return int(name), int(name)
    match = _PACK.fullmatch(name)
    return None if match is None else (int(match[1]), int(match[2]))


def live_folder(log: str) -> str:
    """Give the folder of a log's snapshots of what is live."""
    return f"{LOGS}/{log}/live/"


def live_path(log: str, number: int) -> str:
    """Give the path of the snapshot after a commit."""
    return f"{live_folder(log)}{number:012d}.json"


def statement_path(log: str, sha256: str) -> str:
    """Give the path of a document that a commit names."""
    return f"{LOGS}/{log}/statements/{sha256}.json"


def log_folder(log: str) -> str:
    """Give the folder of a log; its tiles lie below it under their own paths."""
    return f"{LOGS}/{log}/"
