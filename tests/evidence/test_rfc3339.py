"""Moments: the form that the contracts state, and nothing beside it."""

from __future__ import annotations

import json
import re
from calendar import monthrange
from datetime import UTC, datetime

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from pydantic import BaseModel, ValidationError

from evidence.records import Record
from evidence.rfc3339 import MOMENT_PATTERN, Moment, parse_moment


class Dated(Record):
    """A record with a moment."""

    at: Moment
    """When."""


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("1795940886", "not a number"),
        ("1795940886.5", "not a number"),
        ("2026-11-23 09:00:00Z", "`T` before"),
        ("2026-11-23t09:00:00Z", "`T` before"),
        ("2026-11-23T09:00:00z", "`Z` at its end"),
        ("2026-11-23T09:00:00,5Z", "a point"),
        ("2026-11-23T09:00:00+00:00", "end in `Z`"),
        ("2026-11-23T09:00:00-00:00", "end in `Z`"),
        ("2026-11-23T10:00:00+01:00", "end in `Z`"),
        ("2026-11-23T09:00:00+0000", "end in `Z`"),
        ("2026-11-23T09:00:00", "time zone"),
        ("2016-12-31T23:59:60Z", "leap second"),
        ("2016-12-31T23:59:60.5Z", "leap second"),
        ("2026-11-23T09:00:00.1234567890Z", "nine digits"),
        ("2026-02-29T09:00:00Z", "that exist"),
        ("2026-13-01T09:00:00Z", "that exist"),
        ("0000-01-01T00:00:00Z", "that exist"),
        ("1900-02-29T00:00:00Z", "that exist"),
        ("2026-11-23T24:00:00Z", "that exist"),
        ("2026-11-23T09:60:00Z", "that exist"),
        ("2026-11-23T09:00:00.Z", "that exist"),
        ("2026-11-23T09:00Z", "such as"),
        ("2026-11-23", "beside the day"),
        ("20261123T090000Z", "such as"),
        ("2026-W48-1T09:00:00Z", "such as"),
        ("2026-327T09:00:00Z", "such as"),
        ("10000-01-01T00:00:00Z", "such as"),
        ("+2026-11-23T09:00:00Z", "such as"),
        (" 2026-11-23T09:00:00Z", "such as"),
        ("2026-11-23T09:00:00Z\n", "such as"),
        ("\uff12026-11-23T09:00:00Z", "such as"),
        ("now", "such as"),
        ("", "such as"),
    ],
)
def test_other_spelling_is_refused_with_the_right_one(text: str, said: str) -> None:
    """Each near miss of the form is refused, and the sentence names what would be right without repeating it."""
    with pytest.raises(ValueError, match=r"must|may") as caught:
        parse_moment(text)
    assert said in str(caught.value)
    assert not text or text not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "moment"),
    [
        ("0001-01-01T00:00:00Z", datetime(1, 1, 1, tzinfo=UTC)),
        ("9999-12-31T23:59:59.999999999Z", datetime(9999, 12, 31, 23, 59, 59, 999999, tzinfo=UTC)),
        ("2000-02-29T12:30:15.5Z", datetime(2000, 2, 29, 12, 30, 15, 500_000, tzinfo=UTC)),
        ("2026-11-23T09:00:00.1234567Z", datetime(2026, 11, 23, 9, 0, 0, 123_456, tzinfo=UTC)),
    ],
)
def test_moment_is_read_to_the_microsecond(text: str, moment: datetime) -> None:
    """The first and the last moment are read, with one to nine digits of a fraction, cut to microseconds."""
    assert parse_moment(text) == moment
    assert Dated.model_validate_json(f'{{"at": "{text}"}}', strict=True).at == moment


NUMBERS = st.tuples(
    st.integers(0, 9999), st.integers(0, 13), st.integers(0, 32), st.integers(0, 24), st.integers(0, 60),
    st.integers(0, 61), st.text("0123456789", max_size=11),
)  # fmt: skip


@given(numbers=NUMBERS)
@example(numbers=(2000, 2, 29, 0, 0, 0, ""))
@example(numbers=(1900, 2, 29, 0, 0, 0, ""))
@example(numbers=(400, 2, 29, 0, 0, 0, ""))
def test_pattern_takes_exactly_what_the_calendar_has(numbers: tuple[int, int, int, int, int, int, str]) -> None:
    """The schema's pattern and the code take the same moments: those of the calendar, and no other."""
    year, month, day, hour, minute, second, fraction = numbers
    text = f"{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}{'.' if fraction else ''}{fraction}Z"
    exists = (
        year >= 1 and 1 <= month <= 12 and 1 <= day <= monthrange(year, month)[1]
        and hour < 24 and minute < 60 and second < 60 and len(fraction) <= 9
    )  # fmt: skip
    assert (re.search(MOMENT_PATTERN, text) is not None) == exists
    assert taken(text) == exists


@given(text=st.from_regex(MOMENT_PATTERN, fullmatch=True))
def test_code_takes_whatever_the_pattern_takes(text: str) -> None:
    """Each text of the pattern is a moment, which is written as the same one."""
    found = Dated.model_validate_json(Dated(at=parse_moment(text)).to_json()).at
    assert found == parse_moment(text)


@given(text=st.from_regex(MOMENT_PATTERN, fullmatch=True), place=st.integers(0, 30), put=st.text(max_size=2))
def test_pattern_takes_whatever_the_code_takes(text: str, place: int, put: str) -> None:
    """A text that was changed somewhere is taken by both or by neither."""
    changed = text[:place] + put + text[place + 1 :]
    assert taken(changed) == (re.fullmatch(MOMENT_PATTERN, changed) is not None and not changed.endswith("\n"))


def taken(text: str) -> bool:
    """Whether a record with this moment is taken from JSON."""
    try:
        Dated.model_validate_json(json.dumps({"at": text}), strict=True)
    except ValidationError:
        return False
    return True


@pytest.mark.parametrize("value", ["5", "5.5", "true", "null", "[]", "{}", "1795940886"])
def test_moment_is_a_text(value: str) -> None:
    """What is no text is no moment."""
    with pytest.raises(ValidationError, match="as a text"):
        Dated.model_validate_json(f'{{"at": {value}}}')


def test_moment_in_python_is_in_utc() -> None:
    """A `datetime` without a zone, or in another, is refused where a record is made in code."""
    assert issubclass(Dated, BaseModel)
    for wrong in (datetime(2026, 1, 1), datetime.fromisoformat("2026-01-01T00:00:00+01:00")):  # noqa: DTZ001 - it is wrong
        with pytest.raises(ValidationError):
            Dated(at=wrong)
