"""The evidence store: Parquet files, each of which is its own commit.

A write is: encode in memory, write a temporary file beside its place, make it durable, give it its name by a hard link
(which never replaces another file), make the name durable, remove the temporary name. Until it has its name a file does
not count, so a crash at any point leaves exact state: `resume` says where to go on, and each event is stored once.

A flush whose records are all rejected is covered by a file without rows. Records at the end of the log that are no
records at all (markers, aborted transactions) are covered by the file of the next flush.
"""

from __future__ import annotations

import itertools
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from types import TracebackType
from typing import Final, Self

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from evidence.disk import Disk, Lock, make_directories
from evidence.errors import StoreError, UnavailableError
from evidence.layout import (
    EVENTS,
    LOCKS,
    EvidenceFile,
    LogPartition,
    check_contiguous,
    check_site,
    day_directory,
    file_name,
    lock_path,
    scan,
    temporary_files,
    temporary_name,
)
from evidence.records import EVIDENCE_VERSION
from evidence.schema import EVENTS_SCHEMA, parquet_dictionary_columns

ROW_GROUP_ROWS: Final = 64 * 1024
"""Most rows of a row group: one for most files, and small enough for a reader to skip."""

_DICTIONARY_COLUMNS: Final = parquet_dictionary_columns()
_EPOCH_DAY: Final = date(1970, 1, 1).toordinal()


@dataclass(frozen=True, slots=True)
class Written:
    """A file that is durable."""

    file: EvidenceFile
    """What it covers, and where it is."""

    rows: int
    """Events in it."""

    size: int
    """Its size in bytes."""


class EvidenceStore:
    """The evidence of one site, below one directory."""

    def __init__(
        self,
        root: Path,
        site: str,
        *,
        compression_level: int = 1,
        lock_wait_s: float = 30.0,
        disk: Disk | None = None,
    ) -> None:
        """Name the store; nothing is read or written yet.

        Args:
            root: the evidence directory; made if it is not there.
            site: the site whose log is stored here.
            compression_level: of zstd; level 1 is both faster and smaller on evidence than level 3.
            lock_wait_s: seconds to wait for a partition's lock; more than a dying writer needs to go away.
            disk: the file system, for tests that fail it.

        Raises:
            ConfigError: the site cannot be a directory's name.
        """
        self.root = root
        self.site = check_site(site)
        self.compression_level = compression_level
        self.lock_wait_s = lock_wait_s
        self.disk = disk or Disk()

    def coverage(self, log_id: str, topic: str, partition: int) -> tuple[EvidenceFile, ...]:
        """Give the partition's files in the order of their offsets.

        Raises:
            StoreError: they leave a gap or overlap; the text names the files.
        """
        log = LogPartition(log_id, topic, partition)
        files = tuple(file for file in scan(self.root) if file.log == log)
        check_contiguous(files)
        return files

    def resume(self, log_id: str, topic: str, partition: int) -> int | None:
        """Give the first offset of the partition that is not stored yet, or None if nothing is.

        Raises:
            StoreError: the files leave a gap or overlap; the text names them.
        """
        files = self.coverage(log_id, topic, partition)
        return files[-1].end + 1 if files else None

    def open(
        self, log_id: str, topic: str, partition: int, *, beginning: int = 0, wait_s: float | None = None
    ) -> PartitionWriter:
        """Become the one writer of a partition.

        Args:
            log_id: identity of the cluster.
            topic: topic name.
            partition: partition number.
            beginning: the offset that the first file of all starts with; of no effect once there is a file.
            wait_s: seconds to wait for another writer; None takes the store's.

        Raises:
            ConfigError: the log id or the topic cannot be in a file name.
            PartitionHeld: another process still writes this partition after that time.
            StoreError: the partition's files leave a gap or overlap.
            UnavailableError: the disk fails.
        """
        log = LogPartition(log_id, topic, partition)
        try:
            self.root.mkdir(parents=True, exist_ok=True)
            for directory in (self.root / EVENTS, self.root / LOCKS):
                make_directories(self.disk, directory, self.root)
            lock = Lock(lock_path(self.root, log), wait_s=self.lock_wait_s if wait_s is None else wait_s)
        except OSError as error:
            raise _unavailable(error) from error
        try:
            for left in temporary_files(self.root, log):
                self.disk.remove(left)
            resume = self.resume(log_id, topic, partition)
        except OSError as error:
            lock.release()
            raise _unavailable(error) from error
        except BaseException:
            lock.release()
            raise
        return PartitionWriter(self, log, lock, beginning if resume is None else resume)


