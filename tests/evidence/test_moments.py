"""Sums of times that no calendar holds are the last or the first moment, and never an error."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta

import pytest
from approvals_made import asked as waiting
from hypothesis import given
from hypothesis import strategies as st

from evidence.moments import LAST_MS, LONG_AGO, NEVER, day_after, log_moment, shifted
from evidence.store.expiry import Rule
from policy.vault.keys import KeyId
from streams.kafka import noted_offset
from streams.processors.correlation import Correlator
from waybill.cli.moments import moment

NOON = datetime(2026, 11, 29, 12, tzinfo=UTC)


@given(st.datetimes(timezones=st.just(UTC)), st.timedeltas())
def test_a_shift_is_the_sum_or_an_end_of_the_calendar(at, by):
    """Where the sum exists it is that; else the end that lies in its direction."""
    try:
        assert shifted(at, by) == at + by
    except OverflowError:
        assert shifted(at, by) == (NEVER if by > timedelta() else LONG_AGO)


@given(st.integers(-(2**63), 2**63 - 1))
def test_a_logs_time_is_a_moment_or_the_default(stamp):
    """Before 1970 and after the year 9999 there is none; producers may write any 64 bits."""
    found = log_moment(stamp, NOON)
    assert found == (datetime.fromtimestamp(stamp / 1000, UTC) if 0 <= stamp <= LAST_MS else NOON)
    assert log_moment(None, NOON) == NOON


def test_each_place_that_adds_to_a_time_from_outside_goes_by_it():
    """Stories, approvals, keys, retention of rows and `--since`: the last day there is, and what is far before it."""
    correlator = Correlator()
    for number, field in enumerate(("deadlineUtc", "occurredAtUtc")):
        first = {"intakeId": f"i{number}", "sequence": 0, "occurredAtUtc": "2026-11-29T12:00:00Z", "eventType": "x"}
        correlator.observe({**first, field: "9999-12-31T23:59:59Z"}, 0, number)
    assert list(correlator.overdue(NOON)) == []
    new_year = datetime(9999, 12, 31, tzinfo=UTC)
    assert waiting(now=new_year, seconds=60).expires_at == new_year + timedelta(minutes=1)
    assert KeyId("0" * 32, "9999-12-31", "transit-7").due == NEVER
    assert Rule(name="all", max_days=3650).due(date.max, NOON.date()) is False
    assert moment("999999d", NOON) == LONG_AGO
    assert day_after(date.min, -1) == date.min


@pytest.mark.parametrize(("note", "offset"), [("17", 17), ("", 0), (None, 0), ("-1", 0), ("٣", 0), ("9" * 5000, 0)])
def test_a_note_beside_a_position_is_an_offset_or_nothing(note, offset):
    """Any member of a group may write one."""
    assert noted_offset(note) == offset
