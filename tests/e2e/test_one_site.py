"""Workers of one site agree, or do not run: each that differs ends with a sentence, and no request is lost."""

from __future__ import annotations

import asyncio
import shutil
import time
from pathlib import Path

import pytest
from pipeline_process import Pipeline, running_pipeline
from requests_made import request

pytestmark = pytest.mark.kafka

REFUSED_S = 30.0
"""Much of it is the program's own start on a busy machine."""


async def refused(pipeline: Pipeline, name: str, **changes: str) -> str:
    """Start a worker that must not run; return what it says."""
    began = time.monotonic()
    worker = await pipeline.start_worker(name, wait=False, **changes)
    code = await asyncio.wait_for(worker.wait(), REFUSED_S)
    said = worker.tail(40)
    assert code == 2, pipeline.told([f"{name} ended with {code} after {time.monotonic() - began:.1f} s: {said}"])
    assert "Traceback" not in said
    return said.splitlines()[-1]


async def served(pipeline: Pipeline, name: str, count: int = 12) -> None:
    """Send requests, and see that each is answered."""
    await pipeline.send_all(request(f"{name}-{n}", "Say hello.") for n in range(count))
    await pipeline.until_answered()
    await pipeline.until_told()
    outcomes = [told["outcome"] for answers in pipeline.responses.values() for told in answers]
    assert outcomes == ["completed"] * len(pipeline.sent), pipeline.told([])
    assert pipeline.call_count() == len(pipeline.sent)
    assert pipeline.proof().ok


async def test_a_worker_with_a_home_of_its_own_does_not_run_beside_another(kafka, prefix, tmp_path: Path):
    """Two workers with default settings: the second says that its vault is not the site's, and all are answered."""
    async with running_pipeline(tmp_path / "site", kafka, prefix) as pipeline:
        await pipeline.start_worker("first")
        said = await refused(pipeline, "second", WAYBILL_HOME=str(tmp_path / "other"))
        assert said.startswith("waybill: this worker's vault ")
        assert f":{pipeline.worker('first').pid} registered at " in said
        assert "set WAYBILL_VAULT" in said
        await served(pipeline, "alone")
        await pipeline.worker("first").stop()
        # What lies sealed on the topics is still the first one's, though nobody runs.
        assert "this worker's vault" in await refused(pipeline, "second", WAYBILL_HOME=str(tmp_path / "other"))


@pytest.mark.parametrize(
    ("shared", "setting"),
    [
        (("vault",), "WAYBILL_EVIDENCE_STORE"),
        (("vault", "evidence"), "WAYBILL_EVIDENCE_KEYS"),
    ],
)
async def test_each_folder_that_is_not_shared_is_named(kafka, prefix, tmp_path: Path, shared, setting):
    """A worker that shares the vault, but not the store or not the keys, ends with the setting's name."""
    folders = {"vault": "WAYBILL_VAULT", "evidence": "WAYBILL_EVIDENCE_STORE", "keys": "WAYBILL_EVIDENCE_KEYS"}
    async with running_pipeline(tmp_path / "site", kafka, prefix) as pipeline:
        await pipeline.start_worker("first")
        given = {folders[name]: str(pipeline.home / name) for name in shared}
        said = await refused(pipeline, "second", WAYBILL_HOME=str(tmp_path / "other"), **given)
        assert f"set {setting} to the" in said
        await served(pipeline, "goes-on")


async def test_a_copy_of_the_vault_is_not_the_vault(kafka, prefix, tmp_path: Path):
    """A folder copied to another machine has the id of the first; keys made in one are not in the other."""
    async with running_pipeline(tmp_path / "site", kafka, prefix) as pipeline:
        await pipeline.start_worker("first")
        shutil.copytree(pipeline.home / "vault", tmp_path / "copy", ignore=shutil.ignore_patterns("workers"))
        said = await refused(pipeline, "second", WAYBILL_VAULT=str(tmp_path / "copy"))
        assert "is a copy" in said
        assert "set WAYBILL_VAULT to one folder" in said


