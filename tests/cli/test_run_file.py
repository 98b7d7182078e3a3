"""What a development run tells the other commands, and when it is believed."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pytest

from evidence.errors import ConfigError
from waybill.cli.options import resolve
from waybill.dev_run import Claim, Place, Run, read, stale

RUN = Run(
    pid=1,
    started_at=datetime(2026, 4, 1, tzinfo=UTC),
    broker="development broker",
    kafka="127.0.0.1:29999",
    log_id="abc",
    web_port=28888,
    endpoints={"local": Place(kind="triton", url="127.0.0.1:1", provider="triton")},
)


def test_a_living_run_is_read(tmp_path: Path):
    """While its holder lives, a run tells where everything is."""
    with Claim(tmp_path) as claim:
        claim.publish(RUN)
        assert read(tmp_path) == RUN
        assert not stale(tmp_path)


def test_an_ended_run_leaves_nothing_behind(tmp_path: Path):
    """After an orderly end there is no file to be mistaken."""
    with Claim(tmp_path) as claim:
        claim.publish(RUN)
    assert read(tmp_path) is None
    assert not stale(tmp_path)


def test_the_file_of_a_dead_run_is_not_believed(tmp_path: Path):
    """A file whose writer is gone is ignored, and known to be stale."""
    (tmp_path / "run.json").write_text(RUN.model_dump_json())
    (tmp_path / "run.lock").touch()
    assert read(tmp_path) is None
    assert stale(tmp_path)


def test_one_home_holds_one_run(tmp_path: Path):
    """A second run in the same home is refused with what to do."""
    with Claim(tmp_path), pytest.raises(ConfigError, match="already runs in"):
        Claim(tmp_path).__enter__()


def test_a_broken_file_is_named(tmp_path: Path):
    """A file that no run has written is an error, not a guess."""
    with Claim(tmp_path):
        (tmp_path / "run.json").write_text("{}")
        with pytest.raises(ConfigError, match=r"run\.json cannot be read"):
            read(tmp_path)


def test_commands_take_what_the_run_says(tmp_path: Path):
    """Without a broker of their own, commands use that of the run that lives in the home."""
    with Claim(tmp_path) as claim:
        claim.publish(RUN)
        settings = resolve(home=tmp_path)
    assert (settings.kafka, settings.log_id, settings.web_port) == (RUN.kafka, RUN.log_id, RUN.web_port)
    assert settings.endpoints["local"].url == "127.0.0.1:1"


def test_a_flag_outweighs_the_run(tmp_path: Path):
    """A broker that is given is used, and nothing of the run is mixed in."""
    with Claim(tmp_path) as claim:
        claim.publish(RUN)
        settings = resolve(home=tmp_path, kafka="kafka:9092")
    assert (settings.kafka, settings.log_id, settings.endpoints) == ("kafka:9092", None, {})
