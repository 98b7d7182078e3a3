"""The export waybill: the contract under which evidence leaves a site, held against what sites.yaml grants."""

from __future__ import annotations

from collections.abc import Collection
from typing import Final, Literal

import orjson
from pydantic import Field

from evidence.canonical import canonical_json
from evidence.errors import ConfigError
from evidence.records import Record, ShortText, Utc
from policy.contract import STOP, WAYBILL_VERSION, Destination
from policy.labels import Encryption, Labels
from policy.sites import ANY, Grant

REMOVED: Final = "removed"
"""What happened to a column that does not leave."""

NONE: Final = "none"
"""Nothing was taken out; no model is asked; no consent is needed."""


class ExportSource(Record):
    """A state of a log that an export goes up to."""

    origin: ShortText
    """The log's origin, as its checkpoints name it."""
    size: int = Field(ge=0)
    """Its rows then."""
    root: ShortText
    """Its root then, in base64."""


class ExportWaybill(Record):
    """The terms of a waybill, for evidence; each is required, and an empty one is an error."""

    waybill_version: ShortText = WAYBILL_VERSION
    """Version of the waybill's form."""
    transition: Literal["evidence-export"] = "evidence-export"
    """What crosses."""
    export_id: ShortText
    """Names this export."""
    data_classification: ShortText
    """The highest class of what crosses."""
    classes: tuple[ShortText, ...] = Field(min_length=1)
    """All classes of what crosses."""
    purposes: tuple[ShortText, ...] = Field(min_length=1)
    """Purposes of the requests that it is of; `*` for any."""
    destination: Destination
    """Where it goes: the recipient, the place of the copy, and the recipient's region."""
    model_route: Literal["none"] = "none"
    """Evidence goes to no model."""
    destination_days: int = Field(ge=0)
    """Days for which the recipient may keep it."""
    encryption: Encryption
    """How it is protected on the way."""
    columns: tuple[ShortText, ...] = Field(min_length=1)
    """What is in the copy, sorted."""
    redaction: tuple[ShortText, ...] = Field(min_length=1)
    """What was taken out, each `<column>:removed`, sorted; `none` where nothing was."""
    consent: ShortText
    """The basis under which it may cross."""
    fallback: tuple[ShortText, ...] = (STOP,)
    """No other way is tried."""
    sources: tuple[ExportSource, ...]
    """The logs that it is of, and the states up to which."""
    operator: ShortText
    """Who does it, as `kind:name`."""
    at_utc: Utc
    """When."""

    def document(self) -> bytes:
        """Give the bytes that are stored; their SHA-256 is the record's digest."""
        return canonical_json(orjson.loads(self.to_json()))


def redaction(columns: Collection[str], every: Collection[str]) -> tuple[str, ...]:
    """Say what is taken out where these columns stay."""
    return tuple(f"{name}:{REMOVED}" for name in sorted(set(every) - set(columns))) or (NONE,)


def check(waybill: ExportWaybill, grant: Grant, labels: Labels, every: Collection[str]) -> None:
    """See that an export waybill stays within what is granted.

    Args:
        waybill: the waybill.
        grant: what may leave.
        labels: the order of the classes.
        every: everything that an event consists of.

    Raises:
        ConfigError: it would widen the grant, or does not say what it does; the text names the first thing.
    """
    may = grant.config
    for what, asked, granted in (
        ("class", waybill.classes, may.classes),
        ("purpose", waybill.purposes, waybill.purposes if ANY in may.purposes else may.purposes),
        ("column", waybill.columns, may.columns),
    ):
        if wider := [name for name in asked if name not in granted]:
            raise ConfigError(
                f"{grant.where}: the {what} {wider[0]} may not go to {may.to}; granted: {', '.join(granted)}"
            )
    destination = waybill.destination
    if (destination.provider, destination.region) != (grant.recipient.name, grant.recipient.region):
        raise ConfigError(
            f"{grant.where}: {destination.provider} in {destination.region} is not the recipient, which is "
            f"{grant.recipient.name} in {grant.recipient.region}"
        )
    if waybill.encryption not in may.encryption:
        raise ConfigError(
            f"{grant.where}: the way to {destination.endpoint} is protected by {waybill.encryption}, and it takes "
            f"{' or '.join(may.encryption)}"
        )
    if waybill.destination_days > may.retention_days:
        raise ConfigError(
            f"{grant.where}: the recipient may keep it {may.retention_days} days, not {waybill.destination_days}"
        )
    if waybill.consent != may.consent or waybill.fallback != (STOP,):
        raise ConfigError(f"{grant.where}: it leaves under the basis {may.consent} or not at all")
    if waybill.redaction != redaction(waybill.columns, every):
        raise ConfigError("an export waybill names every column that is taken out, and no other")
    if waybill.data_classification != labels.join(waybill.classes):
        raise ConfigError("an export waybill names the highest of its classes")


def regulations_at(labels: Labels, region: str) -> frozenset[str]:
    """Give the regulations under which data may be in a region."""
    return frozenset(
        name for name, each in labels.config.regulations.items() if not each.regions or region in each.regions
    )
