"""Texts that try to steer a terminal or to look like another text, and what people have to see instead."""

from __future__ import annotations

import re
from typing import Any

HOSTILE = "job[a][/x]\x1b[2J\x9b\x7f\u202e\u2066\u200f\u061c\u2028\ufeff\x07\x00!"
"""Markup, an escape sequence, a C1 control, DEL, controls of direction, a separator, a mark without width, BEL, NUL."""

SHOWN = "job[a][/x]\\x1b[2J\\x9b\\x7f\\u202e\\u2066\\u200f\\u061c\\u2028\\ufeff\\x07\\x00!"
"""The same as people see it: every sign, and nothing that acts."""

RAW = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ufeff\ud800-\udfff]")
"""What must never be written for people."""

STYLES = re.compile(r"\x1b\[[0-9;]*m")
"""Escape sequences of the program's own."""


def check_shown(text: str, *, whole: bool = True) -> None:
    """See that a hostile text is shown and does nothing; `whole` that it is there in one piece."""
    assert RAW.findall(STYLES.sub("", text)) == [], text
    if whole:
        assert SHOWN in text, text


def response(request_id: str, **changes: Any) -> dict[str, Any]:
    """Give a response of which every text is hostile that can come from outside."""
    route = {"name": HOSTILE, "provider": HOSTILE, "model": HOSTILE, "placement": "hosted", "region": HOSTILE}
    attempt = {"attempt": 1, "route": route, "outcome": HOSTILE, "durationMs": 1.5, "intentId": HOSTILE}
    receipt = {
        "asked": {"taskType": HOSTILE, "purpose": HOSTILE, "placement": HOSTILE},
        "classification": {"declared": HOSTILE, "detected": HOSTILE, "effective": HOSTILE, "findings": [HOSTILE]},
        "identity": HOSTILE,
        "policy": {"decision": HOSTILE, "policyId": HOSTILE, "policyVersion": HOSTILE, "reasons": [HOSTILE]},
        "consent": {"basis": HOSTILE, "state": HOSTILE},
        "redaction": {"removed": [HOSTILE], "applied": [HOSTILE]},
        "context": {"selected": [HOSTILE], "left": [HOSTILE]},
        "approval": {"approver": HOSTILE, "authority": HOSTILE},
        "servedBy": route,
        "leftTheSite": True,
        "retained": {HOSTILE: HOSTILE},
        "costUsd": 0.5,
        "traceId": HOSTILE,
        "attempts": [attempt, attempt],
        "waybill": {HOSTILE: {HOSTILE: [HOSTILE]}},
        "waybillHash": HOSTILE,
    }
    told = {
        "requestId": request_id,
        "outcome": HOSTILE,
        "endedAtUtc": HOSTILE,
        "duplicateOf": HOSTILE,
        "failure": {"code": HOSTILE, "message": HOSTILE},
        "output": {"text": f"{HOSTILE}\n{HOSTILE * 20}"},
        "receipt": receipt,
    }
    return told | changes
