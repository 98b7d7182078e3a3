"""A vault whose disk takes nothing more: the reason is the system's, `/health` says so, and the log has one line."""

from __future__ import annotations

import logging
import resource
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

import pytest

from evidence.errors import UnavailableError
from policy.vault.sealing import Bucket, Vault
from policy.vault.store import SealedObject, VaultStore, seal_object
from streams.conditions import Conditions
from streams.errors import reason
from waybill import site
from waybill.parts import StoreKeeper, note_vault
from waybill.settings import Settings

NOW = datetime(2026, 11, 29, 12, tzinfo=UTC)


@contextmanager
def full_disk() -> Iterator[None]:
    """Let the kernel refuse this process each byte beyond the first 4 KiB of a file."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def sealed(vault: Vault, number: int) -> SealedObject:
    """Make an object of 20 kB that must be kept."""
    return seal_object(
        vault, b"x" * 20_000, kind="request", intake_id=f"{number:032x}", request_id=f"r-{number}", tenant="acme",
        subject=None, data_class="internal", purpose="customer-support", bucket=Bucket("keep", 0, 30), now=NOW,
    )  # fmt: skip


async def test_a_full_disk_is_told_once_with_its_reason_and_again_when_it_is_over(tmp_path: Path, caplog):
    """Two requests that cannot be kept, one line; the condition of `/health` follows the disk."""
    caplog.set_level(logging.INFO)
    conditions, vault = Conditions(), Vault(tmp_path / "vault")
    store = VaultStore(tmp_path / "vault")
    keeper = StoreKeeper(store, conditions)
    objects = [sealed(vault, number) for number in range(4)]
    await keeper.keep(objects[:1])
    assert conditions.states() == {"vault": "running"}
    for item in objects[1:3]:
        with full_disk(), pytest.raises(UnavailableError) as caught:
            await keeper.keep([item])
        assert str(tmp_path) not in reason(caught.value)
        assert reason(caught.value) not in {"", "UnavailableError"}
    assert conditions.states() == {"vault": f"waiting: {reason(caught.value)}"}
    await keeper.keep(objects[3:])
    assert conditions.states() == {"vault": "running"}
    store.close()
    assert [record.levelname for record in caplog.records if "vault" in record.message] == ["ERROR", "INFO"]


def test_a_full_disk_is_noticed_before_a_request_meets_it(tmp_path: Path):
    """What each heartbeat writes beside the vault finds it out, and finds out that it is over."""
    settings, conditions = Settings(home=tmp_path), Conditions()
    site.make_mark(settings, "a" * 32)
    with full_disk():
        note_vault(conditions, site.keep_mark(settings, "a" * 32))
    assert conditions.states() == {"vault": "waiting: File too large"}
    note_vault(conditions, site.keep_mark(settings, "a" * 32))
    assert conditions.states() == {"vault": "running"}
    assert site.marks(settings) == {"a" * 32}
