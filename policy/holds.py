"""Legal holds: what must be kept whatever a rule says, until a person releases it.

Each hold is a file of its own in a folder that all workers and commands of a site share. Reading fails closed: where a
file cannot be read or understood, nobody is told that there are no holds, and so nothing is removed.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Final, Literal

from pydantic import Field, ValidationError

from evidence.errors import PermanentError, RecordError, UnavailableError
from evidence.records import ShortText, Utc
from policy.files import Config
from policy.vault import files as vault_files
from policy.vault.files import TEMPORARY, Files

_NAME: Final = re.compile(r"([0-9a-f]{12})\.json")
_REASON: Final = 512


class HoldError(PermanentError):
    """A hold cannot be read or understood; nothing is removed until a person has looked."""


class Release(Config):
    """How a hold ended."""

    at: Utc
    """When."""
    by: ShortText
    """Who ended it, as `kind:name`."""
    reason: Annotated[str, Field(max_length=_REASON)]
    """Why, with what detectors find masked."""


class Hold(Config):
    """One hold: it covers what all of its given fields are true of."""

    version: Literal[1] = 1
    """Version of the file's form."""
    id: Annotated[str, Field(pattern=r"^[0-9a-f]{12}$")]
    """Its id, 12 hex digits."""
    tenant: ShortText | None = None
    """Whose data."""
    subject: ShortText | None = None
    """About whom."""
    request: ShortText | None = None
    """Of which request."""
    reason: Annotated[str, Field(max_length=_REASON)]
    """Why, with what detectors find masked."""
    by: ShortText
    """Who placed it, as `kind:name`."""
    at: Utc
    """When."""
    told: bool = False
    """Whether evidence has it."""
    released: Release | None = None
    """How it ended; None while it holds."""

    def covers(self, *, tenant: str | None, subject: str | None, request: str | None) -> bool:
        """Say whether it covers something of this tenant, subject and request."""
        same = all(mine is None or mine == theirs for mine, theirs in ((self.tenant, tenant), (self.request, request)))
        return same and (self.subject is None or subject in subject_names(self.subject))

    @property
    def scope(self) -> str:
        """What it covers, for people."""
        named = (("subject", self.subject), ("tenant", self.tenant), ("request", self.request))
        return ", ".join(f"{name} {value}" for name, value in named if value is not None)


def subject_names(subject: str) -> tuple[str, ...]:
    """Give how a person may be written: as requests have it (`ana`), and as evidence has an actor (`user:ana`)."""
    kind, colon, name = subject.partition(":")
    return (subject, name) if colon and kind in {"user", "service"} and name else (subject,)


@dataclass(frozen=True, slots=True)
class Holds:
    """The holds that are in force at one moment."""

    active: tuple[Hold, ...] = field(default=())
    """Which, by id."""

    def covering(self, *, tenant: str | None, subject: str | None, request: str | None) -> tuple[Hold, ...]:
        """Give those that cover something of this tenant, subject and request."""
        return tuple(hold for hold in self.active if hold.covers(tenant=tenant, subject=subject, request=request))


class HoldBook:
    """The holds of a site. Processes may share the folder."""

    def __init__(self, folder: Path, files: Files | None = None) -> None:
        """Touch nothing yet.

        Args:
            folder: where they lie; made with the first.
            files: the file system, for tests that fail its steps.
        """
        self.folder = folder
        self._files = files or Files()

    def all(self) -> tuple[Hold, ...]:
        """Give all holds, those that ended too, the oldest first.

        Raises:
            HoldError: a file is damaged, or is none of ours.
            UnavailableError: the folder cannot be read.
        """
        with _disk(self.folder):
            found = [self._read(path) for path in self._paths()]
        return tuple(sorted(found, key=lambda hold: (hold.at, hold.id)))

    def active(self) -> Holds:
        """Give the holds that are in force.

        Raises:
            HoldError: a file is damaged, or is none of ours.
            UnavailableError: the folder cannot be read.
        """
        return Holds(tuple(hold for hold in self.all() if hold.released is None))

    def place(self, hold: Hold) -> None:
        """Put a hold in force; it is durable when this returns.

        Raises:
            HoldError: there is one of that id.
            UnavailableError: the disk does not let us.
        """
        if hold.tenant is None and hold.subject is None and hold.request is None:
            raise HoldError("a hold without tenant, subject and request would cover everything: say what it is for")
        with _disk(self.folder), self._held():
            if not vault_files.create(self._files, self._path(hold.id), _text(hold)):
                raise HoldError(f"there is a hold {hold.id} already")

    def told(self, hold: Hold) -> None:
        """Note that evidence has a hold.

        Raises:
            UnavailableError: the disk does not let us.
        """
        self._change(hold.id, told=True)

    def release(self, identity: str, release: Release) -> Hold:
        """End a hold; give it as it is now. Doing it twice keeps the first.

        Raises:
            RecordError: `no_hold`: there is none of that id.
            HoldError: its file is damaged.
            UnavailableError: the disk does not let us.
        """
        return self._change(identity, released=release)

    def find(self, identity: str) -> Hold:
        """Give a hold.

        Raises:
            RecordError: `no_hold`: there is none of that id.
            HoldError: its file is damaged.
            UnavailableError: the disk does not let us.
        """
        path = self._path(identity)
        with _disk(self.folder):
            if not _NAME.fullmatch(path.name) or not path.exists():
                raise RecordError("no_hold", f"there is no hold {identity[:40]!r}: see `waybill hold list`")
            return self._read(path)

    def _change(self, identity: str, **fields: object) -> Hold:
        with _disk(self.folder), self._held():
            hold = self.find(identity)
            if hold.released is not None and "released" in fields:
                return hold
            changed = hold.model_copy(update=fields)
            vault_files.replace(self._files, self._path(identity), _text(changed))
            return changed

    def _path(self, identity: str) -> Path:
        return self.folder / f"{identity}.json"

    def _paths(self) -> Iterator[Path]:
        if not self.folder.is_dir():
            return
        for path in sorted(self.folder.iterdir()):
            if _NAME.fullmatch(path.name):
                yield path
            elif path.name != "lock" and not path.name.startswith(TEMPORARY):
                raise HoldError(f"{path} is no hold: move it out of the folder; until then nothing is removed")

    def _read(self, path: Path) -> Hold:
        data = path.read_bytes()
        try:
            hold = Hold.model_validate_json(data)
        except ValidationError as error:
            wrong = sorted({".".join(map(str, each["loc"])) or "the file" for each in error.errors()})
            raise HoldError(
                f"the hold {path} is damaged ({', '.join(wrong)}): restore it from its backup; until then nothing is "
                "removed"
            ) from None
        if hold.id != path.stem:
            raise HoldError(f"the hold {path} says that it is {hold.id}: until it is put right, nothing is removed")
        return hold

    @contextmanager
    def _held(self) -> Iterator[None]:
        vault_files.make_folder(self._files, self.folder)
        with vault_files.locked(self.folder / "lock"):
            yield


def scopes(holds: Iterable[Hold]) -> str:
    """Name holds for people: id and what each covers."""
    return "; ".join(f"{hold.id} ({hold.scope})" for hold in holds)


def _text(hold: Hold) -> bytes:
    return hold.model_dump_json(indent=2, exclude_none=True).encode() + b"\n"


@contextmanager
def _disk(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise UnavailableError(f"the holds in {folder} cannot be reached: {error.strerror}") from error
