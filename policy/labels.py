"""How sensitive data is: the lattice of labels that classification, policy and routing agree on.

A label says four things of data: its class (one of an ordered list), the categories that it holds, the regulations that
it falls under, and where it may be processed. Two labels join part by part: the higher class, all categories, all
regulations, and only those regions that both allow. Nothing lowers a label but taking data out.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field

from evidence.errors import RecordError
from evidence.records import ShortText
from policy.detection.kinds import CATEGORIES, KINDS
from policy.files import Config, Document, read

Encryption = Literal["tls", "loopback", "none"]
"""`loopback` never leaves the machine; `none` is a network that the operator vouches for (`ALLOW_PLAINTEXT`)."""

Word = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9._-]{0,63}$")]
"""A label as it is written everywhere: lower case."""


class HandlingConfig(Config):
    """What must hold of a destination outside the boundary before data of a class may go there."""

    hosted: bool = True
    """Whether it may leave at all."""
    encryption: tuple[Encryption, ...] = ("tls", "loopback")
    """How the way there may be protected."""
    destination_days: int = Field(default=0, ge=0)
    """Days for which the destination may keep it, at most."""


class ClassConfig(Config):
    """One class."""

    name: Word
    """Its label."""
    about: str = ""
    """What belongs to it, for people."""
    handling: HandlingConfig = HandlingConfig()
    """What must hold of a destination."""


class CategoryConfig(Config):
    """One family of data."""

    implies: Word
    """The least class of data that holds it."""
    regulations: tuple[Word, ...] = ()
    """Regulations that it falls under."""


class RegulationConfig(Config):
    """One regulation."""

    regions: tuple[ShortText, ...] = ()
    """Regions in which data under it may be processed; empty allows all."""


class NamesConfig(Config):
    """Where names of people and places are looked for, which takes a language model of its own."""

    purposes: tuple[ShortText, ...] = ()
    """For requests with these purposes; `*` for all."""
    timeout_s: float = Field(default=5.0, gt=0, le=60)
    """Seconds after which the detector counts as down."""


class LabelsConfig(Config):
    """The file."""

    version: Literal[1]
    """Version of the file's form."""
    classes: tuple[ClassConfig, ...] = Field(min_length=1)
    """All classes, the least sensitive first."""
    categories: dict[Word, CategoryConfig]
    """All families of data; those that detectors find have to be among them."""
    kinds: dict[str, Word] = Field(default_factory=dict)
    """Classes of single kinds of findings, where they are higher than their category's."""
    regulations: dict[Word, RegulationConfig] = Field(default_factory=dict)
    """All regulations."""
    purposes: tuple[ShortText, ...] | None = None
    """All purposes that a request may have; left out, any word is one."""
    task_types: tuple[ShortText, ...] | None = None
    """All task types that a request may have; left out, any word is one."""
    names: NamesConfig = NamesConfig()
    """Where names and places are looked for."""


@dataclass(frozen=True, slots=True)
class Label:
    """What is known of some data."""

    cls: str
    """Its class."""

    categories: frozenset[str] = frozenset()
    """The families of data that it holds."""

    regulations: frozenset[str] = frozenset()
    """The regulations that it falls under."""

    kinds: frozenset[str] = frozenset()
    """The kinds of findings in it."""


