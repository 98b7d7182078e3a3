"""The approvals stage on real brokers: each request that waits is answered once, whatever happens to the stage."""

from __future__ import annotations

import asyncio
import gc
import os
import random
import signal
import subprocess
import sys
from collections import Counter
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import pytest
from aiokafka.errors import KafkaError
from approvals_made import SECRET, asked, check_once, parked, verdict
from approvals_process import desk
from topic_rig import PARTITIONS, TopicReader, topics

from evidence.errors import RecordError, UnavailableError
from streams.approvals import Approver
from streams.kafka import producer
from streams.stages import approvals
from streams.topics import APPROVALS, DEADLETTER, EVIDENCE, RESPONSES, WORK_HOSTED
from streams.transactions import Batch, Writer

pytestmark = [
    pytest.mark.kafka,
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),  # aiokafka, cancelled in mid-connect
]
PROCESS = Path(__file__).resolve().parents[1] / "support" / "approvals_process.py"


@pytest.fixture(autouse=True)
def nothing_left_to_the_next_test():
    """Collect what a test cut off, while its warnings are still its own."""
    yield
    gc.collect()


@pytest.fixture(params=["apache", "development"])
def broker(request):
    """Give the address of each of the two brokers in turn."""
    return request.getfixturevalue({"apache": "kafka", "development": "dev_broker"}[request.param])


async def park(settings, *requests):
    """Write what admission writes, each request in a transaction of its own."""
    writer = await Writer(settings, transactional_id="waybill-admission-0", group="g").start()
    try:
        for request in requests:
            await writer.write(Batch(parked(request, settings.name)))
    finally:
        await writer.stop()


async def answer(settings, *verdicts, headers=()):
    """Write verdicts as people do."""
    made = producer(settings)
    await made.start()
    try:
        for each in verdicts:
            value = each if isinstance(each, bytes) else each.to_json()
            key = b"k" if isinstance(each, bytes) else each.approval_id.encode()
            await made.send_and_wait(settings.name(APPROVALS), key=key, value=value, headers=list(headers))
    finally:
        await made.stop()


def reading(settings, partitions=PARTITIONS):
    """Give a reader of all that the stage writes."""
    return TopicReader(settings, EVIDENCE, WORK_HOSTED, RESPONSES, DEADLETTER, APPROVALS, partitions=partitions)


def markers(reader):
    """Give the markers that were read."""
    return [record for record in reader.on(APPROVALS) if record and record["record"] == "closed"]


async def until_closed(reader, count, seconds=30):
    """Read until so many requests are closed, and then for a moment more."""
    left = seconds
    while len(markers(reader)) < count and left > 0:
        await reader.more()
        left -= 0.2
    assert len(markers(reader)) >= count
    await reader.more(500)


def check(reader, requests, results):
    """Everything was answered as it should be, once."""
    on = (EVIDENCE, WORK_HOSTED, RESPONSES)
    check_once(list(requests), *(reader.on(topic) for topic in on), results)
    assert Counter(marker["approvalId"] for marker in markers(reader)) == Counter(
        request.approval_id for request in requests if request.request_id in results
    )


@asynccontextmanager
async def running(settings, **changes):
    """Run the stage; give what it works with. It is stopped in order, unless it was cut off before."""
    working, ready = desk(**changes), asyncio.Event()
    stage = approvals.stage(settings, working)
    task = asyncio.create_task(stage.run(ready.set))
    try:
        await asyncio.wait_for(ready.wait(), 30)
        yield working, stage, task
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError, KafkaError):
            await task


async def cut_off(stage):
    """End the lanes where they stand."""
    for _, task in stage._lanes.values():
        task.remove_done_callback(stage._lane_ended)
        task.cancel()
    await asyncio.gather(*(task for _, task in stage._lanes.values()), return_exceptions=True)
    stage._lanes.clear()


def counted(working, result):
    """Give how often something was counted."""
    return working.metrics.registry.get_sample_value("waybill_approvals_total", {"result": result}) or 0


async def test_each_request_is_answered_once(broker, prefix):
    """Approved ones are released, denied ones end, unanswered ones expire by the clock, and nothing else happens."""
    settings = await topics(broker, prefix)
    requests = [asked(number, seconds=4 if number % 3 == 2 else 3600) for number in range(24)]
    results = {
        request.request_id: ("approved", "denied", "expired")[place % 3] for place, request in enumerate(requests)
    }
    async with reading(settings) as reader, running(settings) as (working, _, _):
        await park(settings, *requests)
        answered = [request for request in requests if results[request.request_id] != "expired"]
        await answer(settings, *(verdict(request, results[request.request_id]) for request in answered))
        await until_closed(reader, 24)
        told = {name: counted(working, name) for name in ("requested", "approved", "denied", "expired", "void")}
    check(reader, requests, results)
    assert told == {"requested": 24, "approved": 8, "denied": 8, "expired": 8, "void": 0}
    assert reader.on(DEADLETTER) == []
    assert {event["identity"] for event in reader.on(EVIDENCE) if event["eventType"] == "approval.approved"} == {
        "unsigned"
    }
    assert SECRET not in str([reader.on(topic) for topic in (EVIDENCE, RESPONSES, DEADLETTER)])


