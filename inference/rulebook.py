"""The rulebook: all files that decide, read together, checked against each other, and known by one version.

Labels, policies, retention rules and routes only make sense together. A rulebook is whole or it is not made; who
decides holds one, and a new one takes its place at once (`Shelf`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from evidence.canonical import sha256_hex
from evidence.records import Placement
from inference import routes as route_files
from inference.routes import Endpoint, RouteConfig, RouteTable
from policy import cedar, labels, retention
from policy.cedar import Source
from policy.engine import Engine
from policy.files import Document, read_text
from policy.labels import Labels
from policy.questions import RouteFacts
from policy.retention import RetentionRules

LABELS: Final = "labels.yaml"
RETENTION: Final = "retention.yaml"


@dataclass(frozen=True, slots=True)
class Texts:
    """The files of a rulebook as text, before anything is made of them."""

    labels: Source
    """`labels.yaml`."""

    retention: Source
    """`retention.yaml`."""

    policies: tuple[Source, ...]
    """The built-in policies, and every `*.cedar` file."""

    routes: Source
    """The route table."""

    @property
    def policy_digest(self) -> str:
        """Digest of everything but the routes, as `sha256:<hex>`: what a decision record pins as its policy."""
        parts = [self.labels.text, self.retention.text, *(source.text for source in self.policies)]
        return "sha256:" + sha256_hex("\x00".join(parts).encode())

    @property
    def version(self) -> str:
        """Digest of all of it, 16 hex digits: every decision carries it."""
        return sha256_hex(f"{self.policy_digest}\x00{self.routes.text}".encode())[:16]


@dataclass(frozen=True, slots=True)
class Rulebook:
    """Everything that decides."""

    version: str
    """Which rulebook this is."""

    policy_digest: str
    """Digest of its policies, labels and retention rules."""

    labels: Labels
    """How sensitive data is."""

    table: RouteTable
    """Who may answer what."""

    engine: Engine
    """What may happen."""

    retention: RetentionRules
    """How long what may be kept."""

    endpoints: Mapping[str, Endpoint]
    """Where routes lead."""

    facts: Mapping[str, RouteFacts]
    """Routes as policy sees them, by name."""

    fallbacks: Mapping[str, tuple[RouteConfig, ...]]
    """What stays within the grant of each route, by name."""


class Shelf:
    """Holds the rulebook in force."""

    def __init__(self, current: Rulebook) -> None:
        self.current = current


def read(policy: Path, routes: Path) -> Texts:
    """Read the files of a rulebook.

    Raises:
        ConfigError: one cannot be read.
    """
    return Texts(
        labels=Source(str(policy / LABELS), read_text(policy / LABELS, "list of labels")),
        retention=Source(str(policy / RETENTION), read_text(policy / RETENTION, "list of retention rules")),
        policies=cedar.read(policy),
        routes=Source(str(routes), read_text(routes, "route table")),
    )


def compile_texts(texts: Texts, endpoints: Mapping[str, Endpoint]) -> Rulebook:
    """Make a rulebook, or say everything that is wrong with the first file that is.

    Raises:
        ConfigError: a file is wrong, or two of them do not fit; the text names file, line and field.
    """
    made = labels.parse(Document(texts.labels.text, texts.labels.name))
    document = Document(texts.routes.text, texts.routes.name)
    table = route_files.parse(document, made)
    facts: dict[str, RouteFacts] = {}
    for number, route in enumerate(table.routes):
        endpoint = endpoints.get(route.endpoint)
        if endpoint is None:
            known = ", ".join(sorted(endpoints)) or "there is none"
            message = (
                f"endpoint {route.endpoint} is not set ({known}): set WAYBILL_ENDPOINTS__"
                f"{route.endpoint.upper()}__KIND and what that kind needs"
            )
            raise document.error(("routes", number, "endpoint"), message)
        facts[route.name] = _facts(route, endpoint, made)
    rules = retention.parse(
        Document(texts.retention.text, texts.retention.name),
        classes=made.classes,
        categories=made.config.categories,
        purposes=made.config.purposes,
    )
    return Rulebook(
        version=texts.version,
        policy_digest=texts.policy_digest,
        labels=made,
        table=table,
        engine=Engine(texts.policies, made, facts.values()),
        retention=rules,
        endpoints=endpoints,
        facts=facts,
        fallbacks=_fallbacks(table, facts, document),
    )


def load(policy: Path, routes: Path, endpoints: Mapping[str, Endpoint]) -> Rulebook:
    """Read a rulebook from its files.

    Raises:
        ConfigError: as `read` and `compile_texts`.
    """
    return compile_texts(read(policy, routes), endpoints)


def _facts(route: RouteConfig, endpoint: Endpoint, made: Labels) -> RouteFacts:
    hosted = route.placement is Placement.HOSTED
    return RouteFacts(
        name=route.name,
        placement="hosted" if hosted else "local",
        provider=endpoint.provider,
        region=route.region,
        model=route.model,
        retention_days=route.retention_days,
        encryption=endpoint.encryption,
        classes=frozenset(
            cls for cls in route.classes if not hosted or _handled(made, cls, route.retention_days, endpoint)
        ),
    )


def _handled(made: Labels, cls: str, days: int, endpoint: Endpoint) -> bool:
    handling = made.handling[cls]
    return handling.hosted and endpoint.encryption in handling.encryption and days <= handling.destination_days


def _fallbacks(
    table: RouteTable, facts: Mapping[str, RouteFacts], document: Document
) -> dict[str, tuple[RouteConfig, ...]]:
    found: dict[str, tuple[RouteConfig, ...]] = {}
    for number, route in enumerate(table.routes):
        kept = []
        for place, other in enumerate(route_files.fallbacks(route, table)):
            weaker = facts[other.name].encryption == "none" != facts[route.name].encryption
            if not weaker or other.placement is Placement.LOCAL:
                kept.append(other)
            elif route.fallback is not None:
                message = f"route {route.name}: fallback {other.name} would widen `encryption`"
                raise document.error(("routes", number, "fallback", place), message)
        found[route.name] = tuple(kept)
    return found
