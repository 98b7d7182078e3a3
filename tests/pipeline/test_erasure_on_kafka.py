"""A person is erased while requests of theirs wait in each stage: each ends once, with why, and nothing is kept."""

from __future__ import annotations

import asyncio
import gc
import os
import sys
from contextlib import suppress
from datetime import UTC, datetime

import pytest
from approvals_made import verdict
from approvals_process import desk
from requests_made import APPROVING, CONFIDENTIAL_HOSTED, RETENTION, book, encoded, request
from stage_rig import Reader, Worker, send
from topic_rig import topics

from inference.rulebook import Shelf
from inference.testing import echo
from policy.vault.erased import ErasedPeople
from policy.vault.sealing import Vault
from policy.vault.store import VaultStore, open_object
from streams import consent_changes
from streams.approvals import ApprovalRequest
from streams.consent import ConsentEntry, ConsentRegister
from streams.kafka import producer
from streams.stages import approvals
from streams.stages.dispatch import Limits
from streams.topics import APPROVALS, DEADLETTER, EVIDENCE, RESPONSES

pytestmark = [
    pytest.mark.kafka,
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),  # aiokafka, cancelled in mid-connect
]
KEEPING = book(
    policy=APPROVING,
    routes=CONFIDENTIAL_HOSTED,
    retention=RETENTION.replace("payload: keep, min_days: 1,", "payload: keep,"),
)
"""Confidential data wait for approval; requests and answers are kept, without a minimum."""


@pytest.fixture(autouse=True)
def nothing_left_to_the_next_test():
    """Collect what a test cut off, while its warnings are still its own."""
    yield
    gc.collect()


def utc_now():
    """The time."""
    return datetime.now(UTC)


class Gated:
    """A hosted provider that answers, once it is let, those calls that are to wait."""

    def __init__(self):
        self.let, self.waiting = asyncio.Event(), 0

    async def complete(self, call):
        """Answer with what was asked."""
        if call.messages[-1].content.startswith("wait"):
            self.waiting += 1
            await self.let.wait()
        return echo(call)

    async def close(self):
        """Nothing is open."""


def of(name, person, prompt="hello", **changes):
    """Give a request of a person that is to be answered by the hosted model, and kept."""
    said = {"purpose": "archive", "actor": {"id": person}, "modelPolicy": {"placement": "hosted"}, **changes}
    return name, encoded(request(name, f"{prompt} {name}", **said))


async def erase(settings, home, person):
    """Run the command, as a person does."""
    environment = {
        **os.environ,
        "WAYBILL_HOME": str(home),
        "WAYBILL_KAFKA": settings.bootstrap,
        "WAYBILL_KAFKA_PREFIX": settings.prefix,
    }
    command = [sys.executable, "-m", "waybill", "erase", person, "--tenant", "acme", "--reason", "letter"]
    process = await asyncio.create_subprocess_exec(*command, env=environment, stdout=asyncio.subprocess.PIPE)
    told, _ = await asyncio.wait_for(process.communicate(), 60)
    assert process.returncode == 0
    return told.decode()


async def until(reader, found, seconds=40):
    """Read until something is so."""
    async with asyncio.timeout(seconds):
        while not found():
            await reader.more(100)


