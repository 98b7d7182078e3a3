"""The vault's keys on disk: one master key, and a data key for each tenant, period and retention term.

    <vault>/master.key                       32 random bytes, base64; or elsewhere, by setting (policy.vault.master)
    <vault>/keys/<tenant>/<period>-<bucket>.key   a data key, wrapped by the master key
    <vault>/keys/<tenant>/<period>-<bucket>.gone  in its place, once it was destroyed: when and why
    <vault>/hash.key                         the key for hashes, wrapped too, once the master key was rotated
    <vault>/generation                       changes whenever a key is destroyed, or the master key rotated
    <vault>/lock                             held while a key is made or destroyed

Destroying a key is how content ends, so what shares a key must end together: a bucket holds one minimum and one maximum
of days, and a period closes, so that everything under a key has reached its maximum `max_days` after the period's end.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from pathlib import Path
from typing import Any, Final, Literal, Self

import orjson

from evidence.errors import ConfigError, PermanentError, UnavailableError
from evidence.moments import shifted
from policy.vault import files as vault_files
from policy.vault import master
from policy.vault.files import TEMPORARY, Files
from policy.vault.master import KEY_BYTES, NONCE_BYTES, MasterKeys

__all__ = [
    "KEY_BYTES", "NONCE_BYTES", "TRANSIT", "Bucket", "KeyDestroyed", "KeyId", "KeyInfo", "KeyRing", "Loaded", "Period",
    "VaultError", "bound", "fields", "on_disk", "tenant_hash", "wrapped",
]  # fmt: skip

DECEMBER: Final = 12
_HASH_BOUND: Final = b"waybill vault hash keys 2"
_TRIES: Final = 3
"""Times that a key is tried: with the master key in memory, and with the one that a rotation has put there since."""
_NAME: Final = re.compile(r"(\d{4}-\d{2}(?:-\d{2})?)-(transit-\d{1,5}|keep-\d{1,5}-\d{1,5})\.(key|gone)")
_ID: Final = re.compile(r"([0-9a-f]{32})/(\d{4}-\d{2}(?:-\d{2})?)/(transit-\d{1,5}|keep-\d{1,5}-\d{1,5})")

Period = Literal["day", "month"]


class VaultError(PermanentError):
    """What is sealed cannot be opened: it was changed, is of another tenant or request, or the vault is damaged."""


class KeyDestroyed(VaultError):  # noqa: N818 - named as the condition that people search for
    """Retention destroyed the key: what it sealed is gone for good, and no retry brings it back."""


@dataclass(frozen=True, slots=True)
class Bucket:
    """A retention term: what is sealed under one of these has the same bounds."""

    use: Literal["transit", "keep"]
    """`transit`: inside records that are on their way; `keep`: in the vault's own store."""
    min_days: int
    """Days for which it must be kept."""
    max_days: int
    """Days after which it must be gone."""
    period: Period = "month"
    """How long one key is used for sealing: a UTC day or a UTC month."""

    @property
    def name(self) -> str:
        """The bucket's part of a key's id."""
        return f"transit-{self.max_days}" if self.use == "transit" else f"keep-{self.min_days}-{self.max_days}"


TRANSIT: Final = Bucket("transit", 0, 7, "day")
"""What records on the work topics are sealed under: a key for each tenant and day, destroyed seven days later."""


