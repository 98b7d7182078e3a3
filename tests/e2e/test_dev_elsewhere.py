"""`waybill dev` on a broker that it did not start: it keeps to itself, whatever else runs there."""

from __future__ import annotations

import asyncio
import socket
from pathlib import Path

import pytest
from dev_run import running, waybill
from pipeline_process import running_pipeline
from requests_made import request

from waybill.dev_company import own_names
from waybill.settings import Settings

REAL = {"WAYBILL_ENDPOINTS__HOSTED__PROVIDER": "acme"}


@pytest.mark.kafka
@pytest.mark.timeout(420)
async def test_the_stand_in_never_answers_live_requests(kafka, prefix, tmp_path: Path):
    """Where workers run, `dev` refuses their prefix and runs under its own; each live request is the live worker's."""
    async with running_pipeline(tmp_path / "site", kafka, prefix, **REAL) as pipeline:
        await pipeline.start_worker("live")
        home = tmp_path / "laptop"
        refused = await asyncio.to_thread(
            waybill, "dev", "--kafka", kafka, "--home", str(home), "--local-model", "in-process",
            WAYBILL_KAFKA_PREFIX=prefix,
        )  # fmt: skip
        assert refused.returncode == 2, refused.stdout + refused.stderr
        assert f"other workers run at {kafka} (the consumer group {prefix}waybill" in refused.stderr
        assert "Traceback" not in refused.stderr
        with running(home, "--kafka", kafka, "--local-model", "in-process") as run:
            about = await asyncio.to_thread(run.until_ready)
            assert about.kafka_prefix == own_names(Settings(), None).kafka_prefix != ""
            assert f"begin with `{about.kafka_prefix}`" in run.said()
            await pipeline.send_all(request(f"live-{n}", "Say hello.") for n in range(20))
            await pipeline.until_answered()
            assert {told[0]["outcome"] for told in pipeline.responses.values()} == {"completed"}
            assert pipeline.call_count() == 20  # all of them reached the live worker's provider
            found = await asyncio.to_thread(waybill, "sql", "--home", str(home), "select count(*) n from events")
            assert "live-" not in found.stdout
            # A command that names the broker too is about this run, and not about the live site.
            shown = await asyncio.to_thread(waybill, "site", "show", "--home", str(home), WAYBILL_KAFKA=kafka)
            assert f"{run.worker().pid}" in shown.stdout
            assert f":{pipeline.worker('live').pid} " not in shown.stdout


def test_a_prefix_that_was_set_stays(monkeypatch):
    """Who sets a prefix gets it, the empty one too; a broker of one's own needs none."""
    assert own_names(Settings(), "noida").kafka_prefix == ""
    monkeypatch.setenv("WAYBILL_KAFKA_PREFIX", "mine.")
    assert own_names(Settings(), None).kafka_prefix == "mine."
    monkeypatch.setenv("WAYBILL_KAFKA_PREFIX", "")
    assert own_names(Settings(), None).kafka_prefix == ""


def test_a_port_that_was_asked_for_and_cannot_be_had_is_one_sentence(tmp_path: Path):
    """Broker or web port in use: exit code 2, the port and the setting, and nothing is started."""
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = str(other.getsockname()[1])
        home = ("--home", str(tmp_path / "home"), "--local-model", "in-process")
        for given, said in (
            (waybill("dev", *home, "--port", port), "--port"),
            (waybill("dev", *home, WAYBILL_WEB_PORT=port), "WAYBILL_WEB_PORT"),
        ):
            assert given.returncode == 2, given.stdout + given.stderr
            (line,) = given.stderr.splitlines()
            assert line.startswith(f"waybill: port {port} of 127.0.0.1, for ")
            assert said in line
