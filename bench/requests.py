"""Requests as real clients send them: about 1.2 kB, signed, of several tenants; one in ten with an e-mail address."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import cycle
from pathlib import Path
from typing import Any, Final
from uuid import NAMESPACE_URL, uuid5

import orjson

from bench.detection import texts
from bench.rig import ISSUER, ROOT
from policy.identity.jws import SigningKey
from streams import envelope
from streams.consent import ConsentEntry

_DATA: Final = ROOT.parent / "shared" / "data"
"""Instructions and questions that people wrote, beside the repository; where they are absent, one text of our own."""

SIZE: Final = 1200
"""Bytes of a request, headers not counted."""

TENANTS: Final = ("acme", "globex", "initech")
_CLIENTS: Final = 50
"""People and programs that ask, each with one token that it uses again and again."""

_EVERY_TENTH: Final = 10
_SORTS: Final = (
    ("question", "product-research", "public"),
    ("drafting", "internal-productivity", "internal"),
    ("summary", "product-research", "public"),
    ("translation", "customer-support", "public"),
    ("question", "customer-support", "internal"),
)
"""Task, purpose and class, in turns; the sample routes and policies serve all of them."""

_PERSONAL: Final = " Write to jane.doe@example.com about it. "


@dataclass(frozen=True, slots=True)
class Sent:
    """A record of `ai.requests`."""

    key: bytes
    """The request id."""

    value: bytes
    """The request."""

    headers: envelope.Headers
    """CloudEvents, trace context and the token."""


def source() -> str:
    """Say which texts the requests are made of."""
    return "user_instructions, gsm8k" if _files() else "own text"


def requests(count: int, key: SigningKey, now: datetime | None = None) -> Iterator[Sent]:
    """Make requests: signed, most with consent that the register knows, one in ten with personal data.

    Args:
        count: how many.
        key: signs the tokens.
        now: the time; this moment if None.
    """
    moment = now or datetime.now(UTC)
    tokens = [token(key, client, moment) for client in range(_CLIENTS)]
    prose = cycle(_prose())
    said = {"timestampUtc": _z(moment), "deadlineUtc": _z(moment + timedelta(hours=1))}
    for number in range(count):
        client = number % _CLIENTS
        personal = number % _EVERY_TENTH == _EVERY_TENTH - 1
        task, purpose, cls = _SORTS[3 + number // _EVERY_TENTH % 2 if personal else number % len(_SORTS)]
        identity = str(uuid5(NAMESPACE_URL, f"{ISSUER}/{number}"))
        content: dict[str, Any] = {
            "contractVersion": "1.0",
            "requestId": identity,
            "correlationId": f"task-{number // 10}",
            **said,
            "actor": {"id": f"user-{client}"},
            "tenant": {"id": TENANTS[client % len(TENANTS)]},
            "session": f"session-{number // 20}",
            "taskType": task,
            "purpose": purpose,
            "classification": cls,
            "input": {"messages": [{"role": "user", "content": ""}]},
            "consent": {"basis": "consent", "reference": "form-7"} if client % 2 else {"basis": "contract"},
            "modelPolicy": {"maxTokens": 256},
        }
        room = SIZE - len(orjson.dumps(content))
        text = next(prose)
        while len(text) < room:
            text += " " + next(prose)
        if personal:
            text = text[: room // 2] + _PERSONAL + text[room // 2 :]
        content["input"]["messages"][0]["content"] = text[:room].strip()
        yield Sent(identity.encode(), orjson.dumps(content), _headers(identity, number, tokens[client]))


def consents(now: datetime) -> Iterator[ConsentEntry]:
    """Give what those have said whose requests rest on consent."""
    for client in range(1, _CLIENTS, 2):
        for purpose in sorted({purpose for _, purpose, _ in _SORTS}):
            yield ConsentEntry(
                tenant=TENANTS[client % len(TENANTS)],
                subject=f"user-{client}",
                purpose=purpose,
                state="granted",
                recorded_at_utc=now,
                recorded_by="service:bench",
            )


def _headers(identity: str, number: int, token: bytes) -> envelope.Headers:
    return [
        ("ce_specversion", b"1.0"),
        ("ce_type", envelope.REQUEST_TYPE.encode()),
        ("ce_source", b"/bench"),
        ("ce_id", identity.encode()),
        ("content-type", b"application/json"),
        ("traceparent", f"00-{number + 1:032x}-{number + 1:016x}-01".encode()),
        ("authorization", token),
    ]


def token(key: SigningKey, client: int, now: datetime) -> bytes:
    """Give the header with a client's token, which holds for an hour."""
    at = int(now.timestamp())
    claims = {
        "iss": ISSUER,
        "sub": f"user-{client}",
        "aud": "waybill",
        "iat": at,
        "exp": at + 3600,
        "tenant": TENANTS[client % len(TENANTS)],
        "roles": ["staff"],
    }
    return b"Bearer " + key.sign(claims).encode()


def _files() -> list[Path]:
    files = (_DATA / "user_instructions.jsonl", _DATA / "gsm8k_test.jsonl")
    return [file for file in files if file.is_file()]


def _prose() -> list[str]:
    found = []
    for file in _files():
        for line in file.read_text(encoding="utf-8").splitlines():
            content = json.loads(line)
            if "question" in content:
                found.append(content["question"])
            else:
                found.append(f"{content['instruction']}\n\n{content['instances'][0]['input']}")
    return found or [next(iter(texts().values()))]


def _z(moment: datetime) -> str:
    return moment.isoformat().replace("+00:00", "Z")
