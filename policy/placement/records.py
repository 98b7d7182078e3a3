"""Runtime decision records: why a route may exist, what it was reviewed with, and what was assumed of it.

One YAML file for each route, named after it. A route starts only with a complete, accepted record whose review is not
overdue and whose pins are those of the running configuration; `Records.check` says everything that is in the way.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Final

from evidence.errors import ConfigError
from evidence.records import Placement
from policy.files import Document, read
from policy.placement.form import DecisionRecord

SUFFIX: Final = ".yaml"
"""How the name of a record's file ends."""

_TITLE: Final = "decision record"


@dataclass(frozen=True, slots=True)
class RouteFacts:
    """What a route is today, as far as its record speaks of it."""

    name: str
    """The route's name."""
    placement: Placement
    """Which side of the boundary it runs on."""
    model: str
    """The model that it asks for."""
    region: str
    """Where it processes data."""
    price_digest: str
    """`sha256:` and the digest of its price and limits."""
    artifact_digest: str | None = None
    """`sha256:` and the digest of the weights that are there; None where nobody has looked."""


@dataclass(frozen=True, slots=True)
class Entry:
    """A record and the text that it was read from."""

    record: DecisionRecord
    """What it says."""
    document: Document
    """Where each of its parts stands."""


@dataclass(frozen=True, slots=True)
class Records:
    """All records of a folder, and what is wrong with those that are none."""

    folder: Path
    """Where they lie."""
    entries: Mapping[str, Entry]
    """Those that can be read, by route."""
    broken: Mapping[str, tuple[str, ...]]
    """Faults of the files that are no records, by the file's name without its ending."""

    def whole(self) -> Mapping[str, DecisionRecord]:
        """Give the records by route.

        Raises:
            ConfigError: a file of the folder is no record; every fault is named.
        """
        _refuse([fault for faults in self.broken.values() for fault in faults])
        return {name: entry.record for name, entry in self.entries.items()}

    def of(self, route: str) -> DecisionRecord:
        """Give the record of one route, whatever is wrong with others.

        Raises:
            ConfigError: there is none, or its file is no record.
        """
        _refuse(self.broken.get(route, ()))
        if route not in self.entries:
            raise ConfigError(
                f"there is no decision record {self.folder / (route + SUFFIX)}; there are: "
                f"{', '.join(sorted(self.entries)) or 'none'}"
            )
        return self.entries[route].record

    def check(self, routes: Iterable[RouteFacts], *, policy_digest: str | None, today: date) -> None:
        """Make sure that every route has a record under which it may start.

        Args:
            routes: what is about to start.
            policy_digest: `sha256:` and the digest of the policy that will decide; None is not compared.
            today: the day, in UTC.

        Raises:
            ConfigError: one line for each fault, with file, line and what to do.
        """
        _refuse(self.faults(routes, policy_digest=policy_digest, today=today))

    def faults(self, routes: Iterable[RouteFacts], *, policy_digest: str | None, today: date) -> tuple[str, ...]:
        """Give everything that is in the way, file by file; as `check`."""
        facts = {route.name: route for route in routes}
        names = sorted({*facts, *self.entries, *self.broken})
        unpinned = [name for name in facts if name in self.entries and self._unpinned(name, policy_digest)]
        pin = "--all" if len(unpinned) > 1 else "".join(unpinned)
        return tuple(fault for name in names for fault in self._of(name, facts.get(name), policy_digest, pin, today))

    def _unpinned(self, name: str, policy_digest: str | None) -> bool:
        return policy_digest is not None and policy_digest not in self.entries[name].record.pins.policy

    def _of(
        self, name: str, facts: RouteFacts | None, policy_digest: str | None, pin: str, today: date
    ) -> Iterator[str]:
        if name in self.broken:
            yield from self.broken[name]
        elif name not in self.entries:
            yield (
                f"{self.folder / (name + SUFFIX)}:1: route {name} has no decision record: write this file (copy that "
                "of another route and answer its questions anew), or take the route out of the route table"
            )
        elif facts is None:
            yield str(
                self.entries[name].document.error(
                    ("route",), f"there is no route `{name}` in the route table: remove this file, or add the route"
                )
            )
        else:
            found = [*_standing(self.entries[name].record, today), *_unlike(self.entries[name].record, facts)]
            if self._unpinned(name, policy_digest):
                found.append((("pins", "policy"), f"the policy is {policy_digest}, which {_review(pin)}"))
            for place, message in found:
                yield str(self.entries[name].document.error(place, message))


