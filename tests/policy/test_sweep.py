"""Retention carried out: what goes, what stays, and that a run may be killed between any two steps."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta
from itertools import count
from pathlib import Path
from typing import Any
from uuid import uuid4

import orjson
import pytest
from vault_children import KEEP, NOW, an_object

from policy.holds import Hold, Holds
from policy.vault.sealing import Bucket, KeyDestroyed, Vault, key_of
from policy.vault.store import VaultStore, open_object
from policy.vault.sweep import detail, due, sweep

HELD = Holds((Hold(id="0" * 12, request="request of held", reason="case 117", by="user:dora", at=NOW),))
STEPS = {"cover", "remove_expired", "plan", "mark", "tidy", "destroy"}
LATER = NOW + timedelta(days=32)


class Killed(BaseException):
    """The process ends here; nothing may catch it."""


class Fragile:
    """A part whose process is killed before or after its nth step."""

    def __init__(self, part: Any, left: Iterator[int], after: bool) -> None:  # noqa: FBT001 - a test's own
        self._part, self._left, self._after = part, left, after

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._part, name)
        return self._guarded(found) if name in STEPS else found

    def _guarded(self, step: Callable[..., Any]) -> Callable[..., Any]:
        def guarded(*arguments: Any, **named: Any) -> Any:
            left = next(self._left)
            if left == 0 and not self._after:
                raise Killed
            result = step(*arguments, **named)
            if left == 0:
                raise Killed
            return result

        return guarded


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Where the vault is."""
    return tmp_path / "vault"


def fill(folder: Path) -> dict[str, Any]:
    """Keep objects that expire, objects that do not, one under hold, and a key without objects."""
    vault, store = Vault(folder), VaultStore(folder)
    objects = {
        "old": an_object(vault, "old"),
        "older": an_object(vault, "older", kind="response", data_class="public"),
        "held": an_object(vault, "held", now=NOW + timedelta(hours=36)),
        "beside the held": an_object(vault, "beside the held", now=NOW + timedelta(hours=36)),
        "young": an_object(vault, "young", now=NOW + timedelta(days=20)),
        "long": an_object(vault, "long", bucket=Bucket("keep", 40, 90, "day")),
        "other tenant": an_object(vault, "other tenant", tenant="globex"),
    }
    store.put_many(tuple(objects.values()))
    vault.seal("acme", b"in a work record", now=NOW, bound_to=b"i")
    return objects


def run(vault: Any, store: Any, told: list[str], now: datetime = LATER, holds: Holds = HELD) -> None:
    """Do what the command does, with a list in the place of the topic."""
    done = sweep(vault, store, now=now, new_id=lambda: uuid4().hex, holds=lambda: holds).destroyed
    for each in done:
        if not (each.begun and str(each.key) in told):
            store.mark([each.id], "begun")
            told.append(str(each.key))
        store.mark([each.id], "told")


def key_ids(folder: Path) -> list[str]:
    """Give the keys that are there."""
    known = Vault(folder).ring.keys()
    return [str(info.key) for info in known]


def state(folder: Path) -> tuple[Any, ...]:
    """Give what is left: objects, keys, and destructions that are not through."""
    store = VaultStore(folder)
    left = [
        item.intake_id
        for name in ("old", "older", "held", "beside the held", "young", "long", "other tenant")
        for item in store.of_request(f"request of {name}")
    ]
    return left, key_ids(folder), store.destructions()


def test_a_run_destroys_what_has_expired_and_nothing_else(folder):
    """Keys go whose objects have all reached their maximum; what is younger, must be kept longer, or is held, opens."""
    objects = fill(folder)
    told: list[str] = []
    run(Vault(folder), VaultStore(folder), told)
    vault = Vault(folder)
    for name in ("held", "young", "long"):
        assert open_object(vault, objects[name]) == b"{}"
    for name in ("old", "older", "other tenant"):
        with pytest.raises(KeyDestroyed):
            open_object(vault, objects[name])
    assert state(folder)[0] == ["held", "young", "long"]
    assert len(told) == 3  # acme's and globex's of the first day, and the one of work records


def test_nothing_goes_before_its_time(folder):
    """A microsecond before a key is due it is untouched, and its objects are there until their own maximum."""
    fill(folder)
    told: list[str] = []
    run(Vault(folder), VaultStore(folder), told, now=NOW + timedelta(days=30) - timedelta(microseconds=1))
    assert len(state(folder)[0]) == 7
    assert [key.rpartition("/")[2] for key in told] == ["transit-7"]


def test_an_object_past_its_maximum_goes_although_its_key_stays(folder):
    """Beside a held object, and before its period's last object expires, what reached its maximum is removed."""
    fill(folder)
    run(Vault(folder), VaultStore(folder), [], now=NOW + timedelta(days=30))
    assert state(folder)[0] == ["held", "beside the held", "young", "long"]
    assert any(key.endswith("2026-11-24/keep-0-30") for key in state(folder)[1])


def test_a_hold_that_ends_lets_go(folder):
    """What is held stays whatever the time; once released, the next run ends it."""
    objects = fill(folder)
    far = NOW + timedelta(days=4000)
    run(Vault(folder), VaultStore(folder), [], now=far)
    assert state(folder)[0] == ["held"]
    told: list[str] = []
    run(Vault(folder), VaultStore(folder), told, now=far, holds=Holds())
    assert (state(folder)[0], len(told)) == ([], 1)
    with pytest.raises(KeyDestroyed):
        open_object(Vault(folder), objects["held"])


