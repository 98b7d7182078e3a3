"""The policy engine: one answer for a request and a route, pure, cached, and the same wherever it is asked again.

Default deny, and a forbid wins. Beyond that, three things hold whatever the policies say:

- A class goes outside only where every lower class may go too: raising a class never adds a destination.
- A permit that rests on something (`@redact`, `@approval`, `@escalate`) counts only where that has been granted.
- Of the ways in which something may happen, the least demanding is the answer: as it is, with something taken out, with
  an approval, by an override.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from itertools import product
from operator import itemgetter
from typing import Any, Final, NamedTuple

import cedarpy
import orjson

from policy import vocabulary
from policy.cedar import PolicySet, Rule, Source
from policy.detection.kinds import KINDS
from policy.labels import Label, Labels
from policy.questions import NOTHING, Facts, Granted, Outcome, RouteFacts, Style, Verdict
from policy.view import ALWAYS, stricter

DEFAULT_DENY: Final = "default-deny"
"""The reason where no policy permits."""

CLASS: Final = "class"
"""The reason where a route's row or the handling of a class does not allow the class."""

_CACHED: Final = 50_000
"""Answers that are remembered; then all are forgotten, which is simple and rare."""

_READS: Final = {
    "principal.id": 0, "principal.kind": 1, "principal.tenant": 2, "principal.roles": 3, "principal.identity": 4,
    "context.purpose": 6, "context.task": 7, "context.risk": 8, "context.basis": 9, "context.consent": 10,
}  # fmt: skip
"""Place in `Facts` of what a policy can read of them; the action (5) always counts."""


class Held(NamedTuple):
    """The data of a request: what was declared, and what was found in it."""

    declared: Label
    """Class, categories and regulations as declared; no findings."""

    kinds: frozenset[str] = frozenset()
    """Kinds of findings."""


class Answer(NamedTuple):
    """What Cedar says to one question."""

    allowed: bool
    """Whether it may be."""

    rules: tuple[Rule, ...]
    """The deciding policies."""


