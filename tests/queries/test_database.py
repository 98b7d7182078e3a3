"""The database reads evidence and can do nothing else."""

from __future__ import annotations

import csv
import io
import json
import threading
import time
from datetime import UTC, date, datetime, timedelta

import pytest
from evidence_samples import NOON, stories
from evidence_stores import local_store
from rich.console import Console

from evidence.errors import ConfigError
from evidence.parsing import parse
from evidence.schema import EVENTS_SCHEMA
from queries.database import Evidence
from queries.errors import QueryError, TooSlow
from queries.forms import cell, json_text, plain_text
from queries.render import render


def fill(root, *, begin=NOON, partition=0, site="home"):
    """Store a few stories, and give their events."""
    events = list(stories(20, begin=begin))
    numbers = list(range(len(events)))
    table = parse([e.to_json() for e in events], partition=partition, offsets=numbers, timestamps_ms=numbers).table
    with local_store(root, site).open("cluster", "ai.evidence", partition) as writer:
        writer.append(table, end=numbers[-1])
    return events


@pytest.fixture
def evidence(tmp_path):
    """Give an open database over a few stories."""
    fill(tmp_path)
    with Evidence(tmp_path) as opened:
        yield opened


def test_events_have_the_schema_s_columns_with_and_without_files(tmp_path):
    """The view has the same columns and types before the first file and after."""
    with Evidence(tmp_path) as evidence:
        before = evidence.query("SELECT * FROM events")
        assert list(before) == []
        fill(tmp_path)
        after = evidence.query("SELECT * FROM events LIMIT 1")
        assert len(list(after)) == 1
    assert list(before.columns) == [*EVENTS_SCHEMA.names, "date"]
    assert (before.columns, before.types) == (after.columns, after.types)


def test_files_that_appear_later_are_seen(tmp_path):
    """An open database sees the next file without being opened again."""
    with Evidence(tmp_path) as evidence:
        events = fill(tmp_path)
        assert list(evidence.query("SELECT count(*) FROM events")) == [(len(events),)]
        fill(tmp_path, partition=1)
        assert list(evidence.query("SELECT count(*) FROM events")) == [(2 * len(events),)]


def test_a_half_written_file_is_not_seen(tmp_path, evidence):
    """What a writer left behind does not disturb a reader."""
    before = list(evidence.query("SELECT count(*) FROM events"))
    (tmp_path / "events/site=home/date=2026-03-01/.tmp-cluster.ai.evidence-0.part").write_bytes(b"half")
    assert list(evidence.query("SELECT count(*) FROM events")) == before


def test_the_event_s_own_site_counts_and_the_day_skips_files(tmp_path):
    """`site` is where the event happened, whatever directory it lies in, and a day reads that day's files only."""
    fill(tmp_path, site="elsewhere")
    later = fill(tmp_path, begin=NOON + timedelta(days=1), partition=1)
    with Evidence(tmp_path) as evidence:
        assert list(evidence.query("SELECT DISTINCT site FROM events")) == [("home",)]
        assert list(evidence.query("SELECT count(*) FROM events WHERE date = '2026-03-02'")) == [(len(later),)]
        ((_, plan),) = evidence.query("EXPLAIN ANALYZE SELECT sum(sequence) FROM events WHERE date = '2026-03-02'")
    assert "Scanning Files: 1/2" in plan


def test_values_come_back_as_they_were(evidence):
    """Moments are aware, nested records are dicts, sums are integers."""
    event = next(e for e in stories(20) if e.usage is not None)
    ((occurred, usage, total),) = evidence.query(
        "SELECT occurred_at, usage, (SELECT sum(usage.input_tokens) FROM events) FROM events WHERE event_id = $id",
        {"id": event.event_id},
    )
    assert occurred == event.occurred_at_utc
    assert occurred.tzinfo is not None
    assert usage == event.usage.model_dump(by_alias=False)
    assert isinstance(total, int)


