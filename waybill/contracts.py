"""Published contracts: made from code and configuration, written to a folder, compared with what is there."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import yaml

from evidence.errors import ConfigError
from evidence.records import Placement
from inference.routes import RouteConfig, RouteTable
from waybill.contract_asyncapi import FILE, document
from waybill.contract_forms import dump
from waybill.contract_odcs import SUFFIX, contract
from waybill.settings import Settings

FOLDER: Final = Path("docs/contracts")
"""Where they lie in the project."""

_HEAD: Final = "Made by `waybill contracts export`, and compared by `waybill contracts check`; not edited by hand."


def hosted(table: RouteTable) -> tuple[RouteConfig, ...]:
    """Give the routes that have a contract."""
    return tuple(route for route in table.routes if route.placement is Placement.HOSTED)


def route_text(name: str, table: RouteTable, settings: Settings, classes: Sequence[str]) -> str:
    """Give the text of one route's contract.

    Raises:
        ConfigError: there is no such route, it is local, or it takes a class that is none of `classes`.
    """
    names = [route.name for route in hosted(table)]
    if name not in names:
        wrong = "is local: nothing crosses, so it has no contract" if name in table.by_name else "is not in the table"
        raise ConfigError(f"route {name} {wrong}; routes with a contract: {', '.join(names) or 'none'}")
    route = table.by_name[name]
    return dump(contract(route, table, classes, settings.endpoints.get(route.endpoint)), _HEAD)


def texts(table: RouteTable, settings: Settings, classes: Sequence[str]) -> dict[str, str]:
    """Give the text of every document, by the name of its file.

    Args:
        table: the routes.
        settings: endpoints, broker, and sizes of topics.
        classes: all classes of data, the least sensitive first.

    Raises:
        ConfigError: a route takes a class that is none of `classes`, or the settings of the broker are wrong.
    """
    made = {f"{route.name}{SUFFIX}": route_text(route.name, table, settings, classes) for route in hosted(table)}
    topics = document(
        settings.kafka_settings(), partitions=settings.partitions, replication=settings.replication, classes=classes
    )
    return {**made, FILE: dump(topics, _HEAD)}


def export(folder: Path, made: Mapping[str, str]) -> tuple[Path, ...]:
    """Write the documents; give their files.

    Raises:
        ConfigError: the folder cannot be written.
    """
    written = []
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, text in made.items():
            path = folder / name
            path.write_text(text, encoding="utf-8")
            written.append(path)
    except OSError as error:
        raise ConfigError(f"cannot write contracts to {folder}: {error.strerror}") from error
    return tuple(written)


def check(folder: Path, made: Mapping[str, str]) -> tuple[str, ...]:
    """Give one sentence for each difference between what lies in a folder and what would be written there."""
    told: list[str] = []
    for name, text in made.items():
        path = folder / name
        try:
            found = path.read_bytes().decode()
        except FileNotFoundError:
            told.append(f"{path}: is missing")
        except (OSError, UnicodeDecodeError) as error:
            told.append(f"{path}: cannot be read: {type(error).__name__}")
        else:
            if found != text:
                told += [f"{path}: {difference}" for difference in _compared(found, text)]
    strays = sorted(path for path in folder.glob(f"*{SUFFIX}") if path.name not in made)
    return (*told, *(f"{path}: no hosted route has this contract; remove the file" for path in strays))


def _compared(found: str, text: str) -> tuple[str, ...]:
    try:
        content = yaml.safe_load(found)
    except yaml.YAMLError:
        return ("is not YAML",)
    differences = tuple(_differences(content, yaml.safe_load(text), ""))
    return differences or ("says the same in another form: order, layout or comments",)


def _differences(found: Any, wanted: Any, place: str) -> Iterator[str]:
    """Name each place where two contents differ."""
    if isinstance(found, dict) and isinstance(wanted, dict):
        for name in [*wanted, *(name for name in found if name not in wanted)]:
            below = f"{place}.{name}" if place else str(name)
            if name not in found:
                yield f"{below}: is missing, would be {_shown(wanted[name])}"
            elif name not in wanted:
                yield f"{below}: is {_shown(found[name])}, would not be there"
            else:
                yield from _differences(found[name], wanted[name], below)
    elif isinstance(found, list) and isinstance(wanted, list):
        yield from _listed(found, wanted, place)
    elif type(found) is not type(wanted) or found != wanted:
        yield f"{place or 'the document'}: is {_shown(found)}, would be {_shown(wanted)}"


def _listed(found: list[Any], wanted: list[Any], place: str) -> Iterator[str]:
    """Compare lists: by the names of their elements where all have one, else by position."""
    ours, theirs = _by_name(wanted), _by_name(found)
    if ours is not None and theirs is not None:
        yield from _differences(theirs, ours, place)
        return
    for number in range(max(len(found), len(wanted))):
        below = f"{place}[{number}]"
        if number >= len(found):
            yield f"{below}: is missing, would be {_shown(wanted[number])}"
        elif number >= len(wanted):
            yield f"{below}: is {_shown(found[number])}, would not be there"
        else:
            yield from _differences(found[number], wanted[number], below)


def _by_name(items: list[Any]) -> dict[str, Any] | None:
    """Give a list's elements by their names, where each has one of its own."""
    for key in ("name", "property", "server"):
        named = {item[key]: item for item in items if isinstance(item, dict) and isinstance(item.get(key), str)}
        if items and len(named) == len(items):
            return named
    return None


_LONGEST: Final = 60


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST - 1]}…"