class Engine:
    """Policies, labels and routes of a deployment, ready to be asked; immutable but for its memory."""

    def __init__(self, sources: Sequence[Source], labels: Labels, routes: Iterable[RouteFacts]) -> None:
        """Check and parse the policies.

        Raises:
            ConfigError: a policy is wrong; all faults, with file and line.
        """
        table = tuple(routes)
        self.labels = labels
        self.policies = PolicySet(sources, vocabulary.schema(labels, table))
        self.policies.check_routes([route.name for route in table])
        self.digest = self.policies.digest
        rules = self.policies.rules.values()
        sets = sorted({rule.redact for rule in rules if rule.permits}, key=lambda item: (len(item), sorted(item)))
        levels = [NOTHING]
        if any(rule.approval for rule in rules):
            levels.append(Granted(approved=True))
        if any(rule.escalate for rule in rules):
            levels.append(Granted(approved=True, overridden=True))
        redactions = [frozenset[str](), *(item for item in sets if item)]
        self._ways = tuple(level._replace(redacted=redacted) for level, redacted in product(levels, redactions))
        self.key = self._minimise()
        """Gives what the policies read of the facts of a request: what answers are remembered by."""
        self._memory: dict[Any, Verdict] = {}
        self._category = {name: kind.category for name, kind in KINDS.items()}

    def decide(self, facts: Facts, held: Held, route: RouteFacts) -> Verdict:
        """Give the least demanding way in which a request may take a route, or say why there is none."""
        key = (self.key(facts), held, route)
        found = self._memory.get(key)
        if found is None:
            found = self._remember(key, self._decide(facts, held, route))
        return found

    def recheck(self, facts: Facts, held: Held, route: RouteFacts, granted: Granted) -> Verdict:
        """Ask again whether a route may be taken on what has been granted; nothing more can be granted now.

        Args:
            facts: the request, as things are now.
            held: its data, as it came.
            route: where it is about to go.
            granted: what the first decision rests on, and has been done since.
        """
        key = (self.key(facts), held, route, granted)
        found = self._memory.get(key)
        if found is None:
            reason = self._grant_objects(held, route, granted)
            # What was taken out for another route need not have been offered for one on this side.
            done = route.placement == "local"
            answer = Answer(allowed=False, rules=())
            if reason is None:
                answers = self._ask(facts, held, route, granted, done=done)
                answer = _refusal(answers) or answers[0]
            outcome = Outcome.ALLOW if answer.allowed else Outcome.DENY
            if answer.allowed and granted.redacted:
                outcome = Outcome.TRANSFORM
            reasons = (reason,) if reason else _reasons(answer)
            found = self._remember(key, Verdict(outcome, reasons, granted if answer.allowed else NOTHING))
        return found

    def residual(self, held: Held, redacted: frozenset[str]) -> Label:
        """Give the label of data from which some categories have been taken out."""
        kinds = held.kinds
        if redacted:
            kinds = frozenset(kind for kind in kinds if self._category[kind] not in redacted)
        declared = held.declared
        return self.labels.label(declared.cls, declared.categories, declared.regulations, kinds)

    def reads(self) -> tuple[str, ...]:
        """Give what the policies read: what answers are remembered by, besides route and labels."""
        return tuple(sorted(self.policies.reads))

    def _minimise(self) -> Callable[[Facts], Any]:
        read = self.policies.reads
        places = {5, *(place for name, place in _READS.items() if name in read)}
        if "principal" in read or self.policies.names_actors:
            places |= {0, 1, 2, 3, 4}
        if "context" in read:
            places |= set(_READS.values())
        return itemgetter(*sorted(places)) if len(places) > 1 else itemgetter(5)

    def _remember(self, key: Any, verdict: Verdict) -> Verdict:
        if len(self._memory) >= _CACHED:
            self._memory.clear()
        self._memory[key] = verdict
        return verdict

    def _decide(self, facts: Facts, held: Held, route: RouteFacts) -> Verdict:
        first: Answer | None = None
        refused: dict[frozenset[str], tuple[Answer, ...]] = {}
        reasons: tuple[str, ...] = ()
        for granted in self._ways:
            objection = self._grant_objects(held, route, granted)
            if objection is not None:
                reasons = reasons or (objection,)
                continue
            answers = self._ask(facts, held, route, granted)
            refusal = _refusal(answers)
            if refusal is None:
                verdict = _verdict(answers, granted, refused.get(granted.redacted, ()))
                if verdict is not None:
                    return verdict
                continue
            first = first or refusal
            refused.setdefault(granted.redacted, answers)
        if first is not None:
            reasons = _reasons(first)
        return Verdict(Outcome.DENY, reasons)

    def _grant_objects(self, held: Held, route: RouteFacts, granted: Granted) -> str | None:
        """Say what a route's own row objects to: no policy can allow more than that."""
        label = self.residual(held, granted.redacted)
        if label.cls not in route.classes:
            return CLASS
        allowed = self.labels.regions(label.regulations)
        if allowed is not None and route.region not in allowed:
            return "residency"
        return None

    def _ask(
        self, facts: Facts, held: Held, route: RouteFacts, granted: Granted, *, done: bool = False
    ) -> tuple[Answer, ...]:
        """Give what Cedar says of the class itself and then, for a route outside, of each lower one from the lowest."""
        label = self.residual(held, granted.redacted)
        # Outside, what a class may do, every lower one may do too; the class itself is asked first.
        lower = self.labels.up_to(label.cls)[:-1] if route.placement == "hosted" else ()
        labels = [label, *(Label(cls, label.categories, label.regulations, label.kinds) for cls in lower)]
        question = vocabulary.question(facts, label, route, granted)
        questions = [
            {**question, "context": orjson.dumps(vocabulary.context(facts, one, granted)).decode()} for one in labels
        ]
        entities = orjson.dumps(vocabulary.entities(facts, route)).decode()
        schema = self.policies.schema
        results = cedarpy.is_authorized_batch(questions, self.policies.parsed, entities, schema)
        return tuple(self._answer(result, granted, done=done) for result in results)

    def _answer(self, result: cedarpy.AuthzResult, granted: Granted, *, done: bool) -> Answer:
        """Count only the permits whose conditions have been granted; what Cedar cannot evaluate is no permit."""
        diagnostics = result.diagnostics
        if diagnostics.errors:
            return Answer(allowed=False, rules=())
        rules = tuple(self.policies.rules[key] for key in diagnostics.reasons)
        if not result.allowed:
            return Answer(allowed=False, rules=tuple(rule for rule in rules if not rule.permits))
        holding = tuple(rule for rule in rules if _holds(rule, granted))
        # Taking something out is a way only where a permit says so; beside it, others may hold as well.
        offered = done or not granted.redacted or any(rule.redact == granted.redacted for rule in holding)
        return Answer(bool(holding) and offered, holding if offered else ())


