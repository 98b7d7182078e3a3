"""The answers of a batch in a file, and beside it the list of what was sent, so that the same command goes on later.

`FILE` has one response as JSON on each line, in order of arrival. `FILE.sent` has one line for each request before it
is sent: its id, the digest of its content and the time, and nothing of the content itself.
"""

from __future__ import annotations

import fcntl
import os
import stat
from collections import Counter, defaultdict, deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, Final, Self

import orjson

from evidence.errors import ConfigError, UnavailableError
from waybill.cli.lines import Line

_PRIVATE: Final = 0o600
"""Answers are for the one who asked."""


@dataclass(frozen=True, slots=True)
class _Sent:
    request_id: str
    sha256: str
    at: str


class AnswerFile:
    """The two files of one batch, held against a second process while they are open."""

    def __init__(self, path: Path) -> None:
        """Open both, and read what an earlier run left in them.

        Args:
            path: of the answers.

        Raises:
            ConfigError: they cannot be opened, are in use, or are something else.
        """
        self.path = path
        self.list_path = path.with_name(f"{path.name}.sent")
        self.outcomes: dict[str, str] = {}
        """The outcome of each request that is answered, by its id."""
        self._answers, self._list = _open(path, self.list_path)
        try:
            self._sent = [_read_sent(row, self.list_path) for row in _rows(self._list, self.list_path, torn=True)]
            for row in _rows(self._answers, path, torn=bool(self._sent)):
                request_id, outcome = _read_answer(row, path)
                self.outcomes[request_id] = outcome
        except BaseException:
            if self._list.seek(0, os.SEEK_END) == 0:
                self.list_path.unlink(missing_ok=True)
            self._close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Bring everything to the disk, and close."""
        try:
            with _told(self.path):
                self._answers.flush()
                os.fsync(self._answers.fileno())
        except UnavailableError:
            if error is None:
                raise
        finally:
            self._close()

    @property
    def sent_before(self) -> int:
        """How many requests earlier runs have sent."""
        return len(self._sent)

    def may_be_sent(self, lines: Sequence[Line]) -> tuple[bool, datetime | None]:
        """Return whether some of these may have been sent before, and since when; None where nobody knows."""
        times = {each.request_id: each.at for each in self._sent}
        found = [times.get(line.request_id) for line in lines if line.own_id or line.request_id in times]
        known = [datetime.fromisoformat(time) for time in found if time is not None]
        return bool(found), min(known) if known and len(known) == len(found) else None

    def recognise(self, lines: Sequence[Line]) -> tuple[Line, ...]:
        """Return the requests under the ids that they were sent under before.

        Raises:
            ConfigError: a request has the id of one that was sent, and another content.
        """
        by_id = {each.request_id: each for each in self._sent}
        own = {line.request_id for line in lines if line.own_id}
        by_content: defaultdict[str, deque[str]] = defaultdict(deque)
        for each in self._sent:
            if each.request_id not in own:
                by_content[each.sha256].append(each.request_id)
        found: list[Line] = []
        for line in lines:
            if not line.own_id and (ids := by_content[line.digest]):
                found.append(line.named(ids.popleft()))
                continue
            before = by_id.get(line.request_id)
            if before is not None and before.sha256 != line.digest:
                raise ConfigError(
                    f"request {line.request_id} ({line.number}) was sent at {before.at} with another content: give it "
                    f"another requestId, or write to another file than {self.path}"
                )
            found.append(line)
        return tuple(found)

    def note(self, lines: Sequence[Line], now: datetime) -> None:
        """Write down what is about to be sent, durably.

        Raises:
            UnavailableError: it cannot be written.
        """
        known = {each.request_id for each in self._sent}
        at = now.astimezone(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
        fresh = [_Sent(line.request_id, line.digest, at) for line in lines if line.request_id not in known]
        rows = [{"requestId": each.request_id, "sha256": each.sha256, "sentAtUtc": at} for each in fresh]
        with _told(self.list_path):
            self._list.write(b"".join(orjson.dumps(row) + b"\n" for row in rows))
            self._list.flush()
            os.fsync(self._list.fileno())
        self._sent += fresh

    def write(self, answers: Sequence[dict[str, Any]]) -> None:
        """Add answers; they are in the file when this returns.

        Raises:
            UnavailableError: they cannot be written.
        """
        with _told(self.path):
            self._answers.write(b"".join(orjson.dumps(answer) + b"\n" for answer in answers))
            self._answers.flush()
        for answer in answers:
            self.outcomes[answer["requestId"]] = answer["outcome"]

    def counts(self, lines: Sequence[Line]) -> Counter[str]:
        """Return how many of these requests ended how."""
        return Counter(self.outcomes[line.request_id] for line in lines if line.request_id in self.outcomes)

    def _close(self) -> None:
        for each in (self._answers, self._list):
            try:
                each.close()
            except OSError:  # what could not be written was told when it was written
                continue


def _open(path: Path, list_path: Path) -> tuple[BinaryIO, BinaryIO]:
    opened: list[BinaryIO] = []
    for each in (path, list_path):
        try:
            number = os.open(each, os.O_RDWR | os.O_CREAT | os.O_APPEND, _PRIVATE)
            opened.append(os.fdopen(number, "r+b" if stat.S_ISREG(os.fstat(number).st_mode) else "wb"))
            fcntl.flock(number, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            reason = "another `waybill send` writes to it"
        except OSError as error:
            reason = error.strerror or type(error).__name__
        else:
            if stat.S_ISREG(os.fstat(number).st_mode):
                continue
            reason = "it is no file; --json writes to standard output"
        for file in opened:
            file.close()
        raise ConfigError(f"cannot write {path}: {reason}")
    return opened[0], opened[1]


def _rows(file: BinaryIO, path: Path, *, torn: bool) -> Iterator[bytes]:
    """Return the complete lines; what a killed run left of its last line is cut off where `torn` allows it."""
    file.seek(0)
    end = 0
    for row in file:
        if not row.endswith(b"\n"):
            if not torn or not row.startswith(b'{"'):
                raise ConfigError(f"{path} is not written by `waybill send --out`: choose another file")
            file.truncate(end)
            return
        end += len(row)
        yield row


def _read_sent(row: bytes, path: Path) -> _Sent:
    try:
        found = orjson.loads(row)
        return _Sent(str(found["requestId"]), str(found["sha256"]), _time(found["sentAtUtc"]))
    except (KeyError, TypeError, ValueError):
        raise ConfigError(f"{path} is not written by `waybill send --out`: choose another file") from None


def _read_answer(row: bytes, path: Path) -> tuple[str, str]:
    try:
        found = orjson.loads(row)
        return str(found["requestId"]), str(found["outcome"])
    except (KeyError, TypeError, ValueError):
        raise ConfigError(f"{path} is not written by `waybill send --out`: choose another file") from None


def _time(text: str) -> str:
    datetime.fromisoformat(text)
    return text


@contextmanager
def _told(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        reason = error.strerror or type(error).__name__
        raise UnavailableError(
            f"cannot write {path}: {reason}; what came before is in it, and the same command goes on from there"
        ) from None
