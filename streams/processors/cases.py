"""A case: all that a decision on a request rests on, and nothing of what it says.

A case is made from a request once, travels in the evidence of its decision as JSON, and can be decided again from
there: by the same rulebook with the same result, or by another one to see what would change.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final, NamedTuple

import orjson

from evidence.errors import RecordError
from evidence.records import MAX_INPUTS
from inference.routes import RouteConfig
from policy.engine import Held
from policy.labels import Label
from policy.questions import Facts

BYTES_PER_TOKEN: Final = 3
"""For estimating a cost before it is known: fewer bytes of UTF-8 a token than most texts have, to err upward."""

_LONG: Final = 8192
"""Characters from which on a case says what equal sources have in common once."""

TOKENS_PER_TURN: Final = 8
"""What a chat template adds to each turn at most."""


class Wish(NamedTuple):
    """What the application wants of the route; it can narrow what policy allows, never widen it."""

    placement: str = "any"
    """`any`, `local` or `hosted`."""
    regions: tuple[str, ...] = ()
    """Regions in which it may be processed; empty allows all."""
    max_tokens: int | None = None
    """Upper bound of generated tokens."""
    budget: float | None = None
    """Most that it may cost, in US dollars."""
    size: int = 0
    """Bytes of text that would be sent."""
    turns: int = 1
    """Turns that would be sent."""


class Item(NamedTuple):
    """A source of context."""

    need: str
    """`required`, `useful` or `background`."""
    held: Held
    """Its data."""


class Case(NamedTuple):
    """All that a decision rests on."""

    facts: Facts
    """Who asks, what for, and what is known of consent."""
    wish: Wish
    """What the application wants of the route."""
    held: Held
    """The data of the conversation."""
    items: tuple[Item, ...] = ()
    """The sources of context, in order."""


def allowed_tokens(route: RouteConfig, wish: Wish) -> int:
    """Give how many tokens may be generated: the lower of the route's bound and the application's."""
    return min(route.max_tokens, wish.max_tokens or route.max_tokens)


def estimate(route: RouteConfig, wish: Wish) -> float:
    """Give an estimate of one call's price that errs upward, in US dollars."""
    tokens = wish.size // BYTES_PER_TOKEN + wish.turns * TOKENS_PER_TURN
    return route.price.cost(tokens, allowed_tokens(route, wish))


def to_json(case: Case) -> str:
    """Return a case as JSON text; what is empty is left out.

    A long one lists each kind of source once (`context`), and then the kind of each source (`order`).

    Raises:
        RecordError: code `case_too_large`; it is longer than a decision record may be.
    """
    facts, wish = case.facts, case.wish
    content: dict[str, Any] = {
        "actor": facts.actor,
        "kind": facts.kind,
        "tenant": facts.tenant,
        "identity": facts.identity,
        "action": facts.action,
        "purpose": facts.purpose,
        "task": facts.task,
        "risk": facts.risk,
        "basis": facts.basis,
        "consent": facts.consent,
        **_held(case.held),
        "bytes": wish.size,
        "turns": wish.turns,
    }
    if facts.roles:
        content["roles"] = sorted(facts.roles)
    if wish.placement != "any":
        content["placement"] = wish.placement
    if wish.regions:
        content["regions"] = wish.regions
    if wish.max_tokens is not None:
        content["maxTokens"] = wish.max_tokens
    if wish.budget is not None:
        content["budget"] = wish.budget
    if case.items:
        content["context"] = [_item(item) for item in case.items]
    text = orjson.dumps(content).decode()
    if len(text) > _LONG and case.items:
        kinds = {item: place for place, item in enumerate(dict.fromkeys(case.items))}
        content["context"], content["order"] = [_item(item) for item in kinds], [kinds[item] for item in case.items]
        text = orjson.dumps(content).decode()
    if len(text) > MAX_INPUTS:
        said = (
            f"labels, sources, regions and roles take {len(text)} characters in its decision; {MAX_INPUTS} are allowed"
        )
        raise RecordError("case_too_large", f"{said}: send fewer of them")
    return text


def from_json(text: str) -> Case:
    """Read a case.

    Raises:
        RecordError: code `bad_case`; it is none.
    """
    try:
        content = orjson.loads(text)
        said = {name: content[name] for name in Facts._fields if name != "roles"}
        facts = Facts(**said, roles=frozenset(content.get("roles", ())))
        wish = Wish(
            content.get("placement", "any"),
            tuple(content.get("regions", ())),
            content.get("maxTokens"),
            content.get("budget"),
            content["bytes"],
            content["turns"],
        )
        items = tuple(Item(item["need"], _read_held(item)) for item in content.get("context", ()))
        if "order" in content:
            items = tuple(items[place] for place in content["order"])
        return Case(facts, wish, _read_held(content), items)
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        raise RecordError("bad_case", f"the inputs of this decision cannot be read: {type(error).__name__}") from None


def _item(item: Item) -> dict[str, Any]:
    return {"need": item.need, **_held(item.held)}


def _held(held: Held) -> dict[str, Any]:
    declared = held.declared
    found: dict[str, Any] = {"class": declared.cls}
    if declared.categories:
        found["categories"] = sorted(declared.categories)
    if declared.regulations:
        found["regulations"] = sorted(declared.regulations)
    if held.kinds:
        found["kinds"] = sorted(held.kinds)
    return found


def _read_held(content: dict[str, Any]) -> Held:
    declared = Label(
        content["class"], frozenset(content.get("categories", ())), frozenset(content.get("regulations", ()))
    )
    return Held(declared, frozenset(content.get("kinds", ())))


def joined(held: Held, items: Iterable[Item], join: Any) -> Held:
    """Give the data of the conversation and of some of its sources together.

    Args:
        held: the conversation's.
        items: the sources that go along.
        join: joins labels (`Labels.joined`).
    """
    every = [held, *(item.held for item in items)]
    return Held(join(one.declared for one in every), frozenset().union(*(one.kinds for one in every)))