FORBIDDEN = [
    "CREATE TABLE x (a INT)",
    "CREATE VIEW x AS SELECT 1",
    "INSERT INTO events SELECT * FROM events",
    "DELETE FROM events",
    "DROP VIEW events",
    "COPY (SELECT 1) TO '{events}/x.csv'",
    "COPY events TO '/tmp/x.csv'",
    "EXPLAIN ANALYZE COPY (SELECT 1) TO '{events}/x.csv'",
    "EXPLAIN /* x */ ANALYZE COPY (SELECT 1) TO '{events}/x.csv'",
    "EXPLAIN (ANALYZE, FORMAT json) COPY (SELECT 1) TO '{events}/x.csv'",
    "WITH x AS (COPY (SELECT 1) TO '{events}/x.csv') SELECT * FROM x",
    "WITH x AS MATERIALIZED (COPY (SELECT 1) TO '{events}/x.csv') SELECT 1",
    "EXPLAIN ANALYZE WITH x AS (COPY (SELECT 1) TO '{events}/x.csv') SELECT * FROM x",
    "SELECT * FROM (WITH x AS (COPY (SELECT 1) TO '{events}/x.csv') SELECT * FROM x)",
    "WITH x AS (INSERT INTO events SELECT * FROM events RETURNING *) SELECT * FROM x",
    "ATTACH '{events}/x.db'",
    "EXPORT DATABASE '{events}/x'",
    "INSTALL httpfs",
    "LOAD httpfs",
    "SET threads = 1",
    "PRAGMA enable_profiling",
    "CALL enable_logging()",
    "SELECT * FROM enable_logging()",
    "SELECT * FROM query('SELECT 1')",
    "SELECT * FROM json_execute_serialized_sql('x')",
    "SELECT * FROM arrow_scan(1, 2, 3)",
    "SELECT * FROM read_text('/etc/hostname')",
    "SELECT * FROM read_csv('/etc/passwd')",
    "SELECT * FROM '/etc/passwd.csv'",
    "SELECT * FROM '{events}/../secret.csv'",
    "SELECT * FROM glob('/*')",
    "SELECT * FROM secret_variable",
    "SELECT 1; SELECT 2",
    "BEGIN",
    "",
    "-- nothing",
]


@pytest.mark.parametrize("sql", FORBIDDEN)
def test_nothing_but_reading_evidence_is_possible(tmp_path, evidence, sql):
    """Writing, reading other files, loading, setting and looking into the program are refused, without effect."""
    secret_variable = {"a": [1]}
    (tmp_path / "secret.csv").write_text("a,b\n1,2\n")
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(QueryError):
        list(evidence.query(sql.replace("{events}", str(tmp_path / "events"))))
    assert sorted(tmp_path.rglob("*")) == before
    assert secret_variable == {"a": [1]}
    assert list(evidence.query("SELECT count(*) > 0 FROM events")) == [(True,)]


@pytest.mark.parametrize(
    "sql",
    [
        "FROM events LIMIT 1",
        "VALUES (1)",
        "TABLE requests",
        "SHOW TABLES",
        "DESCRIBE events",
        "SUMMARIZE crossings",
        "EXPLAIN SELECT * FROM events",
        "WITH a AS (SELECT 1 AS b) SELECT * FROM a UNION ALL SELECT 2",
        "WITH RECURSIVE r AS (SELECT 1 AS a UNION ALL SELECT a + 1 FROM r WHERE a < 5) SELECT * FROM r",
        "PIVOT (SELECT stage, outcome FROM events) ON stage IN ('admission', 'dispatch') USING count(*)",
        "SELECT unnest(fallbacks) FROM events",
        "SELECT * FROM range(3);",
        "SELECT 1 -- a remark",
    ],
)
def test_reading_is_not_hindered(evidence, sql):
    """All that analysts write to read passes."""
    assert list(evidence.query(sql))


def test_an_answer_that_takes_too_long_is_given_up(evidence):
    """The time limit holds while computing, and the database can be asked again at once."""
    begun = time.monotonic()
    with pytest.raises(TooSlow, match=r"within 0\.3 s"):
        list(evidence.query("SELECT count(*) FROM range(1000000000000) t(a) WHERE a * a % 7 = 9", timeout_s=0.3))
    assert time.monotonic() - begun < 5
    assert list(evidence.query("SELECT 1")) == [(1,)]


