"""A proof pack: one file that proves the story of one request to somebody who holds a public key and nothing else.

docs/proofs.md says what is in it. Everything that it claims is derived anew here: the rows' hashes, their inclusion in
the log, who signed the log's checkpoint, whose story it is and whether something is missing from it.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from evidence.verify.notes import COSIGNATURE, ED25519, VerifierKey, ed25519
from evidence.verify.pack_story import Gone, Row, Story, check_in_log, check_places, read_row, stories
from evidence.verify.report import Finding, plain
from evidence.verify.signed import Followed, Signed, Untrue, cosigned, follow, parse_keys, read_signed
from evidence.verify.strict import (
    ShapeError,
    base64_of,
    hashes_of,
    list_of,
    load,
    members,
    number_of,
    text_of,
)
from evidence.verify.tree import check_consistency

PAYLOAD_TYPE: Final = "application/vnd.in-toto+json"
"""Type of what the envelope holds."""

STATEMENT_TYPE: Final = "https://in-toto.io/Statement/v1"
"""Type of the statement."""

PREDICATE_TYPE: Final = "urn:waybill:proof-pack:1"
"""Type of what the statement says of its subjects."""

CANNOT_SEE: Final = (
    "events of the request behind the last one in the pack, and further arrivals under the same request id",
    "an event that was never written to the topic, or was written with a lie in it",
    "another history that the holder of the signing key shows to others: have a witness sign (--witness)",
    "whether a key that signed was stolen, or is out of force since: ask the site",
)
"""What no check of a pack can tell."""


@dataclass(slots=True)
class PackReport:
    """The result of a check."""

    request_id: str = ""
    rows: int = 0
    logs: list[str] = field(default_factory=list)
    """A sentence for each log."""
    stories: list[Story] = field(default_factory=list)
    signed_by: str = ""
    """The key that signed the envelope; empty if nobody did."""
    waybills: int = 0
    receipt: bool = False
    findings: list[Finding] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    @property
    def ok(self) -> bool:
        """Whether everything is as it must be."""
        return not self.findings

    @property
    def first(self) -> Finding | None:
        """The first thing that is wrong."""
        return self.findings[0] if self.findings else None

    def to_json(self) -> str:
        """Give the report as JSON."""
        return json.dumps(
            {
                "ok": self.ok,
                "findings": [
                    {"kind": item.kind, "where": plain(item.where), "what": plain(item.what)} for item in self.findings
                ],
                "requestId": self.request_id,
                "rows": self.rows,
                "logs": self.logs,
                "stories": [
                    {"intakeId": story.intake_id, "events": story.told(), "ended": story.ended, "whole": story.whole}
                    for story in self.stories
                ],
                "signedBy": self.signed_by or None,
                "waybills": self.waybills,
                "receipt": self.receipt,
                "notes": [plain(note) for note in self.notes],
                "cannotSee": CANNOT_SEE,
            },
            indent=2,
        )

    def to_text(self) -> str:
        """Give the report for people."""
        if self.first is not None:
            return "\n".join(["NOT OK", *(f"WRONG  {finding}" for finding in self.findings)])
        lines = [f"request {plain(self.request_id)}: {self.rows} rows, each of them in its log"]
        lines += [f"    {plain(log)}" for log in self.logs]
        for story in self.stories:
            ended = "ended" if story.ended else "NOT ENDED as far as this pack goes"
            lines.append(f"intake {plain(story.intake_id)}: events {story.told()}, {ended}")
        lines.append(f"{self.waybills} waybills, {'the' if self.receipt else 'no'} route receipt")
        lines.append(f"signed by {self.signed_by}" if self.signed_by else "the envelope is not signed")
        lines += [f"note: {plain(note)}" for note in self.notes]
        return "\n".join([*lines, "OK", "No check of a pack can see:", *(f"  - {item}" for item in CANNOT_SEE)])


def verify_pack(
    data: bytes,
    keys: Sequence[str | VerifierKey],
    witnesses: Sequence[str | VerifierKey] = (),
    *,
    unsigned: bool = False,
) -> PackReport:
    """Check a pack; the report names the first thing that is wrong.

    Args:
        data: the file.
        keys: verifier keys of the site, one of which signed its logs at or before the pack's checkpoints.
        witnesses: verifier keys of witnesses, each of which must have cosigned every log as far as the pack's rows.
        unsigned: whether an envelope without a signature will do; the rows' proofs need none.

    Raises:
        NoteError: a key is none, or of the other kind.
    """
    given = parse_keys(keys, ED25519)
    seconds = parse_keys(witnesses, COSIGNATURE)
    report = PackReport()
    try:
        _check(data, given, seconds, report, unsigned=unsigned)
    except Untrue as error:
        report.findings.append(Finding(error.kind, error.where, error.what))
    except ShapeError as error:
        where, _, what = str(error).rpartition(": ")
        report.findings.append(Finding("form", where or "pack", what))
    return report


def pae(payload_type: str, payload: bytes) -> bytes:
    """Give what a DSSE signature is made over."""
    kind = payload_type.encode()
    return b"DSSEv1 %d %b %d %b" % (len(kind), kind, len(payload), payload)


def _check(
    data: bytes,
    given: Sequence[VerifierKey],
    witnesses: Sequence[VerifierKey],
    report: PackReport,
    *,
    unsigned: bool,
) -> None:
    envelope = members(load(data, "envelope"), "envelope", ("payload", "payloadType", "signatures"))
    if envelope["payloadType"] != PAYLOAD_TYPE:
        raise Untrue("type", "envelope", f"its payloadType is not {PAYLOAD_TYPE}")
    payload = base64_of(envelope["payload"], "envelope: `payload`")
    statement = members(load(payload, "statement"), "statement", ("_type", "subject", "predicateType", "predicate"))
    if statement["_type"] != STATEMENT_TYPE or statement["predicateType"] != PREDICATE_TYPE:
        raise Untrue("type", "statement", f"not an in-toto Statement v1 with a predicate of type {PREDICATE_TYPE}")
    said = members(
        statement["predicate"], "predicate", ("requestId", "logs", "rows", "stories", "waybills"), ("receipt",)
    )
    report.request_id = text_of(said["requestId"], "predicate: `requestId`")
    logs = _logs(said["logs"], given)
    signatures = list_of(envelope["signatures"], "envelope: `signatures`")
    report.signed_by = _signer(signatures, payload, [one.followed for one in logs.values()])
    if not report.signed_by and not unsigned:
        raise Untrue("unsigned", "envelope", "nobody signed it; if that is what you expect, say so (--unsigned)")
    rows = _rows(said["rows"], logs, report.request_id)
    _subjects(statement["subject"], rows)
    for name, log in logs.items():
        mine = [row for row in rows if row.log == name]
        report.logs.append(_log_told(log, mine))
        _witnesses(log, mine, witnesses, report)
    gone = {name: Gone.told(log.followed.trusted) for name, log in logs.items()}
    report.stories = list(stories(rows, gone))
    _claims(said["stories"], report.stories)
    report.rows = len(rows)
    report.notes += [what for story in report.stories for what in story.missing]
    waybills = _waybills(said["waybills"], rows)
    report.waybills = len(waybills)
    report.notes += [
        f"the waybill {digest} is named by a row, and is not in the pack"
        for digest in dict.fromkeys(row.waybill for row in rows if row.waybill)
        if digest not in waybills
    ]
    if "receipt" in said:
        if not report.signed_by:
            raise Untrue("receipt", "receipt", "only a signature could hold it, and nobody signed the envelope")
        whole = {story.intake_id for story in report.stories if story.whole}
        _receipt(text_of(said["receipt"], "receipt"), rows, whole)
        report.receipt = True


@dataclass(frozen=True, slots=True)
class _Log:
    where: str
    newest: Signed
    followed: Followed
    witnesses: list[Any]


def _logs(value: Any, given: Sequence[VerifierKey]) -> dict[str, _Log]:
    made: dict[str, _Log] = {}
    for place, item in enumerate(list_of(value, "logs")):
        where = f"log {place}"
        said = members(item, where, ("checkpoint", "commits", "witnesses"))
        newest = read_signed(text_of(said["checkpoint"], f"{where}: `checkpoint`"), f"{where}: checkpoint")
        commits = [
            read_signed(text_of(text, f"{where}: commit"), f"{where}: commit {number}")
            for number, text in enumerate(list_of(said["commits"], f"{where}: `commits`"))
        ]
        name = str(newest.commit.origin)
        if name in made:
            raise Untrue("log", where, f"{name} stands twice")
        made[name] = _Log(where, newest, follow([*commits, newest], given), list_of(said["witnesses"], where))
    if not made:
        raise Untrue("log", "logs", "there is none")
    return made


def _signer(signatures: list[Any], payload: bytes, followed: Sequence[Followed]) -> str:
    """Give the key that signed the envelope, or "" if there is no signature."""
    force = {f"{key.name}+{key.key_id.hex()}": key for one in followed for key in one.in_force}
    found = ""
    for place, item in enumerate(signatures):
        where = f"signature {place}"
        said = members(item, where, ("keyid", "sig"))
        key = force.get(text_of(said["keyid"], f"{where}: `keyid`"))
        if key is None:
            what = f"made with {said['keyid'][:120]!r}, which is no key that is in force at a checkpoint of the pack"
            raise Untrue("signature", where, what)
        if not ed25519(key.public, base64_of(said["sig"], f"{where}: `sig`"), pae(PAYLOAD_TYPE, payload)):
            raise Untrue("signature", where, "not good: the payload or the signature was changed")
        found = found or f"{key.name}+{key.key_id.hex()}"
    return found


def _rows(value: Any, logs: dict[str, _Log], request_id: str) -> list[Row]:
    rows = []
    for place, item in enumerate(list_of(value, "rows")):
        where = f"row {place}"
        said = members(item, where, ("log", "number", "row", "proof"))
        log = text_of(said["log"], f"{where}: `log`")
        if log not in logs:
            raise Untrue("other-log", where, f"there is no checkpoint of {log[:200]} in the pack")
        text, number = text_of(said["row"], f"{where}: `row`"), number_of(said["number"], f"{where}: `number`")
        row = read_row(text, log, number, hashes_of(said["proof"], f"{where}: `proof`"), where)
        check_in_log(row, logs[log].newest.commit)
        if row.request_id != request_id:
            raise Untrue("other-request", where, f"is a row of request {row.request_id[:200]}")
        rows.append(row)
    check_places(rows)
    if unused := set(logs) - {row.log for row in rows}:
        raise Untrue("log", "logs", f"no row is of {min(unused)}")
    return rows


def _subjects(value: Any, rows: Sequence[Row]) -> None:
    subjects = list_of(value, "subject")
    if len(subjects) != len(rows):
        raise Untrue("subject", "subject", f"there are {len(subjects)} subjects and {len(rows)} rows")
    for place, (item, row) in enumerate(zip(subjects, rows, strict=True)):
        where = f"subject {place}"
        said = members(item, where, ("name", "digest"))
        digest = members(said["digest"], where, ("sha256",))["sha256"]
        if said["name"] != row.event_id or digest != row.sha256:
            raise Untrue("subject", where, f"is not the event {row.event_id[:200]} with the digest of its row")


def _log_told(log: _Log, rows: Sequence[Row]) -> str:
    commit = log.newest.commit
    numbers = ", ".join(str(row.number) for row in rows[:12]) + (", …" if len(rows) > 12 else "")  # noqa: PLR2004 - a line
    keys = ", then ".join(f"{key.name}+{key.key_id.hex()}" for key in log.followed.keys)
    return (
        f"{commit.origin}: numbers {numbers} of {commit.size}, by commit {commit.number} of "
        f"{commit.time.isoformat(timespec='seconds').replace('+00:00', 'Z')}, signed by {keys}"
    )


def _witnesses(log: _Log, rows: Sequence[Row], witnesses: Sequence[VerifierKey], report: PackReport) -> None:
    """Check that each witness vouches for the log at least as far as the rows go."""
    newest = log.newest.commit
    covered: dict[str, int] = {}
    for place, item in enumerate(log.witnesses):
        where = f"{log.where}: witness {place}"
        said = members(item, where, ("note", "proof"))
        theirs = read_signed(text_of(said["note"], where), where)
        commit = theirs.commit
        if commit.origin != newest.origin:
            raise Untrue("other-log", where, f"is of {commit.origin}")
        proof = hashes_of(said["proof"], where)
        if not check_consistency(commit.size, newest.size, commit.root, newest.root, proof):
            what = f"the checkpoint is not shown to go on from the {commit.size} rows that the witness signed"
            raise Untrue("witness", where, what)
        if commit.number == newest.number and theirs.note.text != log.newest.note.text:
            raise Untrue("witness", where, f"signed another commit {commit.number}: the log is forked")
        if commit.number >= log.followed.trusted[0].commit.number and not any(
            (line := theirs.note.of(key)) and key.signed(theirs.note.text, line.body) for key in log.followed.keys
        ):
            raise Untrue("witness", where, "bears no good signature of the log's own key")
        good = list(cosigned(theirs.note, witnesses, where))
        for key in good:
            covered[str(key)] = max(covered.get(str(key), 0), commit.size)
            report.notes.append(f"{newest.origin}: {key.name} cosigned commit {commit.number}, {commit.size} rows")
        known = {key.name for key in (*good, *log.followed.keys)}
        if unknown := sorted({line.name for line in theirs.note.signatures} - known):
            report.notes.append(f"{newest.origin}: not checked for want of the witness's key: {', '.join(unknown)}")
    behind = max((row.number for row in rows), default=-1)
    for key in witnesses:
        if covered.get(str(key), 0) <= behind:
            size = covered.get(str(key))
            what = f"cosigned {size} rows, and row {behind} is shown" if size is not None else "cosigned nothing of it"
            raise Untrue("witness", log.where, f"{key.name} {what}")


def _claims(value: Any, told: Sequence[Story]) -> None:
    claims = list_of(value, "stories")
    wanted = [{"intakeId": story.intake_id, "events": story.told(), "ended": story.ended} for story in told]
    for place, (claim, story) in enumerate(zip(claims, wanted, strict=False)):
        if claim != story or not isinstance(claim["ended"], bool):
            raise Untrue("story", f"story {place}", f"says something else than the rows of intake {story['intakeId']}")
    if len(claims) != len(wanted):
        raise Untrue("story", "stories", f"there are {len(claims)}, and the rows tell {len(wanted)}")


def _waybills(value: Any, rows: Sequence[Row]) -> set[str]:
    """Check the waybills; give their digests."""
    made: set[str] = set()
    for place, item in enumerate(list_of(value, "waybills")):
        where = f"waybill {place}"
        text = text_of(item, where)
        digest = hashlib.sha256(text.encode()).hexdigest()
        named = [row for row in rows if row.waybill == digest]
        if not named:
            raise Untrue("waybill", where, f"no row names its digest, {digest}")
        said = load(text, where)
        if not isinstance(said, dict) or any(said.get("intakeId") != row.intake_id for row in named):
            raise Untrue("waybill", where, f"is not one of intake {named[0].intake_id}")
        if digest in made:
            raise Untrue("waybill", where, "stands twice")
        made.add(digest)
    return made


def _receipt(text: str, rows: Sequence[Row], whole: Collection[str]) -> None:
    response = members(
        load(text, "receipt", floats=True), "receipt", ("requestId", "outcome", "endedAtUtc", "receipt"), ("failure",)
    )
    receipt = response["receipt"]
    if not isinstance(receipt, dict):
        raise ShapeError("receipt: not an object")
    mine = [row for row in rows if row.intake_id == receipt.get("intakeId")]
    if not mine or response["requestId"] != mine[0].request_id:
        raise Untrue("receipt", "receipt", "is of another request, or of another arrival of it")
    for what in _disagreements(response, receipt, mine, whole=mine[0].intake_id in whole):
        raise Untrue("receipt", "receipt", f"does not agree with the rows: {what}")


def _disagreements(
    response: dict[str, Any], receipt: dict[str, Any], rows: Sequence[Row], *, whole: bool
) -> Iterator[str]:
    """Say what a receipt tells otherwise than the rows; what only missing rows could tell is not held against it."""
    last = rows[-1]
    if last.said.get("traceId") != receipt.get("traceId"):
        yield "the trace"
    if last.last and last.said.get("outcome") != response["outcome"]:
        yield "the outcome"
    contract = receipt.get("waybill")
    if contract is not None:
        text = json.dumps(contract, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
        of_intake = isinstance(contract, dict) and contract.get("intakeId") == last.intake_id
        if not of_intake or hashlib.sha256(text.encode()).hexdigest() != receipt.get("waybillHash"):
            yield "the waybill, or its digest"
    if not whole:
        return
    ids = [row.event_id for row in rows]
    attempts = receipt.get("attempts", [])
    if not isinstance(attempts, list) or any(
        not isinstance(one, dict) or ("intentId" in one and one["intentId"] not in ids) for one in attempts
    ):
        yield "an attempt"
    hosted = [row for row in rows if _hosted(row)]
    if receipt.get("leftTheSite") is not True and any(row.event_type == "model.completed" for row in hosted):
        yield "that something left the site"
    if receipt.get("leftTheSite") is not False and not any(row.event_type == "model.intended" for row in hosted):
        yield "that nothing left the site"


def _hosted(row: Row) -> bool:
    route = row.said.get("route")
    return isinstance(route, dict) and route.get("placement") == "hosted"
