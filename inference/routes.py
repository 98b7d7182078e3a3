"""The route table: who may answer what, read once from YAML and validated whole.

Default deny: a request that no route's row allows is not answered. A typo is an error at start, never a default.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import IntEnum
from functools import cached_property
from pathlib import Path
from typing import Annotated, Final, Literal, TypeVar

from pydantic import AfterValidator, Field

from evidence.canonical import sha256_hex
from evidence.records import Placement, RouteRef, ShortText
from policy.contract import STOP, WAYBILL_VERSION
from policy.detection.kinds import Category
from policy.files import Config, Document, read
from policy.labels import Encryption, Labels, Word

ANY = "*"
"""In a list of capabilities or purposes: whatever is asked."""


class Risk(IntEnum):
    """How much harm a wrong answer can do, as the application rates its request."""

    LOW = 0
    MEDIUM = 1
    HIGH = 2


RiskName = Literal["low", "medium", "high"]
Name = TypeVar("Name", bound=str)


def risk_of(name: RiskName) -> Risk:
    """Give the rank of a risk's name."""
    return Risk[name.upper()]


def _each_once(values: tuple[Name, ...]) -> tuple[Name, ...]:
    if len(set(values)) != len(values):
        raise ValueError("names something twice")
    return values


Names = Annotated[tuple[ShortText, ...], AfterValidator(_each_once)]


@dataclass(frozen=True, slots=True)
class Endpoint:
    """What routing must know of an endpoint."""

    name: str
    """Its name in the settings."""

    provider: str
    """Who runs it."""

    encryption: Encryption
    """How the way to it is protected."""

    audience: str = ""
    """For whom its tokens are made."""


Price = Annotated[float, Field(ge=0, le=1_000_000, allow_inf_nan=False)]
"""US dollars for a million tokens."""


class PriceConfig(Config):
    """What a route costs, in US dollars per million tokens."""

    input_per_million_usd: Price
    """For tokens read."""
    output_per_million_usd: Price
    """For tokens generated."""
    cached_input_per_million_usd: Price | None = None
    """For tokens read that came from a cache; the price of tokens read if absent."""
    reasoning_per_million_usd: Price | None = None
    """For tokens generated that are no part of the answer's text; the price of tokens generated if absent."""

    def cost(self, input_tokens: int, output_tokens: int, *, cached: int = 0, reasoning: int = 0) -> float:
        """Return the price of one answer in US dollars.

        Args:
            input_tokens: tokens read.
            output_tokens: tokens generated.
            cached: tokens among those read that came from a cache.
            reasoning: tokens among those generated that are no part of the text.
        """
        from_cache, hidden = self.cached_input_per_million_usd, self.reasoning_per_million_usd
        parts = (
            (input_tokens - cached, self.input_per_million_usd),
            (cached, self.input_per_million_usd if from_cache is None else from_cache),
            (output_tokens - reasoning, self.output_per_million_usd),
            (reasoning, self.output_per_million_usd if hidden is None else hidden),
        )
        return sum(count * price for count, price in parts) / 1_000_000


class AnswerConfig(Config):
    """What may not be kept of an answer that comes back on this route."""

    forbid: Annotated[tuple[Category, ...], AfterValidator(_each_once)] = ()
    """Categories of findings (`personal`, `financial`, `secret`) that are removed before anything is written."""
    action: Literal["mask", "drop", "refuse"] = "mask"
    """What happens to them: a placeholder, nothing in their place, or no answer at all."""


ContextLevel = Literal["required", "useful", "all"]
"""How much of a request's context goes along."""


class RouteConfig(Config):
    """One row of the table."""

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")]
    """The route's name; it is in every receipt."""
    placement: Placement
    """Which side of the boundary the model runs on."""
    endpoint: ShortText
    """Name of an endpoint of the settings."""
    model: Annotated[str, Field(min_length=1, max_length=190)]
    """The model's name as the endpoint knows it; a waybill names `<route>/<model>`."""
    region: ShortText
    """Where the data is processed."""
    capabilities: Names = Field(min_length=1)
    """Task types that it serves; `*` for any."""
    classes: Annotated[tuple[Word, ...], AfterValidator(_each_once)] = Field(min_length=1)
    """Classes of data that may go there; with a class, all lower ones."""
    purposes: Names = Field(min_length=1)
    """Purposes that it serves; `*` for any."""
    max_risk: RiskName = "medium"
    """Highest risk level that it serves."""
    max_tokens: int = Field(ge=1)
    """Upper bound of generated tokens for one request."""
    timeout_s: float = Field(gt=0, le=3600)
    """Seconds until a call is given up."""
    retention_days: int = Field(default=0, ge=0)
    """Days that the destination keeps what it is sent."""
    price: PriceConfig
    """What it costs."""
    answer: AnswerConfig = AnswerConfig()
    """What may not be kept of its answers."""
    contract: ShortText | None = None
    """Version of the waybill that a hosted route goes by; another one than the program's stops every crossing."""
    context: ContextLevel = "required"
    """Which sources of a request go along: those that it requires, those that are useful too, or all."""
    fallback: Names | None = None
    """Narrows which routes may be tried next, and in which order; left out, all that stay within the grant."""
    on_ambiguous: Literal["stop", "resend"] = "stop"
    """Where a call may have been accepted and its answer is lost: end as `unknown`, or accept a second disclosure."""

    def ref(self, provider: str) -> RouteRef:
        """Give the route's form in evidence."""
        return RouteRef(
            name=self.name, placement=self.placement, provider=provider, model=self.model, region=self.region
        )


