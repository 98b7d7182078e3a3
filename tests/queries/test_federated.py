"""One question over several sites: all that can be used answer, and the others are named."""

from __future__ import annotations

import re
import threading
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from evidence_samples import NOON, stories
from evidence_stores import OneKey, local_store
from federated_sites import ALL, LOG, export, fill, remote, rows, sent

from evidence.errors import StoreError
from evidence.federation.export import Exporter
from evidence.files.local import LocalFiles
from evidence.files.places import BucketAccess, open_files
from evidence.schema import EVENTS_SCHEMA
from evidence.store.site import EvidenceStore
from queries import named
from queries.database import Evidence
from queries.errors import QueryError
from queries.federated import FederatedEvidence, OtherSite, Remote

DAY_S = 86_400.0


def opened(folder: Path, *remotes: Remote, **options) -> FederatedEvidence:
    """Open hq's own evidence and the copies of others."""
    return FederatedEvidence(folder / "hq" / "evidence", "hq", remotes, cache=folder / "cache", **options)


@pytest.fixture
def three(tmp_path):
    """Give hq with some evidence and two sites whose copies it asks."""
    fill(tmp_path / "hq" / "evidence", "hq", stories(20))
    return tmp_path, sent("edge-1", tmp_path), sent("cloud-eu", tmp_path, number=40)


def counted(evidence: Evidence, view: str = "events") -> dict[str, int]:
    """Count a view's rows by site."""
    return dict(evidence.query(f"SELECT site, count(*) FROM {view} GROUP BY site"))  # noqa: S608 - a view's name


def test_every_site_s_rows_are_there_once(three):
    """Each view holds the rows of all sites, with their site, and each site's are those that its own store gives."""
    folder, *remotes = three
    with opened(folder, *remotes) as evidence:
        assert [(state.name, state.condition) for state in evidence.states] == [
            ("hq", "ok"),
            ("edge-1", "ok"),
            ("cloud-eu", "ok"),
        ]
        for view in ("events", "requests", "crossings"):
            found = counted(evidence, view)
            assert set(found) == {"hq", "edge-1", "cloud-eu"}
            for site in ("hq", "edge-1", "cloud-eu"):
                root = folder / site / ("evidence" if site == "hq" else "copy")
                with Evidence(root) as alone:
                    assert [(found[site],)] == list(alone.query(f"SELECT count(*) FROM {view}"))  # noqa: S608 - the same
        with evidence.query("SELECT * FROM events LIMIT 0") as answer:
            assert answer.columns == (*EVENTS_SCHEMA.names, "date")


def plan(evidence: Evidence, sql: str) -> str:
    """Give how a question was answered."""
    ((_, text),) = evidence.query(f"EXPLAIN ANALYZE {sql}")
    return text


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT sum(sequence) FROM events WHERE site = 'edge-1'",
        "SELECT sum(events) FROM requests WHERE site = 'edge-1'",
        "SELECT count(attempt) FROM crossings WHERE site = 'edge-1'",
    ],
)
def test_a_condition_on_the_site_leaves_the_other_sites_files_alone(three, sql):
    """Only files of that site are opened, through every view."""
    folder, *remotes = three
    with opened(folder, *remotes) as evidence:
        read = re.findall(r"site=([a-z0-9-]+)/", plan(evidence, sql))
        assert set(read) == {"edge-1"}
        everywhere = plan(evidence, sql.partition(" WHERE")[0])
        assert set(re.findall(r"site=([a-z0-9-]+)/", everywhere)) == {"hq", "edge-1", "cloud-eu"}


def test_conditions_reach_the_parquet_readers_of_each_site(tmp_path):
    """A condition is evaluated in the scan, and row groups and days that cannot match are not read."""
    fill(tmp_path / "hq" / "evidence", "hq", stories(20, begin=NOON + timedelta(days=1)), at_once=1000)
    first = sent("edge-1", tmp_path, number=300)
    with opened(tmp_path, first) as evidence:
        text = plan(evidence, "SELECT sum(sequence) FROM events WHERE date = '2026-03-01' AND tenant_ref = 'acme'")
        assert "Filters: tenant_ref = 'acme'" in text
        assert set(re.findall(r"site=([a-z0-9-]+)/date=([0-9-]+)/", text)) == {("edge-1", "2026-03-01")}
        none = plan(evidence, "SELECT sum(sequence) FROM events WHERE log_offset > 1000000000")
        assert re.findall(r"Row Groups Scanned: (\d+)", none) in ([], ["0"], ["0", "0"])
        some = plan(evidence, "SELECT sum(sequence) FROM events WHERE log_offset >= 0")
        assert re.findall(r"Row Groups Scanned: (\d+)", some) == ["1", "1"]


