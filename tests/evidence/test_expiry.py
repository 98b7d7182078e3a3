"""Expiry: rows past their maximum are gone for good, everything else stays, and the log is as it was."""

from __future__ import annotations

import hashlib
import io
import json
import tempfile
import time
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from evidence_samples import stories, story
from evidence_stores import local_store
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from evidence.disk import Disk
from evidence.errors import UnavailableError, WaybillError
from evidence.log.ranges import from_text, to_text, union
from evidence.parsing import parse
from evidence.rows import canonical_rows
from evidence.store.expiry import Expiry, Hold, Plan, Removal, Rule
from evidence.store.live import read_live
from evidence.store.upkeep import Upkeep

BEGIN = datetime(2026, 3, 1, 12, tzinfo=UTC)
LOG = ("cluster-1", "ai.evidence", 0)
NAME = "cluster-1.ai.evidence-0"
SHORT = Rule("short", 10, 1, frozenset({"confidential"}))
LONG = Rule("long", 30, 7)


def table(events, first):
    """Give the rows of some events at the offsets from `first` on."""
    offsets = list(range(first, first + len(events)))
    return parse(
        [event.to_json() for event in events], partition=0, offsets=offsets, timestamps_ms=[0] * len(events)
    ).table


def fill(store, batches):
    """Store each batch of events in a commit of its own; give all events in the order of their offsets."""
    first = 0
    with store.open(*LOG) as writer:
        for events in batches:
            writer.append(table(events, first), end=first + len(events) - 1)
            first += len(events)
    return [event for events in batches for event in events]


def seconds(day, begin=BEGIN):
    """Give the moment so many days after the rows' own."""
    return (begin + timedelta(days=day)).timestamp()


def rows(store):
    """Give the live rows in the order of the log."""
    live = read_live(store.files, NAME)
    found = [pq.read_table(io.BytesIO(store.files.read(path))) for path in live.files]
    return pa.concat_tables(found).sort_by("log_offset") if found else None


def ids(store):
    """Give the ids of the live events."""
    found = rows(store)
    return [] if found is None else found.column("event_id").to_pylist()


def expire(store, plan, day, **more):
    """Run once, so many days after the rows' own day; give what was removed."""
    with store.open(*LOG) as writer:
        return Expiry(store.files, lambda: plan, now=lambda: seconds(day), **more)(writer)


def check_covered(store):
    """Check that live files and expired rows are together all rows of the log, each once."""
    head = store.head(*LOG)
    expired = []
    for path in sorted(Path(store.files.url("")).glob(f"logs/{NAME}/commits/*")):
        lines = path.read_text().partition("\n\n")[0].splitlines()
        expired += [line.split(" ")[1] for line in lines if line.startswith("expire ")]
    live = read_live(store.files, NAME)
    everything = union(*(added.leaves for added in live.files.values()), *map(from_text, expired))
    assert everything == ((0, head.commit.size - 1),)
    return head.commit


def class_of(events):
    """Give the class of each intake that states one."""
    return {event.intake_id: event.classification.effective for event in events if event.classification}


def test_rows_of_one_class_go_and_the_others_stay(tmp_path):
    """After ten days the rows of confidential requests are gone, those that state no class themselves too."""
    store = local_store(tmp_path)
    events = fill(store, [list(stories(40))])
    before = store.head(*LOG).commit
    (removal,) = expire(store, Plan((SHORT, LONG), version="v7"), 10)
    classes = class_of(events)
    stay = [event.event_id for event in events if classes.get(event.intake_id) != "confidential"]
    assert 0 < len(stay) < len(events)
    assert ids(store) == stay
    after = check_covered(store)
    assert (after.size, after.root) == (before.size, before.root)
    assert removal.rows == {"short": len(events) - len(stay)}


def test_rows_that_stay_keep_their_bytes(tmp_path):
    """Rewriting a file changes no row that stays: its canonical bytes are as before."""
    store = local_store(tmp_path)
    events = fill(store, [list(stories(40))])
    whole = dict(zip([event.event_id for event in events], canonical_rows(table(events, 0)), strict=True))
    expire(store, Plan((SHORT, LONG)), 10)
    left = rows(store)
    for name, entry in zip(left.column("event_id").to_pylist(), canonical_rows(left), strict=True):
        assert entry == whole[name]


