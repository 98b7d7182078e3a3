"""Correlation: stories close once, gaps show, and a restart tells nothing twice."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streams.processors.correlation import GRACE, PATIENCE, Correlator

NOON = datetime(2026, 11, 2, 12, tzinfo=UTC)


def event(intake: str, sequence: int, *, last: bool = False, **more):
    """An evidence event with what correlation reads of it."""
    found = {"intakeId": intake, "sequence": sequence, "occurredAtUtc": "2026-11-02T12:00:00Z",
             "eventType": "request.ended" if last else "data.classified", **more}  # fmt: skip
    return {**found, "outcome": "completed"} if last else found


@st.composite
def logs(draw):
    """A partition's log: the events of several stories, in order within each, and how long each story is."""
    lengths = draw(st.lists(st.integers(1, 5), min_size=1, max_size=8))
    left = {f"i{number}": iter(range(length)) for number, length in enumerate(lengths)}
    sizes = dict(zip(left, lengths, strict=True))
    log = []
    while left:
        intake = draw(st.sampled_from(sorted(left)))
        sequence = next(left[intake])
        last = sequence == sizes[intake] - 1
        log.append(event(intake, sequence, last=last))
        if last:
            del left[intake]
    return log


@given(log=logs())
def test_each_story_closes_once_and_whole(log):
    """Interleaved in any way, every story closes exactly once, complete, and nothing stays open."""
    correlator = Correlator()
    closed = [found for offset, item in enumerate(log) if (found := correlator.observe(item, 0, offset))]
    assert sorted(story.events[0]["intakeId"] for story in closed) == sorted({item["intakeId"] for item in log})
    assert all(story.complete and story.outcome == "completed" for story in closed)
    assert len(correlator) == 0
    assert correlator.watermark(0) == len(log)


@given(log=logs(), stop=st.integers(0, 40))
def test_a_restart_tells_every_story_once(log, stop):
    """Stopped after any commit and started from what it committed, correlation tells each story once and whole."""
    stop = min(stop, len(log))
    first, second = Correlator(), Correlator()
    closed = [found for offset in range(stop) if (found := first.observe(log[offset], 0, offset))]
    second.begin(0, first.told(0))
    start = first.watermark(0) or 0
    closed += [found for offset in range(start, len(log)) if (found := second.observe(log[offset], 0, offset))]
    assert sorted(story.events[0]["intakeId"] for story in closed) == sorted({item["intakeId"] for item in log})
    assert all(story.complete for story in closed)
    assert len(second) == 0


@pytest.mark.parametrize("sequences", [[0, 2], [1, 2], [0, 1, 1], [0, 0]])
def test_a_gap_or_a_repeat_shows(sequences):
    """A story whose sequence is not 0, 1, 2, … is closed as incomplete."""
    correlator = Correlator()
    found = [correlator.observe(event("i", sequence, last=place == len(sequences) - 1), 0, place)
             for place, sequence in enumerate(sequences)]  # fmt: skip
    assert found[-1] is not None
    assert not found[-1].complete


@pytest.mark.parametrize("broken", [[], {}, {"intakeId": "i"}, {"intakeId": "i", "sequence": 0}, None, 3,
                                    {"intakeId": [], "sequence": 0, "occurredAtUtc": "x"},
                                    {"intakeId": "i", "sequence": 0, "occurredAtUtc": "x"}])  # fmt: skip
def test_what_is_no_event_leaves_nothing_behind(broken):
    """A foreign record raises one of the errors that the stage passes over, and opens no story."""
    correlator = Correlator()
    with pytest.raises((KeyError, TypeError, ValueError, AttributeError)):
        correlator.observe(broken, 0, 0)
    assert len(correlator) == 0


def test_a_story_is_overdue_after_its_deadline_or_its_patience():
    """With a deadline a story is due a grace after it, without one a patience after its beginning."""
    correlator = Correlator()
    correlator.observe(event("a", 0, deadlineUtc="2026-11-02T12:01:00Z"), 0, 0)
    correlator.observe(event("b", 0), 0, 1)
    due = NOON + timedelta(minutes=1) + GRACE
    tick = timedelta(seconds=1)
    assert [len(list(correlator.overdue(now))) for now in (due, due + tick, NOON + PATIENCE + tick)] == [0, 1, 2]


def test_partitions_are_followed_apart():
    """A partition that another worker takes is forgotten, and the others stay."""
    correlator = Correlator()
    correlator.observe(event("a", 0), 0, 10)
    correlator.observe(event("b", 0), 1, 20)
    correlator.forget(0)
    assert [correlator.watermark(0), correlator.watermark(1), len(correlator)] == [None, 20, 1]


def test_a_story_that_waits_for_a_person_is_given_time():
    """While an approval may come the story is not overdue; once it came, patience begins anew."""
    correlator = Correlator()
    correlator.observe(event("i", 0), 0, 0)
    correlator.observe(event("i", 1, eventType="approval.requested",
                             approval={"expiresAtUtc": "2026-11-03T12:00:00Z"}), 0, 1)  # fmt: skip
    expiry = datetime(2026, 11, 3, 12, tzinfo=UTC)
    assert not list(correlator.overdue(expiry + GRACE))
    assert len(list(correlator.overdue(expiry + GRACE + timedelta(seconds=1)))) == 1
    approved = "2026-11-02T18:00:00Z"
    correlator.observe(event("i", 2, eventType="approval.approved", occurredAtUtc=approved), 0, 2)
    moment = datetime(2026, 11, 2, 18, tzinfo=UTC) + PATIENCE
    assert not list(correlator.overdue(moment))
    assert len(list(correlator.overdue(moment + timedelta(seconds=1)))) == 1
