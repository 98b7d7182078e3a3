"""What evidence says about the requests of one sending, asked by SQL."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Final

from queries.database import Evidence

# A story is complete when it ends and has every number from 0 on exactly once.
_COMPLETE: Final = """
select request_id, min(source.partition) as partition, min(source."offset") as "offset"
from events
where request_id in (select unnest($ids)) or request_id = 'unreadable'
group by intake_id, request_id
having bool_or(event_type in ('request.ended', 'request.rejected'))
   and count(*) = max(sequence) + 1 and count(distinct sequence) = count(*)
"""

LEFT_THE_BUILDING: Final = (
    "select purpose, class, provider, model, result, count(*) as calls from crossings group by all order by all"
)
"""What went to hosted providers: from the intents that were durable before each call."""


def complete(
    evidence: Evidence, ids: Collection[str], unreadable: Mapping[tuple[int, int], str], timeout_s: float
) -> int:
    """Count the requests whose story is complete.

    Args:
        evidence: the store.
        ids: request ids that were sent.
        unreadable: of the records without a readable id, the key by partition and offset on `ai.requests`.
        timeout_s: time limit of the query.

    Raises:
        WaybillError: the store cannot be asked.
    """
    readable = set(ids) - set(unreadable.values())
    with evidence.query(_COMPLETE, {"ids": sorted(readable)}, timeout_s) as rows:
        found = {row[0] if row[0] in readable else unreadable.get((row[1], row[2])) for row in rows}
    return len(found - {None})