class PartitionWriter:
    """The one writer of a partition; blocking, so call it from a thread. Close it to give the partition back."""

    def __init__(self, store: EvidenceStore, log: LogPartition, lock: Lock, position: int) -> None:
        self._store = store
        self._lock = lock
        self._failed = False
        self._busy = threading.Lock()  # the partition is not given back in the middle of a file
        self.log = log
        self.position = position
        """The first offset that is not stored yet."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Give the partition back, after the file that is being written; safe to call twice."""
        with self._busy:
            self._failed = True
            self._lock.release()

    def append(self, table: pa.Table, *, end: int, day: date) -> Iterator[Written]:
        """Store the events of the offsets from `position` to `end`, a durable file for each run of one day.

        Each file is durable when it is yielded. A failure leaves what was yielded; the writer is then of no more use,
        because only the directory can say whether the file that failed is there.

        Args:
            table: the events, in `EVENTS_SCHEMA`, in the order of their offsets.
            end: the last offset that the caller has seen; at least that of the last event.
            day: under which day a file without rows is filed, should there be no event at all.

        Raises:
            StoreError: the offsets do not go on from `position`, or a file of that name is there already.
            UnavailableError: the disk fails.
        """
        offsets = table.column("log_offset")
        self._check_open()
        if not table.schema.equals(EVENTS_SCHEMA):
            raise StoreError(f"{self.log}: the table is not in the schema of the evidence events")
        last = offsets[-1].as_py() if len(offsets) else self.position
        first = offsets[0].as_py() if len(offsets) else self.position
        if not self.position <= first <= last <= end:
            raise StoreError(
                f"{self.log}: events {first} to {last} cannot be stored as offsets {self.position} to {end}"
            )
        runs = list(_runs(table)) or [(day, 0, 0)]
        for number, (run_day, begin, stop) in enumerate(runs, start=1):
            run_end = end if number == len(runs) else offsets[stop - 1].as_py()
            yield self._commit(table.slice(begin, stop - begin), run_day, run_end)

    def _check_open(self) -> None:
        if self._failed:
            raise StoreError(f"{self.log}: this writer is closed or has failed; open another one")

    def _commit(self, rows: pa.Table, day: date, end: int) -> Written:
        data = self._encode(rows, self.position, end)
        path = day_directory(self._store.root, self._store.site, day) / file_name(self.log, self.position, end)
        with self._busy:
            self._check_open()
            self._failed = True
            try:
                self._place(path, memoryview(data))
            except FileExistsError as error:
                name = error.filename2 or error.filename
                raise StoreError(f"{name} is there already: another writer is at work") from error
            except OSError as error:
                raise _unavailable(error) from error
            self._failed = False
        written = Written(EvidenceFile(path, self.log, self.position, end), rows.num_rows, data.size)
        self.position = end + 1
        return written

    def _place(self, path: Path, data: memoryview) -> None:
        disk, directory = self._store.disk, path.parent
        temporary = directory / temporary_name(self.log)
        make_directories(disk, directory, self._store.root)
        disk.write(temporary, data)
        disk.sync(temporary)
        disk.publish(temporary, path)
        disk.sync(directory)
        disk.remove(temporary)

    def _encode(self, rows: pa.Table, start: int, end: int) -> pa.Buffer:
        about = {
            "waybill.evidence_version": EVIDENCE_VERSION,
            "waybill.site": self._store.site,
            "waybill.log_id": self.log.log_id,
            "waybill.topic": self.log.topic,
            "waybill.partition": str(self.log.partition),
            "waybill.start": str(start),
            "waybill.end": str(end),
        }
        sink = pa.BufferOutputStream()
        pq.write_table(
            rows.replace_schema_metadata(about),
            sink,
            compression="zstd",
            compression_level=self._store.compression_level,
            use_dictionary=_DICTIONARY_COLUMNS,
            row_group_size=ROW_GROUP_ROWS,
        )
        return sink.getvalue()


def _runs(table: pa.Table) -> Iterator[tuple[date, int, int]]:
    """Give (day, begin, stop) of each run of rows that happened on one day."""
    if table.num_rows == 0:
        return
    days = table.column("occurred_at").cast(pa.date32()).cast(pa.int32()).combine_chunks()
    encoded = pc.run_end_encode(days)
    stops = encoded.run_ends.to_pylist()
    begins = itertools.chain([0], stops)
    for value, begin, stop in zip(encoded.values.to_pylist(), begins, stops, strict=False):
        yield date.fromordinal(_EPOCH_DAY + value), begin, stop


def _unavailable(error: OSError) -> UnavailableError:
    return UnavailableError(f"the evidence directory cannot be written: {error.strerror} ({error.filename})")
