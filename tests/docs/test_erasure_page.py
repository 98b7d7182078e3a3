"""What the page on retention says of erasure is what the code does."""

from __future__ import annotations

import re
from pathlib import Path

from evidence.records import EvidenceEvent, Outcome
from policy.vault.erased import FOLDER
from streams.topics import ALL

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "retention.md").read_text(encoding="utf-8")


def table(head: str) -> list[str]:
    """Give the rows of the table with this head."""
    return PAGE.partition(f"{head}\n")[2].partition("\n")[2].partition("\n\n")[0].splitlines()


def test_what_ends_under_way_is_named_by_topic_and_outcome():
    """Each place is a topic or a call, and each outcome is one that evidence knows."""
    rows = [row.strip("|").split("|") for row in table("| where it is | outcome | when |")]
    places = {name for row in rows for name in re.findall(r"`([^`]+)`", row[0])}
    assert places == {"ai.requests", "ai.approvals", "ai.work.local", "ai.work.hosted"}
    assert places <= {topic.name for topic in ALL}
    assert {row[1].strip(" `") for row in rows} == {
        Outcome.REJECTED, Outcome.EXPIRED, Outcome.DENIED, Outcome.WITHHELD,
    }  # fmt: skip
    assert f"`vault/{FOLDER}`" in PAGE


def test_ids_that_stay_are_fields_of_an_event():
    """Each id that the page says stays in rows is a field of an event."""
    names = {name for row in table("| field | what it holds |") for name in re.findall(r"`([^`]+)`", row.split("|")[1])}
    fields = {field.alias or name for name, field in EvidenceEvent.model_fields.items()}
    assert {name.partition(".")[0] for name in names} <= fields
    assert {name for name in fields if name.endswith("Ref")} - {"tenantRef"} <= names
