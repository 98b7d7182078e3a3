"""Every backend meets the same four scenarios: succeed, random transient, random permanent, and mixed.

Calls carry unique ids, so loss and duplication are differences of sets; which calls fail is random, with the seed in
the failure's text.
"""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import Sequence

import pytest
from backend_rigs import RIGS, Outcome, Rig

from evidence.errors import PermanentError, RetryableError
from inference.backend import Completion
from inference.errors import BackendError, NotSent

CALLS = 12


@pytest.fixture(params=sorted(RIGS))
async def rig(request: pytest.FixtureRequest):
    """Each implementation in turn, with its real part behind it."""
    async with RIGS[request.param](request) as made:
        yield made


async def run(rig: Rig, seed: int, kinds: Sequence[Outcome]) -> None:
    """Send calls of random kinds all at once, and hold every result against what its call was to meet."""
    chance = random.Random(seed)
    wanted: dict[str, Outcome] = {f"call-{seed}-{number}": chance.choice(kinds) for number in range(CALLS)}
    ended: Counter[tuple[str, str]] = Counter()

    async def one(call_id: str, outcome: Outcome) -> None:
        try:
            answer = await rig.backend.complete(rig.call(outcome, call_id))
        except BackendError as error:
            assert error.code, "an error has a code"
            assert str(error), "an error has a sentence"
            assert not isinstance(error, RetryableError) or not isinstance(error, PermanentError)
            kind = "transient" if isinstance(error, RetryableError) else "other"
            ended[call_id, "permanent" if isinstance(error, PermanentError) else kind] += 1
        else:
            check(answer)
            ended[call_id, "succeed"] += 1

    await asyncio.gather(*(one(call_id, outcome) for call_id, outcome in wanted.items()))
    assert ended == Counter({(call_id, outcome): 1 for call_id, outcome in wanted.items()}), f"seed {seed}"


def check(answer: Completion) -> None:
    """An answer is whole: text, provider, model, counts."""
    assert answer.text
    assert answer.provider
    assert answer.model
    assert answer.input_tokens > 0
    assert answer.output_tokens > 0
    assert answer.first_chunk_s is None or answer.first_chunk_s >= 0


@pytest.fixture
def seed() -> int:
    """Which calls meet what; printed when the test fails."""
    return random.randrange(1_000_000)


async def test_every_call_succeeds(rig: Rig, seed: int):
    """Every call that can be answered is answered, once."""
    await run(rig, seed, ["succeed"])


async def test_random_transient_failures_are_retryable(rig: Rig, seed: int):
    """A call that fails for now says so, and the calls beside it are answered."""
    await run(rig, seed, ["succeed", "transient"])


async def test_random_permanent_failures_are_permanent(rig: Rig, seed: int):
    """A call that is wrong in itself says so, and the calls beside it are answered."""
    await run(rig, seed, ["succeed", "permanent"])


async def test_mixed_outcomes_stay_with_their_calls(rig: Rig, seed: int):
    """Under all three outcomes at once, each call meets its own."""
    await run(rig, seed, ["succeed", "transient", "permanent"])


async def test_cancelling_a_call_leaves_the_others_alone(rig: Rig):
    """A caller that goes away gets its cancellation, and the next call is answered."""
    gone = asyncio.create_task(rig.backend.complete(rig.call("succeed", "gone")))
    await asyncio.sleep(0)
    gone.cancel()
    with pytest.raises(asyncio.CancelledError):
        await gone
    check(await rig.backend.complete(rig.call("succeed", "stays")))


async def test_a_closed_backend_sends_nothing(rig: Rig):
    """After `close`, which may be called twice, a call is provably not sent."""
    await rig.backend.close()
    await rig.backend.close()
    with pytest.raises(NotSent):
        await rig.backend.complete(rig.call("succeed", "late"))