def _refusal(answers: Iterable[Answer]) -> Answer | None:
    return next((answer for answer in answers if not answer.allowed), None)


def _verdict(answers: Sequence[Answer], granted: Granted, refused: Sequence[Answer]) -> Verdict | None:
    """Give the verdict that an answer means; None where it would need a person, and no policy says whom."""
    styles: dict[str, Style] = {}
    for rule in answers[0].rules:
        if rule.redact:
            for category in rule.redact:
                style = stricter(rule.style, ALWAYS.get(category, rule.style))
                styles[category] = stricter(styles.get(category, style), style)
    outcome = Outcome.TRANSFORM if granted.redacted else Outcome.ALLOW
    rules, authority = answers[0].rules, None
    if granted.approved:
        outcome = Outcome.ESCALATE if granted.overridden else Outcome.REQUIRE_APPROVAL
        needed = _authorities(answers, refused, overridden=granted.overridden)
        if None in needed:
            return None
        authority = needed[0]
        rules += next(answer.rules for answer in refused if not answer.allowed)
    reasons = _reasons(Answer(allowed=True, rules=rules))
    return Verdict(outcome, reasons, granted, tuple(sorted(styles.items())), (authority,) if authority else ())


def _authorities(answers: Sequence[Answer], refused: Sequence[Answer], *, overridden: bool) -> list[str | None]:
    """Give whose approval each class needs, the class itself first; what a lower one needs nobody for is left out.

    A lower class that no one could approve is closed, and then so is every higher one.
    """
    found = []
    for place, answer in enumerate(answers):
        below = refused[1:place] if place else refused[1:]
        refusal = _refusal((refused[place], *below))
        if refusal is not None:
            found.append(_authority(answer.rules + refusal.rules, overridden=overridden))
    return found


def _authority(rules: Iterable[Rule], *, overridden: bool) -> str | None:
    """Give whose approval is needed; None where no policy says whom, or where forbids ask for several people.

    One of several permits suffices, so that the first one's authority does; every forbid has to be lifted.
    """
    named = [(rule.permits, rule.escalate if overridden else rule.approval) for rule in rules]
    of_permits = sorted({name for permits, name in named if permits and name})
    of_forbids = sorted({name for permits, name in named if not permits and name})
    if len(of_forbids) > 1 or (of_forbids and of_permits and of_forbids[0] not in of_permits):
        return None
    return next(iter(of_forbids or of_permits), None)


def _holds(rule: Rule, granted: Granted) -> bool:
    return (
        rule.permits
        and rule.redact <= granted.redacted
        and (rule.approval is None or granted.approved)
        and (rule.escalate is None or granted.overridden)
    )


def _reasons(answer: Answer) -> tuple[str, ...]:
    return tuple(sorted({rule.id for rule in answer.rules})) or (DEFAULT_DENY,)
