"""Deciding without a worker: what `waybill decide`, `replay` and `policy` ask of a rulebook. Nothing is sent."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import NamedTuple

from evidence.errors import RecordError
from inference import rulebook
from inference.routes import RouteConfig
from inference.rulebook import Rulebook
from policy.questions import Verdict
from queries.decided import Decided
from streams.processors.cases import Case, from_json
from streams.processors.routing import Selection, ask, decide, objects
from waybill.endpoints import EndpointConfig
from waybill.settings import Settings


def assumed(settings: Settings) -> Settings:
    """Give settings in which the endpoints that `waybill dev` would start are there, unless others are set."""
    ours = {
        "local": EndpointConfig(kind="in-process"),
        "hosted": EndpointConfig(kind="openai", url="http://127.0.0.1/v1", provider="stand-in"),
    }
    return settings.model_copy(update={"endpoints": {**ours, **settings.endpoints}})


def book_of(settings: Settings, policy: Path | None = None) -> Rulebook:
    """Read a rulebook: the one in force, or one with the policies of another folder.

    Raises:
        ConfigError: a file is wrong; the text names file, line and field.
    """
    folder = policy or settings.policy_folder()
    return rulebook.load(folder, settings.routes, assumed(settings).described_endpoints())


@dataclass(frozen=True, slots=True)
class Explained:
    """Why one route may or may not serve a request."""

    route: RouteConfig
    """The route."""

    objection: str | None
    """What its row objects to; None where policy was asked."""

    verdict: Verdict | None
    """What policy answered."""

    selection: Selection | None
    """What would go along."""


def explain(case: Case, book: Rulebook) -> tuple[Explained, ...]:
    """Ask about every route, also about those that come after the one that is chosen."""
    found = []
    for route in book.table.routes:
        objection = objects(route, case)
        if objection is not None:
            found.append(Explained(route, objection, None, None))
            continue
        selection, verdict = ask(route, case, book)
        found.append(Explained(route, None, verdict, selection))
    return tuple(found)


class Change(NamedTuple):
    """A request that would be decided differently."""

    request_id: str
    """The application's id."""
    at: datetime
    """When it was decided."""
    before: str
    """What was decided: `<outcome> <route>`."""
    after: str
    """What would be."""
    reasons: tuple[str, ...]
    """Why."""


@dataclass(frozen=True, slots=True)
class Replayed:
    """What another rulebook would have decided."""

    decided: int
    """Decisions that were made again."""
    unreadable: int
    """Decisions whose inputs are not in evidence, or cannot be read."""
    changes: tuple[Change, ...]
    """Those that differ."""
    summary: tuple[tuple[str, str, int], ...]
    """How many changed from what to what, the most frequent first."""


def replay(past: Iterable[Decided], book: Rulebook) -> Replayed:
    """Decide past requests again, from their evidence alone."""
    decided = unreadable = 0
    changes: list[Change] = []
    for one in past:
        try:
            case = from_json(one.inputs or "")
        except RecordError:
            unreadable += 1
            continue
        decided += 1
        after, reasons = _again(case, book)
        before = _told(one.outcome, one.scope.partition(":")[2] if one.scope else "")
        if before != after:
            changes.append(Change(one.request_id, one.at, before, after, reasons))
    counted = Counter((change.before, change.after) for change in changes)
    summary = tuple((before, after, count) for (before, after), count in counted.most_common())
    return Replayed(decided, unreadable, tuple(changes), summary)


def _again(case: Case, book: Rulebook) -> tuple[str, tuple[str, ...]]:
    labels = book.labels
    try:
        for held in (case.held, *(item.held for item in case.items)):
            declared = held.declared
            labels.check_request(
                declared.cls, case.facts.purpose, case.facts.task, declared.categories, declared.regulations
            )
    except RecordError as error:
        return "rejected", (error.code,)
    decision = decide(case, book)
    route = decision.routes[0].name if decision.routes else ""
    return _told(decision.outcome, route), decision.reasons


def _told(outcome: str, route: str) -> str:
    return f"{outcome} {route}".strip()
