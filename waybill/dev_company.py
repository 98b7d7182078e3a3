"""A `waybill dev` on somebody else's broker keeps to itself: names of its own, and never a group that others are in."""

from __future__ import annotations

import asyncio
import getpass
import re
import time
from typing import Final

from evidence.errors import ConfigError
from streams.app import APP
from streams.brokers.members import count_members
from streams.errors import TopicMismatch
from streams.registry import RosterReader
from waybill.settings import Settings
from waybill.site import known_vault

STAGES: Final = ("admission", "approvals", "dispatch", "sink", "correlation")

_AGAIN_S: Final = 1.0
_SPARE_S: Final = 5.0


def own_names(settings: Settings, own_broker: str | None) -> Settings:
    """Return the settings with a prefix of this user's own, where the broker is another's and no prefix was set."""
    if own_broker is not None or "kafka_prefix" in settings.model_fields_set:
        return settings
    user = re.sub(r"[^a-z0-9]+", "-", _user().lower()).strip("-") or "user"
    return settings.model_copy(update={"kafka_prefix": f"dev-{user}-"})


async def refuse_company(settings: Settings) -> None:
    """See that nobody else works under this prefix.

    What a run of the same home has left, because it was killed, goes away with its session, and is waited for.

    Raises:
        ConfigError: somebody does.
        UnavailableError: no broker answers.
    """
    kafka = settings.kafka_settings()
    groups = [*(kafka.group(stage) for stage in STAGES), kafka.prefix + APP]
    end = time.monotonic() + kafka.session_timeout_ms / 1000 + _SPARE_S
    while members := await count_members(kafka.client_options(), groups):
        if time.monotonic() > end or not await _left_by_us(settings):
            first = min(members)
            raise ConfigError(
                f"other workers run at {settings.kafka} (the consumer group {first} has {members[first]} "
                f"member{'s' if members[first] != 1 else ''}), and `waybill dev` would take their requests: "
                "unset WAYBILL_KAFKA_PREFIX, which gives it names of its own, or set another one"
            )
        await asyncio.sleep(_AGAIN_S)


async def _left_by_us(settings: Settings) -> bool:
    ours = known_vault(settings)
    if ours is None:
        return False
    try:
        async with RosterReader(settings.kafka_settings()) as reader:
            claim = (await reader.to_end()).vault
    except TopicMismatch:
        return False
    return claim is not None and claim.vault.vault == ours


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a user without a name, as in some containers
        return "user"
