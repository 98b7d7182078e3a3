"""Telling what was done, once: a run that is killed has noted how far it came, and the next one goes on there."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import chain
from typing import TYPE_CHECKING, Final, Literal
from uuid import uuid4

from evidence.errors import UnavailableError
from waybill.settings import Settings

if TYPE_CHECKING:
    from streams.operator import Deed

_BATCH: Final = 200
"""Events of one Kafka transaction."""
_SEARCH_S: Final = 120.0
"""Seconds that looking for evidence of an earlier run may take."""
_SLACK_MS: Final = 3_600_000
"""How far the clocks of this machine and of the broker may differ, in milliseconds."""

Mark = Callable[[Sequence[str], Literal["begun", "told"]], None]
"""Notes of these ids that their telling begins, or is done."""


@dataclass(frozen=True, slots=True)
class Untold:
    """Something that evidence may not have yet."""

    id: str
    """Its own id, 32 hex digits; the intake of its event."""
    begun: bool
    """Whether an earlier run began to tell it, so that evidence may have it."""
    since: datetime
    """Before this moment it cannot have been told."""
    deed: Deed
    """What is told."""


def tell_once(settings: Settings, items: Sequence[Untold], mark: Mark, now: datetime) -> None:
    """Write evidence of each, once: what an earlier run may have written is looked for first.

    Raises:
        UnavailableError: the broker does not answer; how many are left is told, and the next run goes on.
    """
    from streams.operator import tell as say  # noqa: PLC0415 - `--help` needs none of it

    unsure = [each for each in items if each.begun]
    written = asyncio.run(_written(settings, unsure)) if unsure else set()
    if written:
        mark([*written], "told")
    left = [each for each in items if each.id not in written]
    for start in range(0, len(left), _BATCH):
        batch = left[start : start + _BATCH]
        names = [each.id for each in batch]
        fresh = chain(names, iter(lambda: uuid4().hex, None))  # an event's intake is the id of what it tells
        mark(names, "begun")
        deeds = [each.deed for each in batch]
        try:
            asyncio.run(say(settings.kafka_settings(), deeds, site=settings.site, now=now, fresh=fresh.__next__))
        except UnavailableError as error:
            raise NotTold(len(left) - start, str(error)) from error
        mark(names, "told")


class NotTold(UnavailableError):  # noqa: N818 - named as the condition
    """Evidence of something could not be written.

    Attributes:
        count: of how many.
    """

    def __init__(self, count: int, why: str) -> None:
        super().__init__(f"evidence could not be written; run it again, which goes on where this stopped: {why}")
        self.count = count
        self.why = why


async def _written(settings: Settings, unsure: Sequence[Untold]) -> set[str]:
    """Give the ids of those that `ai.evidence` has already."""
    from streams import envelope  # noqa: PLC0415 - `--help` needs none of it
    from streams.topics import EVIDENCE  # noqa: PLC0415 - the same
    from waybill.cli.reading import tail  # noqa: PLC0415 - the same

    wanted = {each.id for each in unsure}
    kinds = tuple({each.deed.event_type.encode() for each in unsure})
    since = int(min(each.since for each in unsure).timestamp() * 1000) - _SLACK_MS
    reader = await tail(settings.kafka_settings(), (EVIDENCE,))
    found: set[str] = set()
    try:
        async with asyncio.timeout(_SEARCH_S):
            partitions = list(reader.assignment())
            ends = await reader.end_offsets(partitions)
            starts = await reader.offsets_for_times(dict.fromkeys(partitions, since))
            for partition in partitions:
                place = starts.get(partition)
                reader.seek(partition, place.offset if place else ends[partition])
            open_ = {each for each in partitions if await reader.position(each) < ends[each]}
            while open_:
                batch = await reader.getmany(*open_, timeout_ms=500)
                for record in (record for records in batch.values() for record in records):
                    if any(kind in (record.value or b"") for kind in kinds):
                        event = envelope.content(record.value, "intakeId")
                        found.update([event["intakeId"]] if event else ())
                open_ = {each for each in open_ if await reader.position(each) < ends[each]}
    except TimeoutError:
        raise UnavailableError(
            f"the evidence at {settings.kafka} could not be looked through within {_SEARCH_S:g} s: run it again"
        ) from None
    finally:
        await reader.stop()
    return wanted & found
