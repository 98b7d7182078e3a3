"""Retention rules: how long what of a request may be kept, by class and purpose, and what then has to go.

The rules are one file that people write; the decisions are pure functions, and `policy.vault.store` and
`policy.vault.sweep` carry them out.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import pairwise
from pathlib import Path
from typing import Final, Literal, Protocol

from pydantic import Field

from evidence.canonical import sha256_hex
from evidence.moments import shifted
from evidence.records import ShortText
from policy.files import Config, Document, read
from policy.vault.keys import Bucket, KeyId, KeyInfo, Period

Action = Literal["mask", "drop", "refuse"]
Erasure = Literal["after-minimum", "at-once"]
Kind = Literal["pseudonyms", "request", "response"]

KINDS: Final[tuple[Kind, ...]] = ("pseudonyms", "request", "response")
"""What the vault keeps of an intake."""

ANY: Final = "*"
"""Matches every class, or every purpose."""

_SEVERITY: Final[dict[str, int]] = {"mask": 0, "drop": 1, "refuse": 2}
_MAX_DAYS: Final = 36_500
_TITLE: Final = "list of retention rules"


class AnswerRule(Config):
    """What may not be kept of an answer."""

    forbid: tuple[ShortText, ...] = ()
    """Categories of findings that are taken out before anything is written."""
    action: Action = "mask"
    """What happens to them: a placeholder, nothing in their place, or no answer at all."""


class RuleConfig(Config):
    """One rule."""

    classes: tuple[ShortText, ...] = Field(min_length=1)
    """Classes of data that it is for; `*` for all."""
    purposes: tuple[ShortText, ...] = Field(min_length=1)
    """Purposes that it is for; `*` for all."""
    payload: Literal["none", "keep"]
    """Whether prompts and answers may be kept in the vault at all."""
    min_days: int = Field(default=0, ge=0, le=_MAX_DAYS)
    """Days for which a kept payload must stay."""
    max_days: int | None = Field(default=None, ge=1, le=_MAX_DAYS)
    """Days after which a kept payload must be gone; needed where payloads are kept."""
    pseudonym_days: int = Field(ge=0, le=_MAX_DAYS)
    """Days after which the originals behind pseudonyms must be gone; 0 keeps none, so that nothing can be revealed."""
    erasure: Erasure = "after-minimum"
    """When a person's request for erasure may be carried out: once the minimum has passed (`after-minimum`), or
    before it (`at-once`)."""
    answer: AnswerRule = AnswerRule()
    """What may not be kept of an answer, joined with the route's own rule."""


class RowsRule(Config):
    """How long rows of evidence are kept."""

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9-]{0,62}$")
    """The rule's name, as the signed commit states it that removes rows."""
    classes: tuple[ShortText, ...] = Field(min_length=1)
    """Classes of data that it is for; `*` for all, and for rows whose request states none."""
    purposes: tuple[ShortText, ...] = Field(min_length=1)
    """Purposes that it is for; `*` for all, and for rows that state none."""
    min_days: int = Field(default=0, ge=0, le=_MAX_DAYS)
    """Days for which a row must stay."""
    max_days: int | None = Field(default=None, ge=1, le=_MAX_DAYS)
    """Days after which a row must be gone; for ever if absent."""


class RetentionConfig(Config):
    """The file."""

    version: Literal[1]
    """Version of the file's form."""
    key_period: Period = "month"
    """How long one data key is used: `day` or `month`. A key outlives its first object by as much."""
    transit_days: int = Field(default=7, ge=1, le=90)
    """Days for which requests in work records stay readable; at least as long as the topics keep them."""
    rules: tuple[RuleConfig, ...] = Field(min_length=1)
    """First match wins; every class needs a rule for every purpose."""
    evidence: tuple[RowsRule, ...] = ()
    """How long rows of evidence are kept; first match wins, the last one is for all. Without any, for ever."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Kept:
    """What is known of an object in the vault's store; never what it says."""

    kind: Kind
    """What it is."""
    intake_id: str
    """Which arrival of the request it belongs to; it is sealed bound to this."""
    request_id: str
    """The application's id of that request."""
    tenant: str
    """Whose."""
    subject: str | None
    """The person whom the data is about, where that is known."""
    data_class: str
    """Its class."""
    purpose: str
    """What it may be used for."""
    created: datetime
    """When it was sealed, in UTC."""
    keep_until_min: datetime
    """Until when it must be kept."""
    keep_until_max: datetime
    """When it must be gone."""
    legal_hold: bool = False
    """Whether it must be kept whatever the bounds say."""