async def test_answers_that_do_not_count_are_dead_letters_and_change_nothing(kafka, prefix):
    """Each void verdict has its reason among the dead letters; the request waits on and can still be approved."""
    settings, request = await topics(kafka, prefix, partitions=1), asked(1)
    bad = [
        verdict(request, roles=()), verdict(request, payload_sha256="0" * 64), verdict(request, approver="user:ann"),
        verdict(request, override=True), verdict(asked(77)), b"{}",
    ]  # fmt: skip
    async with reading(settings, 1) as reader, running(settings) as (working, _, _):
        await park(settings, request)
        await answer(settings, *bad)
        await reader.until(DEADLETTER, 6)
        assert not reader.on(WORK_HOSTED)
        await answer(settings, verdict(request), verdict(request), verdict(request, "denied"))
        await until_closed(reader, 1)
        while counted(working, "repeated") < 2:  # noqa: ASYNC110 - a counter announces nothing
            await asyncio.sleep(0.05)
        assert counted(working, "void") == 6
    check(reader, [request], {"r1": "approved"})
    letters = {letter["failure"]["code"]: letter.get("requestId") for letter in reader.on(DEADLETTER)}
    assert letters == {
        "role_missing": "r1", "payload_mismatch": "r1", "self_approval": "r1", "override_mismatch": "r1",
        "unknown_approval": None, "bad_approval": None,
    }  # fmt: skip


async def test_a_restart_that_reads_again_releases_nothing_twice(broker, prefix):
    """With the oldest request still waiting, every restart reads all answers again and repeats none of them."""
    settings, requests = await topics(broker, prefix), [asked(number) for number in range(14)]
    results = {}
    async with reading(settings) as reader:
        await park(settings, *requests)
        for start, way in ((2, "stop"), (6, "die"), (10, "stop")):
            async with running(settings) as (_, stage, _):
                for request in requests[start : start + 4]:
                    results[request.request_id] = "approved" if start != 6 else "denied"
                    await answer(settings, verdict(request, results[request.request_id]))
                await until_closed(reader, start + 2)
                if way == "die":
                    await cut_off(stage)
        async with running(settings):
            await answer(settings, *(verdict(request) for request in requests))
            results |= {"r0": "approved", "r1": "approved"}
            await until_closed(reader, 14)
    check(reader, requests, results)


async def test_what_was_void_stays_void_after_a_restart(broker, prefix):
    """A verdict that had its turn is not judged again by other rules, and has one dead letter, while requests wait."""
    settings, requests = await topics(broker, prefix, partitions=1), [asked(1), asked(2)]

    def nobody(headers, said):
        raise RecordError("bad_token", "nobody is let in")

    async with reading(settings, 1) as reader:
        await park(settings, *requests)
        async with running(settings, authenticate=nobody):
            await answer(settings, verdict(requests[1]))
            await reader.until(DEADLETTER, 1)
        for _ in range(2):
            async with running(settings) as (working, _, _):
                await answer(settings, verdict(asked(3)))
                while counted(working, "void") < 1:  # noqa: ASYNC110 - a counter announces nothing
                    await asyncio.sleep(0.05)
        async with running(settings):
            await answer(settings, *(verdict(request) for request in requests))
            await until_closed(reader, 2)
    check(reader, requests, {"r1": "approved", "r2": "approved"})
    assert [letter["failure"]["code"] for letter in reader.on(DEADLETTER)] == ["bad_token"] + ["unknown_approval"] * 2


async def test_a_verdict_waits_while_nobody_can_say_who_sent_it(kafka, prefix):
    """Without the issuer's keys verdicts wait in their order and expiries go on; with them each has its turn."""
    settings, have_keys = await topics(kafka, prefix, partitions=1), []
    requests = [asked(1), asked(2), asked(3, seconds=3)]

    def keys(headers, said):
        if not have_keys:
            raise UnavailableError("no keys")
        return Approver(said.approver, frozenset({"data-steward"}), "jwt")

    async with reading(settings, 1) as reader:
        async with running(settings, authenticate=keys):
            await park(settings, *requests)
            await answer(settings, verdict(requests[0]))
            await until_closed(reader, 1)
            assert [marker["result"] for marker in markers(reader)] == ["expired"]
        async with running(settings, authenticate=keys):
            await answer(settings, verdict(requests[1], "denied"), verdict(requests[0], "denied"))
            await asyncio.sleep(1.5)
            have_keys.append(True)
            await until_closed(reader, 3)
    check(reader, requests, {"r1": "approved", "r2": "denied", "r3": "expired"})
    assert reader.on(DEADLETTER) == []


