"""The sites of a federation, as a file that people write: where each keeps its copies, who signs, what may leave.

Each site says for each recipient what may go there, and nothing else does. The most exact word counts: what is written
for a recipient by name stands instead of what is written for `*`, never beside it.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Final, Literal

from pydantic import Field

from evidence.canonical import sha256_hex
from evidence.errors import ConfigError
from evidence.records import ShortText
from policy.files import Config, Document, read
from policy.labels import Encryption, Labels

ANY: Final = "*"
"""Any other site; any purpose."""

RECIPIENT: Final = "{recipient}"
"""Stands in a location for the name of the site that a copy is for."""

_TITLE: Final = "list of sites"
_ED25519: Final = b"\x01"
_KEY_BYTES: Final = 32
_ID_DIGITS: Final = 8

SiteName = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9-]{0,62}$")]
"""Name of a site, as in the setting SITE."""


class GrantConfig(Config):
    """What may go to one recipient."""

    to: Annotated[str, Field(pattern=r"^(\*|[a-z0-9][a-z0-9-]{0,62})$")]
    """The site that it may go to; `*` for every other one that is not named."""
    classes: tuple[ShortText, ...] = Field(min_length=1)
    """Classes of data whose events may leave; an event without a class goes by the others of its request."""
    purposes: tuple[ShortText, ...] = Field(min_length=1)
    """Purposes whose events may leave; `*` for any, and for events without one."""
    columns: tuple[ShortText, ...] = Field(min_length=1)
    """What may be in the copy, column by column, and field by field where a column is made of some."""
    retention_days: int = Field(ge=0, le=36_500)
    """Days for which the recipient may keep the copy."""
    encryption: tuple[Encryption, ...] = Field(default=("tls", "loopback"), min_length=1)
    """How the way to the copy's place may be protected; a folder of this machine is `loopback`."""
    consent: ShortText = "none"
    """The basis under which it may leave, as `<basis>` or `<basis>:<reference>`."""


class SiteConfig(Config):
    """One site."""

    name: SiteName
    """Its name; a column of every row of its evidence."""
    region: ShortText
    """Where it is, as routes and regulations name regions."""
    location: ShortText | None = None
    """Where its copies are: a folder, or `s3://bucket/prefix`; `{recipient}` stands for the site they are for."""
    key: Annotated[str, Field(max_length=300)] | None = None
    """The public key that its evidence is signed with, as a verifier key."""
    max_age_s: float | None = Field(default=None, gt=0)
    """Seconds after which its newest commit is too old, so that answers say so; never where it is left out."""
    leaves: tuple[GrantConfig, ...] = ()
    """What may leave it, for each recipient; nothing else does."""


class SitesConfig(Config):
    """The file."""

    version: Literal[1]
    """Version of the file's form."""
    sites: tuple[SiteConfig, ...] = Field(min_length=1)
    """All sites."""


@dataclass(frozen=True, slots=True)
class Columns:
    """What an event consists of."""

    fields: Mapping[str, tuple[str, ...]]
    """Its columns, with the fields of those that are made of some."""

    required: frozenset[str]
    """What no row can be without."""


@dataclass(frozen=True, slots=True)
class Grant:
    """What may leave one site for another one."""

    sender: SiteConfig
    """From where."""

    recipient: SiteConfig
    """To where."""

    config: GrantConfig
    """What, as it is written."""

    where: str
    """Where it is written, as `file:line`."""

    @property
    def purposes(self) -> frozenset[str] | None:
        """Purposes whose events may leave; None for any."""
        return None if ANY in self.config.purposes else frozenset(self.config.purposes)


class Sites:
    """The sites, checked."""

    def __init__(self, config: SitesConfig, document: Document) -> None:
        self.config = config
        self.source = document.source
        self._document = document
        self._by_name = {site.name: site for site in config.sites}

    def site(self, name: str) -> SiteConfig:
        """Give a site.

        Raises:
            ConfigError: there is none of that name.
        """
        if name not in self._by_name:
            raise ConfigError(f"{self.source}: there is no site {name!r}; there are {', '.join(self._by_name)}")
        return self._by_name[name]

    def grant(self, sender: str, recipient: str) -> Grant:
        """Give what may leave one site for another one.

        Raises:
            ConfigError: one of the two is not known, or nothing may.
        """
        site, to = self.site(sender), self.site(recipient)
        if sender == recipient:
            raise ConfigError(f"{recipient} is this site itself; a copy is for another one")
        number = list(self._by_name).index(sender)
        for wanted in (recipient, ANY):
            for place, config in enumerate(site.leaves):
                if config.to == wanted:
                    return Grant(site, to, config, self._document.where(("sites", number, "leaves", place)))
        where = self._document.where(("sites", number))
        raise ConfigError(f"{where}: nothing may leave {sender} for {recipient}; say under `leaves` what may")

    def copies_for(self, recipient: str) -> tuple[tuple[SiteConfig, str], ...]:
        """Give the other sites that may keep a copy for this recipient, each with its place.

        What may leave other sites need not be in the file of who only asks: a site without `leaves` is among them.
        """
        return tuple(
            (site, place(site.location, recipient))
            for site in self._others(recipient)
            if site.location is not None and _open_for(site, recipient)
        )

    def closed_to(self, recipient: str) -> tuple[SiteConfig, ...]:
        """Give the other sites that keep copies, but none for this recipient."""
        return tuple(site for site in self._others(recipient) if site.location and not _open_for(site, recipient))

    def _others(self, name: str) -> tuple[SiteConfig, ...]:
        return tuple(site for site in self.config.sites if site.name != name)


def _open_for(site: SiteConfig, recipient: str) -> bool:
    return not site.leaves or any(grant.to in (recipient, ANY) for grant in site.leaves)


