"""Past decisions, as evidence holds them: what was decided, and on what."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from typing import Final, NamedTuple

from queries.database import DEFAULT_TIMEOUT_S, Evidence

_DECISIONS: Final = """
SELECT request_id, occurred_at, policy.decision, policy.scope, policy.policy_version, policy.inputs
FROM events
WHERE event_type = 'policy.decided' AND stage = 'admission'
    AND (CAST($since AS TIMESTAMPTZ) IS NULL OR occurred_at >= $since)
    AND (CAST($until AS TIMESTAMPTZ) IS NULL OR occurred_at < $until)
ORDER BY occurred_at, request_id
"""


class Decided(NamedTuple):
    """One decision of admission."""

    request_id: str
    """The application's id of the request."""
    at: datetime
    """When."""
    outcome: str
    """`allow`, `deny`, `transform`, `require-approval` or `escalate`."""
    scope: str | None
    """What it is about: `<action>:<route>`."""
    version: str
    """By which rulebook."""
    inputs: str | None
    """What it rests on, as JSON."""


def decisions(
    evidence: Evidence,
    *,
    since: datetime | None = None,
    until: datetime | None = None,
    timeout_s: float = DEFAULT_TIMEOUT_S,
) -> Iterator[Decided]:
    """Give the decisions of a time, the oldest first.

    Args:
        evidence: where they are.
        since: from then on; None from the beginning.
        until: before then; None to the end.
        timeout_s: seconds that it may take.

    Raises:
        TooSlow: it takes longer.
        QueryError: the evidence cannot be read.
    """
    with evidence.query(_DECISIONS, {"since": since, "until": until}, timeout_s) as result:
        for row in result:
            yield Decided(*row)
