"""The route table: who may answer what, read once from YAML and validated whole.

Default deny: a request that no route's row allows is not answered. A typo is an error at start, never a default.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import IntEnum
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Final, Literal, TypeVar

import yaml
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from evidence.canonical import sha256_hex
from evidence.errors import ConfigError
from evidence.records import Placement, RouteRef, ShortText
from policy.contract import STOP
from policy.kinds import Category
from policy.labels import DataClass

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


class _Config(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class PriceConfig(_Config):
    """What a route costs, in US dollars per million tokens."""

    input_per_million_usd: float = Field(ge=0)
    """For tokens read."""
    output_per_million_usd: float = Field(ge=0)
    """For tokens generated."""

    def cost(self, input_tokens: int, output_tokens: int) -> float:
        """Give the price of one answer, in US dollars."""
        return (input_tokens * self.input_per_million_usd + output_tokens * self.output_per_million_usd) / 1_000_000


class AnswerConfig(_Config):
    """What may not be kept of an answer that comes back on this route."""

    forbid: Annotated[tuple[Category, ...], AfterValidator(_each_once)] = ()
    """Categories of findings (`personal`, `financial`, `secret`) that are removed before anything is written."""
    action: Literal["mask", "drop", "refuse"] = "mask"
    """What happens to them: a placeholder, nothing in their place, or no answer at all."""


class RouteConfig(_Config):
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
    classes: Annotated[tuple[DataClass, ...], AfterValidator(_each_once)] = Field(min_length=1)
    """Classes of data that may go there."""
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
    fallback: Names = ()
    """Routes that may be tried next, in order; none may widen what this one was granted."""
    on_ambiguous: Literal["stop", "resend"] = "stop"
    """Where a call may have been accepted and its answer is lost: end as `unknown`, or accept a second disclosure."""

    def ref(self, provider: str) -> RouteRef:
        """Give the route's form in evidence."""
        return RouteRef(
            name=self.name, placement=self.placement, provider=provider, model=self.model, region=self.region
        )


class RouteTable(_Config):
    """All routes, in order of preference."""

    version: Literal[1]
    """Version of the file's form."""
    policy_id: ShortText
    """Name of this policy; it is in every decision."""
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


def load(path: Path) -> RouteTable:
    """Read a route table.

    Raises:
        ConfigError: the file cannot be read, is not YAML, or breaks a rule; the text names file and field.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"cannot read the route table {path}: {error.strerror}") from error
    return parse(text, source=str(path))


def parse(text: str, *, source: str) -> RouteTable:
    """Read a route table from YAML text; `source` is what errors call it.

    Raises:
        ConfigError: as `load`.
    """
    try:
        content = yaml.load(text, Loader=_StrictLoader)  # noqa: S506 - a SafeLoader that also refuses a key given twice
    except yaml.YAMLError as error:
        raise ConfigError(f"{source} is not YAML: {error}") from error
    try:
        table = RouteTable.model_validate(content)
    except ValidationError as error:
        lines = [f"  {'.'.join(map(str, item['loc'])) or '(top)'}: {item['msg']}" for item in error.errors()]
        raise ConfigError("\n".join([f"{source} is no route table:", *lines])) from error
    _check(table, source)
    return table


def _check(table: RouteTable, source: str) -> None:
    names = [route.name for route in table.routes]
    if len(set(names)) != len(names):
        raise ConfigError(f"{source}: two routes have the same name")
    if STOP in names:
        raise ConfigError(f"{source}: no route can be called `{STOP}`; in a waybill that means: try nothing else")
    for route in table.routes:
        for name in route.fallback:
            if name not in table.by_name or name == route.name:
                raise ConfigError(f"{source}: route {route.name}: fallback {name} is no other route of this table")
            field = widens(route, table.by_name[name])
            if field:
                raise ConfigError(
                    f"{source}: route {route.name}: fallback {name} would widen `{field}`; a fallback may only stay "
                    "within what the first route was granted"
                )


_SEVERITY: Final = {"mask": 0, "drop": 1, "refuse": 2}
"""How little of an answer an action leaves."""


def widens(granted: RouteConfig, other: RouteConfig) -> str | None:
    """Name the first field in which `other` exposes more than was granted, or None where it stays within.

    A local route exposes nothing, so that it is always within a grant as far as exposure goes.
    """
    if other.placement is Placement.LOCAL:
        return None
    if granted.placement is Placement.LOCAL:
        return "placement"
    if other.region != granted.region:
        return "region"
    if other.retention_days > granted.retention_days:
        return "retention_days"
    if not set(granted.answer.forbid) <= set(other.answer.forbid):
        return "answer.forbid"
    if granted.answer.forbid and _SEVERITY[other.answer.action] < _SEVERITY[granted.answer.action]:
        return "answer.action"
    if (granted.on_ambiguous, other.on_ambiguous) == ("stop", "resend"):
        return "on_ambiguous"
    if not set(other.classes) <= set(granted.classes):
        return "classes"
    if ANY not in granted.purposes and not set(other.purposes) <= set(granted.purposes):
        return "purposes"
    return None


class _StrictLoader(yaml.SafeLoader):
    """YAML's safe subset, in which a key that is given twice is an error."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:  # noqa: FBT001, FBT002 - the library's signature
        seen: set[Any] = set()
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=True)
            if not isinstance(key, str):
                raise yaml.constructor.ConstructorError(None, None, "a key must be a word", key_node.start_mark)
            if key in seen:
                raise yaml.constructor.ConstructorError(
                    None, None, f"the key {key!r} is given twice", key_node.start_mark
                )
            seen.add(key)
        return super().construct_mapping(node, deep=deep)
