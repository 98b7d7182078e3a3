"""What the answer of a model used and cost, and what else its provider says of it. Pure functions."""

from __future__ import annotations

from collections.abc import Sequence

import orjson

from evidence.records import Usage
from inference.backend import Completion, Tokens
from inference.routes import RouteConfig
from streams.response import Attempt


def priced(route: RouteConfig, tokens: Tokens | None) -> Usage | None:
    """Return what an answer cost; None where its tokens are not known."""
    if tokens is None or tokens.input is None or tokens.output is None:
        return None
    cost = route.price.cost(tokens.input, tokens.output, cached=tokens.cached, reasoning=tokens.reasoning)
    return Usage(input_tokens=tokens.input, output_tokens=tokens.output, cost_usd=cost)


def stated(completion: Completion) -> str | None:
    """Return what else a destination says of its answer, as JSON; None where that is nothing."""
    tokens = completion.tokens
    said = {
        "finishReason": completion.stated_reason,
        "cachedTokens": tokens.cached,
        "reasoningTokens": tokens.reasoning,
    }
    said = {name: value for name, value in said.items() if value}
    return orjson.dumps(said).decode() if said else None


def total(attempts: Sequence[Attempt]) -> Usage | None:
    """Return what several attempts cost together; None where no tokens are known."""
    used = [attempt.usage for attempt in attempts if attempt.usage is not None]
    if not used:
        return None
    return Usage(
        input_tokens=sum(usage.input_tokens for usage in used),
        output_tokens=sum(usage.output_tokens for usage in used),
        cost_usd=sum(usage.cost_usd for usage in used),
    )