class RouteTable(Config):
    """All routes, in order of preference."""

    version: Literal[1]
    """Version of the file's form."""
    policy_id: ShortText
    """Name of this policy; it is in every decision."""
    review_path: ShortText | None = None
    """Who is asked where a decision is disputed, such as an address or a page."""
    routes: tuple[RouteConfig, ...] = Field(min_length=1)
    """First match wins."""

    @cached_property
    def by_name(self) -> Mapping[str, RouteConfig]:
        """Routes by their names."""
        return {route.name: route for route in self.routes}

    @cached_property
    def policy_version(self) -> str:
        """Digest of the table, 16 hex digits: two tables that differ in a field differ in it."""
        return sha256_hex(self.model_dump_json().encode())[:16]


def load(path: Path, labels: Labels | None = None) -> RouteTable:
    """Read a route table.

    Args:
        path: the file.
        labels: the deployment's labels, where the table is to be checked against them.

    Raises:
        ConfigError: the file cannot be read, is not YAML, or breaks a rule; the text names file, line and field.
    """
    return parse(read(path, "route table"), labels)


def parse(document: Document, labels: Labels | None = None) -> RouteTable:
    """Read a route table from a document.

    Raises:
        ConfigError: as `load`.
    """
    table = document.parse(RouteTable, "route table")
    _check(table, document)
    if labels is not None:
        _check_labels(table, labels, document)
    return table


def _check(table: RouteTable, document: Document) -> None:
    names: dict[str, int] = {}
    for number, route in enumerate(table.routes):
        if route.name in names:
            raise document.error(("routes", number, "name"), f"another route is called {route.name} too")
        names[route.name] = number
        if route.name == STOP:
            message = f"no route can be called `{STOP}`; in a waybill that means: try nothing else"
            raise document.error(("routes", number, "name"), message)
        if route.placement is Placement.HOSTED and route.contract is None:
            message = f"a hosted route says by which version of the waybill it goes: contract: '{WAYBILL_VERSION}'"
            raise document.error(("routes", number), message)
    for number, route in enumerate(table.routes):
        for place, name in enumerate(route.fallback or ()):
            where = ("routes", number, "fallback", place)
            if name not in names or name == route.name:
                raise document.error(where, f"route {route.name}: fallback {name} is no other route of this table")
            field = widens(route, table.by_name[name])
            if field:
                message = (
                    f"route {route.name}: fallback {name} would widen `{field}`; a fallback may only stay within what "
                    "the first route was granted"
                )
                raise document.error(where, message)


def _check_labels(table: RouteTable, labels: Labels, document: Document) -> None:
    known = labels.config
    lists = {"classes": labels.classes, "purposes": known.purposes, "capabilities": known.task_types}
    for number, route in enumerate(table.routes):
        for field, words in lists.items():
            for place, name in enumerate(getattr(route, field)):
                if words is not None and name not in words and name != ANY:
                    message = f"{name} is none of the labels; they are {', '.join(words)}"
                    raise document.error(("routes", number, field, place), message)
        missing = [cls for cls in labels.up_to(labels.join(route.classes)) if cls not in route.classes]
        if missing:
            message = f"{missing[0]} is missing: where a class may go, every less sensitive one may go too"
            raise document.error(("routes", number, "classes"), message)


_SEVERITY: Final = {"mask": 0, "drop": 1, "refuse": 2}
"""How little of an answer an action leaves."""


def widens(granted: RouteConfig, other: RouteConfig) -> str | None:
    """Name the first field in which `other` exposes more than was granted, or None where it stays within.

    A local route exposes nothing, so that it is always within a grant as far as exposure goes; and whatever route
    answers, its answer is filtered by the rule of the first one too.
    """
    if other.placement is Placement.LOCAL:
        return None
    return next((field for field, wider in _WIDER.items() if wider(granted, other)), None)


_LEVELS: Final[tuple[ContextLevel, ...]] = ("required", "useful", "all")

_WIDER: Final[Mapping[str, Callable[[RouteConfig, RouteConfig], bool]]] = {
    "placement": lambda granted, _: granted.placement is Placement.LOCAL,
    "region": lambda granted, other: other.region != granted.region,
    "retention_days": lambda granted, other: other.retention_days > granted.retention_days,
    "answer.forbid": lambda granted, other: not set(granted.answer.forbid) <= set(other.answer.forbid),
    "answer.action": lambda granted, other: (
        bool(granted.answer.forbid) and _SEVERITY[other.answer.action] < _SEVERITY[granted.answer.action]
    ),
    "on_ambiguous": lambda granted, other: (granted.on_ambiguous, other.on_ambiguous) == ("stop", "resend"),
    "contract": lambda granted, other: other.contract != granted.contract,
    "context": lambda granted, other: _LEVELS.index(other.context) > _LEVELS.index(granted.context),
    "classes": lambda granted, other: not set(other.classes) <= set(granted.classes),
    "purposes": lambda granted, other: ANY not in granted.purposes and not set(other.purposes) <= set(granted.purposes),
}
"""For each field of a route: whether the other one exposes more in it."""


def fallbacks(granted: RouteConfig, table: RouteTable) -> tuple[RouteConfig, ...]:
    """Give the routes that stay within what a route was granted, in the order in which they may be tried."""
    if granted.fallback is not None:
        return tuple(table.by_name[name] for name in granted.fallback)
    return tuple(route for route in table.routes if route is not granted and widens(granted, route) is None)
