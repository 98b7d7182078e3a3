"""The ledger's answer to each work record: new, ours and interrupted, ended, a duplicate, or a conflict."""

from __future__ import annotations

from datetime import timedelta

import pytest
from decisions import asked, rules, utc_now, work_of

from evidence.records import Outcome, Position
from streams.ledger import WINDOW, Ledger, Standing
from streams.stages.admit import admit
from streams.work import LedgerEntry, Work


def work(request_id: str = "r1", *, offset: int = 0, prompt: str = "Say hello.", key: str = "k") -> Work:
    """An admitted request with an idempotency key."""
    record = asked(request_id, prompt, offset=offset, idempotencyKey=key)
    return work_of(admit(record, rules(), utc_now()))


def entry(of: Work, state: str, outcome: Outcome | None = None, **changes) -> LedgerEntry:
    """What dispatch would write of it."""
    return LedgerEntry(**{
        "request_id": of.said.request_id, "intake_id": of.intake_id, "fingerprint": of.fingerprint, "state": state,
        "work": Position(topic="ai.work.hosted", partition=0, offset=0), "recorded_at_utc": utc_now(),
        "next_sequence": 5, "outcome": outcome, **changes,
    })  # fmt: skip


FIRST, AGAIN = work("r1"), work("r2", offset=1)
OTHER = work("r3", offset=2, prompt="Something else.")


@pytest.mark.parametrize(
    ("before", "now", "standing"),
    [
        (None, FIRST, Standing.NEW),
        (entry(FIRST, "intended"), FIRST, Standing.INTERRUPTED),
        (entry(FIRST, "ended", Outcome.COMPLETED), FIRST, Standing.ENDED),
        (entry(FIRST, "ended", Outcome.FAILED), FIRST, Standing.ENDED),
        (entry(FIRST, "intended"), AGAIN, Standing.DUPLICATE),
        (entry(FIRST, "intended"), OTHER, Standing.CONFLICT),
        *((entry(FIRST, "ended", outcome), AGAIN, Standing.DUPLICATE)
          for outcome in (Outcome.COMPLETED, Outcome.REFUSED, Outcome.WITHHELD, Outcome.UNKNOWN)),
        *((entry(FIRST, "ended", outcome), OTHER, Standing.CONFLICT)
          for outcome in (Outcome.COMPLETED, Outcome.REFUSED, Outcome.WITHHELD, Outcome.UNKNOWN)),
        *((entry(FIRST, "ended", outcome), again, Standing.NEW)
          for outcome in (Outcome.FAILED, Outcome.EXPIRED, Outcome.DENIED) for again in (AGAIN, OTHER)),
    ],
)  # fmt: skip
def test_the_table_of_standings(before, now, standing):
    """What the ledger holds of a scope decides what a record of that scope is."""
    ledger = Ledger()
    if before is not None:
        ledger.put(FIRST.scope, before, utc_now())
    found = ledger.claim(now)
    assert found.standing is standing
    if standing in {Standing.DUPLICATE, Standing.CONFLICT}:
        assert (found.holder.request_id, found.holder.intake_id) == ("r1", FIRST.intake_id)
    if standing in {Standing.ENDED, Standing.INTERRUPTED}:
        assert found.entry == before


def test_a_claim_holds_its_scope_while_it_is_served():
    """Between a claim and its end, the same work is a duplicate and other work under the key a conflict."""
    ledger = Ledger()
    assert ledger.claim(FIRST).standing is Standing.NEW
    assert ledger.claim(AGAIN).standing is Standing.DUPLICATE
    assert ledger.claim(OTHER).holder.intake_id == FIRST.intake_id
    ledger.put(FIRST.scope, entry(FIRST, "intended"), utc_now())
    assert ledger.claim(AGAIN).standing is Standing.DUPLICATE
    ledger.put(FIRST.scope, entry(FIRST, "ended", Outcome.FAILED), utc_now())
    assert ledger.claim(AGAIN).standing is Standing.NEW
    assert ledger.claim(OTHER).standing is Standing.CONFLICT


def test_old_ends_are_forgotten_and_open_intents_are_not():
    """Pruning drops what ended before the window and keeps every intent."""
    ledger, now = Ledger(), utc_now()
    old = now - WINDOW - timedelta(minutes=1)
    ledger.put("open", entry(FIRST, "intended", recorded_at_utc=old), now)
    ledger.put("old", entry(FIRST, "ended", Outcome.COMPLETED, recorded_at_utc=old), now)
    for number in range(1000):
        ledger.put(f"new-{number}", entry(FIRST, "ended", Outcome.COMPLETED), now)
    assert len(ledger) == 1001
    ledger.put("old", entry(FIRST, "ended", Outcome.COMPLETED), now)
    assert len(ledger) == 1002
