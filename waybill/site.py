"""What this worker is set up with, as the other workers of its site get to see it; and its mark in the vault's folder.

Nothing here reveals a key: ids are random, fingerprints are hashes.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import re
import secrets
import socket
import time
from contextlib import suppress
from datetime import datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Final

from evidence.errors import ConfigError, UnavailableError
from evidence.files.local import LocalFiles
from evidence.log import keys as evidence_keys
from policy.vault import files as vault_files
from policy.vault.keys import KeyRing as VaultKeys
from policy.vault.keys import on_disk
from streams.workers import Facts, Worker
from waybill.parts import key_ring
from waybill.settings import Settings

ID_FILE: Final = "site-id"
MARKS: Final = "workers"
STAND_IN: Final = "stand-in"
"""How the provider is called that answers without a model."""

_ID: Final = re.compile(r"[0-9a-f]{32}")
_NOT_A_WORD: Final = re.compile(r"[^A-Za-z0-9._-]")
_BLOCK: Final = 65_536
_OLD_S: Final = 24 * 60 * 60
"""Age in seconds of a mark whose worker did not take it away."""


def this_worker(settings: Settings, log_id: str, stages: tuple[str, ...], now: datetime) -> Worker:
    """Describe this process for the other workers.

    Raises:
        ConfigError: the vault's or the evidence's keys cannot be used.
        UnavailableError: the disk does not let us.
    """
    try:
        ours = version("waybill-runtime")
    except PackageNotFoundError:  # run from its sources
        ours = None
    facts = site_facts(settings, log_id, stages)
    return Worker(
        worker=secrets.token_hex(16), host=host_name(), pid=os.getpid(), started=now, version=ours, facts=facts
    )


def host_name() -> str:
    """Return the name of this machine or container, as far as it may stand in a sentence."""
    return _NOT_A_WORD.sub("-", socket.gethostname())[:128] or "unknown"


def site_facts(settings: Settings, log_id: str, stages: tuple[str, ...]) -> Facts:
    """Return what must be the same for all workers of a site; ids are made where there are none.

    Raises:
        ConfigError: the vault's or the evidence's keys cannot be used.
        UnavailableError: the disk does not let us.
    """
    evidence = "sink" in stages
    vault = _vault_keys(settings)
    vault.prepare()
    providers = {config.provider or config.kind for config in settings.endpoints.values() if config.kind == "openai"}
    hosted = None if not providers else "stand-in" if STAND_IN in providers else "real"
    return Facts(
        site=settings.site,
        vault=vault_id(settings),
        master=_master(vault),
        keys=tuple(_fingerprint(vkey) for vkey in key_ring(settings).vkeys) if evidence else (),
        store=store_id(settings) if evidence else None,
        log=_NOT_A_WORD.sub("-", log_id)[:128],
        identity=settings.identity.method if settings.identity else None,
        hosted=hosted if "dispatch" in stages else None,
    )


def renewed(settings: Settings, facts: Facts) -> Facts:
    """Return the facts as they are now: keys are rotated beside running workers. Nothing is made.

    Raises:
        ConfigError: the vault's or the evidence's keys cannot be used in this moment.
        UnavailableError: the disk does not let us.
    """
    keys = evidence_keys.KeyRing(settings.evidence_keys_folder, settings.site).vkeys if facts.keys else ()
    return facts.model_copy(update={"keys": tuple(map(_fingerprint, keys)), "master": _master(_vault_keys(settings))})


def vault_id(settings: Settings) -> str:
    """Return the id of the vault's folder, which stays when keys are rotated; made where there is none.

    Raises:
        ConfigError: the file is damaged.
        UnavailableError: the disk does not let us.
    """
    folder = settings.vault_folder
    with on_disk("write", folder / ID_FILE):
        vault_files.make_folder(vault_files.Files(), folder)
        return _made(folder / ID_FILE)


def known_vault(settings: Settings) -> str | None:
    """Return the id of the vault's folder; None where there is none, or it cannot be read. Nothing is made."""
    try:
        found = (settings.vault_folder / ID_FILE).read_text(encoding="ascii", errors="replace").strip()
    except OSError:
        return None
    return found if _ID.fullmatch(found) else None


def store_id(settings: Settings) -> str:
    """Return the id of the evidence store: of a folder one that lies in it, of a bucket one of its address.

    Raises:
        ConfigError: the file is damaged, or the place cannot be used.
        UnavailableError: the disk does not let us.
    """
    files = settings.evidence_files()
    if not isinstance(files, LocalFiles):
        address = f"{settings.evidence_s3.endpoint or ''}\0{files.url('')}"
        return hashlib.sha256(b"waybill evidence store\0" + address.encode()).hexdigest()[:32]
    folder = files.root / "locks"  # of the store's own: no list shows it, and no copy of evidence has it
    try:
        folder.mkdir(parents=True, exist_ok=True)
        return _made(folder / ID_FILE)
    except OSError as error:
        raise UnavailableError(f"the evidence store cannot write {folder / ID_FILE}: {error.strerror}") from error


def make_mark(settings: Settings, worker: str) -> None:
    """Leave a worker's mark in the vault's folder: who looks into a copy of the folder does not find it.

    Raises:
        UnavailableError: the disk does not let us.
    """
    folder = settings.vault_folder / MARKS
    with on_disk("write", folder):
        vault_files.make_folder(vault_files.Files(), folder)
        for path in folder.iterdir():
            with suppress(FileNotFoundError):  # another worker was faster
                if path.stat().st_mtime < time.time() - _OLD_S:
                    path.unlink()
        (folder / worker).touch(mode=0o600)


def marks(settings: Settings) -> frozenset[str]:
    """Return the ids of the workers whose mark is in the vault's folder."""
    try:
        return frozenset(path.name for path in (settings.vault_folder / MARKS).iterdir())
    except OSError:
        return frozenset()


def keep_mark(settings: Settings, worker: str) -> str | None:
    """Show that a worker's mark is in use; return what the vault's disk says where it takes no file any more."""
    path = settings.vault_folder / MARKS / worker
    fresh = path.with_suffix(".new")
    try:
        fresh.write_bytes(bytes(_BLOCK))  # what a full disk refuses; to touch a file is not
        fresh.replace(path)
    except OSError as error:
        with suppress(OSError):
            fresh.unlink()
        return error.strerror or type(error).__name__
    return None


def remove_mark(settings: Settings, worker: str) -> None:
    """Take a worker's mark away, as far as the disk lets us."""
    with suppress(OSError):
        (settings.vault_folder / MARKS / worker).unlink(missing_ok=True)


def _made(path: Path) -> str:
    """Return the id in a file; of several processes that make it, one does."""
    if not path.exists():
        vault_files.create(vault_files.Files(), path, secrets.token_hex(16).encode() + b"\n")
    found = path.read_text(encoding="ascii", errors="replace").strip()
    if not _ID.fullmatch(found):
        raise ConfigError(f"{path} is damaged: put it back from a backup, or remove it to get another id")
    return found


def _vault_keys(settings: Settings) -> VaultKeys:
    return VaultKeys(settings.vault_folder, settings.vault_key_file)


def _master(keys: VaultKeys) -> str:
    """Return what tells master keys apart that do not belong to one vault; rotation leaves it as it is."""
    return hmac.digest(keys.load().hashing, b"waybill site", "sha256").hex()[:32]


def _fingerprint(vkey: str) -> str:
    return hashlib.sha256(vkey.encode()).hexdigest()[:32]
