"""Copies for other sites hold what may leave and nothing else, join without a gap, and can be checked."""

from __future__ import annotations

import itertools
import json
import subprocess
import sys
import tempfile
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from evidence_samples import NOON, stories
from evidence_stores import OneKey, local_store
from failing_files import FailingFiles
from federated_sites import ALL, LOG, export, exporter, fill, rows
from hypothesis import given
from hypothesis import strategies as st
from marked_events import FREE, event, mark

from evidence.errors import StoreError, UnavailableError
from evidence.federation.chain import commits, read_signed
from evidence.federation.choice import UNREADABLE, Terms
from evidence.federation.columns import FIELDS, PATHS, REQUIRED, minimise
from evidence.federation.export import told
from evidence.files.local import LocalFiles
from evidence.files.seam import NotThere
from evidence.log.commits import Expired
from evidence.log.keys import KeyRing
from evidence.log.ranges import count
from evidence.rows import canonical_rows
from evidence.schema import EVENTS_SCHEMA
from evidence.store.compaction import compact, plans
from evidence.store.live import read_live

ROOT = Path(__file__).resolve().parents[2]
CLASSES = ("public", "internal", "confidential", "restricted")
COPY = "cluster-to-hq.ai.evidence-0"
NOW = datetime.now(UTC)
INTERNAL = Terms(frozenset({"public", "internal"}), REQUIRED | {"classification.effective", "tenant_ref"})


def copied(copy: Path, log: str = COPY) -> pa.Table:
    """Give the live rows of a copy, by offset."""
    files = sorted(read_live(LocalFiles(copy), log).files)
    tables = [pq.ParquetFile(copy / path).read() for path in files]
    return pa.concat_tables([EVENTS_SCHEMA.empty_table(), *tables]).sort_by("log_offset")


def ids(table: pa.Table) -> list[str]:
    """Give the rows' event ids, in order."""
    return table.column("event_id").to_pylist()


def value(table: pa.Table, path: str) -> pa.ChunkedArray:
    """Give a column, or a field of one."""
    column, _, field = path.partition(".")
    return pc.struct_field(table.column(column), field) if field else table.column(column)


def everything(copy: Path) -> bytes:
    """Give all that is written anywhere in a copy: raw files, decoded rows, statistics, whole dictionaries."""
    found = [path.read_bytes() for path in sorted(copy.rglob("*")) if path.is_file()]
    for path in copy.rglob("*.parquet"):
        file = pq.ParquetFile(path)
        table = file.read()
        found.append(json.dumps(table.to_pylist(), default=str).encode())
        found.append(str(file.metadata.metadata).encode())
        groups = range(file.metadata.num_row_groups)
        found.extend(str(file.metadata.row_group(group).to_dict()).encode() for group in groups)
        for column in table.columns:
            if pa.types.is_dictionary(column.type):
                found.extend(str(chunk.dictionary.to_pylist()).encode() for chunk in column.chunks)
    return b"\n".join(found)


# What leaves


@st.composite
def logs(draw):
    """Some events: few requests, of which some events say a class and some do not."""
    requests = ("req-a", "req-b", "req-c", UNREADABLE)
    told = st.tuples(
        st.sampled_from(requests),
        st.sampled_from((None, *CLASSES)),
        st.sampled_from(((), ("gdpr",), ("hipaa",), ("gdpr", "hipaa"))),
        st.sampled_from((None, "support", "research")),
    )
    return [
        event(number, request=request, cls=cls, regulations=regulations, purpose=purpose)
        for number, (request, cls, regulations, purpose) in enumerate(draw(st.lists(told, min_size=1, max_size=14)))
    ]


TERMS = st.builds(
    Terms,
    st.frozensets(st.sampled_from(CLASSES), min_size=1),
    st.frozensets(st.sampled_from(sorted(PATHS))).map(lambda some: some | REQUIRED),
    st.none() | st.frozensets(st.sampled_from(("support", "research")), min_size=1),
    st.none() | st.frozensets(st.sampled_from(("gdpr", "hipaa"))),
)