@dataclass(frozen=True, slots=True)
class Group:
    """Objects of the store under one key that have class, purpose and kind in common."""

    key: KeyId
    """The key that they are sealed under."""
    tenant: str
    """Whose."""
    data_class: str
    """Their class."""
    purpose: str
    """Their purpose."""
    kind: Kind
    """What they are."""
    objects: int
    """How many."""
    held: int
    """How many of them are under legal hold."""
    oldest: datetime
    """When the first was sealed."""
    first_expiry: datetime
    """When the first must be gone."""
    last_expiry: datetime
    """When the last must be gone."""
    overdue: int
    """How many should be gone already and are not held."""


class AnswerLike(Protocol):
    """A rule on answers, of a route or of a class and purpose."""

    @property
    def forbid(self) -> Sequence[str]:
        """Categories that may not be kept."""

    @property
    def action(self) -> Action:
        """What happens to them."""


class RetentionRules:
    """The rules, checked: immutable, and shared by all who decide."""

    def __init__(self, config: RetentionConfig, classes: Sequence[str]) -> None:
        self.config = config
        self.transit: Final = Bucket("transit", 0, config.transit_days, "day")
        """What records on the work topics are sealed under."""
        self._by_class = {
            name: tuple(
                (None if ANY in rule.purposes else frozenset(rule.purposes), rule)
                for rule in config.rules
                if name in rule.classes or ANY in rule.classes
            )
            for name in classes
        }
        self.digest: Final = sha256_hex(config.model_dump_json().encode())
        """SHA-256 of what the rules say, in hex: their version."""

    def rule_for(self, data_class: str, purpose: str) -> RuleConfig:
        """Give the rule of a class and purpose: the first that matches.

        Raises:
            KeyError: the class is none of those that the rules were loaded for.
        """
        rule = self._find(data_class, purpose)
        if rule is None:  # loading has checked that there is one
            raise KeyError(f"{data_class} for {purpose} has no rule")
        return rule

    def bucket_for(self, data_class: str, purpose: str, kind: Kind) -> Bucket | None:
        """Give the term under which an object of this kind is sealed; None where it may not be kept."""
        rule = self.rule_for(data_class, purpose)
        if kind == "pseudonyms":
            low, high = 0, rule.pseudonym_days
        else:
            low, high = rule.min_days, rule.max_days if rule.payload == "keep" and rule.max_days else 0
        return Bucket("keep", low, high, self.config.key_period) if high else None

    def erasable(self, item: Kept, now: datetime) -> bool:
        """Say whether a person's request for erasure may end an object now: its minimum has passed, or does not count.

        A class that the rules do not know any more is erased after its minimum.
        """
        if now >= item.keep_until_min:
            return True
        rule = self._find(item.data_class, item.purpose) if item.data_class in self._by_class else None
        return rule is not None and rule.erasure == "at-once"

    def _find(self, data_class: str, purpose: str) -> RuleConfig | None:
        return next(
            (rule for purposes, rule in self._by_class[data_class] if purposes is None or purpose in purposes), None
        )


def bounds(bucket: Bucket, created: datetime) -> tuple[datetime, datetime]:
    """Give until when what is sealed now must be kept, and when it must be gone."""
    return shifted(created, timedelta(days=bucket.min_days)), shifted(created, timedelta(days=bucket.max_days))


def join_answer_rules(a: AnswerLike, b: AnswerLike) -> AnswerRule:
    """Give the stricter of two rules: what either forbids, by the more severe of their actions.

    A rule that forbids nothing says nothing, so its action does not count.
    """
    speaking = [rule for rule in (a, b) if rule.forbid]
    if not speaking:
        return AnswerRule()
    action = max((rule.action for rule in speaking), key=lambda name: _SEVERITY[name])
    return AnswerRule(forbid=tuple(sorted({name for rule in speaking for name in rule.forbid})), action=action)


def expired(item: Kept, now: datetime) -> bool:
    """Say whether an object has to go: its maximum is reached, and nobody holds it."""
    return not item.legal_hold and now >= max(item.keep_until_max, item.keep_until_min)


def destroyable(keys: Iterable[KeyInfo], groups: Iterable[Group], now: datetime) -> tuple[KeyInfo, ...]:
    """Give the keys that have to go: all that was ever sealed under them has reached its maximum, and is not held.

    A key without objects counts too: it sealed work records, or objects that are gone already.
    """
    needed = {group.key for group in groups if group.held or group.last_expiry > now}
    return tuple(info for info in keys if info.key.due <= now and info.key not in needed)


def load(
    path: Path, *, classes: Sequence[str], categories: Collection[str], purposes: Collection[str] | None
) -> RetentionRules:
    """Read the retention rules of a deployment.

    Args:
        path: the file.
        classes: all classes of data, the lowest first.
        categories: all families of data.
        purposes: all purposes that a request may have; None where any word is one.

    Raises:
        ConfigError: the file breaks a rule; the text names file, line and field.
    """
    return parse(read(path, _TITLE), classes=classes, categories=categories, purposes=purposes)