@dataclass(frozen=True, slots=True)
class KeyId:
    """Which data key."""

    tenant_hash: str
    """SHA-256 of the tenant, 32 hex digits: a tenant's name need not be a file's name."""
    period: str
    """`YYYY-MM` or `YYYY-MM-DD`."""
    bucket: str
    """The retention term's name."""

    @classmethod
    def of(cls, tenant: str, bucket: Bucket, now: datetime) -> Self:
        """Give the key under which something is sealed now."""
        form = "%Y-%m-%d" if bucket.period == "day" else "%Y-%m"
        return cls(tenant_hash(tenant), now.astimezone(UTC).strftime(form), bucket.name)

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read a key id.

        Raises:
            VaultError: it is none.
        """
        match = _ID.fullmatch(text)
        if match is None:
            raise VaultError("not a sealed text of this vault: its key id has another form")
        key = cls(*match.groups())
        try:
            key.span()
        except ValueError:
            raise VaultError(f"not a sealed text of this vault: {key.period} is no period") from None
        return key

    def __str__(self) -> str:
        return f"{self.tenant_hash}/{self.period}/{self.bucket}"

    def span(self) -> tuple[datetime, datetime]:
        """Give the moments from which and up to which the key seals."""
        year, month, *day = map(int, self.period.split("-"))
        if day:
            start = datetime(year, month, day[0], tzinfo=UTC)
            return start, shifted(start, timedelta(days=1))
        start = datetime(year, month, 1, tzinfo=UTC)
        over = month == DECEMBER
        return start, datetime(year + over, 1 if over else month + 1, 1, tzinfo=UTC)

    @property
    def due(self) -> datetime:
        """When everything that was sealed under it has reached its maximum: the earliest moment of its destruction."""
        return shifted(self.span()[1], timedelta(days=int(self.bucket.rpartition("-")[2])))


@dataclass(frozen=True, slots=True)
class KeyInfo:
    """A data key that is there."""

    key: KeyId
    """Which one."""
    tenant: str
    """Whose."""


@dataclass(frozen=True, slots=True)
class Loaded:
    """The master key, as it was read."""

    masters: MasterKeys
    """Wraps and unwraps."""
    hashing: bytes = field(repr=False)
    """What keyed hashes are derived from."""


@lru_cache(maxsize=65_536)
def tenant_hash(tenant: str) -> str:
    """Give the part of a key's id that stands for a tenant."""
    return hashlib.sha256(b"waybill vault tenant\0" + tenant.encode()).hexdigest()[:32]


