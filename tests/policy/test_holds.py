"""Legal holds: what they cover, that they are durable, and that nothing is removed where they cannot be read."""

from __future__ import annotations

import shutil
import tempfile
from datetime import UTC, datetime, timedelta
from pathlib import Path
from uuid import uuid4

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from vault_children import an_object

from evidence.errors import RecordError, UnavailableError
from policy.files import Document
from policy.holds import Hold, HoldBook, HoldError, Holds, Release, scopes
from policy.retention import parse
from policy.vault.erasure import Erasure, Erasures, carry_out
from policy.vault.files import Files
from policy.vault.sealing import Bucket, Vault
from policy.vault.store import VaultStore, open_object
from policy.vault.sweep import sweep

NOW = datetime(2026, 11, 24, 12, tzinfo=UTC)
OVER = Release(at=NOW, by="user:eve", reason="closed")

words = st.sampled_from(["a", "b"])
scope = st.fixed_dictionaries({"tenant": words | st.none(), "subject": words | st.none(), "request": words | st.none()})


def a_hold(number: int = 1, **fields: object) -> Hold:
    """A hold on one request, unless fields say otherwise."""
    given = fields or {"request": "r1"}
    return Hold(id=f"{number:012x}", reason="case 117", by="user:dora", at=NOW, **given)


@given(mine=scope, tenant=words | st.none(), subject=words | st.none(), request=words | st.none())
def test_a_hold_covers_what_all_of_its_fields_are_true_of(mine, tenant, subject, request):
    """A field that is not given says nothing; one that is given must be the same, and no value is never the same."""
    theirs = {"tenant": tenant, "subject": subject, "request": request}
    expected = all(value is None or value == theirs[name] for name, value in mine.items())
    assert a_hold(**mine).covers(**theirs) is expected


def test_a_hold_is_there_for_every_process_until_it_is_released(tmp_path):
    """A fresh look finds it; released it is history, and a second release changes nothing."""
    book = HoldBook(tmp_path / "holds")
    assert book.active() == Holds()
    hold = a_hold()
    book.place(hold)
    assert HoldBook(tmp_path / "holds").active() == Holds((hold,))
    book.told(hold)
    assert HoldBook(tmp_path / "holds").find(hold.id).told
    assert book.release(hold.id, OVER).released == OVER
    assert book.release(hold.id, Release(at=NOW, by="user:mallory", reason="me")).released == OVER
    assert HoldBook(tmp_path / "holds").active() == Holds()
    assert [each.id for each in book.all()] == [hold.id]


def test_a_hold_is_for_its_owner_alone(tmp_path):
    """Folder and file are closed to others: they name people and cases."""
    HoldBook(tmp_path / "holds").place(a_hold())
    assert [
        path.stat().st_mode & 0o077 for path in (tmp_path / "holds", next((tmp_path / "holds").glob("*.json")))
    ] == [
        0,
        0,
    ]


def test_what_is_no_hold_is_refused(tmp_path):
    """A hold on everything, a second one of an id, and an id that there is none of are each one error."""
    book = HoldBook(tmp_path / "holds")
    with pytest.raises(HoldError, match="would cover everything"):
        book.place(a_hold(tenant=None))
    book.place(a_hold())
    with pytest.raises(HoldError, match="already"):
        book.place(a_hold())
    for identity in ("ffffffffffff", "../x", ""):
        with pytest.raises(RecordError, match="there is no hold"):
            book.find(identity)
    assert scopes([a_hold(subject="person:7", tenant="acme")]) == "000000000001 (subject person:7, tenant acme)"


@pytest.mark.parametrize(
    ("name", "content"),
    [
        pytest.param("000000000001.json", b"", id="empty"),
        pytest.param("000000000001.json", b'{"version": 1, "id": "0000', id="cut short"),
        pytest.param("000000000001.json", b"[]", id="another thing"),
        pytest.param("000000000001.json", a_hold(2).model_dump_json().encode(), id="another's content"),
        pytest.param("000000000001.json", b"\xff\xfe", id="no text"),
        pytest.param("000000000001.JSON", b"{}", id="another name"),
        pytest.param("notes.txt", b"remember", id="a stranger"),
    ],
)
def test_a_damaged_hold_stops_everything(tmp_path, name, content):
    """Beside a good one, one bad file is an error that names it, and neither retention nor erasure removes anything."""
    folder = tmp_path / "vault"
    vault, store, book = Vault(folder), VaultStore(folder), HoldBook(folder / "holds")
    store.put(an_object(vault, "i1", subject="person:7", now=NOW - timedelta(days=100)))
    book.place(a_hold(7))
    (folder / "holds" / name).write_bytes(content)
    with pytest.raises(HoldError, match=name):
        book.active()
    with pytest.raises(HoldError):
        sweep(vault, store, now=NOW, new_id=lambda: uuid4().hex, holds=book.active)
    erasures = Erasures(store)
    asked = erasures.ask(Erasure("e" * 32, "acme", "person:7", "letter", "user:ada", NOW))
    with pytest.raises(HoldError):
        erasures.decide(asked, now=NOW, new_id=lambda: uuid4().hex, holds=book.active, rules=rules(0))
    (item,) = store.of_request("request of i1")
    assert open_object(vault, item) == b"{}"
    assert len(vault.ring.keys()) == 1