_Found = tuple[tuple[str, ...], str]


def _review(name: str) -> str:
    return f"was not reviewed for this route: review the record, then run `waybill decisions pin {name}`"


def _standing(record: DecisionRecord, today: date) -> Iterator[_Found]:
    if record.status != "accepted":
        yield ("status",), f"a record that is {record.status} starts no route: accept it, or take the route out"
    if record.decided > today:
        yield ("decided",), f"{record.decided} is still to come (today is {today}): correct the date"
    if record.review_by < today:
        yield ("review_by",), f"the review was due on {record.review_by}: review the record, then set the next date"


def _unlike(record: DecisionRecord, facts: RouteFacts) -> Iterator[_Found]:
    artifact, region = record.pins.artifact, record.locations.execution.region
    if region != facts.region:
        yield (
            ("locations", "execution", "region"),
            f"the route processes data in `{facts.region}`, the record says `{region}`: review it, then correct one",
        )
    if artifact.name != facts.model:
        yield (
            ("pins", "artifact", "name"),
            f"the route asks for `{facts.model}`, `{artifact.name}` was reviewed: review it, then correct one",
        )
    if facts.placement is Placement.LOCAL and artifact.digest is None:
        yield ("pins", "artifact"), "a local route's weights are a file of yours: pin them by `digest`"
    elif facts.artifact_digest is not None and artifact.digest != facts.artifact_digest:
        yield (
            ("pins", "artifact", "digest"),
            f"the weights are {facts.artifact_digest}, which {_review(facts.name)[:-1]} --artifact {facts.name}=FILE`",
        )
    if record.pins.price != facts.price_digest:
        yield ("pins", "price"), f"price and limits are {facts.price_digest}, which {_review(facts.name)}"


def _refuse(faults: Sequence[str]) -> None:
    if len(faults) == 1:
        raise ConfigError(faults[0])
    if faults:
        raise ConfigError("\n  ".join([f"{len(faults)} faults in decision records:", *faults]))


def parse(document: Document, name: str) -> DecisionRecord:
    """Read one record.

    Args:
        document: its text.
        name: what its file is called, without the ending.

    Raises:
        ConfigError: it is no record, or is not about the route that its file is named after; one line for each fault.
    """
    record = document.parse(DecisionRecord, _TITLE)
    if record.route != name:
        raise document.error(
            ("route",), f"the file is called `{name}{SUFFIX}` and speaks of `{record.route}`: give both the same name"
        )
    return record


def load(folder: Path) -> Records:
    """Read the records of a folder; files that are no records are told by `Records.check` and `Records.whole`.

    Raises:
        ConfigError: the folder cannot be read.
    """
    try:
        paths = sorted(path for path in folder.iterdir() if not path.name.startswith(".") and path.suffix != ".md")
    except OSError as error:
        raise ConfigError(
            f"cannot read the folder of decision records {folder}: {error.strerror}; it holds one `<route>{SUFFIX}` "
            "for each route"
        ) from error
    entries: dict[str, Entry] = {}
    broken: dict[str, tuple[str, ...]] = {}
    for path in paths:
        if path.suffix != SUFFIX or not path.is_file():
            broken[path.name] = (f"{path}:1: not a {_TITLE}: rename it to `<route>{SUFFIX}`, or move it elsewhere",)
            continue
        try:
            document = read(path, _TITLE)
            entries[path.stem] = Entry(parse(document, path.stem), document)
        except ConfigError as error:
            head, *more = str(error).split("\n  ")  # the form of `Document.parse` where there are several faults
            broken[path.stem] = tuple(more) or (head,)
    return Records(folder, entries, broken)
