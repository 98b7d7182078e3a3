"""Sites with evidence of their own, for tests: real stores, and real copies for another site."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

from evidence_samples import NOON, stories
from evidence_stores import OneKey, local_store

from evidence.federation.choice import Terms
from evidence.federation.columns import PATHS
from evidence.federation.export import Exporter
from evidence.files.local import LocalFiles
from evidence.parsing import parse
from evidence.records import EvidenceEvent
from queries.federated import Remote

LOG = ("cluster", "ai.evidence", 0)
ALL = Terms(frozenset({"public", "internal", "confidential", "restricted"}), PATHS)
"""Everything that says a class may leave."""


def rows(events: Sequence[EvidenceEvent], first: int = 0):
    """Give the rows of some events, at offsets from the first on."""
    offsets = list(range(first, first + len(events)))
    return parse([event.to_json() for event in events], partition=0, offsets=offsets, timestamps_ms=offsets).table


def fill(root: Path, site: str, events: Iterable[EvidenceEvent], *, at_once: int = 100, first: int = 0, **options):
    """Store events of a site, some in each commit."""
    told = [event.model_copy(update={"site": site}) for event in events]
    with local_store(root, site, **options).open(*LOG) as writer:
        for number in range(0, len(told), at_once):
            some = told[number : number + at_once]
            writer.append(rows(some, first + number), end=first + number + len(some) - 1)
    return told


def exporter(store: Path, copy: Path, site: str, recipient: str = "hq", terms: Terms = ALL, **options) -> Exporter:
    """Give what makes the copy of a site's store for a recipient."""
    keys = options.pop("keys", None) or OneKey(site)
    target = local_store(copy, site, keys=keys)
    return Exporter(
        LocalFiles(store), target, recipient, terms, getattr(keys, "verifiers", (keys.newest().verifier,)), **options
    )


def export(store: Path, copy: Path, site: str, recipient: str = "hq", terms: Terms = ALL, **options) -> list:
    """Make or continue a copy, and give its new commits."""
    made: list = []
    through = exporter(store, copy, site, recipient, terms, **options)
    through.run(through.plan(datetime.now(UTC)), b'{"a":"waybill"}', lambda _, commit: made.append(commit))
    return made


def sent(site: str, folder: Path, *, number: int = 30, begin: datetime = NOON, terms: Terms = ALL) -> Remote:
    """Make a site with some stories and its copy; give it as another site asks it."""
    fill(folder / site / "evidence", site, stories(number, seed=len(site), begin=begin + timedelta(hours=len(site))))
    export(folder / site / "evidence", folder / site / "copy", site, terms=terms)
    return remote(site, folder / site / "copy")


def remote(site: str, copy: Path, *, key: str | None = None, max_age_s: float | None = None) -> Remote:
    """Give a site as another one asks it."""
    return Remote(site, key or OneKey(site).signer.vkey, lambda: LocalFiles(copy), max_age_s)