async def test_the_marker_counts_although_a_foreign_transaction_hides_it(kafka, prefix):
    """While a transaction of somebody else is open before the marker, a new owner waits and does not expire again."""
    settings, oldest, request = await topics(kafka, prefix, partitions=1), asked(1), asked(2, seconds=3)
    foreign = producer(settings, transactional_id=f"{prefix}foreign")
    await foreign.start()
    async with reading(settings, 1) as reader:
        async with running(settings) as (working, _, _):
            await park(settings, oldest, request)
            while counted(working, "requested") < 2:  # noqa: ASYNC110 - a counter announces nothing
                await asyncio.sleep(0.02)
            await foreign.begin_transaction()
            await foreign.send_and_wait(settings.name(APPROVALS), key=b"x", value=b"never committed")
            while counted(working, "expired") < 1:  # noqa: ASYNC110 - the same
                await asyncio.sleep(0.02)
        await reader.more(500)
        assert markers(reader) == []
        async with running(settings) as (working, _, _):
            await asyncio.sleep(3)
            assert counted(working, "expired") == 0
            await foreign.abort_transaction()
            await answer(settings, verdict(request), verdict(oldest))
            while counted(working, "repeated") < 1:  # noqa: ASYNC110 - the same
                await asyncio.sleep(0.02)
            assert counted(working, "expired") == 0
        await until_closed(reader, 2)
    await foreign.stop()
    check(reader, [oldest, request], {"r1": "approved", "r2": "expired"})


async def test_a_fenced_zombie_releases_nothing(kafka, prefix):
    """A lane whose identity was taken over ends with the broker's error; the new owner gives its answers, once."""
    settings, requests = await topics(kafka, prefix), [asked(number) for number in range(4)]
    results = {request.request_id: "approved" for request in requests}
    async with reading(settings) as reader:
        await park(settings, *requests)
        async with running(settings) as (_, _, zombie):
            await answer(settings, verdict(requests[0]))
            await until_closed(reader, 1)
            thieves = [
                await Writer(settings, transactional_id=f"waybill-approvals-{n}", group="g").start() for n in (0, 1)
            ]
            await answer(settings, *(verdict(request) for request in requests[1:]))
            done, _ = await asyncio.wait({zombie}, timeout=20)
            for thief in thieves:
                await thief.stop()
            assert done
            assert isinstance(zombie.exception(), KafkaError)
        await reader.more(500)
        assert len(markers(reader)) == 1
        async with running(settings):
            await until_closed(reader, 4)
    check(reader, requests, results)


async def test_killed_again_and_again_it_answers_each_request_once(kafka, prefix):
    """With `kill -9` of the stage at random moments under load, each request is answered exactly once in the end."""
    settings, rng = await topics(kafka, prefix), random.Random(7)  # noqa: S311 - moments to kill at
    requests = [asked(number, seconds=25 if number % 5 == 4 else 3600) for number in range(120)]
    results = {request.request_id: "expired" if place % 5 == 4 else ("approved", "denied")[place % 2]
               for place, request in enumerate(requests)}  # fmt: skip
    stop, kills = asyncio.Event(), 0

    async def people():
        for request in requests:
            await park(settings, request)
            if results[request.request_id] != "expired":
                await answer(settings, verdict(request, results[request.request_id]))

    async def die_and_rise():
        nonlocal kills
        while not stop.is_set():
            child = await asyncio.create_subprocess_exec(
                sys.executable, str(PROCESS), settings.bootstrap, prefix, stdout=subprocess.PIPE,
                env={**os.environ, "PYTHONPATH": str(PROCESS.parents[2])},
            )  # fmt: skip
            await asyncio.wait_for(child.stdout.readline(), 60)
            pause = asyncio.create_task(stop.wait())
            await asyncio.wait({pause}, timeout=rng.uniform(0.2, 2.5))
            pause.cancel()
            child.send_signal(signal.SIGKILL)
            await child.wait()
            kills += 1

    async with reading(settings) as reader:
        killer, writing = asyncio.create_task(die_and_rise()), asyncio.create_task(people())
        try:
            await writing
            await until_closed(reader, 120, seconds=140)
        finally:
            stop.set()
            writing.cancel()
            await asyncio.gather(killer, return_exceptions=True)
    check(reader, requests, results)
    assert kills >= 3