def may_leave(one, events, terms: Terms) -> bool:
    """Tell, event by event, whether it may leave; another way to say the rule than the code's."""

    def fine(other) -> bool:
        cls, purpose = other.classification, other.purpose
        by_class = cls is None or (
            cls.effective in terms.classes and (terms.regulations is None or set(cls.regulations) <= terms.regulations)
        )
        return by_class and (terms.purposes is None or purpose is None or purpose in terms.purposes)

    others = [other for other in events if other.request_id == one.request_id and one.request_id != UNREADABLE]
    own_class = terms_of_class = one.classification is not None
    if own_class:
        terms_of_class = fine(one.model_copy(update={"purpose": None}))
    else:
        terms_of_class = any(other.classification for other in others) and all(fine(other) for other in others)
    if terms.purposes is None:
        return terms_of_class
    if one.purpose is not None:
        return terms_of_class and one.purpose in terms.purposes
    return terms_of_class and any(other.purpose for other in others) and all(fine(other) for other in others)


@given(logs(), TERMS)
def test_nothing_that_is_not_granted_is_anywhere_in_a_copy(events, terms):
    """Whatever the grants: exactly the granted rows leave, and no value of another column is anywhere in the copy."""
    with tempfile.TemporaryDirectory() as folder:
        own, copy = Path(folder) / "own", Path(folder) / "copy"
        told_ = fill(own, "edge-1", events, at_once=5)
        export(own, copy, "edge-1", terms=terms)
        leaving = [one for one in told_ if may_leave(one, told_, terms)]
        table = copied(copy)
        assert ids(table) == [one.event_id for one in leaving]
        written = everything(copy)
        for path in PATHS - terms.columns:
            assert value(table, path).null_count == len(table), path
            assert f"~{path}~".encode() not in written, path
        for number, one in enumerate(told_):
            if one not in leaving:
                assert mark("", number)[-8:].encode() not in written, "a value of a row that stayed"
        source = fill(Path(folder) / "again", "edge-1", leaving)
        whole = rows(source) if source else EVENTS_SCHEMA.empty_table()
        for path in terms.columns - {"log_offset", "log_timestamp"}:
            assert value(table, path).to_pylist() == value(whole, path).to_pylist(), path


def test_the_marks_would_be_found(tmp_path):
    """In a copy of everything each column's mark is found, so that the search can find what must not be there."""
    fill(tmp_path / "own", "edge-1", [event(0, request="req-a", cls="public", regulations=("gdpr",))])
    export(tmp_path / "own", tmp_path / "copy", "edge-1", terms=ALL)
    written, table = everything(tmp_path / "copy"), copied(tmp_path / "copy")
    for path in PATHS:
        assert value(table, path).null_count == 0, path
        kind = value(table, path).type
        if path not in FREE and (pa.types.is_string(kind) or pa.types.is_dictionary(kind) or pa.types.is_list(kind)):
            fixed = path in {
                "request_id",
                "event_type",
                "stage",
                "site",
                "outcome",
                "evidence_version",
                "route.placement",
            }
            assert fixed or f"~{path}~".encode() in written, path


def test_a_struct_of_which_nothing_is_left_is_null_itself():
    """That there was a failure is not told where none of its granted fields has a value."""
    table = rows([one for one in stories(40) if one.failure is not None or one.outcome is not None])
    left = minimise(table, REQUIRED | {"failure.retryable", "approval.note"})
    assert left.column("failure").null_count == table.column("failure").null_count
    assert left.column("approval").null_count == len(table)
    assert all(b'"failure":{"retryable"' in row for row in canonical_rows(left) if b"failure" in row)


def test_required_columns_cannot_be_left_out():
    """Rows without what the schema requires are not made."""
    assert "event_id" in REQUIRED
    with pytest.raises(ValueError, match="without event_id"):
        minimise(EVENTS_SCHEMA.empty_table(), PATHS - {"event_id"})


def test_every_column_is_known_with_its_fields():
    """What can be granted is what the events consist of."""
    assert {path.partition(".")[0] for path in PATHS} == set(EVENTS_SCHEMA.names)
    assert "classification.findings" in PATHS
    assert "classification" not in PATHS
    assert len(PATHS) == sum(len(fields) or 1 for fields in FIELDS.values())


