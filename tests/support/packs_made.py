"""Stores whose requests are proved in tests, and packs that are taken apart and put together again."""

from __future__ import annotations

import base64
import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import orjson
from evidence_samples import NOON, story

from evidence.disk import Disk
from evidence.files.local import LocalFiles
from evidence.log.keys import KeyRing
from evidence.pack import Documents, Pack, build, envelope
from evidence.parsing import parse
from evidence.records import EventType, EvidenceEvent
from evidence.store.compaction import compact, plans
from evidence.store.site import EvidenceStore
from policy.contract import Destination, RetentionTerms, Waybill

LOG = ("cluster-1", "ai.evidence", 0)
"""The log that made-up rows are written to."""

NAME = "cluster-1.ai.evidence-0"
"""Its name in the store."""

TODAY = datetime(2026, 3, 9, tzinfo=UTC)
"""When small files are compacted."""


def waybill(intake: str, route: str) -> Waybill:
    """Give the contract of a crossing."""
    return Waybill(
        intake_id=intake,
        data_classification="internal",
        purpose="support",
        destination=Destination(provider="stand-in", endpoint="hosted", region="eu-central-1"),
        model_route=f"{route}/large-1",
        retention=RetentionTerms(destination_days=0, forbidden_in_answer=("health",), action="mask"),
        encryption="tls",
        redaction=("none",),
        consent="contract",
        fallback=("stop",),
    )


def contracted(events: list[EvidenceEvent]) -> tuple[list[EvidenceEvent], dict[str, Waybill]]:
    """Give a story whose crossings name real contracts, and these by their digests."""
    contracts: dict[str, Waybill] = {}
    made = []
    for event in events:
        changes: dict[str, Any] = {"waybill_hash": None}
        if (
            event.event_type in {EventType.ROUTE_SELECTED, EventType.MODEL_INTENDED}
            and event.route.placement == "hosted"
        ):
            contract = waybill(event.intake_id, event.route.name)
            changes["waybill_hash"] = contract.digest()
            contracts[contract.digest()] = contract
        made.append(event.model_copy(update=changes))
    return made, contracts


def crossing(number: int, begin: datetime = NOON) -> bool:
    """Tell whether a made-up request is answered by a hosted model."""
    kinds = [
        event.event_type for event in story(number, begin=begin) if event.route and event.route.placement == "hosted"
    ]
    return EventType.MODEL_COMPLETED in kinds


def response(events: list[EvidenceEvent], contracts: dict[str, Waybill]) -> bytes:
    """Give the response of a story, as a pack holds it."""
    first, last = events[0], events[-1]
    intents = [event for event in events if event.event_type is EventType.MODEL_INTENDED]
    hosted = [event for event in intents if event.waybill_hash]
    receipt: dict[str, Any] = {
        "receiptVersion": "1.0",
        "intakeId": first.intake_id,
        "traceId": first.trace_id,
        "leftTheSite": bool(hosted),
        "attempts": [{"attempt": event.attempt, "intentId": event.event_id, "durationMs": 12.5} for event in hosted],
        "costUsd": 0.000125,
    }
    if hosted:
        digest = hosted[-1].waybill_hash
        receipt |= {"waybill": orjson.loads(contracts[digest].to_json()), "waybillHash": digest}
    return orjson.dumps(
        {
            "requestId": first.request_id,
            "outcome": last.outcome,
            "endedAtUtc": last.occurred_at_utc.isoformat(),
            "receipt": receipt,
        }
    )


class Hasty(Disk):
    """The real file system, without waiting for the disk: power does not fail in these tests."""

    def sync(self, path):
        """Do nothing."""


@dataclass
class Proving:
    """A store with made-up requests, told all at once: their rows lie between each other."""

    store: EvidenceStore
    ring: KeyRing
    stories: dict[str, list[EvidenceEvent]]
    contracts: dict[str, Waybill]
    offset: int = 0
    log: tuple[str, str, int] = LOG

    @classmethod
    def begin(cls, root, *, site: str = "home") -> Proving:
        """Make an empty store with its first key."""
        ring = KeyRing.create(root / "keys", site)
        return cls(EvidenceStore(LocalFiles(root / "evidence", Hasty()), site, ring), ring, {}, {})

    def copy(self, root) -> Proving:
        """Give the same store and keys in another folder."""
        shutil.copytree(self.files.root.parent, root, dirs_exist_ok=True)
        ring = KeyRing(root / "keys", self.store.site)
        store = EvidenceStore(LocalFiles(root / "evidence", Hasty()), self.store.site, ring)
        return Proving(store, ring, dict(self.stories), dict(self.contracts), self.offset)

    @property
    def files(self) -> LocalFiles:
        """The store's files."""
        return self.store.files

    def tell(self, numbers, *, rows: int = 7, begin: datetime = NOON, left_out=lambda _: False) -> list[str]:
        """Store the events of some requests, round by round, a few in each commit; give the request ids."""
        told = []
        for number in numbers:
            events, contracts = contracted(story(number, begin=begin))
            told.append(events)
            self.stories[events[0].request_id] = events
            self.contracts |= contracts
        longest = max(map(len, told))
        events = [events[step] for step in range(longest) for events in told if step < len(events)]
        events = [event for event in events if not left_out(event)]
        with self.store.open(*self.log) as writer:
            for at in range(0, len(events), rows):
                part = events[at : at + rows]
                offsets = [self.offset + 2 * place for place in range(len(part))]  # every other offset is a marker
                table = parse(
                    [event.to_json() for event in part], partition=0, offsets=offsets, timestamps_ms=[0] * len(part)
                ).table
                self.offset = offsets[-1] + 2
                writer.append(table, end=self.offset - 1)
        return [events[0].request_id for events in told]

    def compact(self) -> None:
        """Merge all small files."""
        with self.store.open(*self.log) as writer:
            for plan in list(plans(writer.live, today=TODAY.date(), many=2)):
                compact(writer, self.files, plan)

    def documents(self, request_id: str, *, receipt: bool = True) -> Callable[..., Documents]:
        """Give what the topics would have of a request."""

        def given(_) -> Documents:
            texts = [
                orjson.dumps(orjson.loads(c.to_json()), option=orjson.OPT_SORT_KEYS) for c in self.contracts.values()
            ]
            answer = response(self.stories[request_id], self.contracts) if receipt else None
            return Documents(texts, answer)

        return given

    def prove(self, request_id: str, **options) -> Pack:
        """Make a request's pack."""
        given = {"documents": self.documents(request_id), "signers": self.ring} | options
        pack = build(self.files, request_id, **given)
        assert pack is not None
        return pack


def opened(data: bytes) -> dict[str, Any]:
    """Give a pack's statement."""
    return json.loads(base64.b64decode(json.loads(data)["payload"]))


def closed(statement: Any, ring: KeyRing | None) -> bytes:
    """Give a statement as a pack, signed anew."""
    payload = statement if isinstance(statement, bytes) else orjson.dumps(statement)
    return envelope(payload, ring.newest() if ring else None)
