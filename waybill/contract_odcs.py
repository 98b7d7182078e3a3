"""Contracts of hosted routes in Open Data Contract Standard form, version 3.1.0.

A contract says what crosses on a route, how sensitive it may be, how long the destination may keep it and what it may
be used for. All of it is taken from the route table and from the records themselves. Sections of the standard for which
there are no facts (team, roles) are left out.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Final
from urllib.parse import urlsplit, urlunsplit

from pydantic.alias_generators import to_camel

from evidence.errors import ConfigError
from evidence.records import Placement
from inference.backend import Completion, ModelCall
from inference.routes import ANY, RouteConfig, RouteTable, fallbacks
from policy.contract import STOP, WAYBILL_VERSION, Waybill
from waybill.contract_forms import Content, schemas
from waybill.endpoints import EndpointConfig
from waybill.schemas import field_docs

API_VERSION: Final = "v3.1.0"
"""Version of the standard."""

SUFFIX: Final = ".odcs.yaml"
"""How the files of contracts end."""

_CROSSING: Final[dict[str, type]] = {"waybill": Waybill, "call": ModelCall, "answer": Completion}
"""What a contract is about: what travels with a crossing, what is sent, and what comes back."""

_TEXT: Final = "call.messages.content"
"""The element that holds the user's data."""

_SAID_ELSEWHERE: Final = frozenset({"name", "contract", "timeout_s", "retention_days"})
"""Fields of a route that have a place of their own in the standard."""

_LOGICAL: Final = {"date-time": "timestamp", "date": "date", "time": "time"}
_OPTIONS: Final = {
    "string": ("minLength", "maxLength", "pattern"),
    "integer": ("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf"),
    "number": ("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf"),
    "array": ("minItems", "maxItems", "uniqueItems"),
}
"""Constraints that JSON Schema and the standard call by the same names, by logical type."""


@dataclass(frozen=True, slots=True)
class Terms:
    """What holds for the values of one contract."""

    lowest: str
    """Class of what cannot hold anybody's words: numbers, times and words of a closed list."""

    highest: str
    """The most sensitive class that may cross: that of any text."""

    credential: str
    """Class of a credential: the most sensitive one that there is."""

    allowed: dict[str, list[Any]] = field(default_factory=dict)
    """Values that an element may have on this route, by its path."""

    bounds: dict[str, Content] = field(default_factory=dict)
    """Bounds of an element on this route, by its path."""


def version_of(route: RouteConfig) -> str:
    """Give the version of a route's contract."""
    return route.contract or WAYBILL_VERSION


def contract(
    route: RouteConfig, table: RouteTable, classes: Sequence[str], endpoint: EndpointConfig | None = None
) -> Content:
    """Write the contract of one hosted route.

    Args:
        route: the route.
        table: the table that it is a row of.
        classes: all classes of data, the least sensitive first.
        endpoint: where the route leads, as far as the settings say so.

    Raises:
        ValueError: the route is local: nothing crosses.
        ConfigError: it takes a class that is none of them.
    """
    if route.placement is not Placement.HOSTED:
        raise ValueError(f"route {route.name} is local and has no contract")
    taken = [name for name in classes if name in route.classes]
    if len(taken) != len(route.classes):
        raise ConfigError(f"route {route.name} takes a class that is not among the labels: {', '.join(classes)}")
    onward = [other.name for other in fallbacks(route, table)]
    terms = Terms(
        lowest=taken[0],
        highest=taken[-1],
        credential=classes[-1],
        allowed=_allowed(route, table, taken, endpoint),
        bounds=_bounds(route),
    )
    return {
        "apiVersion": API_VERSION,
        "kind": "DataContract",
        "id": f"urn:waybill:contract:{route.name}",
        "name": route.name,
        "version": version_of(route),
        "status": "active",
        "domain": "ai-requests",
        "description": _description(route, taken, onward),
        "servers": [_server(route, endpoint)],
        "schema": list(_objects(terms)),
        **_support(table),
        "price": {
            "priceAmount": route.price.input_per_million_usd,
            "priceCurrency": "USD",
            "priceUnit": "million tokens read",
        },
        "slaProperties": _service_levels(route),
        "customProperties": list(_further(route, table, onward)),
    }