def test_an_operator_s_deed_goes_by_the_class_of_its_request(tmp_path):
    """An event without a class leaves with its request's, also where that was logged, and exported, long before."""
    own, copy = tmp_path / "own", tmp_path / "copy"
    fill(own, "edge-1", [event(0, request="req-a", cls="internal"), event(1, request="req-b", cls="restricted")])
    export(own, copy, "edge-1", terms=INTERNAL)
    deeds = [event(number, request=request, cls=None) for number, request in enumerate(("req-a", "req-b", "req-c"), 2)]
    fill(own, "edge-1", deeds, first=2)
    export(own, copy, "edge-1", terms=INTERNAL)
    assert ids(copied(copy)) == [mark("event_id", 0), mark("event_id", 2)]


def test_events_whose_request_could_not_be_read_vouch_for_nobody(tmp_path):
    """They share a name and nothing else, so that one with a class says nothing of the others."""
    told_ = [event(0, request=UNREADABLE, cls="public"), event(1, request=UNREADABLE, cls=None)]
    fill(tmp_path / "own", "edge-1", told_)
    export(tmp_path / "own", tmp_path / "copy", "edge-1", terms=INTERNAL)
    assert ids(copied(tmp_path / "copy")) == [mark("event_id", 0)]


def test_a_class_that_may_still_come_is_waited_for(tmp_path):
    """Behind an event whose request is not classified yet nothing leaves, until it is or the time is over."""
    own, copy = tmp_path / "own", tmp_path / "copy"
    story = [
        event(number, request="req-a", cls=cls).model_copy(update={"outcome": None, "occurred_at_utc": NOW})
        for number, cls in enumerate((None, "internal"))
    ]
    before = event(9, request="req-b", cls="internal")
    fill(own, "edge-1", [before, story[0]], at_once=1)
    export(own, copy, "edge-1", terms=INTERNAL)
    assert ids(copied(copy)) == [before.event_id]
    fill(own, "edge-1", story[1:], first=2)
    export(own, copy, "edge-1", terms=INTERNAL)
    assert ids(copied(copy)) == [before.event_id, *(one.event_id for one in story)]
    late = exporter(own, tmp_path / "late", "edge-1", terms=INTERNAL, settle_s=0.0)
    assert late.plan(NOW + timedelta(hours=1)).withheld == 0


# How it joins


def test_an_export_goes_on_where_the_last_one_ended(tmp_path):
    """Two exports give the rows of one; each commit names a signed state of the original and accounts for its rows."""
    own, events = tmp_path / "own", list(stories(120))
    fill(own, "edge-1", events[:500], at_once=70)
    export(own, tmp_path / "twice", "edge-1", terms=INTERNAL, rows_at_once=150)
    fill(own, "edge-1", events[500:], at_once=70, first=500)
    export(own, tmp_path / "twice", "edge-1", terms=INTERNAL, rows_at_once=150)
    export(own, tmp_path / "twice", "edge-1", terms=INTERNAL, rows_at_once=150)
    export(own, tmp_path / "once", "edge-1", terms=INTERNAL)
    assert copied(tmp_path / "twice").equals(copied(tmp_path / "once"))
    assert len(copied(tmp_path / "once")) > 300
    originals = {
        (c.origin, c.size, c.root) for c in (n.commit for n in commits(LocalFiles(own), "cluster.ai.evidence-0"))
    }
    done = 0
    for noted in commits(LocalFiles(tmp_path / "twice"), COPY):
        commit = noted.commit
        if commit.source is None:
            assert not commit.withheld
            continue
        assert (commit.source.origin, commit.source.size, commit.source.root) in originals
        added, withheld = told(commit)
        assert commit.source.size - done == added + withheld
        assert all(done <= number < commit.source.size for pair in commit.withheld for number in pair)
        assert commit.statement is not None
        done = commit.source.size
    assert done == len(events)


def test_a_compacted_original_gives_the_same_copy(tmp_path):
    """Rows that compaction sorted by time leave in the order of the log."""
    own, events = tmp_path / "own", list(stories(60))
    events = [one for pair in zip(events[1::2], events[::2], strict=False) for one in pair]
    fill(own, "edge-1", events, at_once=40)
    export(own, tmp_path / "before", "edge-1")
    with local_store(own, "edge-1").open(*LOG) as writer:
        for plan in plans(writer.live, today=NOW.date()):
            compact(writer, LocalFiles(own), plan)
        assert len(writer.live.files) == 1
    export(own, tmp_path / "behind", "edge-1")
    assert ids(copied(tmp_path / "behind")) == ids(copied(tmp_path / "before"))
    assert len(ids(copied(tmp_path / "before"))) > 100


