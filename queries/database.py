"""Evidence as a read-only database.

Each `Evidence` is a DuckDB in memory that holds nothing but views over the Parquet files. Once these are made, it is
closed around them: no file outside the evidence directory can be opened, no extension loaded, no setting changed, no
variable of the calling program seen. Inside the directory only the statement itself keeps it from writing, so it runs
only if `queries.statement` finds nothing in it but reading.
"""

from __future__ import annotations

import threading
from collections.abc import Generator, Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

import duckdb

from evidence.errors import ConfigError
from evidence.files.local import LocalFiles
from evidence.files.seam import Files
from evidence.log.commits import Added
from evidence.store.layout import EVENTS
from evidence.store.live import LiveReader
from queries.errors import QueryError, TooSlow
from queries.remote import SCHEME, LiveFileSystem
from queries.statement import check_statement
from queries.values import converted, read, readable
from queries.views import CROSSINGS, REQUESTS, events_view

DEFAULT_TIMEOUT_S: Final = 30.0
"""Seconds that a question may take unless told otherwise."""

_BATCH_ROWS: Final = 4096


class Result:
    """An answer: the names and types of its columns, and its rows as they are computed.

    Read it to its end, or close it; it is its own context manager. The time limit runs until then.
    """

    def __init__(
        self,
        cursor: duckdb.DuckDBPyConnection,
        deadline: _Deadline,
        reader: Any,
        columns: tuple[str, ...],
        types: tuple[str, ...],
    ) -> None:
        self.columns = columns
        """Names of the columns."""
        self.types = types
        """Their types, by the database's names."""
        self._cursor = cursor
        self._deadline = deadline
        self._reader = reader
        self._rows: Generator[tuple[Any, ...], None, None] = self._read()

    def __iter__(self) -> Iterator[tuple[Any, ...]]:
        return self

    def __next__(self) -> tuple[Any, ...]:
        return next(self._rows)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def take(self, count: int) -> tuple[list[tuple[Any, ...]], bool]:
        """Give the next rows, at most `count`, and whether there are more; the rest can still be read."""
        rows: list[tuple[Any, ...]] = []
        for row in self:
            if len(rows) == count:
                self._rows = _chain(row, self._rows)
                return rows, True
            rows.append(row)
        return rows, False

    def close(self) -> None:
        """Stop computing; safe to call twice."""
        self._deadline.cancel()
        self._rows.close()
        self._reader = None  # what is left of an answer when the program ends is told of by the library, at length
        self._cursor.close()

    def _read(self) -> Generator[tuple[Any, ...], None, None]:
        try:
            for batch in self._reader:
                columns = map(converted, self.types, map(read, batch.columns))
                yield from zip(*columns, strict=True)
        except RuntimeError as error:
            raise _interrupted(error) from None
        except (duckdb.Error, OSError, ValueError) as error:
            raise self._deadline.explain(error) from error
        finally:
            self._deadline.cancel()