def _allowed(
    route: RouteConfig, table: RouteTable, taken: list[str], endpoint: EndpointConfig | None
) -> dict[str, list[Any]]:
    allowed: dict[str, list[Any]] = {
        "waybill.waybillVersion": [version_of(route)],
        "waybill.dataClassification": taken,
        "waybill.destination.endpoint": [route.endpoint],
        "waybill.destination.region": [route.region],
        "waybill.modelRoute": [f"{route.name}/{route.model}"],
        "waybill.fallback": [*_within_grants(route, table), STOP],
        "call.model": [route.model],
    }
    if ANY not in route.purposes:
        allowed["waybill.purpose"] = list(route.purposes)
    if endpoint is not None:
        described = endpoint.described(route.endpoint)
        allowed["waybill.destination.provider"] = [described.provider]
        allowed["waybill.encryption"] = [described.encryption]
    return allowed


def _within_grants(route: RouteConfig, table: RouteTable) -> list[str]:
    """Name the routes that may be tried after this one: within its own grant, or within one that it stands in for."""
    grants = [(granted, fallbacks(granted, table)) for granted in table.routes]
    found = {other.name for granted, others in grants if route is granted or route in others for other in others}
    return [other.name for other in table.routes if other.name in found and other is not route]


def _bounds(route: RouteConfig) -> dict[str, Content]:
    return {
        "waybill.retention.destinationDays": {"maximum": route.retention_days},
        "call.max_tokens": {"minimum": 1, "maximum": route.max_tokens},
        "call.timeout_s": {"maximum": route.timeout_s},
    }


def _description(route: RouteConfig, taken: list[str], onward: list[str]) -> Content:
    kept = "nothing of it" if route.retention_days == 0 else f"it for {route.retention_days} days at most"
    forbidden = " or ".join(route.answer.forbid)
    filtered = (
        f"Of an answer, what is {forbidden} is treated by the rule `{route.answer.action}` before anything is written."
        if route.answer.forbid
        else "Nothing is taken out of an answer by this contract."
    )
    then = f"{', '.join(onward)} may be tried next" if onward else "nothing else is tried"
    return {
        "purpose": f"Task types: {_some(route.capabilities)}. Purposes: {_some(route.purposes)}. "
        f"The model is {route.model}.",
        "limitations": f"Data of these classes at most, where policy permits it: {', '.join(taken)}. "
        f"It is processed in {route.region}, and the destination keeps {kept}. "
        f"The risk of a request is {route.max_risk} at most. {filtered}",
        "usage": "Every crossing carries a waybill that agrees with this contract, and is decided again just before "
        f"it is sent. Where a request provably was not served here, {then}.",
    }


def _some(names: Sequence[str]) -> str:
    return "any" if ANY in names else ", ".join(names)


def _support(table: RouteTable) -> Content:
    if table.review_path is None:
        return {}
    about = field_docs(RouteTable)["review_path"]
    return {"support": [{"channel": table.review_path, "scope": "issues", "description": about}]}


def _server(route: RouteConfig, endpoint: EndpointConfig | None) -> Content:
    if endpoint is None or "://" not in endpoint.url:
        about = f"The endpoint `{route.endpoint}` of the settings; a deployment says where it is."
        return {"server": route.endpoint, "type": "custom", "description": about, "region": route.region}
    described = endpoint.described(route.endpoint)
    told = {
        "provider": described.provider,
        "encryption": described.encryption,
        "region": route.region,
        "authentication": endpoint.auth,
        "audience": endpoint.audience,
    }
    return {
        "server": route.endpoint,
        "type": "api",
        "description": f"The endpoint `{route.endpoint}` of the settings.",
        "location": _address(endpoint.url),
        "customProperties": [{"property": name, "value": value} for name, value in told.items() if value is not None],
    }


def _address(url: str) -> str:
    """Give an address without what may be a credential: login, query and fragment."""
    parts = urlsplit(url)
    return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", ""))