class KeyRing:
    """Makes, reads and destroys the keys of one vault folder; several processes may do so at once.

    Every method goes to the disk: `policy.vault.sealing.Vault` keeps what is in use. The master key alone is
    kept. It is read anew where it does not open a key, and before it wraps one: so no key is ever made under a master
    key that another process has taken out of use.
    """

    def __init__(self, folder: Path, key_file: Path | None = None, files: Files | None = None) -> None:
        """Touch nothing yet.

        Args:
            folder: the vault's folder; made when the first key is.
            key_file: where the master key is; `<folder>/master.key`, made on first use, if None.
            files: the file system, for tests that fail its steps.
        """
        self.folder = folder
        self.key_file: Final = key_file or folder / "master.key"
        self.hash_file: Final = folder / "hash.key"
        self.files: Final = files or Files()
        self._ours = key_file is None
        self._loaded: Loaded | None = None

    def prepare(self) -> None:
        """Read the master key, or make it.

        Raises:
            ConfigError: the master key is missing, malformed, or readable by others than its owner.
            UnavailableError: the disk does not let us.
        """
        self._known()

    def refresh(self) -> None:
        """Take up a master key that was rotated; where it cannot be read now, the one in memory stays in use."""
        if self._loaded is not None:
            with suppress(ConfigError, UnavailableError, VaultError):  # whoever needs the key itself is told
                self._loaded = self.load()

    def load(self) -> Loaded:
        """Read the master key as it is now; it is not made.

        Raises:
            ConfigError: as `prepare`, or the key for hashes was wrapped by another one.
            UnavailableError: the disk does not let us.
        """
        for _ in range(_TRIES):  # a rotation may come between the two files
            with on_disk("read", self.key_file):
                masters = master.read(self.key_file)
            with on_disk("read", self.hash_file):
                try:
                    data = self.hash_file.read_bytes()
                except FileNotFoundError:
                    return Loaded(masters, masters.hashing())
            found = masters.unwrap(str(fields(data, self.hash_file, {"wrapped"})["wrapped"]), _HASH_BOUND)
            if found is not None:
                return Loaded(masters, found[1])
        raise ConfigError(
            f"{self.hash_file} was made under another master key than {self.key_file} holds: restore the one that "
            "belongs to it, or put the old key as a line below the new one"
        )

    def generation(self) -> bytes:
        """Give what changes whenever a key is destroyed; empty as long as none was.

        Raises:
            UnavailableError: the disk does not let us.
        """
        with on_disk("read", self.folder / "generation"):
            try:
                return (self.folder / "generation").read_bytes()
            except FileNotFoundError:
                return b""

    def hash_key(self, tenant: str) -> bytes:
        """Give the key for keyed hashes of a tenant's data, 32 bytes; it stays when the master key is rotated.

        Raises:
            ConfigError: as `prepare`.
            UnavailableError: the disk does not let us.
        """
        return hmac.digest(self._known().hashing, tenant.encode(), "sha256")

    def wrap_hashing(self, loaded: Loaded, hashing: bytes) -> None:
        """Keep the key for hashes by itself, under the first master key; the lock is held."""
        content = {"version": 1, "wrapped": loaded.masters.wrap(hashing, _HASH_BOUND)}
        vault_files.replace(self.files, self.hash_file, orjson.dumps(content) + b"\n")

    def make(self, tenant: str, key: KeyId) -> bytes:
        """Give a data key for sealing; made if it is not there, and the same for every process that asks.

        Raises:
            KeyDestroyed: it was there, and retention destroyed it.
            VaultError: it is there and damaged, or under another master key.
            ConfigError: as `prepare`.
            UnavailableError: the disk does not let us; no half-written key is left.
        """
        path = self.path(key)
        self._known()
        with on_disk("make", path), self.held():
            if not path.exists():
                self._refuse_destroyed(key)
                self._loaded = self._anew()
                vault_files.make_folder(self.files, path.parent)
                self.sweep(path.parent)
                plain = secrets.token_bytes(KEY_BYTES)
                vault_files.create(self.files, path, wrapped(self._loaded.masters, plain, tenant, key))
        return self.read(key)[1]

    def read(self, key: KeyId) -> tuple[str, bytes]:
        """Give a data key and its tenant.

        Raises:
            KeyDestroyed: retention destroyed it.
            VaultError: it is not there, damaged, or under another master key.
            ConfigError: as `prepare`.
            UnavailableError: the disk does not let us.
        """
        path = self.path(key)
        for attempt in range(_TRIES):
            if attempt and self._loaded is not None:
                self._loaded = self._anew()
            masters = self._known().masters
            tenant, text = self._wrapped(key, path)
            found = masters.unwrap(text, bound(tenant, key))
            if found is not None:
                return tenant, found[1]
        raise VaultError(
            f"the key file {path} is damaged, or was made under another master key than {self.key_file} holds: restore "
            "the file or the master key that it was made with"
        )

    def _wrapped(self, key: KeyId, path: Path) -> tuple[str, str]:
        """Give a data key's tenant and the wrapped key."""
        with on_disk("read", path):
            self._refuse_destroyed(key)
            content = self.content(key, path)
            if content is None:
                self._refuse_destroyed(key)
                raise VaultError(
                    f"there is no data key {key} in {self.folder}: it was sealed in another vault, or files were lost"
                )
        tenant = str(content["tenant"])
        if tenant_hash(tenant) != key.tenant_hash:
            raise VaultError(f"the key file {path} is of another tenant: restore the file that belongs there")
        return tenant, str(content["wrapped"])

    def keys(self) -> tuple[KeyInfo, ...]:
        """Give the data keys whose files are there, sorted by id; also one that a backup brought back.

        Raises:
            VaultError: there is a file that is not of the vault, or a damaged one.
            UnavailableError: the disk does not let us.
        """
        listed = ((key, self.content(key, path)) for key, path, kind in self.entries() if kind == "key")
        return tuple(KeyInfo(key, str(content["tenant"])) for key, content in listed if content is not None)

    def content(self, key: KeyId, path: Path) -> Mapping[str, Any] | None:
        """Return what the file of a data key holds; None where it is not there, or another process destroys it now.

        Raises:
            VaultError: it is damaged.
            UnavailableError: the disk does not let us.
        """
        with on_disk("read", path):
            try:
                data = path.read_bytes()
            except FileNotFoundError:
                return None
        try:
            return fields(data, path)
        except VaultError:
            if self.destroyed(key) is not None:  # its bytes are overwritten before the file is removed
                return None
            raise

    def destroyed(self, key: KeyId) -> Mapping[str, Any] | None:
        """Give when and why a key was destroyed; None where it was not."""
        try:
            data = self.path(key).with_suffix(".gone").read_bytes()
        except FileNotFoundError:
            return None
        try:
            content = orjson.loads(data)
        except orjson.JSONDecodeError:
            content = None
        return content if isinstance(content, dict) else {}

    def destroy(self, key: KeyId, *, now: datetime, reason: str) -> None:
        """Destroy a data key; what it sealed can never be read again. Doing it twice is the same as once.

        The note that takes its place is durable first: from then on no process reads the key, whatever happens next.
        A process that holds it in memory forgets it when it next looks at the generation.

        Raises:
            UnavailableError: the disk does not let us; do it again.
        """
        path = self.path(key)
        with on_disk("destroy", path), self.held():
            gone = path.with_suffix(".gone")
            if not gone.exists():
                vault_files.make_folder(self.files, path.parent)
                note = {"destroyed": now.astimezone(UTC).isoformat(), "reason": reason}
                vault_files.create(self.files, gone, orjson.dumps(note) + b"\n")
            elif not path.exists():
                return
            vault_files.replace(self.files, self.folder / "generation", secrets.token_hex(16).encode())
            if path.exists():
                self.files.overwrite(path)
                self.files.remove(path)
            for folder in (path.parent, self.folder):
                self.sweep(folder)
            self.files.sync(path.parent)

    def entries(self) -> Iterator[tuple[KeyId, Path, str]]:
        """Give the key files and the notes in the place of destroyed ones: which key, where, and `key` or `gone`.

        Raises:
            VaultError: there is a file that is not of the vault.
            UnavailableError: the disk does not let us.
        """
        root = self.folder / "keys"
        with on_disk("list", root):
            for tenant in sorted(root.iterdir()) if root.is_dir() else ():
                for path in sorted(tenant.iterdir()) if tenant.is_dir() else (tenant,):
                    match = _NAME.fullmatch(path.name)
                    if path.parent == tenant and match and re.fullmatch("[0-9a-f]{32}", tenant.name):
                        yield KeyId(tenant.name, match[1], match[2]), path, match[3]
                    elif not path.name.startswith(TEMPORARY):
                        raise VaultError(f"{path} is no key file of the vault: move it out of the folder")

    def path(self, key: KeyId) -> Path:
        """Give where a data key's file is."""
        return self.folder / "keys" / key.tenant_hash / f"{key.period}-{key.bucket}.key"

    def _refuse_destroyed(self, key: KeyId) -> None:
        note = self.destroyed(key)
        if note is not None:
            raise KeyDestroyed(
                f"the data key {key} was destroyed by retention ({note.get('destroyed', 'at an unknown time')}): "
                "what it sealed is gone for good"
            )

    def sweep(self, folder: Path) -> None:
        """Remove what a killed writer left; the lock is held, so nobody is writing it."""
        for path in folder.glob(f"{TEMPORARY}*"):
            self.files.remove(path)

    @contextmanager
    def held(self) -> Iterator[None]:
        """Keep other processes from making and destroying keys."""
        vault_files.make_folder(self.files, self.folder)
        with vault_files.locked(self.folder / "lock"):
            yield

    def _known(self) -> Loaded:
        if self._loaded is None:
            with on_disk("read", self.key_file):
                if self._ours and not self.key_file.exists():
                    self._make_master(self.key_file)
            self._loaded = self.load()
        return self._loaded

    def _anew(self) -> Loaded:
        """Read the master key again, in a process that could read it: where it cannot now, somebody may be editing it.

        Raises:
            UnavailableError: it is missing or malformed just now, or the disk does not let us.
        """
        try:
            return self.load()
        except ConfigError as error:
            raise UnavailableError(str(error)) from error

    def _make_master(self, path: Path) -> None:
        with self.held():
            if path.exists():  # another process was faster
                return
            self.sweep(self.folder)
            root = self.folder / "keys"
            if any(root.glob("*/*.key")):
                raise ConfigError(
                    f"{path} is gone, but there are keys that it wraps in {root}: restore it from its backup"
                )
            vault_files.create(self.files, path, master.text([secrets.token_bytes(KEY_BYTES)]))