def test_a_hold_that_cannot_be_written_is_an_error_and_leaves_no_part(tmp_path):
    """Whatever step of the disk fails, there is the whole hold or none, and the error says that it is not in force."""

    class Failing(Files):
        """A disk that fails at its nth step."""

        def __init__(self, steps: int) -> None:
            self.left = steps

        def __getattribute__(self, name: str) -> object:
            found = super().__getattribute__(name)
            if name not in {"write", "publish", "sync"}:
                return found

            def step(*arguments: object) -> object:
                self.left -= 1
                if self.left < 0:
                    raise OSError(28, "No space left on device")
                return found(*arguments)

            return step

    for number in range(20):
        shutil.rmtree(tmp_path / "holds", ignore_errors=True)
        try:
            HoldBook(tmp_path / "holds", Failing(number)).place(a_hold())
        except UnavailableError:
            assert len(HoldBook(tmp_path / "holds").all()) <= 1
        else:
            break
    assert 2 < number < 19


def rules(low: int, erasure: str = "after-minimum"):
    """Rules under which payloads have this minimum."""
    text = (
        "version: 1\nrules:\n"
        f'  - {{classes: ["*"], purposes: ["*"], payload: keep, min_days: {low}, max_days: 90, pseudonym_days: 30, '
        f"erasure: {erasure}}}\n"
    )
    return parse(Document(text, "rules"), classes=("internal",), categories=(), purposes=None)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    objects=st.lists(
        st.tuples(
            st.integers(0, 60), st.integers(0, 20), st.integers(20, 40), st.sampled_from("ab"), st.sampled_from("xy")
        ),
        min_size=1,
        max_size=6,
    ),
    held=st.lists(st.tuples(st.sampled_from(["tenant", "subject", "request"]), st.integers(0, 5)), max_size=2),
    asked=st.sets(st.sampled_from("xy")),
    erasure=st.sampled_from(["after-minimum", "at-once"]),
)
def test_nothing_under_hold_or_minimum_goes_and_nothing_past_its_maximum_stays(objects, held, asked, erasure):
    """Whatever is kept, held and asked for: a run removes exactly what it must, and leaves exactly what it must not."""
    with tempfile.TemporaryDirectory() as folder:
        vault, store = Vault(Path(folder)), VaultStore(Path(folder))
        made = [
            an_object(
                vault,
                f"i{number}",
                now=NOW - timedelta(days=age),
                bucket=Bucket("keep", low, high, "day"),
                tenant=tenant,
                subject=subject,
            )
            for number, (age, low, high, tenant, subject) in enumerate(objects)
        ]
        store.put_many(made)
        named = [made[place % len(made)] for _, place in held]
        holds = Holds(
            tuple(
                a_hold(
                    number, **{what: {"tenant": one.tenant, "subject": one.subject, "request": one.request_id}[what]}
                )
                for number, ((what, _), one) in enumerate(zip(held, named, strict=True))
            )
        )
        erasures = Erasures(store)
        for tenant in "ab":
            for subject in sorted(asked):
                erasures.ask(Erasure(uuid4().hex, tenant, subject, "letter", "user:ada", NOW))
        erasures.mark_asked([each.id for each in erasures.open()], "told")
        sweep(vault, store, now=NOW, new_id=lambda: uuid4().hex, holds=lambda: holds)
        carry_out(erasures, now=NOW, new_id=lambda: uuid4().hex, holds=lambda: holds, rules=rules(0, erasure))
        left = {item.intake_id for number in range(len(made)) for item in store.of_request(f"request of i{number}")}

        def covered(item):
            return bool(holds.covering(tenant=item.tenant, subject=item.subject, request=item.request_id))

        for item in made:
            same = [other for other in made if (other.tenant, other.subject) == (item.tenant, item.subject)]
            asks = item.subject in asked and not any(map(covered, same))
            gone = item.intake_id not in left
            if covered(item):
                assert not gone
            elif item.keep_until_max <= NOW:
                assert gone
            elif item.keep_until_min > NOW:
                assert gone is (asks and erasure == "at-once")
            else:
                assert gone is asks
            if not gone:
                assert open_object(vault, item) == b"{}"
        store.close()


def test_a_hold_takes_a_person_as_evidence_writes_them_too():
    """`user:ana` of an evidence row is `ana` of a request: such a hold covers both, and nobody else."""
    hold = a_hold(tenant=None, request=None, subject="user:ana")
    for subject, covered in (("ana", True), ("user:ana", True), ("anabel", False), ("user:bob", False), (None, False)):
        assert hold.covers(tenant="acme", subject=subject, request="r") is covered