def test_rows_that_expired_count_as_withheld(tmp_path):
    """What retention removed from the original cannot leave, and its numbers are among those that did not."""
    own = tmp_path / "own"
    fill(own, "edge-1", [event(number, request="req-a", cls="public") for number in range(10)], at_once=5)
    with local_store(own, "edge-1").open(*LOG) as writer:
        first = min(writer.live.files.values(), key=lambda added: added.leaves)
        writer.change(remove=(first.path,), expire=(Expired(first.leaves, "test"),))
    (commit,) = export(own, tmp_path / "copy", "edge-1")
    assert (told(commit), commit.withheld) == ((5, 5), ((0, 4),))


@pytest.mark.parametrize("every", [pytest.param(7, id="some"), pytest.param(1, id="each", marks=pytest.mark.soak)])
def test_an_export_that_is_cut_off_anywhere_goes_on_without_doubles(tmp_path, every):
    """A call to the copy's place fails once, before and behind it; the next export makes the copy whole."""
    own, events = tmp_path / "own", list(stories(30))
    fill(own, "edge-1", events, at_once=40)
    export(own, tmp_path / "whole", "edge-1", terms=INTERNAL, rows_at_once=80)
    wanted = copied(tmp_path / "whole")
    cut = 0
    for behind in (False, True):
        for at in itertools.count(1, every):
            copy = tmp_path / f"copy-{behind}-{at}"
            made = exporter(own, copy, "edge-1", terms=INTERNAL, rows_at_once=80)
            files = FailingFiles(LocalFiles(copy), at, behind=behind)
            made.copy.files = files
            try:
                made.run(made.plan(NOW), b"{}", lambda _, commit: commit)
            except UnavailableError:
                cut += 1
            export(own, copy, "edge-1", terms=INTERNAL, rows_at_once=80)
            assert copied(copy).equals(wanted)
            read_signed(LocalFiles(copy), OneKey("edge-1").signer.verifier, "edge-1")
            if len(files.names) < at:
                break
    assert cut > 60 // every


def test_the_original_is_read_no_further_than_it_can_be_believed(tmp_path):
    """A changed file of the original, or one signed by another key, ends the export before anything is written."""
    own = tmp_path / "own"
    fill(own, "edge-1", stories(10))
    (path,) = own.rglob("*.parquet")
    data = path.read_bytes()
    path.write_bytes(data[:-9] + bytes([data[-9] ^ 1]) + data[-8:])
    with pytest.raises(StoreError, match="not the file that its commit names"):
        export(own, tmp_path / "copy", "edge-1")
    path.write_bytes(data)
    foreign = exporter(own, tmp_path / "copy", "edge-1")
    object.__setattr__(foreign, "keys", [OneKey("edge-1", 7).signer.verifier])
    with pytest.raises(StoreError, match="no key that is known"):
        foreign.plan(NOW)
    assert not (tmp_path / "copy").exists()


def test_a_copy_of_another_original_is_not_continued(tmp_path):
    """Where the original's log was replaced by another one, its rows are not mixed with the old ones."""
    fill(tmp_path / "own", "edge-1", stories(10))
    export(tmp_path / "own", tmp_path / "copy", "edge-1")
    fill(tmp_path / "other", "edge-1", stories(20, seed=2))
    with pytest.raises(StoreError, match="one of the two was replaced"):
        export(tmp_path / "other", tmp_path / "copy", "edge-1")


def test_two_exports_at_once_do_not_double(tmp_path):
    """An export whose plan was overtaken by another one stops."""
    fill(tmp_path / "own", "edge-1", stories(10))
    first = exporter(tmp_path / "own", tmp_path / "copy", "edge-1")
    plan = first.plan(NOW)
    export(tmp_path / "own", tmp_path / "copy", "edge-1")
    before = copied(tmp_path / "copy")
    with pytest.raises(StoreError, match="another export to hq has been here"):
        first.run(plan, b"{}", lambda _, commit: commit)
    assert copied(tmp_path / "copy").equals(before)