def _service_levels(route: RouteConfig) -> list[Content]:
    return [
        {
            "id": "destination-retention",
            "property": "retention",
            "value": route.retention_days,
            "unit": "d",
            "element": _TEXT,
            "driver": "regulatory",
            "description": field_docs(RouteConfig)["retention_days"],
        },
        {
            "id": "time-limit",
            "property": "latency",
            "value": route.timeout_s,
            "unit": "s",
            "element": "answer.text",
            "driver": "operational",
            "description": field_docs(RouteConfig)["timeout_s"],
        },
    ]


def _further(route: RouteConfig, table: RouteTable, onward: list[str]) -> Iterator[Content]:
    """Give what the standard has no place for: the route's other fields, each with its meaning."""
    yield {"property": "policyId", "value": table.policy_id, "description": field_docs(RouteTable)["policy_id"]}
    for name, value in {**route.model_dump(mode="json"), "fallback": onward}.items():
        if name not in _SAID_ELSEWHERE:
            yield {"property": to_camel(name), "value": value, "description": field_docs(RouteConfig)[name]}


# --- the records as the standard's objects


def _objects(terms: Terms) -> Iterator[Content]:
    made, shared = schemas(_CROSSING, "{model}")
    for name, schema in made.items():
        whole = _resolved(schema, shared)
        yield {
            "id": name,
            "name": name,
            "logicalType": "object",
            "physicalType": "object",
            "description": whole["description"],
            "properties": list(_properties(whole, name, shared, terms)),
        }


def _properties(schema: Content, place: str, shared: dict[str, Content], terms: Terms) -> Iterator[Content]:
    required = schema.get("required", ())
    for name, below in schema["properties"].items():
        made = _element(_resolved(below, shared), f"{place}.{name}", shared, terms)
        yield {"name": name, "required": name in required, **made}


def _element(schema: Content, place: str, shared: dict[str, Content], terms: Terms) -> Content:
    logical = _LOGICAL.get(schema.get("format", ""), schema.get("type"))
    made: Content = {"logicalType": logical} if logical else {}
    inner: Content = {}
    if logical == "array":
        item = _element(_resolved(schema["items"], shared), place, shared, terms)
        inner["items"] = item
        within = [item]
    elif "properties" in schema:
        inner["properties"] = list(_properties(schema, place, shared, terms))
        within = inner["properties"]
    else:
        within = []
    held = {each["classification"] for each in within} or {_class(schema, logical, terms)}
    made["classification"] = next(name for name in (terms.credential, terms.highest, terms.lowest) if name in held)
    if "description" in schema:
        made["description"] = schema["description"]
    options = {name: schema[name] for name in _OPTIONS.get(str(logical), ()) if name in schema}
    if logical in {"integer", "number"}:
        options |= terms.bounds.get(place, {})
    if options:
        made["logicalTypeOptions"] = options
    values = _values(schema, place, terms) if not within else None
    if values:
        made["quality"] = [_one_of(values)]
    return made | inner


def _class(schema: Content, logical: str | None, terms: Terms) -> str:
    if schema.get("format") == "password":
        return terms.credential
    closed = logical not in {"string", "array", "object", None} or "enum" in schema or "const" in schema
    return terms.lowest if closed else terms.highest


def _values(schema: Content, place: str, terms: Terms) -> list[Any] | None:
    """Give the values that an element may have: on this route, or at all."""
    if place in terms.allowed:
        return terms.allowed[place]
    values: list[Any] | None = [schema["const"]] if "const" in schema else schema.get("enum")
    return values


def _one_of(values: list[Any]) -> Content:
    return {"type": "library", "metric": "invalidValues", "arguments": {"validValues": values}, "mustBe": 0}


def _resolved(schema: Content, shared: dict[str, Content]) -> Content:
    """Give a schema in the place of a name for it, and without the variant that says that nothing is there."""
    own = {name: value for name, value in schema.items() if name not in {"$ref", "anyOf", "allOf"}}
    found: Content = shared[schema["$ref"]] if "$ref" in schema else {}
    named: list[Content] = schema.get("anyOf") or schema.get("allOf") or []
    variants = [each for each in named if each.get("type") != "null"]
    if len(variants) == 1:
        found = _resolved(variants[0], shared)
    if "$ref" in found or "anyOf" in found:
        found = _resolved(found, shared)
    return {**found, **own}