async def test_unsigned_and_stand_in_do_not_join_a_site_that_is_neither(kafka, prefix, tmp_path: Path):
    """What lets anybody in, or answers without a model, does not run beside what serves live requests."""
    real = {"WAYBILL_ENDPOINTS__HOSTED__PROVIDER": "acme"}
    async with running_pipeline(tmp_path / "site", kafka, prefix) as pipeline:
        await pipeline.start_worker("live", **real)
        said = await refused(pipeline, "stand-in")
        assert "hosted provider stand-in is not real" in said


async def test_workers_with_shared_folders_run_together_through_rotations_and_restarts(kafka, prefix, tmp_path: Path):
    """Homes of their own and shared folders: both run; keys are rotated beside them, and a third one starts after."""
    async with running_pipeline(tmp_path / "site", kafka, prefix) as pipeline:
        folders = {"VAULT": "vault", "EVIDENCE_STORE": "evidence", "EVIDENCE_KEYS": "keys"}
        shared = {f"WAYBILL_{name}": str(pipeline.home / folder) for name, folder in folders.items()}
        await pipeline.start_worker("first", **shared)
        await pipeline.start_worker("second", WAYBILL_HOME=str(tmp_path / "second"), **shared)
        await served(pipeline, "both")
        await pipeline.command("evidence", "rotate-key")
        await pipeline.command("vault", "rotate-key", "--reason", "a test")
        await pipeline.start_worker("third", WAYBILL_HOME=str(tmp_path / "third"), **shared)
        await served(pipeline, "rotated")
        for name in ("first", "second", "third"):
            await pipeline.worker(name).stop()
            assert pipeline.worker(name).returncode == 0
        await pipeline.command("vault", "rotate-key", "--reason", "a test", "--new-hashes")
        await pipeline.start_worker("first", **shared)
        await served(pipeline, "again")


async def test_of_two_that_start_at_once_one_runs(kafka, prefix, tmp_path: Path):
    """Two homes, nobody registered: whose record comes first runs, the other one ends with the sentence."""
    async with running_pipeline(tmp_path / "site", kafka, prefix) as pipeline:
        homes = {name: {"WAYBILL_HOME": str(tmp_path / name)} for name in ("one", "two")}
        workers = {name: await pipeline.start_worker(name, wait=False, **homes[name]) for name in homes}
        await pipeline.until(lambda: any(not worker.running for worker in workers.values()), REFUSED_S, "one to end")
        (ended,) = [name for name, worker in workers.items() if not worker.running]
        assert (workers[ended].returncode, "is not the site's" in workers[ended].tail()) == (2, True)
        other = next(name for name in workers if name != ended)
        await pipeline.healthy(other)
        await pipeline.send_all(request(f"race-{n}", "Say hello.") for n in range(8))
        await pipeline.until_answered()
        assert {told[0]["outcome"] for told in pipeline.responses.values()} == {"completed"}
        assert not (tmp_path / ended / "evidence" / "events").exists()


async def test_a_worker_says_which_topic_is_missing(kafka, prefix, tmp_path: Path):
    """A deployment from before this topic is told what to run, with the name as it is on the broker."""
    async with running_pipeline(tmp_path / "site", kafka, prefix) as pipeline:
        worker = await pipeline.start_worker("lost", wait=False, WAYBILL_KAFKA_PREFIX=f"{prefix}none.")
        assert await asyncio.wait_for(worker.wait(), REFUSED_S) == 1
        assert f"{prefix}none.ai.requests" in worker.tail()
        assert "waybill topics create" in worker.tail()


async def test_a_stage_that_cannot_work_ends_the_worker_with_its_sentence_alone(kafka, prefix, tmp_path: Path):
    """The store is another site's: exit code 2, the sentence last, and nothing of what Faust says about a crash."""
    async with running_pipeline(tmp_path / "site", kafka, prefix) as pipeline:
        await pipeline.start_worker("first")
        await served(pipeline, "first")
        await pipeline.worker("first").stop()
        said = await refused(pipeline, "second", WAYBILL_SITE="edge")
        assert "a site has a store of its own" in said
        log = (pipeline.home / "second.log").read_text()
        assert [noise for noise in ("Crashed", "NoneType", "experienced a crash") if noise in log] == []