def place(location: str, recipient: str) -> str:
    """Give the place of the copy that is for a recipient."""
    return location.replace(RECIPIENT, recipient)


def load(path: Path, columns: Columns, labels: Labels | None = None) -> Sites:
    """Read the sites.

    Args:
        path: the file.
        columns: what there is to be granted.
        labels: the classes and purposes that there are; None where nothing will leave by this file.

    Raises:
        ConfigError: the file breaks a rule; the text names file, line and field.
    """
    return parse(read(path, _TITLE), columns, labels)


def parse(document: Document, columns: Columns, labels: Labels | None = None) -> Sites:
    """Read the sites from a document.

    Raises:
        ConfigError: as `load`.
    """
    config = document.parse(SitesConfig, _TITLE)
    names = [site.name for site in config.sites]
    for number, site in enumerate(config.sites):
        at: tuple[Any, ...] = ("sites", number)
        if site.name in names[:number]:
            raise document.error((*at, "name"), f"{site.name} is listed twice")
        _check_copies(site, document, at)
        recipients = [grant.to for grant in site.leaves]
        for place_, grant in enumerate(site.leaves):
            _check_recipient(grant.to, site.name, recipients[:place_], names, document, (*at, "leaves", place_, "to"))
            _check_grant(grant, columns, labels, document, (*at, "leaves", place_))
    return Sites(config, document)


def _check_copies(site: SiteConfig, document: Document, at: tuple[Any, ...]) -> None:
    if (site.location is None) != (site.key is None):
        there, missing = ("location", "key") if site.key is None else ("key", "location")
        raise document.error((*at, there), f"a site with a {there} has a {missing} too")
    if site.key is not None and (wrong := _wrong_key(site.key, site.name)):
        raise document.error((*at, "key"), wrong)
    if site.leaves and site.location is None:
        raise document.error((*at, "leaves"), "what may leave needs a place: give the site a location and a key")
    several = len(site.leaves) > 1 or any(grant.to == ANY for grant in site.leaves)
    if several and site.location is not None and RECIPIENT not in site.location:
        raise document.error(
            (*at, "location"), f"there are copies for several sites: write {RECIPIENT} where their places differ"
        )
    if site.location is not None and site.location.startswith("s3:") and not site.location.startswith("s3://"):
        raise document.error((*at, "location"), "a bucket is written s3://bucket/prefix")


def _wrong_key(key: str, site: str) -> str | None:
    """Say what is wrong with a verifier key (docs/evidence-format.md)."""
    form = f"a verifier key is waybill/{site}+<key id>+<base64>, as the site itself shows it"
    name, _, rest = key.partition("+")
    identity, _, encoded = rest.partition("+")
    try:
        data = base64.b64decode(encoded, validate=True)
    except (binascii.Error, ValueError):
        return form
    if len(data) != 1 + _KEY_BYTES or data[:1] != _ED25519:
        return form
    if name != f"waybill/{site}":
        return f"this is a key of {name[:80]!r}, and the site's are waybill/{site}"
    if sha256_hex(name.encode() + b"\n" + data)[:_ID_DIGITS] != identity:
        return "the key's id does not fit the key: it was not copied whole"
    return None


def _check_recipient(
    to: str, site: str, before: Sequence[str], names: Sequence[str], document: Document, at: tuple[Any, ...]
) -> None:
    if to in before:
        raise document.error(at, f"{to} is listed twice: what may go there is said once")
    if to == site:
        raise document.error(at, f"{to} is the site itself; a copy is for another one")
    if to != ANY and to not in names:
        raise document.error(at, f"{to} is none of the sites: they are {', '.join(names)}")


def _check_grant(
    grant: GrantConfig, columns: Columns, labels: Labels | None, document: Document, at: tuple[Any, ...]
) -> None:
    for field in ("classes", "purposes", "columns", "encryption"):
        _each_once(getattr(grant, field), document, (*at, field))
    if labels is not None:
        _each_known(grant.classes, labels.classes, "classes", document, (*at, "classes"))
        if labels.config.purposes is not None:
            _each_known(grant.purposes, (*labels.config.purposes, ANY), "purposes", document, (*at, "purposes"))
    if ANY in grant.purposes and len(grant.purposes) > 1:
        raise document.error((*at, "purposes"), f"{ANY} is any purpose: write it alone")
    for number, name in enumerate(grant.columns):
        if wrong := _wrong_column(name, columns.fields):
            raise document.error((*at, "columns", number), wrong)
    if missing := sorted(columns.required - set(grant.columns)):
        raise document.error((*at, "columns"), f"no row can be without {', '.join(missing)}: add what is missing")


def _wrong_column(name: str, fields: Mapping[str, tuple[str, ...]]) -> str | None:
    column, dot, field = name.partition(".")
    if column not in fields:
        return f"{name} is no column of the events; docs/sql.md lists them"
    if fields[column] and not dot:
        # A field that a later version adds would leave with the others, without anybody having said so.
        among = ", ".join(f"{name}.{each}" for each in fields[column])
        return f"{name} is made of fields: name those that may leave, of {among}"
    if dot and field not in fields[column]:
        return f"{column} has no field {field}"
    return None


def _each_once(names: Sequence[str], document: Document, at: tuple[Any, ...]) -> None:
    for number, name in enumerate(names):
        if name in names[:number]:
            raise document.error((*at, number), f"{name} is listed twice")


def _each_known(
    names: Sequence[str], known: Collection[str], title: str, document: Document, at: tuple[Any, ...]
) -> None:
    for number, name in enumerate(names):
        if name not in known:
            raise document.error((*at, number), f"{name} is none of the {title}: use {', '.join(known)}")