def test_a_day_that_is_past_as_a_whole_goes_without_a_trace_of_its_rows(tmp_path):
    """One commit removes every file of the day, none takes its place, and the bytes are deleted after the grace."""
    store = local_store(tmp_path)
    fill(store, [list(stories(5)), list(stories(5, seed=2)), list(stories(5, begin=BEGIN + timedelta(days=1)))])
    before = store.head(*LOG).commit
    with store.open(*LOG) as writer:
        expiry = Expiry(store.files, lambda: Plan((LONG,)), now=lambda: seconds(30))
        Upkeep(store.files, expire=expiry, grace_s=0, now=lambda: time.time() + 1)(writer)
        assert writer.commit.number >= before.number + 2
    assert [path.parent.name for path in tmp_path.glob("events/*/*/*.parquet")] == ["date=2026-03-02"]
    after = check_covered(store)
    assert (after.size, after.root) == (before.size, before.root)


def test_nothing_goes_before_its_time(tmp_path):
    """A day before a rule is due nothing is committed at all."""
    store = local_store(tmp_path)
    fill(store, [list(stories(20))])
    assert expire(store, Plan((SHORT, LONG)), 9) == ()
    assert expire(store, Plan((Rule("for-ever", None),)), 20_000) == ()
    assert not list(tmp_path.glob("logs/*/statements/*"))


def test_a_class_that_another_file_states_counts(tmp_path):
    """A request whose class lies in another file, of its day or of the day before, goes as a whole."""
    store = local_store(tmp_path)
    late = datetime(2026, 3, 1, 23, 59, 59, 800_000, tzinfo=UTC)
    told = next(
        told
        for n in range(9999)
        if class_of(told := story(n, begin=late - timedelta(milliseconds=37 * n)))
        and told[1].occurred_at_utc.day == 1
        and any(event.occurred_at_utc.day == 2 and event.classification is None for event in told)
    )
    fill(store, [told[:1], told[1:2], *([event] for event in told[2:])])
    rule = Rule("theirs", 10, classes=frozenset({class_of(told)[told[0].intake_id]}))
    expire(store, Plan((rule,)), 11)
    assert ids(store) == []
    check_covered(store)


def test_the_class_of_what_crossed_is_not_that_of_the_request(tmp_path):
    """An intent may state less than the request is: its rows all fall under the request's own class."""
    store = local_store(tmp_path)
    told = next(told for n in range(99) if "confidential" in class_of(told := story(n)).values())
    less = told[1].classification.model_copy(update={"effective": "public"})
    told = [
        event.model_copy(update={"classification": less}) if event.event_type == "model.intended" else event
        for event in told
    ]
    fill(store, [told])
    assert expire(store, Plan((Rule("public", 1, classes=frozenset({"public"})),)), 100) == ()
    expire(store, Plan((SHORT,)), 100)
    assert ids(store) == []


def test_what_states_no_class_anywhere_falls_under_the_rule_for_all(tmp_path):
    """A rule for one class does not take a request without any; one for all classes does."""
    store = local_store(tmp_path)
    rejected = next(told for n in range(999) if not class_of(told := story(n)))
    fill(store, [rejected])
    assert expire(store, Plan((Rule("theirs", 1, classes=frozenset({"internal"})),)), 100) == ()
    assert len(ids(store)) == len(rejected)
    expire(store, Plan((Rule("theirs", 1, classes=frozenset({"internal"})), LONG)), 100)
    assert ids(store) == []


def test_purposes_choose_the_rule(tmp_path):
    """A rule for another purpose leaves the rows alone; the first that fits counts."""
    store = local_store(tmp_path)
    events = fill(store, [list(stories(10))])
    other = Rule("other", 1, purposes=frozenset({"marketing"}))
    keep = Rule("keep", None, purposes=frozenset({"support"}))
    assert expire(store, Plan((other, keep, LONG)), 100) == ()
    assert len(ids(store)) == len(events)


