"""The waybill: the data-flow contract that travels with every crossing from local to hosted (promise P1)."""

from __future__ import annotations

from typing import Final, Literal

from pydantic import Field

from evidence.records import Record, ShortText
from policy.labels import Encryption

WAYBILL_VERSION: Final = "1.1"
"""Version of the contract's form; a hosted route that goes by another one is not used."""

STOP: Final = "stop"
"""The fallback that says: try nothing else."""


Transition = Literal["model-call", "refinement", "tool-call", "evidence-export"]
"""What crosses: a question to a model, an answer to be refined, a tool's arguments, or evidence itself."""


class Destination(Record):
    """Where data goes."""

    provider: ShortText
    """Who receives it."""
    endpoint: ShortText
    """The endpoint's name in the settings."""
    region: ShortText
    """Where it is processed."""


class RetentionTerms(Record):
    """How long what crosses may be kept, and what may be kept of what comes back."""

    destination_days: int = Field(ge=0)
    """Days that the destination may keep the data; 0 is none."""
    forbidden_in_answer: tuple[ShortText, ...]
    """Categories that must not be written from an answer; empty forbids nothing."""
    action: Literal["mask", "drop", "refuse"]
    """What happens to them."""


class Waybill(Record):
    """All nine fields, each required; an empty one is an error and stops the crossing."""

    waybill_version: ShortText = WAYBILL_VERSION
    """Version of this form."""
    transition: Transition = "model-call"
    """What crosses."""
    intake_id: ShortText
    """The request that it travels with."""
    data_classification: ShortText
    """Effective class of what crosses."""
    purpose: ShortText
    """What the data may be used for."""
    destination: Destination
    """Where it goes."""
    model_route: ShortText
    """`<route>/<model>`."""
    retention: RetentionTerms
    """How long it may be kept, there and here."""
    encryption: Encryption
    """How it is protected on the way."""
    redaction: tuple[ShortText, ...] = Field(min_length=1)
    """What was taken out before it crossed, each `<category>:<style>`; `none` where nothing had to be."""
    consent: ShortText
    """The basis under which it may cross, as `<basis>` or `<basis>:<reference>`."""
    fallback: tuple[ShortText, ...] = Field(min_length=1)
    """Routes that may be tried next within the same grant, or `stop`."""
