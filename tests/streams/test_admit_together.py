"""Records that are decided on together: each gets what it would get alone, whatever becomes of the others."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import orjson
import pytest
from decisions import SCANNER, Broken, asked, incoming, rules

from evidence.errors import RecordError, UnavailableError
from policy.detection.detectors import ScanResult
from streams.stages.admit import Asked, Incoming, Rules, admit, admit_all, refuse
from streams.stages.admitted import Admitted

NOW = datetime(2026, 1, 1, tzinfo=UTC)


class FailsOn:
    """Detectors that break on one word, as a fault of the program would."""

    def __init__(self, word: str, error: Exception) -> None:
        self.word, self.error = word, error

    def scan_closed(self, text: str) -> ScanResult:
        """Scan, or raise."""
        if self.word in text:
            raise self.error
        return SCANNER.scan_closed(text)


def written(admitted: Admitted) -> list[Any]:
    """What follows from a record, but for what is sealed, which is never twice the same."""
    found = []
    for record in admitted.records:
        value = orjson.loads(record.value)
        found.append((record.topic, record.key, record.headers, {**value, "sealed": None}))
    return [admitted.result, admitted.reason, found]


def batch() -> list[Incoming]:
    """Good, bad and denied requests."""
    return [
        asked("r0", offset=0),
        incoming(b"no json", offset=1),
        asked("r2", "Write to anna@example.org.", offset=2),
        asked("r3", classification="restricted", modelPolicy={"placement": "hosted"}, offset=3),
        incoming(None, offset=4),
        asked("r5", purpose="nothing-known", offset=5),
        asked("r6", offset=6),
    ]


@pytest.mark.parametrize("changes", [{}, {"scanner": Broken()}])
def test_what_follows_from_a_record_is_the_same_alone_and_among_others(changes: dict[str, Any]) -> None:
    """Records in one step with others, good and bad ones, give the same records in the same order as one by one."""
    by, records = rules(**changes), batch()
    together = admit_all([Asked(record) for record in records], by, NOW)
    assert [written(one) for one in together] == [written(admit(record, by, NOW)) for record in records]
    assert {one.result for one in together} >= {"admitted", "rejected", "denied"} or changes


def test_a_fault_on_one_record_leaves_the_others_as_they_are() -> None:
    """What the program cannot decide becomes what `fault` says; its neighbours are admitted."""
    by = rules(scanner=FailsOn("poison", ZeroDivisionError()))
    told: list[int] = []

    def fault(record: Incoming, error: Exception) -> Admitted:
        assert isinstance(error, ZeroDivisionError)
        told.append(record.position.offset)
        return refuse(record, RecordError("internal_error", "it failed"), by, NOW)

    records = [Asked(asked(f"r{place}", prompt, offset=place)) for place, prompt in enumerate(["a", "poison", "b"])]
    found = admit_all(records, by, NOW, fault)
    assert [(one.result, one.reason) for one in found] == [
        ("admitted", ""), ("rejected", "internal_error"), ("admitted", ""),
    ]  # fmt: skip
    assert told == [1]


@pytest.mark.parametrize("error", [UnavailableError("disk"), OSError("disk"), ZeroDivisionError()])
def test_a_fault_that_nobody_answers_for_stops_the_batch(error: Exception) -> None:
    """Without somebody who says what follows, nothing follows from any of the records: they are read again."""
    by: Rules = rules(scanner=FailsOn("poison", error))
    with pytest.raises(type(error)):
        admit_all([Asked(asked("r0", offset=0)), Asked(asked("r1", "poison", offset=1))], by, NOW)
