"""The evidence files, read by programs that are not ours: DuckDB, pyarrow and Polars have the same rows."""

from __future__ import annotations

from datetime import timedelta

import duckdb
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from evidence_samples import NOON, stories
from evidence_stores import local_store
from store_life import LOG, NAME, rows

from evidence.rows import leaf_hashes
from evidence.store.live import read_live
from evidence.store.upkeep import Upkeep

EVENTS = [*stories(30), *stories(10, begin=NOON + timedelta(days=1))]


@pytest.fixture(params=["small files", "compacted"])
def paths(request, tmp_path):
    """Give the live files of a store, before and after compaction."""
    store = local_store(tmp_path)
    with store.open(*LOG) as writer:
        for begin in range(0, len(EVENTS), 25):
            some = EVENTS[begin : begin + 25]
            writer.append(rows(some, first=begin), end=begin + len(some) - 1)
        if request.param == "compacted":
            Upkeep(store.files, now=lambda: NOON.timestamp() + 3 * 86_400)(writer)
    return [str(tmp_path / path) for path in read_live(store.files, NAME).files]


def plain(table: pa.Table) -> list[dict]:
    """Give rows by offset, as Python has them."""
    return sorted(table.to_pylist(), key=lambda row: row["log_offset"])


def test_three_readers_have_equal_rows(paths):
    """DuckDB, pyarrow and Polars give each value of each row alike, also within structs and lists."""
    expected = plain(rows(EVENTS))
    by_arrow = plain(pa.concat_tables([pq.read_table(path) for path in paths]))
    with duckdb.connect() as database:
        database.execute("set TimeZone = 'UTC'")
        by_duckdb = plain(database.sql(f"from read_parquet({paths}, hive_partitioning = false)").to_arrow_table())
    by_polars = plain(pl.concat([pl.read_parquet(path, hive_partitioning=False) for path in paths]).to_arrow())
    assert by_arrow == expected
    assert by_duckdb == expected
    assert by_polars == expected


def test_what_polars_reads_and_writes_again_keeps_its_hashes(paths):
    """A row's hash does not depend on who wrote the file: Polars' own copy of it has the same leaf hashes."""
    for path in paths:
        original = pq.read_table(path)
        copy = pl.read_parquet(path, hive_partitioning=False).to_arrow()
        columns = [copy.column(field.name).cast(field.type) for field in original.schema]
        assert leaf_hashes(pa.Table.from_arrays(columns, schema=original.schema)) == leaf_hashes(original)
