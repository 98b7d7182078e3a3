"""Questions where nothing was ever stored: an error that says where they looked, and no empty answer."""

from __future__ import annotations

import pytest
from evidence_stores import local_store

from evidence.errors import ConfigError
from waybill.cli.ask import ask, sql
from waybill.cli.trace import trace

ASKED = {
    "sql": lambda home: sql("select count(*) from events", home=home),
    "ask": lambda home: ask("left-the-building", home=home),
    "trace": lambda home: trace("7d0c1f6e", home=home),
}


@pytest.mark.parametrize("name", ASKED)
def test_a_home_that_holds_no_evidence_is_an_error(tmp_path, name):
    """The error names the place and what to give; nothing is made there."""
    with pytest.raises(ConfigError, match=rf"there is no evidence at {tmp_path}/evidence.*--home") as caught:
        ASKED[name](tmp_path)
    assert "\n" not in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_a_store_that_is_really_empty_has_no_rows(tmp_path, capsys):
    """Where a worker has begun to store and nothing has come yet, no rows are the answer."""
    local_store(tmp_path / "evidence", "home").open("cluster", "ai.evidence", 0).close()
    ASKED["sql"](tmp_path)
    assert "0" in capsys.readouterr().out
    ASKED["ask"](tmp_path)
    assert ASKED["trace"](tmp_path) == 1


def test_a_bucket_without_a_log_is_an_error_too(bucket, monkeypatch):
    """A prefix that nothing was stored below is told like a folder that is not there."""
    monkeypatch.setenv("WAYBILL_EVIDENCE_STORE", f"s3://{bucket.name}/elsewhere")
    monkeypatch.setenv("WAYBILL_EVIDENCE_S3__ENDPOINT", bucket.endpoint)
    with pytest.raises(ConfigError, match=rf"there is no evidence at s3://{bucket.name}/elsewhere"):
        sql("select 1")