def test_sites_that_cannot_be_used_are_named_and_the_others_answer(three):
    """One is down, one's key is forged, one is stale: the stale one is used, all three say why."""
    folder, edge, cloud = three
    sent("plant", folder)
    forged = remote("cloud-eu", folder / "cloud-eu" / "copy", key=OneKey("cloud-eu", 1).signer.vkey)
    stale = remote("plant", folder / "plant" / "copy", max_age_s=DAY_S)
    down = remote("edge-1", folder / "nowhere")
    with opened(folder, down, forged, stale, now=lambda: time.time() + 2 * DAY_S) as evidence:
        assert set(counted(evidence)) == {"hq", "plant"}
        said = {state.name: state for state in evidence.states}
    assert [said[name].condition for name in ("edge-1", "cloud-eu", "plant")] == ["down", "unverified", "stale"]
    assert "holds no evidence" in said["edge-1"].why
    assert "signed by no key that is known" in said["cloud-eu"].why
    assert said["plant"].why == "its newest commit is 172800 s old, and 86400 s are allowed"
    assert [state.used for state in evidence.states] == [True, False, False, True]
    assert edge.name != cloud.name


def test_a_site_that_hangs_is_down_after_its_time(three):
    """A place that does not answer costs its time limit, once, and nothing of the others."""
    folder, edge, cloud = three
    ever = threading.Event()

    def hangs():
        ever.wait(60)
        return LocalFiles(folder / "cloud-eu" / "copy")

    begun = time.monotonic()
    with opened(folder, Remote("cloud-eu", cloud.key, hangs), edge, timeout_s=0.5) as evidence:
        assert time.monotonic() - begun < 10
        assert set(counted(evidence)) == {"hq", "edge-1"}
    ever.set()
    assert (evidence.states[1].condition, evidence.states[1].why) == ("down", "nothing came from it for 0.5 s")


def test_a_site_that_passes_off_rows_of_another_is_an_error(three):
    """A signed copy with rows that say another site ends the question, and so does one's own store."""
    folder, edge, _ = three
    lying = [one.model_copy(update={"site": "hq"}) for one in stories(5)]
    with local_store(folder / "edge-2" / "copy", "edge-2").open(*LOG) as writer:
        writer.append(rows(lying), end=len(lying) - 1)
    with pytest.raises(OtherSite, match="is evidence of site 'edge-2' but holds rows of 'hq'"):
        opened(folder, edge, remote("edge-2", folder / "edge-2" / "copy"))
    with (
        FederatedEvidence(folder / "edge-2" / "copy", "edge-2", [edge], cache=folder / "cache") as own,
        pytest.raises(StoreError, match="holds rows of 'hq'"),
    ):
        own.query("SELECT 1 FROM events")


def test_named_questions_are_answered_over_all_sites(three):
    """Each question that comes with the program can be asked of several sites too, and its rows begin with the site."""
    folder, *remotes = three
    with opened(folder, *remotes) as evidence:
        for question in named.load().values():
            given = {"request_id": "req-00000001"} if question.name == "story" else {}
            wanted = {each.name: given.get(each.name, "x") for each in question.parameters if each.required}
            with evidence.query(question.sql_by_site, question.bind(wanted)) as answer:
                assert answer.columns[0] == "site"
                list(answer)
        outcomes = list(evidence.query(named.load()["outcomes"].sql_by_site, {"since": None, "until": None}))
        assert len({row[0] for row in outcomes}) == 3
        assert sum(row[2] for row in outcomes) == sum(counted(evidence, "requests").values()) == 89


def test_it_is_as_read_only_as_one_s_own_evidence(three):
    """Nothing but the stores' events can be read, and nothing can be written."""
    folder, *remotes = three
    with opened(folder, *remotes) as evidence:
        for sql in (
            "SELECT * FROM read_text('/etc/hostname')",
            f"COPY (SELECT 1) TO '{folder}/x.csv'",
            "SET lock_configuration = false",
        ):
            with pytest.raises(QueryError):
                evidence.query(sql)


