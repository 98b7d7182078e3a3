"""The form of a runtime decision record: six placement questions, four locations, four pins, and the numbers assumed.

What can be wrong with a record by itself is found here; `policy.placement.records` compares it with the routes.
"""

from __future__ import annotations

import re
from datetime import date
from typing import Annotated, Any, Final, Literal, Self

from pydantic import AfterValidator, BeforeValidator, Field, ValidationInfo, field_validator, model_validator

from evidence.records import ShortText
from policy.files import Config

LONGEST_REVIEW_DAYS: Final = 731
"""Days that may lie between a decision and its review: whoever is asked later reviews something else."""

_SHORTEST: Final = 12
"""Characters of a sentence; what is shorter answers no question."""
_MARKS: Final = re.compile(
    r"\b(TBD|TBA|TODO|FIXME|XXX)\b|\?\?\?|(?i:^\W*(tbd|tba|todo|fixme)\b\s*(:|\W*$)|lorem ipsum)"
)
_NOTHING: Final = frozenset(
    {
        *("n/a", "na", "none", "nil", "null", "nothing", "no", "yes", "unknown", "unclear", "same", "ditto", "later"),
        *("pending", "open", "placeholder", "not applicable", "not available", "not known", "does not apply"),
        *("to be decided", "to be done", "to be determined", "to be defined", "will be decided", "not decided yet"),
        *("see above", "as above", "see below", "no constraint", "no assumption", "no trade-off"),
    }
)
"""What people write where they have nothing to say."""
_FRAME: Final = " .,;:!?\u2026-_*()[]<>\u2013\u2014"
"""What may stand around it."""
_DIGEST: Final = re.compile(r"sha256:[0-9a-f]{64}")


def _bare(text: str) -> str:
    return " ".join(text.split()).strip(_FRAME).casefold()


def _named(text: str) -> str:
    if _MARKS.search(text) or not _bare(text) or _bare(text) in _NOTHING:
        raise ValueError("this is a placeholder: write who or what it is")
    return text


def _said(text: str) -> str:
    bare = _bare(text)
    if not bare:
        raise ValueError("this is empty: write a sentence")
    if _MARKS.search(text) or bare in _NOTHING:
        raise ValueError("this is a placeholder: write a sentence, or why the question does not arise")
    if len(bare) < _SHORTEST:
        raise ValueError(f"{len(bare)} characters decide nothing: write a sentence")
    return text


def _digest(text: str) -> str:
    if not _DIGEST.fullmatch(text):
        raise ValueError(
            "no digest: write `sha256:` and 64 hex digits in lower case (zeros for now, and `waybill decisions pin`)"
        )
    return text


def _once(digests: tuple[str, ...]) -> tuple[str, ...]:
    if len(set(digests)) != len(digests):
        raise ValueError("names a digest twice")
    return digests


def _day(value: Any) -> Any:
    # YAML reads 2027 or 20270531 as a number, which pydantic would take for seconds.
    if not isinstance(value, date | str):
        raise ValueError("no date: write YYYY-MM-DD")  # noqa: TRY004 - pydantic tells the place of a ValueError alone
    return value


Name = Annotated[ShortText, AfterValidator(_named)]
"""Who or what: never empty, never a placeholder."""
Sentence = Annotated[str, Field(max_length=4000), AfterValidator(_said)]
"""What somebody has thought about: never empty, never a placeholder."""
Digest = Annotated[str, AfterValidator(_digest)]
"""`sha256:` and 64 hex digits."""
Day = Annotated[date, BeforeValidator(_day)]
"""A day, `YYYY-MM-DD`."""


class Considered(Config):
    """The answer to one placement question."""

    constraint: Sentence
    """What must hold, whoever asks."""
    assumption: Sentence
    """What is taken to be true, and would change the decision if it were not."""
    trade_off: Sentence
    """What is given up for it, knowingly."""

    @model_validator(mode="after")
    def _three(self) -> Self:
        if len({_bare(self.constraint), _bare(self.assumption), _bare(self.trade_off)}) < 3:  # noqa: PLR2004 - three answers
            raise ValueError("constraint, assumption and trade_off are three answers: two of them are the same text")
        return self


class Questions(Config):
    """The six placement questions."""

    data_classification: Considered
    """Which data may go there."""
    route_transparency: Considered
    """How users see where their data went."""
    offline_fallback: Considered
    """What happens without network or provider."""
    cross_region_state: Considered
    """What state lies in which region."""
    provider_incompatibility: Considered
    """What another provider would do differently."""
    trace_correlation: Considered
    """How what happened there is found from here."""


class Location(Config):
    """Where something lives."""

    place: Name
    """Which part, on whose machines."""
    region: Name
    """In which region, in the words of the route table."""


class Locations(Config):
    """Where the four parts of the route live."""

    control: Location
    """Who decides: policy, routing, approvals."""
    execution: Location
    """Who computes the answer; its region is the route's."""
    data: Location
    """Where texts rest."""
    evidence: Location
    """Where the account of it rests."""


