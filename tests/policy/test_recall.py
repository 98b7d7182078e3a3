"""What detection finds of a labelled set that does not come from its own patterns, and that the page says the same."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path

import pytest
import pytest_asyncio
from entity_set import NEGATIVES, POSITIVES, SECRET, Sample
from names_fixtures import PATIENT, PYTHON, need_names

from policy.detection.detectors import Detectors, Finding, together
from policy.detection.kinds import KINDS
from policy.detection.names import NamesDetector

PAGE = Path(__file__).resolve().parents[2] / "docs" / "detection.md"
MODEL = ("person", "place")
DETECTORS = Detectors()
SAMPLES = [sample for samples in POSITIVES.values() for sample in samples] + list(NEGATIVES)
ROUNDING = 1
"""How many texts of one row another processor may decide otherwise: the model's sums are rounded differently there."""


def _means(finding: Finding, sample: Sample) -> bool:
    """Say whether a finding is of the type that the sample holds."""
    return KINDS[finding.kind].category == "secret" if sample.entity in SECRET else finding.kind == sample.entity


def _covered(sample: Sample, findings: list[Finding]) -> bool:
    """Say whether no letter and no digit of the sample's value stays behind when the findings are taken out."""
    taken = {place for finding in findings for place in range(finding.start, finding.end)}
    return all(place in taken for place in range(sample.start, sample.end) if sample.text[place].isalnum())


def _recall(found: dict[str, tuple[Finding, ...]]) -> dict[str, tuple[int, int, int, int]]:
    """Give for each entity the texts, those found under its type, those covered by anything, and the percentage."""
    rows = {}
    for entity, samples in POSITIVES.items():
        right = sum(_covered(sample, [f for f in found[sample.text] if _means(f, sample)]) for sample in samples)
        any_ = sum(_covered(sample, list(found[sample.text])) for sample in samples)
        rows[entity] = len(samples), right, any_, round(100 * right / len(samples))
    return rows


def _alarms(found: dict[str, tuple[Finding, ...]]) -> dict[str, int]:
    """Give for each kind the texts without anything in which it was found all the same."""
    alarms: Counter[str] = Counter()
    for sample in NEGATIVES:
        alarms.update({finding.kind for finding in found[sample.text]})
    return dict(sorted(alarms.items()))


@pytest.fixture(scope="module")
def first() -> dict[str, tuple[Finding, ...]]:
    """What tier 1 finds in each text."""
    return {sample.text: DETECTORS.scan(sample.text) for sample in SAMPLES}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def both(first):
    """What tiers 1 and 2 find together."""
    need_names()
    detector = NamesDetector(PYTHON, limits=PATIENT)
    await detector.start()
    try:
        texts = list(first)
        names = await detector.find(texts)
    finally:
        await detector.close()
    return {text: together(first[text], found) for text, found in zip(texts, names, strict=True)}


def _table(rows: dict[str, tuple[int, int, int, int]]) -> str:
    head = "| entity | texts | found | covered by anything | recall |\n| --- | --- | --- | --- | --- |\n"
    return head + "".join(
        f"| {name} | {n} | {right} | {any_} | {p} % |\n" for name, (n, right, any_, p) in rows.items()
    )


def _alarm_table(alarms: dict[str, int]) -> str:
    lines = [f"| {kind} | {count} |\n" for kind, count in alarms.items()]
    return f"| kind | false alarms in {len(NEGATIVES)} texts |\n| --- | --- |\n" + "".join(lines)


def _published(name: str) -> str:
    text = PAGE.read_text(encoding="utf-8")
    found = re.search(rf"<!-- measured: {name} -->\n\n(.*?)\n<!-- end of measured -->", text, re.DOTALL)
    assert found, f"{PAGE.name} has no measured part {name!r}"
    return found[1]


def _numbers(table: str) -> dict[str, list[int]]:
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in table.splitlines()[2:]]
    return {row[0]: [int(cell.rstrip(" %")) for cell in row[1:]] for row in rows}


def test_the_set_is_what_it_says():
    """Enough texts of each type, none twice, every value in its place, and none of it a placeholder left open."""
    assert all(len(samples) >= 25 for samples in POSITIVES.values()), {k: len(v) for k, v in POSITIVES.items()}
    assert len(NEGATIVES) >= 150
    assert len({sample.text for sample in SAMPLES}) == len(SAMPLES)
    for samples in POSITIVES.values():
        for sample in samples:
            assert 0 <= sample.start < sample.end <= len(sample.text)
            assert not re.search(r"[⟦⟧⏎]|\{[ahwuld]\d", sample.text)


def test_the_page_tells_what_tier_1_finds(first):
    """Recall and false alarms of tier 1, as published, are those that it has now."""
    rows = {name: row for name, row in _recall(first).items() if name not in MODEL}
    assert _published("tier 1") == _table(rows)
    assert _published("false alarms of tier 1") == _alarm_table(_alarms(first))


@pytest.mark.asyncio(loop_scope="module")
async def test_the_page_tells_what_both_tiers_find(both):
    """The same with the names model: one text more or less in a row, as processors round differently."""
    for name, table in (
        ("tiers 1 and 2", _table(_recall(both))),
        ("false alarms of tiers 1 and 2", _alarm_table(_alarms(both))),
    ):
        published, now = _numbers(_published(name)), _numbers(table)
        assert published.keys() == now.keys(), table
        for kind, row in now.items():
            told = published[kind]
            counts = row[:3] if len(row) > 1 else row
            assert all(abs(a - b) <= ROUNDING for a, b in zip(counts, told, strict=False)), table


@pytest.mark.asyncio(loop_scope="module")
async def test_the_second_tier_takes_nothing_from_the_first(first, both):
    """Whatever tier 1 found is inside of what both found, of a kind that is as severe."""
    for text, findings in first.items():
        for finding in findings:
            around = [other for other in both[text] if other.start <= finding.start and finding.end <= other.end]
            assert len(around) == 1
            assert KINDS[around[0].kind].severity >= KINDS[finding.kind].severity