async def test_what_waits_ends_once_and_nothing_is_kept(kafka, prefix, tmp_path):  # noqa: PLR0915 - one story
    """On `ai.requests`, for approval, in the queue and in a call: each ends with `erased`; others and later go on."""
    settings, folder = await topics(kafka, prefix), tmp_path / "vault"
    vault, store, hosted = Vault(folder), VaultStore(folder), Gated()
    parts = {"shelf": Shelf(KEEPING), "vault": vault, "store": store, "limits": Limits(hosted=2, drain_s=3)}
    waits = asyncio.create_task(approvals.stage(settings, desk(erased=ErasedPeople(folder).when)).run())
    confidential = {"classification": "confidential"}
    async with Reader(settings, RESPONSES, EVIDENCE, DEADLETTER, APPROVALS) as reader:
        worker = Worker(settings, hosted, **parts).start()
        await send(settings, [of("kept", "ada"), of("kept-bob", "bob")])
        await reader.until_responses(2)
        await send(settings, [of("air", "ada", "wait"), of("air-bob", "bob", "wait")])
        await until(reader, lambda: hosted.waiting == 2)
        names = ["parked", "parked-bob", "queued", "queued-bob"]
        parked = [of("parked", "ada", **confidential), of("parked-bob", "bob", **confidential)]
        await send(settings, [*parked, of("queued", "ada"), of("queued-bob", "bob")])
        admitted = "ended", "route.selected", "approval.requested"
        await until(
            reader,
            lambda: {e["requestId"] for e in reader.events if e["eventType"] in admitted} >= set(names),
        )
        await until(reader, lambda: len(reader.found[APPROVALS.name]) == 2)
        worker.tasks[0].cancel()
        await asyncio.wait(worker.tasks[:1])
        await send(settings, [of("unread", "ada"), of("unread-bob", "bob")])

        assert {item.kind for item in store.of_request("kept")} == {"request", "response"}
        assert {item.kind for item in store.of_request("air")} == {"request"}
        assert "Erased 3 payloads of ada." in await erase(settings, tmp_path, "ada")
        await until(reader, lambda: "parked" in {response["requestId"] for response in reader.responses})
        hosted.let.set()
        await until(reader, lambda: len(reader.responses) == 7)
        await worker.stop()
        async with Worker(settings, hosted, **parts):
            await until(reader, lambda: len(reader.responses) == 9)
            await send(settings, [of("after", "ada")])
            await until(reader, lambda: len(reader.responses) == 10)
            await reader.more(500)
        waits.cancel()
        with suppress(asyncio.CancelledError):
            await waits

    ended = {one["requestId"]: (one["outcome"], one.get("failure", {}).get("code")) for one in reader.responses}
    assert ended == {
        **dict.fromkeys(("kept", "kept-bob", "air-bob", "queued-bob", "unread-bob", "after"), ("completed", None)),
        "air": ("withheld", "erased"),
        "queued": ("denied", "erased"),
        "parked": ("expired", "erased"),
        "unread": ("rejected", "erased"),
    }
    assert [one["requestId"] for one in reader.responses if "output" in one and one["requestId"] == "air"] == []
    person = [event for event in reader.events if event["stage"] == "operator"]
    assert sorted(event["eventType"] for event in person) == ["erasure.requested", "subject.erased"]
    reader.found[EVIDENCE.name] = [
        e for e in reader.events if e["stage"] != "operator" and e["requestId"] != "parked-bob"
    ]
    reader.check(list(ended))
    last = {event["requestId"]: event["failure"]["code"] for event in reader.events if event.get("failure")}
    assert {name for name, code in last.items() if code == "erased"} == {"air", "queued", "parked", "unread"}

    for name in ("kept", "air", "queued", "parked", "unread"):
        assert store.of_request(name) == (), name
    assert store.keys.get([row[0] for row in store.keys._database.read("SELECT id FROM payload_keys", ())]).keys() == {
        item_id for (item_id,) in store.database.read("SELECT payload_id FROM objects", ())
    }
    for name in ("kept-bob", "air-bob", "queued-bob", "unread-bob", "after"):
        kept = store.of_request(name)
        assert {item.kind for item in kept} == {"request", "response"}, name
        assert all(open_object(vault, item) for item in kept)
    store.close()


async def test_a_released_request_is_stopped_at_dispatch_too(kafka, prefix, tmp_path):
    """Where the approvals stage knows nothing of the erasure, an approved request is stopped before it is sent."""
    settings, folder = await topics(kafka, prefix), tmp_path / "vault"
    hosted, store = Gated(), VaultStore(folder)
    parts = {"shelf": Shelf(KEEPING), "vault": Vault(folder), "store": store}
    waits = asyncio.create_task(approvals.stage(settings, desk()).run())
    async with (
        Reader(settings, RESPONSES, EVIDENCE, DEADLETTER, APPROVALS) as reader,
        Worker(settings, hosted, **parts),
    ):
        await send(settings, [of("parked", "ada", classification="confidential")])
        await until(reader, lambda: len(reader.found[APPROVALS.name]) == 1)
        asked = ApprovalRequest.model_validate(reader.found[APPROVALS.name][0])
        assert "Nothing was kept about ada" in await erase(settings, tmp_path, "ada")
        made = producer(settings)
        await made.start()
        yes = verdict(asked, roles=("privacy-office",)).to_json()
        await made.send_and_wait(settings.name(APPROVALS), key=asked.approval_id.encode(), value=yes)
        await made.stop()
        await reader.until_responses(1)
        waits.cancel()
        with suppress(asyncio.CancelledError):
            await waits
    (response,) = reader.responses
    assert (response["outcome"], response["failure"]["code"]) == ("denied", "erased")
    decided = [event["policy"]["reasons"] for event in reader.events if event["eventType"] == "policy.decided"]
    assert decided[-1] == ["hosted-general:erased"]
    assert "model.intended" not in {event["eventType"] for event in reader.events}
    store.close()


async def test_consent_from_before_counts_no_more(kafka, prefix, tmp_path):
    """What a person granted before the erasure is `none` afterwards, until they grant it anew; a withdrawal stays."""
    settings, people = await topics(kafka, prefix), ErasedPeople(tmp_path)

    async def say(state, purpose="support"):
        entry = ConsentEntry(
            tenant="acme",
            subject="ada",
            purpose=purpose,
            state=state,
            recorded_at_utc=utc_now(),
            recorded_by="user:ann",
        )
        return await consent_changes.record(settings, entry, site="here")

    async def reads(purpose, wanted):
        async with asyncio.timeout(20):
            while (found := register.state("acme", "ada", purpose, utc_now())) != wanted:  # noqa: ASYNC110 - it announces nothing
                await asyncio.sleep(0.01)
        return found

    register = ConsentRegister(settings, clock=utc_now, erased=people.when)
    following = asyncio.create_task(register.run())
    try:
        before, withdrawn = await say("granted"), await say("withdrawn", "archive")
        await reads("support", ("granted", before.revision))
        people.close("acme", "ada", "e1", utc_now)
        assert register.state("acme", "ada", "support", utc_now()) == ("none", before.revision)
        await reads("archive", ("withdrawn", withdrawn.revision))
        anew = await say("granted")
        await reads("support", ("granted", anew.revision))
    finally:
        following.cancel()
        with suppress(asyncio.CancelledError):
            await following