def test_a_hold_that_comes_in_the_midst_of_a_run_counts(folder):
    """What is held after the run has looked, and before it removes, stays, and so does its key."""
    objects = fill(folder)
    asked = iter(range(99))
    old = Hold(id="1" * 12, request="request of old", reason="case 118", by="user:dora", at=NOW)

    def holds() -> Holds:
        """Give what is in force: the first look is the one before anything is removed."""
        return HELD if next(asked) == 0 else Holds((*HELD.active, old))

    told: list[str] = []
    done = sweep(Vault(folder), VaultStore(folder), now=LATER, new_id=lambda: uuid4().hex, holds=holds).destroyed
    VaultStore(folder).mark([each.id for each in done], "told")
    assert open_object(Vault(folder), objects["old"]) == b"{}"
    assert str(key_of(objects["old"].sealed)) not in told
    assert state(folder)[2] == ()


def test_a_second_run_does_nothing(folder):
    """Run again at the same moment, nothing is removed, destroyed or told."""
    fill(folder)
    run(Vault(folder), VaultStore(folder), [])
    before = state(folder)
    told: list[str] = []
    run(Vault(folder), VaultStore(folder), told)
    assert (state(folder), told) == (before, [])


def test_keys_that_a_backup_brings_back_go_again(folder, tmp_path):
    """Key files restored from an old copy are destroyed by the next run, and nothing is told a second time."""
    objects = fill(folder)
    shutil.copytree(folder / "keys", tmp_path / "backup")
    run(Vault(folder), VaultStore(folder), [])
    before = state(folder)
    shutil.copytree(tmp_path / "backup", folder / "keys", dirs_exist_ok=True)
    assert state(folder) != before
    with pytest.raises(KeyDestroyed):
        open_object(Vault(folder), objects["old"])
    for note in (folder / "keys").rglob("*.gone"):
        note.unlink()
    told: list[str] = []
    run(Vault(folder), VaultStore(folder), told)
    assert (state(folder), told) == (before, [])
    with pytest.raises(KeyDestroyed):
        open_object(Vault(folder), objects["old"])


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("step", range(20))
def test_a_run_that_is_killed_at_any_step_ends_the_same_when_run_again(tmp_path, step, after):
    """Whatever step it is killed before or after, the next run leaves the same, and everything destroyed is told."""
    fill(tmp_path / "whole")
    run(Vault(tmp_path / "whole"), VaultStore(tmp_path / "whole"), expected := [])
    folder = tmp_path / "killed"
    fill(folder)
    told: list[str] = []
    left = iter(range(step, -10_000, -1))
    try:
        run(Fragile(Vault(folder), left, after), Fragile(VaultStore(folder), left, after), told)
    except Killed:
        assert step < 19
    else:
        assert step >= 19, "the steps of a run have changed: change the range"
    # A key is never gone without a decision that the next run will tell.
    known = {str(each.key) for each in VaultStore(folder).destructions()} | set(told)
    assert set(expected) - set(key_ids(folder)) <= known
    run(Vault(folder), VaultStore(folder), told)
    assert state(folder) == state(tmp_path / "whole")
    assert sorted(told) == sorted(expected)


def test_a_destruction_keeps_its_id(folder):
    """What was destroyed and not told keeps its id, so that evidence of it is the same event if told twice."""
    fill(folder)
    numbers = count()

    def new_id() -> str:
        """Give the next id."""
        return f"{next(numbers):032x}"

    first = sweep(Vault(folder), VaultStore(folder), now=LATER, new_id=new_id, holds=Holds).destroyed
    again = sweep(Vault(folder), VaultStore(folder), now=LATER, new_id=new_id, holds=Holds).destroyed
    assert [each.id for each in first] == [each.id for each in again]
    assert len(first) == 3


def test_evidence_says_what_went_and_fits(folder):
    """The detail names tenant, period, classes, numbers and reason, and fits an event with 70 classes too."""
    vault, store = Vault(folder), VaultStore(folder)
    store.put_many(
        [an_object(vault, f"i{number}", data_class=f"class-{number % 70:03}" + "x" * 50) for number in range(80)]
    )
    (each,) = sweep(vault, store, now=LATER, new_id=lambda: "f" * 32, holds=Holds).destroyed
    said = orjson.loads(detail(each))
    assert said["tenant"] == "acme"
    assert (said["period"], said["term"], said["objects"]) == ("2026-11-24", "keep-0-30", 80)
    assert said["destruction"] == "f" * 32
    assert said["reason"] == "2026-11-24 closed, and 30 days of keep have passed"
    assert len(detail(each)) <= 2000


def test_a_dry_look_changes_nothing(folder):
    """Asking what is due names the keys that a run destroys, and touches nothing."""
    fill(folder)
    before = state(folder)
    planned = [str(info.key) for info in due(Vault(folder), VaultStore(folder), LATER)]
    assert state(folder) == before
    run(Vault(folder), VaultStore(folder), told := [])
    assert sorted(planned) == sorted(told)
    assert KEEP.name == "keep-0-30"