@pytest.mark.parametrize("what", ["request", "subject", "tenant"])
def test_a_hold_keeps_what_it_covers_and_nothing_else(tmp_path, what):
    """Held by request, person or tenant, rows outlive their maximum, and go once the hold has ended."""
    store = local_store(tmp_path)
    events = fill(store, [list(stories(30))])
    one = events[0]
    hold, covered = {
        "request": (Hold(request=one.request_id), lambda event: event.request_id == one.request_id),
        "subject": (Hold(subject=one.actor_ref), lambda event: event.actor_ref == one.actor_ref),
        "tenant": (Hold(tenant=one.tenant_ref), lambda event: event.tenant_ref == one.tenant_ref),
    }[what]
    expire(store, Plan((LONG,), (hold,)), 40)
    stay = [event.event_id for event in events if covered(event)]
    assert ids(store) == stay
    assert 0 < len(stay) < len(events)
    assert expire(store, Plan((LONG,), (hold,)), 90) == ()
    expire(store, Plan((LONG,)), 90)
    assert ids(store) == []
    check_covered(store)


def test_the_statement_says_what_was_removed(tmp_path):
    """It lies under the hash that the commit names: rule, rows, offsets, moments, counts, files, policy."""
    store = local_store(tmp_path)
    events = fill(store, [list(stories(40))])
    told: list[Removal] = []
    (removal,) = expire(store, Plan((SHORT, LONG), version="v7"), 10, tell=told.append)
    assert told == [removal]
    commit = store.head(*LOG).commit
    assert (commit.number, commit.statement) == (removal.commit, removal.sha256)
    data = (tmp_path / f"logs/{NAME}/statements/{commit.statement}.json").read_bytes()
    assert hashlib.sha256(data).hexdigest() == commit.statement
    said = json.loads(data)
    gone = {event.event_id for event in events} - set(ids(store))
    away = [(offset, event) for offset, event in enumerate(events) if event.event_id in gone]
    (rule,) = said["rules"]
    assert (said["log"], said["day"], said["policy"]) == (NAME, "2026-03-01", "v7")
    assert (rule["rule"], rule["maxDays"], rule["rows"]) == ("short", 10, len(away))
    assert rule["leaves"] == to_text(commit.expire[0].leaves)
    assert rule["offsets"] == {"first": away[0][0], "last": away[-1][0]}
    assert rule["classes"] == {"confidential": len(away)}
    assert sum(rule["eventTypes"].values()) == len(away)
    assert rule["eventTypes"]["request.admitted"] == len({event.intake_id for _, event in away})
    moments = [event.occurred_at_utc for _, event in away]
    assert datetime.fromisoformat(rule["moments"]["first"]) == min(moments)
    (file,) = said["files"]
    assert (file["rows"], file["expired"], file["replacedBy"]) == (len(events), len(away), commit.add[0].path)
    assert "acme" not in data.decode()


def test_a_second_run_does_nothing(tmp_path):
    """Run again, by the same process or another one, nothing is read into a new commit."""
    store = local_store(tmp_path)
    fill(store, [list(stories(40))])
    plan = Plan((SHORT, LONG))
    with store.open(*LOG) as writer:
        expiry = Expiry(store.files, lambda: plan, now=lambda: seconds(10))
        assert expiry(writer)
        number = writer.commit.number
        assert expiry(writer) == ()
        assert writer.commit.number == number
    assert expire(store, plan, 10) == ()


def test_a_file_is_read_once_for_each_rule_that_is_due(tmp_path):
    """Files in which nothing is due are not opened again until a rule, a hold or the day changes that."""
    store = local_store(tmp_path)
    fill(store, [list(stories(10))])
    opened = []
    read = store.files.read

    class Counting:
        """The store, which notes what is read."""

        def __getattr__(self, name):
            return getattr(store.files, name)

        def read(self, path):
            """Note and read."""
            opened.append(path)
            return read(path)

    day = [11]
    plan = Plan((Rule("none", 10, classes=frozenset({"secret"})), LONG))
    with store.open(*LOG) as writer, store.open("cluster-1", "ai.evidence", 1) as other:
        expiry = Expiry(Counting(), lambda: plan, now=lambda: seconds(day[0]))
        expiry(writer)
        assert len(opened) == 1
        day[0] = 20
        expiry(other)
        expiry(writer)
        assert len(opened) == 1


