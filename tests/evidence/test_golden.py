"""What an earlier version wrote, this version reads: the same rows with the same leaf hashes."""

from __future__ import annotations

import hashlib
import itertools
import shutil

import duckdb
import golden_evidence as golden
import plain_rows
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from evidence.records import EVIDENCE_VERSION
from evidence.rows import canonical_rows
from evidence.schema import EVENTS_SCHEMA
from evidence.store.reading import in_schema
from queries.views import events_view

VERSIONS = sorted(golden.recorded(), key=lambda version: [int(part) for part in version.split(".")])


def read(version):
    """Give the rows of a version's file."""
    return pq.read_table(golden.FOLDER / f"{version}.parquet")


def test_the_columns_are_those_of_the_version():
    """Columns cannot change without another version and a file of what that version writes."""
    known = golden.recorded().get(EVIDENCE_VERSION)
    assert known is not None, (
        f"there is no file of evidence {EVIDENCE_VERSION}: write it with "
        "`PYTHONPATH=tests/support python -m golden_evidence`, and commit it"
    )
    assert golden.columns(EVENTS_SCHEMA) == known["columns"], (
        f"the columns are not those that {EVIDENCE_VERSION} was given: raise EVIDENCE_VERSION in evidence/records.py, "
        "write its file with `PYTHONPATH=tests/support python -m golden_evidence`, and leave the earlier files alone"
    )


def test_every_version_has_its_file():
    """What is recorded and what is there are the same versions, and each file says which it is."""
    assert {path.stem for path in golden.FOLDER.glob("*.parquet")} == set(VERSIONS)
    for version in VERSIONS:
        assert (
            pq.read_schema(golden.FOLDER / f"{version}.parquet").metadata[b"waybill.evidence_version"].decode()
            == version
        )
        assert set(read(version).column("evidence_version").to_pylist()) == {version}


def test_no_version_takes_a_column_away():
    """Each version has all columns of the one before, with the same types; only what may be null is added."""
    for before, after in itertools.pairwise(VERSIONS):
        assert _lost(read(before).schema, read(after).schema) == []


@pytest.mark.parametrize("version", VERSIONS)
def test_a_file_has_the_recorded_rows(version):
    """A version's file has the columns, the rows and the leaf hashes that were recorded when it was written."""
    known, table = golden.recorded()[version], read(version)
    assert table.num_rows == known["rows"]
    assert golden.columns(table.schema) == known["columns"]
    assert golden.leaves(table) == known["leaves"]
    plain = b"".join(hashlib.sha256(b"\x00" + row).digest() for row in plain_rows.canonical_rows(table))
    assert hashlib.sha256(plain).hexdigest() == known["leaves"]


@pytest.mark.parametrize("version", VERSIONS)
def test_rows_keep_their_hashes_in_today_s_schema(version):
    """Rows of an earlier version, given today's columns as compaction does, are still the same entries of the log."""
    today = in_schema(read(version))
    assert today.schema.equals(EVENTS_SCHEMA)
    assert golden.leaves(today) == golden.recorded()[version]["leaves"]


def test_the_database_reads_all_versions_together(tmp_path):
    """One view over the files of all versions gives each row as its own file holds it, and null for what came later."""
    day = tmp_path / "date=2026-03-01"
    day.mkdir()
    files = [str(shutil.copy(golden.FOLDER / f"{version}.parquet", day)) for version in VERSIONS]
    with duckdb.connect() as database:
        database.execute("SET TimeZone = 'UTC'")
        database.execute(events_view(database, files))
        for version in VERSIONS:
            asked = "SELECT * EXCLUDE (date) FROM events WHERE evidence_version = $version ORDER BY log_offset"
            found = database.sql(asked, params={"version": version}).to_arrow_table()
            typed = pa.schema([(name, _plain(EVENTS_SCHEMA.field(name).type)) for name in EVENTS_SCHEMA.names])
            named = found.select(EVENTS_SCHEMA.names).cast(typed)
            assert canonical_rows(named) == canonical_rows(read(version))


def _plain(kind):
    """Give the type as which the database gives it."""
    return pa.string() if pa.types.is_dictionary(kind) else kind


def _lost(before, after, path=""):
    """Give the columns of one schema that another has not, or has as something else."""
    lost = []
    for field in before:
        index = after.get_field_index(field.name)
        name = path + field.name
        if index < 0:
            lost.append(name)
        elif pa.types.is_struct(field.type) and pa.types.is_struct(after.field(index).type):
            lost += _lost(field.type, after.field(index).type, f"{name}.")
        elif field.type != after.field(index).type:
            lost.append(name)
    names = set(before.names)
    return lost + [path + field.name for field in after if field.name not in names and not field.nullable]