def wrapped(masters: MasterKeys, plain: bytes, tenant: str, key: KeyId) -> bytes:
    """Give the content of a data key's file."""
    content = {"version": 1, "tenant": tenant, "key": str(key), "wrapped": masters.wrap(plain, bound(tenant, key))}
    return orjson.dumps(content) + b"\n"


def bound(tenant: str, key: KeyId) -> bytes:
    """Give what a wrapped data key is bound to."""
    return f"waybill vault key 1\0{key}\0{tenant}".encode()


def fields(
    data: bytes, path: Path, needed: frozenset[str] | set[str] = frozenset({"tenant", "wrapped"})
) -> dict[str, Any]:
    """Read a key file.

    Raises:
        VaultError: it is damaged.
    """
    try:
        content = orjson.loads(data)
    except orjson.JSONDecodeError:
        content = None
    if not isinstance(content, dict) or content.get("version") != 1 or not needed <= content.keys():
        raise VaultError(f"the key file {path} is damaged ({len(data)} bytes): restore it from its backup")
    return content


@contextmanager
def on_disk(verb: str, path: Path) -> Iterator[None]:
    """Tell what the disk did not let us do.

    Raises:
        UnavailableError: it did not.
    """
    try:
        yield
    except OSError as error:
        raise UnavailableError(f"the vault could not {verb} {path}: {error.strerror}") from error
