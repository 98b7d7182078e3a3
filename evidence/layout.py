"""Where evidence lies: one directory for each site and day, and file names that say which offsets they cover.

    <root>/events/site=<site>/date=YYYY-MM-DD/<log id>.<topic>-<partition>-<start>-<end>.parquet
    <root>/locks/<log id>.<topic>-<partition>.lock

`start` follows the end of the partition's previous file, and `end` is the last offset that the writer had seen, whether
it held an event, a rejected record, a transaction marker or an aborted record. So the files of a partition join without
a gap, and the largest `end` is the position to go on from. Nothing else is a manifest: a file counts once it has its
name.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Final

from evidence.errors import ConfigError, StoreError

EVENTS: Final = "events"
"""Directory of the table, below the root."""

LOCKS: Final = "locks"
"""Directory of the partitions' locks, below the root."""

TEMPORARY: Final = ".tmp-"
"""Beginning of the name of a file that is not there yet."""

_LOG_ID: Final = re.compile(r"[A-Za-z0-9_-]{1,64}")
_TOPIC: Final = re.compile(r"[A-Za-z0-9._-]{1,120}")
_SITE: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_FILE: Final = re.compile(
    r"(?P<log>[^.]+)\.(?P<topic>.+)-(?P<partition>\d+)-(?P<start>\d{20})-(?P<end>\d{20})\.parquet"
)


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
                f"log id {self.log_id!r}: only letters, digits, `_` and `-`, at most 64, can be in file names"
            )
        if not _TOPIC.fullmatch(self.topic):
            raise ConfigError(f"topic {self.topic!r}: only letters, digits, `.`, `_` and `-`, at most 120")

    def __str__(self) -> str:
        return f"{self.log_id}.{self.topic}-{self.partition}"


@dataclass(frozen=True, slots=True)
class EvidenceFile:
    """One file of evidence: all that a contiguous range of offsets holds for one day."""

    path: Path
    """Where it is."""

    log: LogPartition
    """Which partition it covers."""

    start: int
    """First offset that it covers."""

    end: int
    """Last offset that it covers, at least `start`."""


def check_site(site: str) -> str:
    """Give the site's name back if it can be a directory's name.

    Raises:
        ConfigError: it cannot.
    """
    if not _SITE.fullmatch(site):
        raise ConfigError(
            f"site {site!r}: letters, digits, `.`, `_` and `-`, at most 64, beginning with a letter or digit"
        )
    return site


def file_name(log: LogPartition, start: int, end: int) -> str:
    """Give the name of the file that covers some offsets."""
    return f"{log}-{start:020d}-{end:020d}.parquet"


def day_directory(root: Path, site: str, day: date) -> Path:
    """Give the directory of a site's day."""
    return root / EVENTS / f"site={site}" / f"date={day.isoformat()}"


def lock_path(root: Path, log: LogPartition) -> Path:
    """Give the lock file of a partition."""
    return root / LOCKS / f"{log}.lock"


def temporary_name(log: LogPartition) -> str:
    """Give the name under which the partition's one writer writes a file that is not there yet."""
    return f"{TEMPORARY}{log}.part"


def temporary_files(root: Path, log: LogPartition) -> list[Path]:
    """Give the files that a writer of the partition left behind when it died."""
    return list((root / EVENTS).glob(f"site=*/date=*/{temporary_name(log)}"))


def scan(root: Path) -> list[EvidenceFile]:
    """Give every file of evidence below the root, of any site and log, by log and start.

    Raises:
        StoreError: a Parquet file is there whose name is not one of ours.
    """
    found = []
    for path in (root / EVENTS).glob("site=*/date=*/*.parquet"):
        match = _FILE.fullmatch(path.name)
        if match is None:
            raise StoreError(f"{path} is not evidence of Waybill's; move it out of the evidence directory")
        log = LogPartition(match["log"], match["topic"], int(match["partition"]))
        found.append(EvidenceFile(path, log, int(match["start"]), int(match["end"])))
    return sorted(found, key=lambda file: (str(file.log), file.start, file.end))


def check_contiguous(files: Iterable[EvidenceFile]) -> None:
    """See that the files of one partition, in order, join without a gap and without an overlap.

    Raises:
        StoreError: two files do not join; the text names both.
    """
    before: EvidenceFile | None = None
    for file in files:
        if file.end < file.start:
            raise StoreError(f"{file.path} ends before it starts; restore it from a backup")
        if before is not None and file.start != before.end + 1:
            what = (
                f"offsets {before.end + 1} to {file.start - 1} are missing between"
                if file.start > before.end
                else f"offsets {file.start} to {min(before.end, file.end)} are stored twice, in"
            )
            raise StoreError(
                f"{what} {before.path} and {file.path}; nothing more is written to this partition until the "
                "files are as one writer left them (restore from a backup, or move the wrong file away)"
            )
        before = file
