"""Files of evidence as each version of the schema wrote them, kept so that every later version must read them.

After a change of the columns, raise `EVIDENCE_VERSION` in `evidence/records.py` and write that version's file with
`PYTHONPATH=tests/support python -m golden_evidence`. What is there already is never written again.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import sys
from datetime import timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
from evidence_samples import NOON, stories

from evidence.parsing import parse
from evidence.records import (
    EVIDENCE_VERSION,
    ApprovalRef,
    ConsentRef,
    ContextUse,
    CredentialRef,
    EventType,
    EvidenceEvent,
    PolicyRef,
    Redaction,
    Stage,
)
from evidence.rows import leaf_hashes
from evidence.schema import EVENTS_SCHEMA
from evidence.store.encoding import encode

FOLDER = Path(__file__).parents[1] / "evidence/golden"
"""Where the files are: `<version>.parquet`."""

RECORDED = FOLDER / "recorded.json"
"""For each version the number of rows, the digest of the columns, and SHA-256 over all leaf hashes in their order."""


def recorded() -> dict[str, dict[str, Any]]:
    """Give what is recorded for each version."""
    found: dict[str, dict[str, Any]] = json.loads(RECORDED.read_text())
    return found


def columns(schema: pa.Schema) -> str:
    """Give a digest of the columns' names and types, in their order."""
    return hashlib.sha256(_told(pa.struct(schema)).encode()).hexdigest()


def _told(kind: pa.DataType) -> str:
    """Describe a type; how Parquet calls the inside of a list is no part of it."""
    if pa.types.is_list(kind):
        return f"list<{_told(kind.value_type)}>"
    if pa.types.is_struct(kind):
        fields = [f"{field.name}: {_told(field.type)}{'' if field.nullable else ' not null'}" for field in kind]
        return f"struct<{', '.join(fields)}>"
    return str(kind)


def leaves(table: pa.Table) -> str:
    """Give a digest of all leaf hashes, in the order of the rows."""
    return hashlib.sha256(leaf_hashes(table)).hexdigest()


def events() -> list[EvidenceEvent]:
    """Give a few stories, and with them the fields that stories have not."""
    told = list(stories(30))
    base = {"request_id": "req-golden", "intake_id": "f" * 32, "trace_id": "e" * 32, "site": "home"}
    later = NOON + timedelta(hours=1)
    policy = PolicyRef(
        decision="require-approval",
        policy_id="routes",
        policy_version="0" * 64,
        reasons=("hosted-eu:approval_needed",),
        decision_id="decision-1",
        scope="send:hosted-eu",
        inputs='{"labels":{"class":"confidential"},"note":"é \\"quoted\\"\\n"}',
        required_approvals=("privacy",),
        approval_id="approval-1",
        expires_at_utc=later,
        overrides="decision-0",
        redaction=("contact:mask",),
        review_path="privacy-office",
    )
    approval = ApprovalRef(
        approval_id="approval-1",
        authority="privacy",
        approver="dana",
        payload_sha256="a" * 64,
        expires_at_utc=later,
        override=True,
        note='"fine"\tby me \\ 😀',
    )
    credential = CredentialRef(
        method="minted",
        token_id="t-1",  # noqa: S106 - the id of a token, which opens nothing
        audience="hosted-eu",
        scope="ask",
        expires_at_utc=later,
    )
    redaction = Redaction(applied=("contact:mask",), removed=("email:2",))
    context = ContextUse(selected=("doc-1",), left=("doc-2:class",))
    consent = ConsentRef(basis="consent", state="granted", revision="0:7")
    special: list[dict[str, Any]] = [
        {"event_type": EventType.DATA_REDACTED, "redaction": redaction},
        {"event_type": EventType.CONTEXT_SELECTED, "context": context},
        {"event_type": EventType.POLICY_DECIDED, "policy": policy, "subject_ref": "person-7", "duration_ms": 1e10},
        {"event_type": EventType.APPROVAL_APPROVED, "approval": approval, "duration_ms": 1e-7},
        {"event_type": EventType.CONSENT_CHANGED, "consent": consent},
        {"event_type": EventType.MODEL_INTENDED, "credential": credential},
        {"event_type": EventType.RETENTION_APPLIED, "stage": Stage.OPERATOR, "detail": '{"rule":"30 days"}'},
    ]
    return told + [
        EvidenceEvent(
            **{"stage": Stage.APPROVALS, **base, **fields},
            event_id=f"golden-{number}",
            span_id=f"{number:016x}",
            sequence=number,
            occurred_at_utc=NOON + timedelta(minutes=number),
        )
        for number, fields in enumerate(special)
    ]


def write() -> None:
    """Write the file of today's version."""
    known = recorded()
    if EVIDENCE_VERSION in known:
        sys.exit(f"{EVIDENCE_VERSION} has its file; other columns need another EVIDENCE_VERSION in evidence/records.py")
    found = events()
    offsets = range(len(found))
    moments = list(itertools.accumulate([37] * len(found), initial=1_772_366_400_000))[: len(found)]
    values = [event.to_json() for event in found]
    table = parse(values, partition=0, offsets=offsets, timestamps_ms=moments).table
    (FOLDER / f"{EVIDENCE_VERSION}.parquet").write_bytes(encode(table, {"site": "home"}, level=1).data)
    known[EVIDENCE_VERSION] = {"rows": table.num_rows, "columns": columns(EVENTS_SCHEMA), "leaves": leaves(table)}
    RECORDED.write_text(json.dumps(known, indent=2) + "\n")


if __name__ == "__main__":
    write()
