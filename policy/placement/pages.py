"""A decision record as a page in Markdown: everything that the file says, for those who do not read YAML."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Final

from policy.placement.form import ArtifactPin, Assumed, Considered, DecisionRecord, Location, RuntimePin

QUESTIONS: Final[Mapping[str, str]] = {
    "data_classification": "Data classification",
    "route_transparency": "Route transparency",
    "offline_fallback": "Offline fallback",
    "cross_region_state": "Cross-region state",
    "provider_incompatibility": "Provider incompatibility",
    "trace_correlation": "Trace correlation",
}
"""The six placement questions, as people call them."""

ANSWERS: Final[Mapping[str, str]] = {
    "constraint": "Constraint",
    "assumption": "Assumption",
    "trade_off": "Accepted trade-off",
}
"""What is answered to each."""

NUMBERS: Final[Mapping[str, tuple[str, str]]] = {
    "cost.usd_per_request": ("Cost of one request, at most", "USD"),
    "cost.usd_per_month": ("Cost of a calendar month, at most", "USD"),
    "capacity.requests_per_minute": ("Requests in the busiest minute", ""),
    "capacity.in_flight": ("Requests at the same time", ""),
    "latency.p50_ms": ("Latency, median", "ms"),
    "latency.p95_ms": ("Latency, 95th percentile", "ms"),
}
"""The numbers that are assumed, by their place, with their units."""


def questions(record: DecisionRecord) -> dict[str, Considered]:
    """Give the answers to the six questions by the questions' titles."""
    return {title: getattr(record.questions, name) for name, title in QUESTIONS.items()}


def locations(record: DecisionRecord) -> dict[str, Location]:
    """Give the four locations by what lives there."""
    return {name.capitalize(): getattr(record.locations, name) for name in type(record.locations).model_fields}


def assumptions(record: DecisionRecord) -> dict[str, Assumed]:
    """Give what is assumed by its place, such as `cost.usd_per_month`."""
    found: dict[str, Assumed] = {}
    for place in NUMBERS:
        group, _, name = place.partition(".")
        found[place] = getattr(getattr(record.assumptions, group), name)
    return found


def pins(record: DecisionRecord) -> list[tuple[str, str, str]]:
    """Give what was pinned: what it is, its name and version, its digest or why there is none."""
    pinned = record.pins
    policies = [
        ("Policy" if not number else "Policy before", "", digest) for number, digest in enumerate(pinned.policy)
    ]
    return [
        ("Artifact", _named(pinned.artifact), pinned.artifact.digest or f"none: {pinned.artifact.no_digest_because}"),
        ("Runtime", _named(pinned.runtime), pinned.runtime.digest or "none"),
        *policies,
        ("Price and limits", "", pinned.price),
    ]


def number(place: str, value: float) -> str:
    """Give a number with the unit of its place, such as `0.002 USD`; dollars to the millionth, the rest to a tenth."""
    unit = NUMBERS[place][1]
    shown = f"{value:,.{6 if unit == 'USD' else 1}f}".rstrip("0").rstrip(".")
    return f"{shown} {unit}".strip()


def markdown(record: DecisionRecord) -> str:
    """Give the whole record as a page."""
    return "\n".join(_lines(record)) + "\n"


def _lines(record: DecisionRecord) -> Iterator[str]:
    yield from (f"# Runtime decision record: {record.route}", "", _text(record.title), "")
    yield from _table(("", ""), ("Status", record.status), ("Owner", record.owner), ("Decided", str(record.decided)),
                      ("Review by", str(record.review_by)), ("Form", str(record.version)))  # fmt: skip
    yield from ("", "## Placement questions", "")
    for title, answered in questions(record).items():
        yield from (f"### {title}", "")
        yield from (f"- **{name}.** {_text(getattr(answered, field))}" for field, name in ANSWERS.items())
        yield ""
    yield from ("## Where it lives", "")
    yield from _table(
        ("what", "where", "region"),
        *((what, place.place, place.region) for what, place in locations(record).items()),
    )
    yield from ("", "## What was reviewed", "")
    yield from _table(("what", "name and version", "digest"), *pins(record))
    yield from ("", "## What is assumed", "")
    yield from _table(
        ("what", "value", "tolerance"),
        *(
            (NUMBERS[place][0], number(place, assumed.value), f"{assumed.tolerance_percent:g} %")
            for place, assumed in assumptions(record).items()
        ),
    )


def _named(pin: ArtifactPin | RuntimePin) -> str:
    return f"{pin.name}, {pin.version}" if pin.version else pin.name


def _table(*rows: tuple[str, ...]) -> Iterator[str]:
    for position, row in enumerate(rows):
        yield "| " + " | ".join(_text(cell).replace("|", "\\|") for cell in row) + " |"
        if not position:
            yield "| " + " | ".join("---" for _ in row) + " |"


def _text(value: str) -> str:
    # What people write may hold a line break, or a sign that Markdown would take for HTML.
    return " ".join(value.split()).replace("&", "&amp;").replace("<", "&lt;")
