"""Erasure in the vault: what is decided is carried out, whoever kills the process, and what it tells fits an event."""

from __future__ import annotations

import signal
import time
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest
from vault_children import NOW, an_object, child

from policy.vault.erasure import Erasure, Erasures, Step, Verdict, Waiting, detail, refused, requested
from policy.vault.sealing import Vault, VaultError
from policy.vault.store import VaultStore, open_object


@pytest.mark.parametrize("wait_ms", [0, 5, 15, 40])
def test_a_killed_process_leaves_what_the_next_one_ends(tmp_path, wait_ms):
    """After kill -9 at any moment, nothing half is left: run again, all of the person is gone, and nobody else's."""
    folder: Path = tmp_path / "vault"
    vault, store = Vault(folder), VaultStore(folder)
    mine = [an_object(vault, f"i{number}", text=b"x" * 2000, subject="person:7") for number in range(300)]
    other = an_object(vault, "other", subject="person:8")
    store.put_many([*mine, other])
    store.close()
    with child("erase", folder, "person:7") as process:
        assert process.stdout.readline() == "begun\n"
        time.sleep(wait_ms / 1000)
        process.send_signal(signal.SIGKILL)
        process.wait()
    store = VaultStore(folder)
    left = len({item.intake_id for each in mine for item in store.of_request(each.request_id)})
    assert left in (0, 300)
    store.close()
    with child("erase", folder, "person:7") as process:
        assert process.communicate(timeout=60)[0] == "begun\ndone\n"
    store = VaultStore(folder)
    assert all(store.of_request(each.request_id) == () for each in mine)
    (step,) = Erasures(store).steps()
    assert (step.destroyed, step.keys) == (True, 300)
    assert open_object(vault, store.of_request("request of other")[0]) == b"{}"
    with pytest.raises(VaultError):
        open_object(vault, replace(mine[0], payload_key=None))
    assert Erasures(store).of_request("request of i5").kinds == ("pseudonyms",)


def test_what_is_told_fits_an_event():
    """Long names, long reasons and many classes are cut, so that the detail of each event stays within its bound."""
    erasure = Erasure("e" * 32, "acme", "person:7", '"' * 512, "user:ada", NOW)
    waits = tuple(Waiting(f"{n}" * 256, f"{n}" * 256, 1, NOW + timedelta(days=3)) for n in range(10, 60))
    counts = {"kinds": {"request": 9}, "classes": {f"{n}" * 128: n for n in range(10, 60)}}
    step = Step("5" * 32, erasure.id, "acme", "person:7", '"' * 512, "user:ada", counts, NOW, True, True)  # noqa: FBT003 - fields
    for said in (requested(erasure), refused(erasure, Verdict(50, waits=waits)), detail(step)):
        assert len(said) <= 2000
