"""Classification: what the data of a request is held to be, from what was declared and what was found."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, NamedTuple, Protocol

from evidence.errors import RecordError
from evidence.records import Classification
from policy.detection.detectors import Finding, ScanResult, together
from policy.engine import Held
from policy.labels import Label, Labels
from policy.view import by_part
from streams.memory import Memory
from streams.processors.cases import Item
from streams.request import RuntimeRequest

_GLUE: Final = "\n"

OK: Final = "ok"
FAILED: Final = "failed"
NAMES_FAILED: Final = "names_failed"


class Scanner(Protocol):
    """Finds personal data and secrets in a text."""

    def scan_closed(self, text: str) -> ScanResult:
        """Give what was found; an inner failure is a result, not an exception."""
        ...


class Classified(NamedTuple):
    """What is known of a request's data."""

    classification: Classification
    """As evidence tells it: of everything that came, whether it goes along or not."""

    held: Held
    """The data of the conversation."""

    items: tuple[Item, ...]
    """The sources of context, in order."""

    findings: tuple[Sequence[Finding], ...]
    """What was found in each part of the request, by place."""

    parts: Sequence[str]
    """The parts (`RuntimeRequest.parts`)."""


def whole_text(request: RuntimeRequest) -> str:
    """Return what is scanned of a request: its ids and its parts together, as one pass over the whole is what costs."""
    return _GLUE.join([request.ids(), *request.parts()])


def classify(
    request: RuntimeRequest,
    labels: Labels,
    scanner: Scanner,
    names: Sequence[Sequence[Finding]] | str | None = None,
    scanned: ScanResult | None = None,
) -> Classified:
    """Give the higher of the declared class and what the texts are found to hold.

    Detectors that fail close the way: the data counts as the highest class, and the classification says so.

    Args:
        request: the request; its labels have been checked.
        labels: the lattice.
        scanner: finds what can be told from letters alone.
        names: what the detector of names found in each part; None where it was not asked, and the word that says why
            where it could not answer.
        scanned: what `scanner` found in `whole_text`, where it was asked before.

    Raises:
        RecordError: code `credential_in_id`; an id that evidence would repeat holds a credential.
    """
    parts = request.parts()
    result = scanned or scanner.scan_closed(whole_text(request))
    if result.failed:
        return _closed(request, labels, FAILED, parts)
    if isinstance(names, str):
        return _closed(request, labels, names, parts)
    found: list[Sequence[Finding]] = [()] * len(parts)
    if result.findings:
        in_ids, *rest = by_part([request.ids(), *parts], result.findings)
        found = list(rest)
        if any(finding.category == "secret" for finding in in_ids):
            raise RecordError("credential_in_id", "an id of the request holds a credential: send an id in its place")
    if names is not None:
        found = [together(one, more) if more else one for one, more in zip(found, names, strict=True)]
    return _open(request, labels, tuple(found), parts)


def _open(
    request: RuntimeRequest, labels: Labels, findings: tuple[Sequence[Finding], ...], parts: Sequence[str]
) -> Classified:
    turns = len(request.input.messages)
    asked = _Asked(
        id(labels),
        request.classification,
        request.data_categories,
        request.data_regulations,
        _kinds(findings[:turns]),
        tuple(
            (item.need, item.classification, _kinds(findings[turns + 2 * place : turns + 2 * place + 2]))
            for place, item in enumerate(request.input.context)
        ),
    )
    known = _KNOWN.get(asked) or _KNOWN.keep(asked, _judge(asked, labels))
    return Classified(known.classification, known.held, known.items, findings, parts)


class _Asked(NamedTuple):
    """All that a classification rests on."""

    labels: int
    """Which labels."""
    cls: str
    """The declared class."""
    categories: tuple[str, ...]
    """The declared categories."""
    regulations: tuple[str, ...]
    """The declared regulations."""
    kinds: frozenset[str]
    """What was found in the conversation."""
    sources: tuple[tuple[str, str | None, frozenset[str]], ...]
    """Need, declared class and findings of each source."""


class _Known(NamedTuple):
    """A classification that many requests share, so that its JSON is written once."""

    classification: Classification
    held: Held
    items: tuple[Item, ...]
    labels: Labels
    """Kept, so that no others come to have the same id."""


_KNOWN: Final = Memory[_Asked, _Known]()


def _judge(asked: _Asked, labels: Labels) -> _Known:
    declared = Label(asked.cls, frozenset(asked.categories), frozenset(asked.regulations))
    held = Held(declared, asked.kinds)
    items = tuple(
        Item(need, Held(Label(cls, declared.categories, declared.regulations) if cls else declared, kinds))
        for need, cls, kinds in asked.sources
    )
    kinds = held.kinds.union(*(item.held.kinds for item in items))
    least = labels.join((item.held.declared.cls for item in items), declared.cls)
    whole = labels.label(least, asked.categories, asked.regulations, kinds)
    classification = Classification(
        declared=asked.cls,
        detected=labels.detected(kinds) if kinds else None,
        effective=whole.cls,
        findings=tuple(sorted(kinds)),
        categories=tuple(sorted(whole.categories)),
        regulations=tuple(sorted(whole.regulations)),
    )
    return _Known(classification, held, items, labels)


def _closed(request: RuntimeRequest, labels: Labels, why: str, parts: Sequence[str]) -> Classified:
    highest = labels.highest_label
    classification = Classification(
        declared=request.classification,
        detected=highest.cls,
        effective=highest.cls,
        detector=why,
        categories=tuple(sorted(highest.categories)),
        regulations=tuple(sorted(highest.regulations)),
    )
    held = Held(highest)
    items = tuple(Item(item.need, held) for item in request.input.context)
    return Classified(classification, held, items, ((),) * len(parts), parts)


def _kinds(findings: Sequence[Sequence[Finding]]) -> frozenset[str]:
    if not any(findings):
        return _NOTHING
    return frozenset(finding.kind for part in findings for finding in part)


_NOTHING: Final = frozenset[str]()