class Evidence:
    """The evidence below one directory, to be asked; safe to use from several threads."""

    def __init__(self, where: Path | Files, *, memory_limit: str = "2GB") -> None:
        """Open the evidence.

        Args:
            where: the evidence store; it may be empty, or not be there yet.
            memory_limit: the most that all questions together may take, in DuckDB's notation; nothing spills to disk.

        Raises:
            ConfigError: the directory's name holds a character that stands for others in file patterns.
        """
        self._store: Files = LocalFiles(where.resolve()) if isinstance(where, Path) else where
        if any(sign in self._store.url("") for sign in "*?["):
            raise ConfigError(f"{self._store.url('')}: a place whose name holds `*`, `?` or `[` cannot be queried")
        self._live = LiveReader(self._store)
        self._bucket = None if isinstance(self._store, LocalFiles) else LiveFileSystem(self._store)
        self._memory_limit = memory_limit
        self._lock = threading.Lock()
        self._connection: duckdb.DuckDBPyConnection | None = None
        self._files: tuple[str, ...] | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Give memory and files back; safe to call twice."""
        with self._lock:
            if self._connection is not None:
                self._connection.close()
                self._connection = None

    def query(self, sql: str, params: Mapping[str, Any] | None = None, timeout_s: float = DEFAULT_TIMEOUT_S) -> Result:
        """Answer one SELECT.

        Args:
            sql: the statement; parameters are written `$name`.
            params: their values, bound and never pasted into the text.
            timeout_s: seconds until the answer is given up, reading it included.

        Raises:
            QueryError: it is not one SELECT, or the database cannot answer it.
            TooSlow: it took too long.
        """
        cursor = self._cursor()
        deadline = _Deadline(cursor, timeout_s)
        try:
            check_statement(sql, cursor)
            relation: Any = cursor.sql(sql, params=dict(params) if params else None)
            if relation is None:
                raise QueryError("the statement has no rows to give")  # noqa: TRY301 - the cursor is closed below
            columns, types = tuple(relation.columns), tuple(str(kind) for kind in relation.types)
            relation = _exact(relation)
            return Result(cursor, deadline, relation.to_arrow_reader(_BATCH_ROWS), columns, types)
        except BaseException as error:
            deadline.cancel()
            cursor.close()
            if isinstance(error, duckdb.Error):
                raise deadline.explain(error) from error
            if isinstance(error, RuntimeError):
                raise _interrupted(error) from None
            if isinstance(error, UnicodeEncodeError):
                raise QueryError("the statement holds half a character, which is no text") from None
            raise

    def _cursor(self) -> duckdb.DuckDBPyConnection:
        with self._lock:
            if self._connection is None:
                self._connection, self._files = self._open(), None
            files = self._names(self._live.refresh())
            if files != self._files:
                self._connection.execute(self._events(self._connection, files))
                self._files = files
            return self._connection.cursor()

    def _names(self, live: Sequence[Added]) -> tuple[str, ...]:
        """Give the names by which the database opens the live files."""
        if self._bucket is None:
            return tuple(self._store.url(added.path) for added in live)
        self._bucket.serve({added.path: added.size for added in live})
        return tuple(f"{SCHEME}://{added.path}" for added in live)

    def _events(self, connection: duckdb.DuckDBPyConnection, files: tuple[str, ...]) -> str:
        """Give the statement that makes the view `events` over the live files of this store."""
        return events_view(connection, files)

    def _readings(self) -> tuple[str, ...]:
        """Give the statements that make the other views."""
        return REQUESTS, CROSSINGS

    def _folders(self) -> tuple[str, ...]:
        """Give the folders that files may be read from."""
        return (self._store.url(EVENTS) if self._bucket is None else f"{SCHEME}:/",)

    def _open(self) -> duckdb.DuckDBPyConnection:
        connection = duckdb.connect(":memory:")
        try:
            if self._bucket is not None:
                connection.register_filesystem(self._bucket)
            connection.execute("SET GLOBAL TimeZone = 'UTC'")
            for view in (events_view(connection, ()), *self._readings()):
                connection.execute(view)
            for setting, value in {
                "parquet_metadata_cache": "true",
                "python_enable_replacements": "false",
                "temp_directory": "''",
                "memory_limit": f"'{self._memory_limit}'",
                "autoinstall_known_extensions": "false",
                "autoload_known_extensions": "false",
                "allow_community_extensions": "false",
                "allow_persistent_secrets": "false",
                "allowed_directories": f"[{', '.join(quoted(f'{folder}/') for folder in self._folders())}]",
                "enable_external_access": "false",
                "lock_configuration": "true",
            }.items():
                connection.execute(f"SET GLOBAL {setting} = {value}")
        except duckdb.Error as error:
            connection.close()
            raise QueryError(f"the evidence cannot be opened: {error}") from error
        return connection


class _Deadline:
    """Interrupts a cursor when its time is over."""

    def __init__(self, cursor: duckdb.DuckDBPyConnection, seconds: float) -> None:
        self._cursor = cursor
        self._seconds = seconds
        self._passed = False
        self._timer = threading.Timer(seconds, self._pass)
        self._timer.daemon = True
        self._timer.start()

    def cancel(self) -> None:
        self._timer.cancel()
        if self._timer is not threading.current_thread():
            # It holds the cursor: one that outlives the answer could be alive when the program ends.
            self._timer.join()

    def explain(self, error: Exception) -> QueryError:
        if self._passed:
            return TooSlow(f"no answer within {self._seconds:g} s; ask for fewer days, or allow more time")
        return QueryError(str(error))

    def _pass(self) -> None:
        self._passed = True
        self._cursor.interrupt()


def _exact(relation: Any) -> Any:
    """Return the same answer with columns as text whose values would not come through as they are."""
    wanted = [readable(kind) for kind in relation.types]
    if not any(wanted):
        return relation
    columns = [
        f"CAST(#{place} AS {kind}) AS {_named(name)}" if kind else f"#{place} AS {_named(name)}"
        for place, (name, kind) in enumerate(zip(relation.columns, wanted, strict=True), start=1)
    ]
    return relation.project(", ".join(columns))


def _named(text: str) -> str:
    return '"' + text.replace('"', '""') + '"'


def _interrupted(error: RuntimeError) -> BaseException:
    """Return what Ctrl-C is in Python: the database's module tells it as an error of its own."""
    return KeyboardInterrupt() if "interrupted" in str(error) else error


def quoted(text: str) -> str:
    """Give a text as SQL writes it."""
    return "'" + text.replace("'", "''") + "'"


def _chain(
    first: tuple[Any, ...], rest: Generator[tuple[Any, ...], None, None]
) -> Generator[tuple[Any, ...], None, None]:
    yield first
    yield from rest