class Labels:
    """The lattice, compiled: immutable, and shared by all who decide."""

    def __init__(self, config: LabelsConfig) -> None:
        self.config = config
        self.classes = tuple(item.name for item in config.classes)
        self._rank = {name: rank for rank, name in enumerate(self.classes)}
        self.handling = {item.name: item.handling for item in config.classes}
        self.lowest, self.highest = self.classes[0], self.classes[-1]
        self._kind_class = {
            name: config.kinds.get(name, config.categories[kind.category].implies) for name, kind in KINDS.items()
        }

    @cached_property
    def highest_label(self) -> Label:
        """What is assumed where nothing can be known: the highest class and everything that detectors look for."""
        return self.label(self.highest, CATEGORIES, ())

    def rank(self, cls: str) -> int:
        """Give a class's place in the order, from 0."""
        return self._rank[cls]

    def join(self, classes: Iterable[str], least: str | None = None) -> str:
        """Give the class of data that holds all of these: the highest."""
        found = self._rank[least] if least is not None else 0
        for cls in classes:
            found = max(found, self._rank[cls])
        return self.classes[found]

    def up_to(self, cls: str) -> tuple[str, ...]:
        """Give all classes up to one, the least sensitive first."""
        return self.classes[: self._rank[cls] + 1]

    def class_of(self, kind: str) -> str:
        """Give the least class of a text with a finding of this kind."""
        return self._kind_class[kind]

    def detected(self, kinds: Iterable[str]) -> str:
        """Give the class that findings imply."""
        return self.join(map(self._kind_class.__getitem__, kinds))

    def label(
        self, declared: str, categories: Collection[str], regulations: Collection[str], kinds: Collection[str] = ()
    ) -> Label:
        """Join what was declared with what was found."""
        config = self.config
        if not (categories or regulations or kinds):
            return Label(declared)
        held = {*categories, *(KINDS[kind].category for kind in kinds)}
        implied = [config.categories[name].implies for name in categories]
        under = {*regulations, *(name for category in held for name in config.categories[category].regulations)}
        cls = self.join([*implied, *map(self._kind_class.__getitem__, kinds)], declared)
        return Label(cls, frozenset(held), frozenset(under), frozenset(kinds))

    def joined(self, labels: Iterable[Label]) -> Label:
        """Give the label of data that holds all of these."""
        every = tuple(labels)
        return Label(
            self.join(label.cls for label in every),
            frozenset().union(*(label.categories for label in every)),
            frozenset().union(*(label.regulations for label in every)),
            frozenset().union(*(label.kinds for label in every)),
        )

    def regions(self, regulations: Iterable[str]) -> frozenset[str] | None:
        """Give the regions that all of these regulations allow; None where they allow every one."""
        allowed: frozenset[str] | None = None
        for name in regulations:
            regions = self.config.regulations[name].regions
            if regions:
                allowed = frozenset(regions) if allowed is None else allowed & frozenset(regions)
        return allowed

    def wants_names(self, purpose: str) -> bool:
        """Say whether names and places are looked for in requests with this purpose."""
        purposes = self.config.names.purposes
        return purpose in purposes or "*" in purposes

    def parse(self, label: str, known: Collection[str], title: str) -> str:
        """Read a label exactly as written; there is no default and no guessing at spelling or case.

        Raises:
            RecordError: code `unknown_label`; its text lists the known labels, and does not repeat the unknown one,
                which may be anything, a secret included.
        """
        if label in known:
            return label
        raise RecordError("unknown_label", f"unknown {title}: use one of {', '.join(known)}")

    def check_request(
        self, declared: str, purpose: str, task_type: str, categories: Collection[str], regulations: Collection[str]
    ) -> None:
        """Check every label that a request carries.

        Raises:
            RecordError: code `unknown_label`.
        """
        config = self.config
        if declared not in self._rank:
            self.parse(declared, self.classes, "data classification")
        if config.purposes is not None and purpose not in config.purposes:
            self.parse(purpose, config.purposes, "purpose")
        if config.task_types is not None and task_type not in config.task_types:
            self.parse(task_type, config.task_types, "task type")
        for name in categories:
            self.parse(name, config.categories, "data category")
        for name in regulations:
            self.parse(name, config.regulations, "regulation")


def load(path: Path) -> Labels:
    """Read the labels of a deployment.

    Raises:
        ConfigError: the file breaks a rule; the text names file, line and field.
    """
    return parse(read(path, "list of labels"))


def parse(document: Document) -> Labels:
    """Read the labels from a document.

    Raises:
        ConfigError: as `load`.
    """
    config = document.parse(LabelsConfig, "list of labels")
    _check_classes(config, document)
    _check_categories(config, document)
    _check_kinds(config, document)
    for field in ("purposes", "task_types"):
        _each_once(getattr(config, field) or (), document, field)
    if config.purposes is not None:
        for number, name in enumerate(config.names.purposes):
            if name != "*" and name not in config.purposes:
                raise document.error(("names", "purposes", number), f"{name} is none of the purposes")
    return Labels(config)


def _check_categories(config: LabelsConfig, document: Document) -> None:
    classes = [item.name for item in config.classes]
    for name, category in config.categories.items():
        if category.implies not in classes:
            raise document.error(("categories", name, "implies"), f"{category.implies} is none of the classes")
        for number, regulation in enumerate(category.regulations):
            if regulation not in config.regulations:
                place = ("categories", name, "regulations", number)
                raise document.error(place, f"{regulation} is none of the regulations")
    for name in CATEGORIES:
        if name not in config.categories:
            raise document.error(("categories",), f"{name} is missing: detectors find it, and nothing says what it is")


def _check_kinds(config: LabelsConfig, document: Document) -> None:
    classes = [item.name for item in config.classes]
    for kind, cls in config.kinds.items():
        if kind not in KINDS:
            raise document.error(("kinds", kind), f"no detector finds it; they find {', '.join(KINDS)}")
        if cls not in classes:
            raise document.error(("kinds", kind), f"{cls} is none of the classes")
        least = config.categories[KINDS[kind].category].implies
        if classes.index(cls) < classes.index(least):
            raise document.error(("kinds", kind), f"{cls} is lower than {least}, which its category implies")


def _check_classes(config: LabelsConfig, document: Document) -> None:
    _each_once([item.name for item in config.classes], document, "classes")
    for number, (lower, higher) in enumerate(zip(config.classes, config.classes[1:], strict=False), start=1):
        laxer = _laxer(lower.handling, higher.handling)
        if laxer:
            raise document.error(
                ("classes", number, "handling", laxer),
                f"{higher.name} is handled more freely here than {lower.name}, which is less sensitive",
            )


def _laxer(lower: HandlingConfig, higher: HandlingConfig) -> str | None:
    """Name the field in which the higher class is handled more freely."""
    if not higher.hosted:
        return None
    if not lower.hosted:
        return "hosted"
    if not set(higher.encryption) <= set(lower.encryption):
        return "encryption"
    if higher.destination_days > lower.destination_days:
        return "destination_days"
    return None


def _each_once(names: Collection[str], document: Document, field: str) -> None:
    seen: set[Any] = set()
    for number, name in enumerate(names):
        if name in seen:
            raise document.error((field, number), f"{name} is listed twice")
        seen.add(name)
