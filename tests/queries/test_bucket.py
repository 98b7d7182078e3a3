"""Questions to evidence that lies in a bucket."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest
from evidence_samples import stories
from evidence_stores import OneKey

from evidence.files.s3 import S3Files
from evidence.parsing import parse
from evidence.store.site import EvidenceStore
from queries.database import Evidence
from queries.errors import QueryError

LOG = ("c1", "ai.evidence", 0)


def table(events, first):
    """Give the rows of events at offsets from `first` on."""
    offsets = list(range(first, first + len(events)))
    return parse([e.to_json() for e in events], partition=0, offsets=offsets, timestamps_ms=[0] * len(events)).table


def fill(made, *batches):
    """Commit batches of events, one after the other."""
    store = EvidenceStore(S3Files(made.url, endpoint=made.endpoint), "home", OneKey("home"))
    with store.open(*LOG, partitions=1) as writer:
        for batch in batches:
            writer.append(table(batch, writer.position), end=writer.position + len(batch) - 1)


def ask(evidence, sql):
    """Give the rows of an answer."""
    with evidence.query(sql) as result:
        return list(result)


def test_evidence_in_a_bucket_is_asked_like_any_other(bucket):
    """All views answer, new commits are seen, and a file that no commit added is not."""
    events = list(stories(20))
    fill(bucket, events[:40])
    files = S3Files(bucket.url, endpoint=bucket.endpoint)
    with Evidence(files) as evidence:
        assert ask(evidence, "SELECT count(*) FROM events") == [(40,)]
        [path] = [entry.path for entry in files.list("events/")]
        files.create(path.replace(".parquet", "-stray.parquet"), files.read(path))
        fill(bucket, events[40:60])
        assert ask(evidence, "SELECT count(*), count(DISTINCT event_id) FROM events") == [(60, 60)]
        assert ask(evidence, "SELECT count(*) > 0 FROM requests") == [(True,)]


def test_many_questions_at_once_each_read_their_own_places(bucket):
    """Threads that read the same files at the same time do not read each other's parts."""
    fill(bucket, list(stories(4000))[:12_000], list(stories(50)))
    files = S3Files(bucket.url, endpoint=bucket.endpoint)
    with Evidence(files) as evidence:
        sql = "SELECT count(*), bit_xor(hash(event_id)), bit_xor(hash(request_id)), sum(log_offset) FROM events"
        [expected] = ask(evidence, sql)
        with ThreadPoolExecutor(8) as pool:
            assert set(pool.map(lambda _: ask(evidence, sql)[0], range(24))) == {expected}


def test_a_second_question_asks_the_bucket_for_nothing_that_is_known(bucket, meddler):
    """Counting rows again reads commits only, and no file of events."""
    fill(bucket, *(list(stories(2)) for _ in range(6)))
    with Evidence(S3Files(bucket.url, endpoint=meddler.url)) as evidence:
        first = ask(evidence, "SELECT count(*) FROM events")
        meddler.calls.clear()
        assert ask(evidence, "SELECT count(*) FROM events") == first
        assert not [call.path for call in meddler.calls if "/events/" in call.path]


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT * FROM read_parquet('waybill://events/*/*/*.parquet')",
        "SELECT * FROM read_text('waybill://logs/c1.ai.evidence-0/commits/000000000000')",
        "SELECT * FROM read_text('/etc/hostname')",
        "SELECT * FROM read_text('s3://bucket/x')",
        "COPY (SELECT 1) TO 'waybill://events/x.parquet'",
    ],
)
def test_a_question_opens_nothing_but_live_files(bucket, sql):
    """Neither other files of the bucket nor files of this machine can be read, and nothing can be written."""
    fill(bucket, list(stories(2)))
    with Evidence(S3Files(bucket.url, endpoint=bucket.endpoint)) as evidence, pytest.raises(QueryError):
        ask(evidence, sql)
