"""CloudEvents 1.0 in Kafka's binary mode: headers say what the value is, the value is the data."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any, Final, NamedTuple

import orjson

from evidence.errors import RecordError
from streams.memory import Memory
from streams.story import TRACEPARENT

REQUEST_TYPE: Final = "io.waybill.request.v1"
WORK_TYPE: Final = "io.waybill.work.v1"
RESPONSE_TYPE: Final = "io.waybill.response.v1"
EVIDENCE_TYPE: Final = "io.waybill.evidence.v1"
DEADLETTER_TYPE: Final = "io.waybill.deadletter.v1"
LEDGER_TYPE: Final = "io.waybill.ledger.v1"
CONSENT_TYPE: Final = "io.waybill.consent.v1"
APPROVAL_TYPE: Final = "io.waybill.approval.v1"

JSON: Final = "application/json"
_MAX_TRACESTATE: Final = 512
"""Characters of a `tracestate` that are handed on: W3C lets a longer one be dropped, which every record would carry."""

_TRACE_LENGTHS: Final = frozenset({len("traceparent"), len("tracestate")})
"""Most headers of a record are of another length, which is known before their case is looked at."""

Headers = list[tuple[str, bytes]]

_READ: Final = frozenset({"content-type", "ce_specversion", "ce_type", "ce_id", "ce_source", "ce_dataclassification"})
"""The headers that mean something here; others may say what they like."""


_NEEDED: Final[Mapping[str, str | None]] = {
    "content-type": JSON,
    "ce_specversion": "1.0",
    "ce_type": REQUEST_TYPE,
    "ce_id": None,
    "ce_source": None,
}
"""The headers that a request needs, with the value where only one is right."""


def content(value: bytes | None, *texts: str, objects: tuple[str, ...] = ()) -> dict[str, Any] | None:
    """Return a record's JSON object; None where it is none, or lacks one of these members: anybody may write a record.

    Args:
        value: the record's value.
        texts: members that have to be there as texts.
        objects: members that have to be there as objects.
    """
    try:
        found = orjson.loads(value or b"")
    except orjson.JSONDecodeError:
        return None
    if not isinstance(found, dict):
        return None
    whole = all(isinstance(found.get(name), str) for name in texts)
    return found if whole and all(isinstance(found.get(name), dict) for name in objects) else None


class Envelope(NamedTuple):
    """What the headers of a request say."""

    event_id: str
    """`ce_id`: the sender's id of this record."""

    source: str
    """`ce_source`: who sent it."""

    traceparent: str | None
    """W3C trace context, where the sender has one."""

    tracestate: str
    """Its vendor part, handed on unchanged."""

    declared_class: str | None
    """`ce_dataclassification`, where given; it must agree with the data."""


def read(headers: Iterable[tuple[str, bytes | None]]) -> Envelope:
    """Read a request's headers.

    Raises:
        RecordError: `bad_envelope`, with the header that is missing or wrong.
    """
    given = tuple(headers)
    found = _known(given)
    content_type = found.get("content-type", "")
    if content_type.startswith("application/cloudevents"):
        raise RecordError("bad_envelope", "structured mode is not served; send CloudEvents in binary mode")
    wrong = [name for name, expected in _NEEDED.items() if not found.get(name) or expected not in {None, found[name]}]
    if "content-type" in wrong and content_type.partition(";")[0].strip().lower() == JSON:
        wrong.remove("content-type")
    if wrong:
        raise RecordError("bad_envelope", _told(wrong, found, given))
    parent, state = trace_context(given)
    return Envelope(
        event_id=found["ce_id"],
        source=found["ce_source"],
        traceparent=parent,
        tracestate=state,
        declared_class=found.get("ce_dataclassification"),
    )


def _told(wrong: Sequence[str], found: Mapping[str, str], given: Sequence[tuple[str, bytes | None]]) -> str:
    """Name all headers that are missing or wrong, and what stands in the place of a missing one."""
    near = {_LETTERS.sub("", name.lower()): name for name, _ in given if name.lower() not in _READ}
    said = []
    for name in wrong:
        must = f" must be {_NEEDED[name]}" if _NEEDED[name] else ""
        if found.get(name):
            said.append(f"header {name}{must}")
            continue
        bare = _LETTERS.sub("", name.removeprefix("ce_"))
        forms = (f"ce{bare}", f"cloudevents{bare}", bare, f"cedata{bare}", f"data{bare}", f"xce{bare}")
        instead = next((near[form] for form in forms if form in near and _PLAIN.fullmatch(near[form])), None)
        missing = f"header {name} is missing{' and' if must else ''}{must}"
        said.append(f"{missing} ({instead} stands in its place)" if instead else missing)
    return "; ".join(said)


_LETTERS: Final = re.compile(r"[^a-z0-9]")
_PLAIN: Final = re.compile(r"[A-Za-z0-9_:.-]{1,64}")


def _known(headers: Iterable[tuple[str, bytes | None]]) -> dict[str, str]:
    found: dict[str, str] = {}
    for name, value in headers:
        known = name.lower()
        if known not in _READ:
            continue
        if known in found:
            raise RecordError("bad_envelope", f"header {known} is given twice")
        try:
            found[known] = (value or b"").decode()
        except UnicodeDecodeError:
            raise RecordError("bad_envelope", f"header {known} is not UTF-8") from None
    return found


def record_id(headers: Iterable[tuple[str, bytes | None]]) -> str:
    """Return the sender's id of a record (`ce_id`); "" where there is none, or more than one."""
    found = [value or b"" for name, value in headers if len(name) == len("ce_id") and name.lower() == "ce_id"]
    return found[0].decode("utf-8", "replace") if len(found) == 1 else ""


def trace_context(headers: Iterable[tuple[str, bytes | None]]) -> tuple[str | None, str]:
    """Give `traceparent` and `tracestate` of any record; what is broken counts as absent, as W3C asks."""
    found: dict[str, list[str]] = {"traceparent": [], "tracestate": []}
    for name, value in headers:
        if len(name) in _TRACE_LENGTHS and name.lower() in found:
            found[name.lower()].append((value or b"").decode("ascii", "replace"))
    parents, state = found["traceparent"], ",".join(found["tracestate"])
    if len(parents) != 1 or TRACEPARENT.fullmatch(parents[0]) is None:
        return None, ""
    return parents[0], state if len(state) <= _MAX_TRACESTATE and state.isascii() else ""


class Hop:
    """Writes the headers of the records that one step writes about one request.

    Args:
        source: who writes.
        subject: the request id, or what stands for it.
        traceparent: trace context of this hop.
        tracestate: its vendor part, handed on unchanged.
    """

    def __init__(self, *, source: str, subject: str, traceparent: str, tracestate: str = "") -> None:
        self._source = ("ce_source", source.encode())
        self._rest: Headers = [
            ("ce_subject", subject.encode()),
            ("content-type", b"application/json"),
            ("traceparent", traceparent.encode()),
        ]
        if tracestate:
            self._rest.append(("tracestate", tracestate.encode()))

    def headers(self, ce_type: str, event_id: str, at: datetime) -> Headers:
        """Give the headers of one record."""
        time = _TIMES.get(at)  # records of one moment are many
        if time is None:
            time = _TIMES.keep(at, ("ce_time", at.isoformat().replace("+00:00", "Z").encode()))
        return [
            ("ce_specversion", b"1.0"),
            ("ce_type", ce_type.encode()),
            self._source,
            ("ce_id", event_id.encode()),
            time,
            *self._rest,
        ]


_TIMES: Final = Memory[datetime, tuple[str, bytes]]()
"""The header of a moment."""