class ArtifactPin(Config):
    """The model that was reviewed: by digest, or by the provider's word where its weights cannot be seen."""

    name: Name
    """The model's name in the route table."""
    digest: Digest | None = None
    """SHA-256 of the weights' file; a local route needs it."""
    version: Name | None = None
    """What the provider calls this version; nobody here can check it."""
    no_digest_because: Sentence | None = None
    """Why there is no digest; needed where there is none."""

    @model_validator(mode="after")
    def _honest(self) -> Self:
        if self.digest is None and (self.version is None or self.no_digest_because is None):
            raise ValueError("pins nothing: give `digest`, or else `version` and `no_digest_because`")
        if self.digest is not None and self.no_digest_because is not None:
            raise ValueError("has a digest and says why it has none: leave one of the two out")
        return self


class RuntimePin(Config):
    """What runs the model."""

    name: Name
    """The server, the engine or the protocol."""
    version: Name
    """Its version."""
    digest: Digest | None = None
    """Its digest, where it is a file or an image of ours."""


class Pins(Config):
    """What was reviewed, so that a change needs another review."""

    artifact: ArtifactPin
    """The model."""
    runtime: RuntimePin
    """What runs it."""
    policy: Annotated[tuple[Digest, ...], Field(min_length=1), AfterValidator(_once)]
    """Policies that were reviewed for this route, the newest first; rolling back to one of them needs no review."""
    price: Digest
    """Digest of the route's price and limits."""


class Assumed(Config):
    """A number that was assumed."""

    value: float = Field(ge=0, strict=True)
    """The number."""
    tolerance_percent: float = Field(ge=0, le=100, strict=True)
    """By how much what is measured may exceed it."""

    @property
    def limit(self) -> float:
        """The most that is still within the assumption."""
        return self.value * (1 + self.tolerance_percent / 100)


class Cost(Config):
    """What it is assumed to cost, in US dollars."""

    usd_per_request: Assumed
    """The dearest request."""
    usd_per_month: Assumed
    """The dearest calendar month (UTC)."""


class Capacity(Config):
    """How much is assumed to be asked of it, by all workers together."""

    requests_per_minute: Assumed
    """Calls begun in the busiest minute."""
    in_flight: Assumed
    """Calls at the same time."""


class Latency(Config):
    """How long its answers are assumed to take, in milliseconds."""

    p50_ms: Assumed
    """Half of them at most."""
    p95_ms: Assumed
    """All but one in twenty at most."""


class Assumptions(Config):
    """Numbers that the decision rests on; `waybill decisions drift` compares them with evidence."""

    cost: Cost
    """What it costs."""
    capacity: Capacity
    """How much of it there is."""
    latency: Latency
    """How fast it is."""

    @model_validator(mode="after")
    def _agree(self) -> Self:
        cost, latency = self.cost, self.latency
        if cost.usd_per_month.value < cost.usd_per_request.value:
            raise ValueError("cost.usd_per_month is less than cost.usd_per_request: correct one of them")
        if latency.p95_ms.value < latency.p50_ms.value:
            raise ValueError("latency.p95_ms is less than latency.p50_ms: correct one of them")
        rate, flight = self.capacity.requests_per_minute.value, self.capacity.in_flight.value
        if not rate or not flight or not latency.p50_ms.value:
            raise ValueError("requests_per_minute, in_flight and p50_ms must be above zero")
        needed = rate / 60_000 * latency.p50_ms.value  # as many are in flight as begin while one is answered
        if needed > flight:
            raise ValueError(
                f"{rate:g} requests a minute of {latency.p50_ms.value:g} ms each are {needed:.3g} at the same time, "
                f"and in_flight is {flight:g}: correct one of the three"
            )
        return self


class DecisionRecord(Config):
    """Why one route may exist."""

    version: Literal[1]
    """Version of the file's form."""
    route: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")]
    """The route; the file is called the same."""
    title: Sentence
    """The decision in one sentence."""
    status: Literal["proposed", "accepted", "withdrawn"]
    """Only under an accepted one a route starts."""
    owner: Name
    """Who answers for it and reviews it."""
    decided: Day
    """When it was decided."""
    review_by: Day
    """The last day on which the route starts without another review."""
    questions: Questions
    """The six placement questions."""
    locations: Locations
    """Where control, execution, data and evidence live."""
    pins: Pins
    """What exactly was reviewed."""
    assumptions: Assumptions
    """What cost, capacity and latency are taken to be."""

    @field_validator("review_by")
    @classmethod
    def _reviewed(cls, review_by: date, info: ValidationInfo) -> date:
        decided = info.data.get("decided")
        days = (review_by - decided).days if decided else 1
        if days <= 0:
            raise ValueError(f"must lie after the day of the decision, {decided}")
        if days > LONGEST_REVIEW_DAYS:
            raise ValueError(f"{days} days after the decision are no review: at most {LONGEST_REVIEW_DAYS}")
        return review_by
