"""What may happen changes while requests wait in the queue: what counts is what holds when they would cross."""

from __future__ import annotations

import asyncio
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from deployment import write_policy
from pipeline_process import Pipeline, running_pipeline
from requests_made import request

FRONT, BACK = "admission,approvals,correlation,sink", "dispatch"
"""The stages of two workers: what the first admits waits until the second runs."""

PURPOSE = "customer-support"

NOTHING_CROSSES = """
@id("stay-inside")
permit(principal, action == Action::"local-call", resource);
"""
"""Policies under which no request may leave."""


def ask(name: str, who: str, **more: Any) -> dict[str, Any]:
    """Give a request that rests on somebody's consent."""
    return request(name, "Say hello.", purpose=PURPOSE, taskType="question", actor={"id": who}, **more)


async def queued(pipeline: Pipeline, count: int) -> None:
    """Wait until so many requests have been given a hosted route and wait for dispatch."""
    query = "select count(*) from events where event_type = 'route.selected' and route.placement = 'hosted'"
    for _ in range(300):
        if (await asyncio.to_thread(pipeline.ask, query))[0][0] == count:
            return
        await asyncio.sleep(0.1)
    raise AssertionError(pipeline.told([f"not all of {count} requests wait"]))


async def consent(pipeline: Pipeline, verb: str, who: str) -> None:
    """Write down what somebody says."""
    await pipeline.command("consent", verb, "--tenant", "acme", "--subject", who, "--purpose", PURPOSE)


def outcomes(pipeline: Pipeline, start: str) -> Counter[tuple[str, str | None]]:
    """Count how the requests ended whose ids begin so, with the failure's code."""
    ends = (pipeline.responses[name][0] for name in pipeline.sent if name.startswith(start))
    return Counter((end["outcome"], end.get("failure", {}).get("code")) for end in ends)


@pytest.mark.kafka
async def test_consent_that_is_withdrawn_holds_back_what_is_queued(kafka, prefix, tmp_path: Path):
    """Of requests admitted under a consent that is then withdrawn, none crosses; those of others do."""
    basis = {"consent": {"basis": "consent"}}
    async with running_pipeline(tmp_path, kafka, prefix) as pipeline:
        await consent(pipeline, "grant", "ada")
        await consent(pipeline, "grant", "bob")
        await pipeline.start_worker("front", FRONT)
        await pipeline.send_all(ask(f"ada-{number}", "ada", **basis) for number in range(12))
        await pipeline.send_all(ask(f"bob-{number}", "bob", **basis) for number in range(4))
        await queued(pipeline, 16)
        await consent(pipeline, "withdraw", "ada")
        await pipeline.start_worker("back", BACK)
        await pipeline.until_answered()
        assert outcomes(pipeline, "ada-") == {("denied", "denied"): 12}
        assert outcomes(pipeline, "bob-") == {("completed", None): 4}
        assert pipeline.call_count() == 4
        await pipeline.until_told()
        crossed = {name for (name,) in pipeline.ask("select request_id from crossings")}
        assert crossed == {f"bob-{number}" for number in range(4)}
        again = (
            "select request_id, consent.state, policy.reasons from events "
            "where event_type = 'policy.decided' and stage = 'dispatch' and policy.decision = 'deny'"
        )
        told = pipeline.ask(again)
        assert {name for name, _, _ in told} == {f"ada-{number}" for number in range(12)}
        assert {(state, *reasons) for _, state, reasons in told} == {
            ("withdrawn", "hosted-general:consent_not_granted")
        }


@pytest.mark.kafka
async def test_a_policy_that_is_activated_decides_at_once_and_so_does_going_back(kafka, prefix, tmp_path: Path):
    """While workers run, a new version decides what comes and what is queued; a rollback brings the old one back."""
    strict = write_policy(tmp_path / "strict", policies=NOTHING_CROSSES)
    async with running_pipeline(tmp_path / "home", kafka, prefix, reviewed=[strict]) as pipeline:
        await pipeline.start_worker("front", FRONT)
        back = await pipeline.start_worker("back", BACK)
        await pipeline.send_all([ask("first", "ada")])
        await pipeline.until_answered()
        await back.stop(30)
        await pipeline.send_all([ask("queued", "ada")])
        await queued(pipeline, 2)
        await pipeline.command("policy", "activate", str(strict), "--reason", "nothing leaves today")
        await in_force(pipeline, "front", 1)
        await pipeline.start_worker("back", BACK)
        await pipeline.send_all([ask("later", "ada")])
        await pipeline.until_answered()
        await pipeline.command("policy", "rollback", "--reason", "tomorrow has come")
        await in_force(pipeline, "front", 2)
        await in_force(pipeline, "back", 1)
        await pipeline.send_all([ask("last", "ada")])
        await pipeline.until_answered()
        found = {name: ended[0] for name, ended in pipeline.responses.items()}
        assert {name: ended["outcome"] for name, ended in found.items()} == {
            "first": "completed", "queued": "denied", "later": "denied", "last": "completed",
        }  # fmt: skip
        versions = {name: ended["receipt"]["policy"]["policyVersion"] for name, ended in found.items()}
        assert versions["first"] == versions["last"] != versions["later"]
        assert pipeline.call_count() == 2
        await pipeline.until_told()
        deeds = "select policy.policy_version, policy.overrides from events where event_type = 'policy.activated'"
        wanted = [(versions["later"], versions["first"]), (versions["first"], versions["later"])]
        for _ in range(50):
            if sorted(pipeline.ask(deeds)) == sorted(wanted):
                return
            await asyncio.sleep(0.2)
        raise AssertionError(pipeline.told([f"evidence tells other deeds: {pipeline.ask(deeds)}"]))


async def in_force(pipeline: Pipeline, worker: str, times: int) -> None:
    """Wait until a worker has said so often that other policies are in force."""
    log = pipeline.home / f"{worker}.log"
    await pipeline.until(
        lambda: log.read_text().count("is in force") == times, 10, f"{worker} to take up a policy, {times} times"
    )