def parse(
    document: Document, *, classes: Sequence[str], categories: Collection[str], purposes: Collection[str] | None
) -> RetentionRules:
    """Read the retention rules from a document.

    Raises:
        ConfigError: as `load`.
    """
    config = document.parse(RetentionConfig, _TITLE)
    for number, rule in enumerate(config.rules):
        _check_words(document, ("rules", number), "classes", rule.classes, (*classes, ANY))
        if purposes is not None:
            _check_words(document, ("rules", number), "purposes", rule.purposes, (*purposes, ANY))
        for position, name in enumerate(rule.answer.forbid):
            if name not in categories:
                place = ("rules", number, "answer", "forbid", position)
                raise document.error(place, f"{name} is none of the categories: use {', '.join(sorted(categories))}")
        _check_days(document, number, rule)
    rules = RetentionRules(config, classes)
    # The word `*` stands for every purpose that no rule names; where purposes are listed, all may be named.
    named = {purpose for rule in config.rules for purpose in rule.purposes if purpose != ANY}
    known = sorted(named | {ANY}) if purposes is None else sorted(set(purposes))
    _check_complete(document, rules, classes, known)
    _check_order(document, rules, classes, known)
    _check_rows(document, config.evidence, classes, purposes)
    return rules


def _check_words(
    document: Document, place: tuple[str | int, ...], field: str, given: Sequence[str], known: Sequence[str]
) -> None:
    for position, name in enumerate(given):
        if name not in known:
            said = f"{name} is none of the {field}: use {', '.join(known)}"
            raise document.error((*place, field, position), said)


def _check_days(document: Document, number: int, rule: RuleConfig) -> None:
    place = ("rules", number)
    if rule.payload == "none":
        if rule.max_days is not None or rule.min_days:
            field = "max_days" if rule.max_days is not None else "min_days"
            raise document.error((*place, field), "payloads are not kept under this rule: leave it out, or write keep")
    elif rule.max_days is None:
        raise document.error((*place, "payload"), "what is kept needs a max_days: nothing is kept for ever")
    elif rule.min_days > rule.max_days:
        raise document.error(
            (*place, "min_days"), f"{rule.min_days} is more than max_days ({rule.max_days}): nothing can obey both"
        )


def _check_complete(document: Document, rules: RetentionRules, classes: Sequence[str], purposes: Sequence[str]) -> None:
    """Every class has a rule for every purpose, and every rule is used."""
    used: set[int] = set()
    for name in classes:
        for purpose in purposes:
            rule = rules._find(name, purpose)  # noqa: SLF001 - the same module
            if rule is None:
                what = "the other purposes" if purpose == ANY else purpose
                raise document.error(
                    ("rules",), f'{name} has no rule for {what}: end with a rule whose classes and purposes are ["*"]'
                )
            used.add(id(rule))
    for number, rule in enumerate(rules.config.rules):
        if id(rule) not in used:
            raise document.error(("rules", number), "is never reached: the rules above it match first")


def _check_order(document: Document, rules: RetentionRules, classes: Sequence[str], purposes: Sequence[str]) -> None:
    """More sensitive data is not kept longer than less sensitive data for the same purpose."""
    for purpose in purposes:
        for lower, higher in pairwise(classes):
            low, high = rules.rule_for(lower, purpose), rules.rule_for(higher, purpose)
            number = next(place for place, rule in enumerate(rules.config.rules) if rule is high)
            what = "other purposes" if purpose == ANY else purpose
            for field in ("max_days", "pseudonym_days"):
                longer, shorter = getattr(high, field) or 0, getattr(low, field) or 0
                if longer > shorter:
                    said = f"{higher} is kept {longer} days for {what}, but {lower}, which is less sensitive, {shorter}"
                    raise document.error(("rules", number, field), said)


def _check_rows(
    document: Document, rows: Sequence[RowsRule], classes: Sequence[str], purposes: Collection[str] | None
) -> None:
    """Rules on rows have names of their own, bounds that can be obeyed, and an end that is for everything."""
    for number, rule in enumerate(rows):
        place = ("evidence", number)
        _check_words(document, place, "classes", rule.classes, (*classes, ANY))
        if purposes is not None:
            _check_words(document, place, "purposes", rule.purposes, (*purposes, ANY))
        if any(rule.name == other.name for other in rows[:number]):
            raise document.error((*place, "name"), f"{rule.name} is the name of a rule above: give it another one")
        if rule.max_days is not None and rule.min_days >= rule.max_days:
            said = (
                f"{rule.min_days} is not below max_days ({rule.max_days}): rows go by whole days, so leave one between"
            )
            raise document.error((*place, "min_days"), said)
        last = number == len(rows) - 1
        everything = ANY in rule.classes and ANY in rule.purposes
        if everything and not last:
            raise document.error(("evidence", number + 1), f"is never reached: {rule.name} matches first")
        if last and not everything:
            raise document.error(place, 'is the last rule: end with one whose classes and purposes are ["*"]')