def test_new_rows_of_one_s_own_are_seen_and_a_store_without_any_is_fine(tmp_path):
    """The own store may be empty at first; what comes later is in the next answer."""
    edge = sent("edge-1", tmp_path)
    with opened(tmp_path, edge) as evidence:
        assert set(counted(evidence)) == {"edge-1"}
        fill(tmp_path / "hq" / "evidence", "hq", stories(3))
        assert set(counted(evidence)) == {"edge-1", "hq"}


def test_a_copy_in_a_bucket_is_kept_here_by_its_hashes(tmp_path, bucket):
    """Files are fetched once and checked; a later question fetches new ones alone, and drops those that are gone."""
    access = BucketAccess(endpoint=bucket.endpoint)

    def files():
        return open_files(bucket.url, access)

    own = tmp_path / "edge-1" / "evidence"
    told = fill(own, "edge-1", stories(20))
    keys = OneKey("edge-1")
    store = EvidenceStore(files(), "edge-1", keys)
    maker = Exporter(LocalFiles(own), store, "hq", ALL, [keys.signer.verifier])
    maker.run(maker.plan(datetime.now(UTC)), b"{}", lambda _, commit: commit)
    there = Remote("edge-1", keys.signer.vkey, files)
    with opened(tmp_path, there) as evidence:
        (before,) = evidence.query("SELECT count(*) FROM events")
    kept = {path: path.stat().st_mtime_ns for path in (tmp_path / "cache").rglob("*.parquet")}
    assert kept
    fill(own, "edge-1", stories(5, seed=3, begin=NOON + timedelta(days=1)), first=len(told))
    maker.run(maker.plan(datetime.now(UTC)), b"{}", lambda _, commit: commit)
    with opened(tmp_path, there) as evidence:
        (after,) = evidence.query("SELECT count(*) FROM events")
        assert set(counted(evidence)) == {"edge-1"}
    assert after > before
    now = {path: path.stat().st_mtime_ns for path in (tmp_path / "cache").rglob("*.parquet")}
    assert {path: now.get(path) for path in kept} == kept
    assert len(now) == len(kept) + 1


def test_one_s_own_evidence_may_lie_in_a_bucket(tmp_path, bucket):
    """The own store is asked where it lies, beside a copy in a folder."""
    files = open_files(bucket.url, BucketAccess(endpoint=bucket.endpoint))
    told = [one.model_copy(update={"site": "hq"}) for one in stories(5)]
    with EvidenceStore(files, "hq", OneKey("hq")).open(*LOG) as writer:
        writer.append(rows(told), end=len(told) - 1)
    with FederatedEvidence(files, "hq", [sent("edge-1", tmp_path)], cache=tmp_path / "cache") as evidence:
        assert counted(evidence)["hq"] == len(told)
        assert set(counted(evidence)) == {"hq", "edge-1"}


def test_a_file_in_a_bucket_that_is_not_the_signed_one_is_not_used(tmp_path, bucket):
    """The bytes that come are held against the commit's hash before they are kept."""
    access = BucketAccess(endpoint=bucket.endpoint)
    edge = sent("edge-1", tmp_path)
    copy = tmp_path / "edge-1" / "copy"
    files = open_files(bucket.url, access)
    for entry in LocalFiles(copy).list(""):
        data = (copy / entry.path).read_bytes()
        files.replace(entry.path, data[::-1] if entry.path.endswith(".parquet") else data)
    with opened(tmp_path, Remote("edge-1", edge.key, lambda: files)) as evidence:
        assert evidence.states[1].condition == "unverified"
        assert "is not the file that its commit names" in evidence.states[1].why
        assert list(evidence.query("SELECT count(*) FROM events")) == [(0,)]
    assert not list((tmp_path / "cache").rglob("*.parquet"))


def test_a_later_export_is_in_the_next_answer(tmp_path):
    """Who opens the federation anew sees what has been exported since."""
    edge = sent("edge-1", tmp_path, number=10)
    with opened(tmp_path, edge) as evidence:
        first = counted(evidence)["edge-1"]
    own = tmp_path / "edge-1" / "evidence"
    with local_store(own, "edge-1").open(*LOG) as writer:
        begin = writer.position
    fill(own, "edge-1", stories(10, seed=9), first=begin)
    export(own, tmp_path / "edge-1" / "copy", "edge-1")
    with opened(tmp_path, edge) as evidence:
        assert counted(evidence)["edge-1"] > first