def test_an_answer_can_be_left_unread(evidence):
    """Taking the first rows of a very long answer and closing it ends its computing."""
    with evidence.query("SELECT a FROM range(100000000000) t(a)") as result:
        rows, more = result.take(3)
        assert (rows, more) == ([(0,), (1,), (2,)], True)
        assert next(result) == (3,)
    assert list(evidence.query("SELECT 1")) == [(1,)]
    assert threading.active_count() < 20


def test_many_threads_may_ask(evidence):
    """Questions of several threads do not disturb each other."""
    answers = []

    def ask():
        answers.extend(evidence.query("SELECT count(*) FROM events"))

    threads = [threading.Thread(target=ask) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(answers) == 8
    assert len(set(answers)) == 1


def test_the_database_s_own_words_are_told(evidence):
    """A misspelt column comes back with what the database says about it."""
    with pytest.raises(QueryError, match="evnt_id"):
        evidence.query("SELECT evnt_id FROM events")


def test_parameters_are_values(evidence):
    """A parameter that looks like SQL is a text, and a missing one is an error."""
    assert list(evidence.query("SELECT $a", {"a": "1); DROP VIEW events; --"})) == [("1); DROP VIEW events; --",)]
    with pytest.raises(QueryError, match="a"):
        list(evidence.query("SELECT $a"))


def test_a_directory_that_is_a_pattern_is_refused(tmp_path):
    """A name that stands for other directories cannot be opened."""
    with pytest.raises(ConfigError, match="cannot be queried"):
        Evidence(tmp_path / "a*")


def test_a_directory_with_a_quote_can_be_opened(tmp_path):
    """A directory's name is never taken for SQL."""
    root = tmp_path / "it's mine"
    events = fill(root)
    with Evidence(root) as evidence:
        assert list(evidence.query("SELECT count(*) FROM events")) == [(len(events),)]


def written(evidence, output, sql, **options):
    """Give what a rendering writes."""
    out = io.StringIO()
    render(evidence.query(sql), output, Console(file=out, width=100), **options)
    return out.getvalue()


def test_json_is_json(evidence):
    """JSON has RFC 3339 moments and nested values, and no rows are an empty list."""
    sql = "SELECT event_id, occurred_at, source, duration_ms, fallbacks FROM events ORDER BY log_offset LIMIT 4"
    rows = json.loads(written(evidence, "json", sql))
    event = next(stories(1))
    assert rows[0]["event_id"] == event.event_id
    assert rows[0]["occurred_at"] == event.model_dump(mode="json")["occurredAtUtc"]
    assert rows[0]["source"] == {"topic": "ai.requests", "partition": 0, "offset": 0}
    assert json.loads(written(evidence, "json", "SELECT 1 WHERE false")) == []


def test_csv_is_csv(evidence):
    """CSV has a header, quotes what needs it, and writes nested values as JSON."""
    text = written(evidence, "csv", "SELECT 'a,\"b\"' AS x, {'y': 1} AS z, NULL AS n, 0.1 + 0.2 AS f")
    rows = list(csv.reader(io.StringIO(text)))
    assert rows[0] == ["x", "z", "n", "f"]
    assert rows[1][:3] == ['a,"b"', '{"y": 1}', ""]


def test_a_table_says_when_there_is_more(evidence):
    """A table is cut at its row limit, and says so; values are never taken for markup."""
    text = written(evidence, "table", "SELECT a, '[bold]x' AS m FROM range(10) t(a)", max_rows=4)
    assert "the first 4 rows; there are more" in text
    assert "[bold]x" in text
    assert "1 row" in written(evidence, "table", "SELECT 1")


def test_every_kind_of_value_has_a_form():
    """What JSON cannot hold becomes text."""
    assert json_text(float("nan")) == '"NaN"'
    assert json_text(b"\x00\xff") == '"00ff"'
    assert json_text(timedelta(seconds=1.5)) == '"00:00:01.5"'
    assert json_text(date(2026, 1, 2)) == '"2026-01-02"'
    assert json_text(datetime(2026, 1, 2, tzinfo=UTC)) == '"2026-01-02T00:00:00Z"'
    assert cell(0.123456789) == "0.123457"
    assert plain_text(0.123456789) == "0.123456789"