def test_when_holds_cannot_be_read_nothing_is_removed(tmp_path):
    """The plan is asked at each call, and where it raises, no row goes."""
    store = local_store(tmp_path)
    events = fill(store, [list(stories(5))])

    def damaged():
        raise WaybillError("a hold is damaged")

    with store.open(*LOG) as writer, pytest.raises(WaybillError, match="damaged"):
        Expiry(store.files, damaged, now=lambda: seconds(999))(writer)
    assert len(ids(store)) == len(events)


def test_a_rule_that_nobody_can_obey_is_no_rule():
    """A minimum at or above the maximum is refused."""
    with pytest.raises(ValueError, match="below its maximum"):
        Rule("wrong", 10, 10)


class Dying(Disk):
    """A disk that fails at its nth step and ever after."""

    def __init__(self, steps):
        self.left = steps

    def __getattribute__(self, name):
        found = super().__getattribute__(name)
        if name not in {"write", "sync", "publish", "replace", "remove"}:
            return found

        def step(*arguments):
            self.left -= 1
            if self.left < 0:
                raise OSError(5, "gone")
            return found(*arguments)

        return step


def test_a_run_that_dies_at_any_step_leaves_everything_or_nothing(tmp_path):
    """Whatever step of the disk is the last, the rows are as before or as after, and the next run ends it."""
    plan = Plan((SHORT, LONG))
    whole = local_store(tmp_path / "whole")
    events = fill(whole, [list(stories(12))])
    expire(whole, plan, 10)
    expected = ids(whole)
    everything = [event.event_id for event in events]
    died = 0
    for step in range(400):
        root = tmp_path / f"{step}"
        fill(local_store(root), [list(stories(12))])
        disk = Dying(step)
        try:
            expire(local_store(root, disk=disk), plan, 10)
        except (UnavailableError, OSError):
            died += 1
        else:
            break
        store = local_store(root)
        assert ids(store) in (everything, expected)
        expire(store, plan, 10)
        assert ids(store) == expected
        check_covered(store)
    assert died > 10


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    ages=st.lists(st.integers(0, 40), min_size=1, max_size=4),
    low=st.integers(0, 9),
    short=st.integers(10, 20),
    long=st.integers(15, 35),
    held=st.sets(st.sampled_from(["acme", "globex", "initech"]), max_size=2),
    hour=st.integers(0, 23),
)
def test_nothing_under_hold_or_minimum_goes_and_nothing_past_its_maximum_stays(ages, low, short, long, held, hour):
    """Whatever ages, rules and holds: what is held or younger than its minimum stays, what is past its maximum goes."""
    now = datetime(2026, 6, 1, hour, 30, tzinfo=UTC)
    plan = Plan(
        (Rule("short", short, low, frozenset({"confidential"})), Rule("long", long, low)),
        tuple(Hold(tenant=tenant) for tenant in sorted(held)),
    )
    with tempfile.TemporaryDirectory() as root:
        store = local_store(Path(root))
        batches = [
            list(stories(4, seed=place, begin=now - timedelta(days=age, hours=place))) for place, age in enumerate(ages)
        ]
        events = [event for events in batches for event in events]
        if len({event.event_id for event in events}) != len(events):
            return
        fill(store, batches)
        with store.open(*LOG) as writer:
            Expiry(store.files, lambda: plan, now=now.timestamp)(writer)
        left = set(ids(store))
        check_covered(store)
    classes = class_of(events)
    for event in events:
        age = now - event.occurred_at_utc
        most = short if classes.get(event.intake_id) == "confidential" else long
        if event.tenant_ref in held or age < timedelta(days=low):
            assert event.event_id in left
        elif age >= timedelta(days=most):
            assert event.event_id not in left
        elif age < timedelta(days=most - 1):
            assert event.event_id in left


def test_days_are_utc_days():
    """Rows of the first of March under ten days are due when the eleventh begins."""
    assert SHORT.due(date(2026, 3, 1), date(2026, 3, 11))
    assert not SHORT.due(date(2026, 3, 1), date(2026, 3, 10))
