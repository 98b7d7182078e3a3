"""Every backend meets the same four scenarios: succeed, random transient, random permanent, and mixed.

Calls carry unique ids, so loss and duplication are differences of sets; which calls fail is random, with the seed in
the failure's text.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Sequence

import pytest
from backend_rigs import RIGS, Outcome, Rig

from evidence.errors import PermanentError, RetryableError
from inference.backend import Completion
from inference.errors import BackendError, NotSent

CALLS = 8


@pytest.fixture(params=sorted(RIGS))
async def rig(request: pytest.FixtureRequest):
    """Each implementation in turn, with its real part behind it."""
    async with RIGS[request.param](request) as made:
        yield made


async def run(rig: Rig, seed: int, kinds: Sequence[Outcome]) -> None:
    """Send calls of random kinds all at once, and hold every result against what its call was to meet."""
    chance = random.Random(seed)  # noqa: S311 - a repeatable choice, no secret
    wanted: dict[str, Outcome] = {f"call-{seed}-{number}": chance.choice(kinds) for number in range(CALLS)}
    results = await asyncio.gather(
        *(rig.backend.complete(rig.call(outcome, call_id)) for call_id, outcome in wanted.items()),
        return_exceptions=True,
    )
    met = dict(zip(wanted, map(outcome_of, results), strict=True))
    assert met == wanted, f"seed {seed}"


def outcome_of(result: Completion | BaseException) -> str:
    """What a call met, after a check that the answer or the error is whole."""
    if isinstance(result, Completion):
        check(result)
        return "succeed"
    assert isinstance(result, BackendError), repr(result)
    assert result.code, "an error has a code"
    assert str(result), "an error has a sentence"
    kinds = [isinstance(result, RetryableError), isinstance(result, PermanentError)]
    return {(True, False): "transient", (False, True): "permanent"}.get((kinds[0], kinds[1]), "neither or both")


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
    return random.randrange(1_000_000)  # noqa: S311 - the same


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