def test_a_copy_goes_on_under_the_site_s_next_key(tmp_path):
    """After a rotation the copy says so itself, and is believed by the new key alone."""
    ring = KeyRing.create(tmp_path / "keys", "edge-1")
    fill(tmp_path / "own", "edge-1", stories(10), keys=ring)
    export(tmp_path / "own", tmp_path / "copy", "edge-1", keys=ring)
    first = ring.newest().verifier
    second = ring.rotate().verifier
    export(tmp_path / "own", tmp_path / "copy", "edge-1", keys=ring)
    assert read_signed(LocalFiles(tmp_path / "copy"), second, "edge-1").files
    with pytest.raises(StoreError, match="no key that is known"):
        read_signed(LocalFiles(tmp_path / "copy"), first, "edge-1")


# How it is checked


def test_the_independent_checker_takes_a_copy(tmp_path):
    """`python -m evidence.verify` with the site's public key finds nothing wrong, and says what it is a copy of."""
    fill(tmp_path / "own", "edge-1", stories(40), at_once=50)
    export(tmp_path / "own", tmp_path / "copy", "edge-1", terms=INTERNAL, rows_at_once=100)
    key = OneKey("edge-1").signer.vkey
    checked = subprocess.run(
        [sys.executable, "-m", "evidence.verify", str(tmp_path / "copy"), "--key", key],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert checked.returncode == 0, checked.stdout
    assert "a copy of waybill/edge-1/cluster/ai.evidence-0" in checked.stdout


@pytest.fixture
def copy(tmp_path):
    """Give a copy with several commits and files."""
    fill(tmp_path / "own", "edge-1", stories(30, begin=NOON), at_once=60)
    export(tmp_path / "own", tmp_path / "copy", "edge-1", rows_at_once=60)
    return tmp_path / "copy"


def signed(copy: Path, site: str = "edge-1", key: int = 0):
    """Read a copy as another site does."""
    return read_signed(LocalFiles(copy), OneKey(site, key).signer.verifier, site)


def test_a_copy_is_read_from_its_signed_commits_alone(copy):
    """The live files are those of the commits, and a forged snapshot of them is not looked at."""
    wanted = read_live(LocalFiles(copy), COPY)
    forged = copy / "logs" / COPY / "live" / f"{wanted.number:012d}.json"
    forged.parent.mkdir(exist_ok=True)
    forged.write_text(json.dumps({"commit": wanted.number, "live": [], "removed": {}}))
    assert {added.path for added in signed(copy).files} == set(wanted.files)
    assert read_live(LocalFiles(copy), COPY).files == {}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda commits, _: commits[2].unlink(), "missing|does not follow"),
        (lambda commits, _: commits[1].write_bytes(commits[1].read_bytes().replace(b"time 20", b"time 19")), "follow"),
        (lambda commits, _: commits[-1].write_bytes(commits[-1].read_bytes().replace(b"time 2", b"time 1")), "valid"),
        (lambda _, files: files[0].unlink(), "is not there, and its commit says"),
        (lambda _, files: files[0].write_bytes(files[0].read_bytes()[:-1]), "bytes, and its commit says"),
    ],
    ids=["a commit is gone", "an old commit was changed", "the newest was changed", "no file", "a shorter file"],
)
def test_a_changed_copy_is_not_believed(copy, change, message):
    """One signature vouches for all commits, and they for the files that are there and their sizes."""
    live = sorted(copy / added.path for added in signed(copy).files)
    change(sorted((copy / "logs" / COPY / "commits").iterdir()), live)
    with pytest.raises(StoreError, match=message):
        signed(copy)


def test_a_copy_of_somebody_else_is_not_believed(copy, tmp_path):
    """Another key, another site's name, or no store at all is each told as what it is."""
    with pytest.raises(StoreError, match="no key that is known"):
        signed(copy, key=1)
    with pytest.raises(StoreError, match="is of waybill/edge-1/"):
        signed(copy, site="edge-2")
    with pytest.raises(NotThere, match="holds no evidence"):
        signed(tmp_path / "nowhere")
    assert count(next(iter(signed(copy).files)).leaves) > 0
