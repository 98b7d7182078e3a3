"""Evidence stores and keys, as commands name them."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Final

from evidence.errors import ConfigError, UnavailableError
from evidence.files.local import LocalFiles
from evidence.files.places import open_files
from evidence.files.seam import Entry, Files, NotThere
from evidence.log.keys import KeyRing
from evidence.store.history import newest, read_commit
from evidence.store.layout import EVENTS, LOGS
from waybill.settings import Settings

_TRIES: Final = 5


def store_files(settings: Settings, named: str | None = None) -> Files:
    """Give a store's files: those of a named place, or this site's own.

    Raises:
        ConfigError: there is no such folder, or the place cannot be used.
    """
    files = settings.evidence_files() if named is None else open_files(named, settings.evidence_s3.access())
    if isinstance(files, LocalFiles) and not files.root.is_dir():
        raise ConfigError(f"there is no evidence at {files.root}; name a store, or the --home of a run")
    return files


def check_there(files: Files) -> None:
    """See that something was stored here once: else no rows would look like an answer. A store without rows will do.

    Raises:
        ConfigError: nothing was.
        UnavailableError: the place cannot be read.
    """
    there = files.root.is_dir() if isinstance(files, LocalFiles) else logs(files)
    if not there:
        raise ConfigError(
            f"there is no evidence at {files.url('')}: no worker has stored any yet, or it is of another home; name "
            "the --home of a run"
        )


def is_local(files: Files) -> bool:
    """Tell whether a store lies in a folder of this machine."""
    return isinstance(files, LocalFiles)


def logs(files: Files) -> tuple[str, ...]:
    """Give the names of a store's logs."""
    return files.folders(f"{LOGS}/")


def read_key(text: str) -> str:
    """Give a verifier key; `@FILE` names a file that holds one.

    Raises:
        ConfigError: the file cannot be read.
    """
    if not text.startswith("@"):
        return text
    try:
        return Path(text[1:]).read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"cannot read the key {text[1:]}: {getattr(error, 'strerror', None) or error}") from error


def store_site(files: Files) -> str | None:
    """Return the site that a store's logs are of; None where it has none yet.

    Raises:
        StoreError: a checkpoint is damaged.
        UnavailableError: the store cannot be read.
    """
    if is_local(files) and not Path(files.url("")).is_dir():
        return None
    for log in logs(files):
        number = newest(files, log)
        if number is not None:
            # waybill/<site>/<log id>/<topic>-<partition>
            return read_commit(files, log, number).commit.origin.split("/")[1]
    return None


def own_keys(settings: Settings, site: str | None = None) -> list[str]:
    """Return the verifier keys of this site, or of another one whose keys lie in this home.

    Raises:
        ConfigError: there are none here.
    """
    folder = settings.evidence_keys_folder
    if not folder.is_dir() or not any(folder.glob("*.pem")):
        raise ConfigError(f"{folder} holds no keys of a site; give the log's verifier key with --key")
    return list(KeyRing(folder, site or settings.site).vkeys)


def copied(files: Files, folder: Path, progress: Callable[[int, int], None]) -> Path:
    """Copy a store to a folder, byte for byte; files that are there with the same size stay as they are.

    What the copied commits name is copied with them, also while the store is written.

    Args:
        files: the store.
        folder: where the copy goes.
        progress: is told how many bytes of how many are there.

    Raises:
        UnavailableError: the store cannot be read, the folder not written, or the store changed too fast.
    """
    for _ in range(_TRIES):
        if _copy(files, LocalFiles(folder), progress):
            return folder
    raise UnavailableError(f"{files.url('')} changed while it was copied, time after time; try again")


def _copy(files: Files, target: LocalFiles, progress: Callable[[int, int], None]) -> bool:
    """Copy what there is; give whether it was still there when its turn came."""
    # Commits are listed first and copied last: what they name was there before them.
    commits, _ = _parted(files.list(f"{LOGS}/"))
    since, others = _parted(files.list(f"{LOGS}/"))
    if commits != since:
        return False  # the tiles may be those of a later commit already
    entries = [*files.list(f"{EVENTS}/"), *others, *commits]
    there = {entry.path: entry.size for part in (f"{EVENTS}/", f"{LOGS}/") for entry in target.list(part)}
    done, total = 0, sum(entry.size for entry in entries)
    for entry in entries:
        if there.get(entry.path) != entry.size or "/live/" in entry.path:
            try:
                target.replace(entry.path, files.read(entry.path))
            except NotThere:
                if "/live/" not in entry.path:
                    return False
        done += entry.size
        progress(done, total)
    return True


def _parted(entries: Iterable[Entry]) -> tuple[list[Entry], list[Entry]]:
    listed = list(entries)
    commits = [entry for entry in listed if "/commits/" in entry.path]
    return commits, [entry for entry in listed if "/commits/" not in entry.path]
