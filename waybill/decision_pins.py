"""What decision records pin, taken from the running configuration; and new digests put into a record's text."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any, Final

import yaml

from evidence.canonical import canonical_json, sha256_hex
from evidence.errors import ConfigError
from inference import rulebook
from inference.routes import RouteConfig, RouteTable
from policy.files import Document
from policy.placement.records import RouteFacts
from waybill.settings import Settings

_ZEROS: Final = "sha256:" + "0" * 64
"""Stands in a new record until it is pinned."""


def current_policy_digest(settings: Settings) -> str | None:
    """Give the digest of the policy that decides under these settings, as `sha256:<64 hex digits>`.

    It covers labels, policies and retention rules, and is what `pins.policy` of a decision record is compared with.
    None means that there is no policy of which a digest could be made; then the pins of policies are not compared.

    Raises:
        ConfigError: the policy cannot be read.
    """
    folder = settings.policy_folder()
    return policy_digest(folder, settings) if folder.is_dir() else None


def policy_digest(folder: Path, settings: Settings) -> str:
    """Give the digest of the policies of a folder.

    Raises:
        ConfigError: a file cannot be read.
    """
    return rulebook.read(folder, settings.routes).policy_digest


def price_digest(route: RouteConfig) -> str:
    """Give the digest of a route's price and limits, as `sha256:<64 hex digits>`.

    It covers `price`, `max_tokens` and `timeout_s`, as canonical JSON (RFC 8785) in which numbers with a fraction are
    text, so that every party writes them alike: 10, 10.0 and 1e1 are all `10`.
    """
    price = {name: _number(value) for name, value in route.price.model_dump(exclude_none=True).items()}
    limits = {"max_tokens": route.max_tokens, "timeout_s": _number(route.timeout_s)}
    return "sha256:" + sha256_hex(canonical_json({"price": price, "limits": limits}))


def file_digest(path: Path) -> str:
    """Give the digest of a file, as `sha256:<64 hex digits>`.

    Raises:
        ConfigError: it cannot be read.
    """
    try:
        with path.open("rb") as file:
            return "sha256:" + hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise ConfigError(f"cannot read the artifact {path}: {error.strerror}") from error


def route_facts(route: RouteConfig, artifact_digest: str | None = None) -> RouteFacts:
    """Give what a decision record is compared with.

    Args:
        route: the route as it is configured.
        artifact_digest: the digest of its weights, where somebody has looked.
    """
    return RouteFacts(
        name=route.name,
        placement=route.placement,
        model=route.model,
        region=route.region,
        price_digest=price_digest(route),
        artifact_digest=artifact_digest,
    )


def table_facts(table: RouteTable, artifacts: Mapping[str, Path] | None = None) -> tuple[RouteFacts, ...]:
    """Give the facts of every route.

    Args:
        table: the route table.
        artifacts: files of weights to look at, by route.

    Raises:
        ConfigError: an artifact cannot be read, or is of no route.
    """
    artifacts = artifacts or {}
    if unknown := sorted(set(artifacts) - set(table.by_name)):
        raise ConfigError(f"there is no route {unknown[0]} in the route table, so that it has no artifact")
    digests = {name: file_digest(path) for name, path in artifacts.items()}
    return tuple(route_facts(route, digests.get(route.name)) for route in table.routes)


@dataclass(frozen=True, slots=True)
class Change:
    """A digest that became another one."""

    line: int
    """Its line, from 1."""
    place: str
    """The field, such as `pins.price`."""
    old: str
    """What stood there; empty where a line was added."""
    new: str
    """What stands there now."""


def repin(text: str, source: str, facts: RouteFacts, policy_digest: str | None) -> tuple[str, tuple[Change, ...]]:
    """Put today's digests into the text of a record; everything else stays as it was, comments and layout included.

    A policy that is new comes first in its list and the others move down by one, so that a rollback to the one before
    starts. A list of one grows by a line for it; a longer list keeps its length, and its last digest goes.

    Args:
        text: the record.
        source: what errors call it.
        facts: what the route is; its artifact is pinned only where somebody has looked at it.
        policy_digest: the policy that decides; None leaves the list alone.

    Returns:
        The new text, and what changed in it.

    Raises:
        ConfigError: it is not YAML, or has no place for a digest.
    """
    document = Document(text, source)
    top = yaml.compose(text, Loader=yaml.SafeLoader)
    places: dict[tuple[str, ...], str | None] = {
        ("pins", "artifact", "digest"): facts.artifact_digest,
        ("pins", "price"): facts.price_digest,
    }
    edits = [
        _replaced(_scalar(document, _at(document, top, place), place), ".".join(place), new)
        for place, new in places.items()
        if new is not None
    ]
    if policy_digest is not None:
        edits += _policies(document, top, policy_digest, text)
    edits = sorted((edit for edit in edits if edit.change.old != edit.change.new), key=lambda edit: edit.start)
    for edit in reversed(edits):
        text = text[: edit.start] + edit.new + text[edit.end :]
    return text, tuple(edit.change for edit in edits)


@dataclass(frozen=True, slots=True)
class _Edit:
    start: int
    end: int
    new: str
    change: Change


def _replaced(node: yaml.ScalarNode, place: str, digest: str) -> _Edit:
    change = Change(node.start_mark.line + 1, place, node.value, digest)
    return _Edit(node.start_mark.index, node.end_mark.index, digest, change)


def write(path: Path, text: str) -> None:
    """Replace a file in one step, so that whoever reads it sees the old text or the new one.

    Raises:
        ConfigError: it cannot be written.
    """
    part = path.with_name(f".{path.name}.part")
    try:
        part.write_bytes(text.encode())
        shutil.copymode(path, part)
        part.replace(path)
    except OSError as error:
        raise ConfigError(f"cannot write {path}: {error.strerror}") from error
    finally:
        part.unlink(missing_ok=True)


def _policies(document: Document, top: Any, digest: str, text: str) -> Iterator[_Edit]:
    place = ("pins", "policy")
    listed = _at(document, top, place)
    if not isinstance(listed, yaml.SequenceNode) or not listed.value:
        raise document.error(place, "must be a list of digests, so that one can be put there")
    nodes = [_scalar(document, node, place) for node in listed.value]
    old = [node.value for node in nodes]
    if digest in old:
        return
    for number, (node, value) in enumerate(zip(nodes, [digest, *old], strict=False)):
        yield _replaced(node, f"pins.policy.{number}", value)
    if len(nodes) == 1 and old[0] != _ZEROS:
        yield _added(listed, old[0], text)


def _added(listed: yaml.SequenceNode, digest: str, text: str) -> _Edit:
    """Give a second entry of a list of one, in the list's own style."""
    end = listed.value[0].end_mark
    if listed.flow_style:
        return _Edit(end.index, end.index, f", {digest}", Change(end.line + 1, "pins.policy.1", "", digest))
    stop = text.find("\n", end.index)
    stop = len(text) if stop < 0 else stop - text[:stop].endswith("\r")
    line_end = "\r\n" if "\r\n" in text else "\n"
    new = f"{line_end}{' ' * listed.start_mark.column}- {digest}"
    return _Edit(stop, stop, new, Change(end.line + 2, "pins.policy.1", "", digest))


def _at(document: Document, top: Any, place: tuple[str, ...]) -> Any:
    node = top
    for name in place:
        found = [value for key, value in node.value if key.value == name] if isinstance(node, yaml.MappingNode) else []
        if not found:
            raise document.error(place, "is not there, so that nothing can be pinned: write it with a digest of zeros")
        node = found[0]
    return node


def _scalar(document: Document, node: Any, place: tuple[str, ...]) -> yaml.ScalarNode:
    # A text over several lines, or an empty one, has no one place that a digest could take.
    if not isinstance(node, yaml.ScalarNode) or not node.value or node.start_mark.line != node.end_mark.line:
        raise document.error(place, "holds no digest that could be replaced: write `sha256:` and 64 zeros there")
    return node


def _number(value: float) -> str:
    text = format(Decimal(repr(float(value))).normalize(), "f")
    return "0" if text == "-0" else text
