"""Carries out retention: removes what has reached its maximum, destroys keys, and tells it.

The steps, each durable before the next, and each safe to do again:

    1. objects that have reached their maximum are removed, counted by key
    2. for a key that is due and has no object left, the decision to destroy it is noted
    3. the key is destroyed, and that is noted
    4. that its telling begins is noted, evidence of it is written, and that is noted (`waybill retention run`)

Destruction comes before its evidence: an event never tells of what has not happened, and a broker that is down keeps no
content alive. What is destroyed and not told is told by the next run, with the same id; where telling was begun, that
run looks first whether evidence has it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

import orjson

from policy.holds import Holds
from policy.retention import destroyable
from policy.vault.keys import KeyInfo
from policy.vault.sealing import Vault
from policy.vault.store import Destruction, VaultStore

_MOST_CLASSES: Final = 12
"""Classes that one event names; its detail has an upper bound."""


@dataclass(frozen=True, slots=True)
class Swept:
    """What a run did."""

    removed: int
    """Objects that were removed."""
    destroyed: tuple[Destruction, ...]
    """Keys that are gone and whose evidence is still to be written."""


def sweep(
    vault: Vault, store: VaultStore, *, now: datetime, new_id: Callable[[], str], holds: Callable[[], Holds]
) -> Swept:
    """Remove and destroy what has to go; give what has to be told.

    Args:
        vault: destroys the keys.
        store: holds the objects.
        now: the time, in UTC.
        new_id: gives an id for a destruction, 32 hex digits.
        holds: gives the holds in force; asked again before each removal.

    Raises:
        HoldError: a hold is damaged; nothing more is removed.
        VaultError: the vault is damaged.
        UnavailableError: the disk does not let us; run it again.
    """
    store.cover(holds)
    keys = due(vault, store, now)
    removed = 0
    while count := store.remove_expired(now, holds):
        removed += count
    for info in keys:
        store.plan(info, new_id=new_id(), now=now)
    for each in store.destructions():
        if not each.destroyed:
            vault.destroy(each.key, now=now, reason=reason(each))
            store.mark((each.id,), "destroyed")
    store.tidy()
    return Swept(removed, store.destructions())


def due(vault: Vault, store: VaultStore, now: datetime) -> tuple[KeyInfo, ...]:
    """Give the keys that a run at this moment would destroy."""
    return destroyable(vault.ring.keys(), store.groups(now), now)


def reason(each: Destruction) -> str:
    """Say why a key is destroyed."""
    use, _, days = each.key.bucket.partition("-")
    return f"{each.key.period} closed, and {days.rpartition('-')[2]} days of {use} have passed"


def detail(each: Destruction) -> str:
    """Give what the event `retention.applied` says of a destruction, as JSON."""
    content: dict[str, Any] = {
        "destruction": each.id,
        "tenant": each.tenant,
        "period": each.key.period,
        "term": each.key.bucket,
        "class": dict(_largest(each.classes.items())),
        "kinds": dict(each.kinds),
        "objects": sum(each.classes.values()),
        "reason": reason(each),
    }
    return orjson.dumps(content).decode()


def _largest(counts: Sequence[tuple[str, int]] | Any) -> list[tuple[str, int]]:
    return sorted(counts, key=lambda item: (-item[1], item[0]))[:_MOST_CLASSES]
