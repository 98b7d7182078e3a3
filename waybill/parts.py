"""The parts that several stages of a worker share, made once."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Final

from evidence.errors import ConfigError, UnavailableError
from evidence.log.keys import KeyRing
from evidence.records import Placement
from inference import rulebook
from inference.rulebook import Rulebook, Shelf
from policy.detection.detectors import Detectors
from policy.identity.verify import Verifier
from policy.placement.records import load as load_decisions
from policy.redaction import mask
from policy.vault.erased import Erased, ErasedPeople
from policy.vault.keys import VaultError
from policy.vault.sealing import Vault
from policy.vault.store import SealedObject, VaultStore
from streams.conditions import Conditions
from streams.consent import ConsentMetrics, ConsentRegister
from streams.errors import reason
from streams.keys import KeyFeed
from streams.metrics import Metrics
from waybill.decision_pins import table_facts
from waybill.settings import Settings

log = logging.getLogger(__name__)

VAULT: Final = "vault"
"""How `/health` calls the vault's disk."""

_LOOK_S: Final = 1.0
"""Seconds between two looks at which policies are in force."""


def check_rulebook(settings: Settings, now: datetime) -> Rulebook:
    """Read everything that decides, and check it against the endpoints and the decision records.

    Raises:
        ConfigError: something is wrong; the text names file, line and field.
    """
    _check_here(settings)
    book = rulebook.load(settings.policy_folder(), settings.routes, settings.described_endpoints())
    for route in book.table.routes:
        config = settings.endpoints[route.endpoint]
        if (config.kind == "openai") is (route.placement is Placement.LOCAL):
            raise ConfigError(
                f"route {route.name} is {route.placement}, but its endpoint {route.endpoint} is of kind {config.kind}"
            )
    load_decisions(settings.decisions).check(
        table_facts(book.table), policy_digest=book.policy_digest, today=now.date()
    )
    return book


def _check_here(settings: Settings) -> None:
    """See that the files are there which lie in the project's folder unless they are set.

    Raises:
        ConfigError: they are not.
    """
    places = {"routes": settings.routes, "policy": settings.policy_folder(), "decisions": settings.decisions}
    for name, path in places.items():
        if name not in settings.model_fields_set and not path.exists():
            raise ConfigError(
                f"there is no {path} in {Path.cwd()}: run `waybill` in the folder of the project, or set "
                "WAYBILL_ROUTES, WAYBILL_POLICY and WAYBILL_DECISIONS"
            )


@dataclass(slots=True)
class Shared:
    """What the stages of one worker share."""

    settings: Settings
    """The settings."""

    shelf: Shelf
    """The rulebook in force."""

    metrics: Metrics
    """Counts."""

    scanner: Detectors
    """Finds personal data and secrets."""

    vault: Vault
    """Seals and opens."""

    consents: ConsentRegister
    """Knows who has consented to what."""

    erased: Erased
    """Says who was erased, and when."""

    identity: tuple[Verifier, KeyFeed] | None
    """Checks who asks, and keeps the keys for that; None believes what requests say."""

    conditions: Conditions = field(default_factory=Conditions)
    """What is known of the broker and of the vault's disk."""

    @property
    def verifier(self) -> Verifier | None:
        """Checks who asks."""
        return self.identity[0] if self.identity else None


def share(
    settings: Settings, book: Rulebook, identity: tuple[Verifier, KeyFeed] | None, clock: Callable[[], datetime]
) -> Shared:
    """Make what the stages share.

    Raises:
        ConfigError: the vault's key cannot be used.
        UnavailableError: the disk does not let us.
    """
    metrics = Metrics()
    vault = settings.open_vault()
    vault.prepare()
    erased = ErasedPeople(settings.vault_folder).when
    register = ConsentRegister(
        settings.kafka_settings(), clock=clock, metrics=ConsentMetrics(metrics.registry), erased=erased
    )
    return Shared(settings, Shelf(book), metrics, Detectors(), vault, register, erased, identity)


@dataclass(slots=True)
class _Batch:
    items: list[SealedObject] = field(default_factory=list)
    done: asyncio.Future[None] | None = None


def key_ring(settings: Settings) -> KeyRing:
    """Give the keys that sign the site's logs; the first one is made where there is none.

    Raises:
        ConfigError: a key cannot be used.
        UnavailableError: the first key cannot be written.
    """
    folder = settings.evidence_keys_folder
    if not folder.is_dir() or not any(folder.glob("*.pem")):
        with suppress(ConfigError):  # another worker of the site made it in this moment
            return KeyRing.create(folder, settings.site)
    return KeyRing(folder, settings.site)


class StoreKeeper:
    """Keeps sealed objects in the vault's store, in a thread; what waits meanwhile is written together."""

    def __init__(self, store: VaultStore, conditions: Conditions | None = None) -> None:
        self._store = store
        self._conditions = conditions or Conditions()
        self._turn = asyncio.Lock()
        self._open = _Batch()

    async def keep(self, items: Sequence[SealedObject]) -> None:
        """See `streams.stages.opening.Keeper`."""
        if not items:
            return
        batch = self._open
        batch.items.extend(items)
        async with self._turn:
            if batch.done is None:  # the first of its members to get its turn writes for all
                self._open = _Batch()
                batch.done = asyncio.ensure_future(asyncio.to_thread(self._store.put_many, batch.items))
                await asyncio.wait((batch.done,))
        try:
            await asyncio.shield(batch.done)
        except VaultError:  # one bad object fails only its own request
            await asyncio.to_thread(self._store.put_many, items)
        except UnavailableError as error:
            note_vault(self._conditions, reason(error))
            raise
        note_vault(self._conditions, None)


def note_vault(conditions: Conditions, trouble: str | None) -> None:
    """Note whether the vault's disk takes what must be kept; the log has one line for each change.

    Args:
        conditions: what `/health` shows.
        trouble: what the disk said; None where it took it.
    """
    if trouble is None:
        if conditions.good(VAULT):
            log.info("the vault keeps again what must be kept")
    elif conditions.bad(VAULT, trouble):
        log.error("the vault cannot keep what must be kept: %s; requests end as failed meanwhile, unsent", trouble)


class PolicyWatch:
    """Puts a version of policy that was activated in force, while the worker runs.

    A version that cannot be used changes nothing: the rulebook of before stays in force, and the log says why.
    """

    def __init__(self, shared: Shared, clock: Callable[[], datetime]) -> None:
        self._shared = shared
        self._clock = clock

    async def run(self) -> None:
        """Look again and again, until cancelled."""
        versions = self._shared.settings.policy_versions
        seen = versions.stamp()
        while True:
            await asyncio.sleep(_LOOK_S)
            stamp = versions.stamp()
            if stamp == seen:
                continue
            seen = stamp
            try:
                book = await asyncio.to_thread(check_rulebook, self._shared.settings, self._clock())
            except ConfigError as error:
                log.error("the policies of before stay in force, because the new ones cannot be used: %s", error)  # noqa: TRY400 - a sentence, not a fault
                self._shared.metrics.policy_refused.inc()
                continue
            log.info("policy %s is in force, rulebook %s", book.policy_digest, book.version)
            self._shared.shelf.current = book


def masked(scanner: Detectors, text: str) -> str:
    """Give a text with everything masked that detectors find; nothing of one that they cannot look at."""
    result = scanner.scan_closed(text)
    return "[UNREADABLE]" if result.failed else mask(text, result.findings)
