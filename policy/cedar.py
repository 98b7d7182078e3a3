"""Policy texts in Cedar: read, checked whole against the schema, and parsed once.

Three annotations say what a permit rests on; a permit without them is free:

    @redact("personal, financial") @style("pseudonym")   holds only of data from which these have been taken out
    @approval("privacy-office")                          holds only once somebody with this authority approved it
    @escalate("data-protection-officer")                 holds only once somebody with this authority overrode the rest

Every policy has an `@id`, which is its reason code. A forbid may carry `@approval` or `@escalate` too: it then has an
`unless { context.approved }` (or `context.overridden`), and the annotation says whose approval that is.
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, fields, is_dataclass
from pathlib import Path
from typing import Any, Final

import cedarpy
from cedarpy import pst

from evidence.canonical import sha256_hex
from evidence.errors import ConfigError
from policy.detection.kinds import CATEGORIES
from policy.files import read_text
from policy.monotone import opened_by_data
from policy.questions import Style

GUARDS: Final = Path(__file__).with_name("guards.cedar")
"""The built-in policies."""

_ID: Final = re.compile(r"[a-z0-9][a-z0-9_-]{0,63}")
_AUTHORITY: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_KNOWN: Final = ("id", "about", "redact", "style", "approval", "escalate")
_UNREAD: Final = re.compile(r'"(?:\\.|[^"\\])*"|//[^\n]*', re.DOTALL)
_BRACKET: Final = re.compile(r"[()\[\]{}]")
_OPERATOR: Final = re.compile(r"[.+*!<>-]|&&|\|\||==|\bif\b|\bhas\b|\blike\b|\bin\b|\bis\b")
_DEEPEST: Final = 50
"""Brackets within each other in one policy."""
_LONGEST: Final = 1000
"""Operators in one policy."""
_QUOTED: Final = re.compile(r"`([^`]{1,80})`|'([^']{1,80})'")
_EFFECT: Final = re.compile(r"(?:permit|forbid)\s*\(")
_BEGINS: Final = re.compile(rf"@id\b|{_EFFECT.pattern}")
_NO_WORD: Final = re.compile(r'entity `(\w+)::"[^`]*"` is of an enumerated entity type')
_NO_TYPE: Final = re.compile(r"the types (?:String and (\w+)|(\w+) and String) are not compatible")
_ENUMERATED: Final = re.compile(r"^entity (\w+) enum \[(.*)\];$", re.MULTILINE)
_STRING: Final = re.compile(r'(::|@\w+\(\s*)?"((?:\\.|[^"\\])*)"')
_NO_SCOPE: Final = "unable to find an applicable action given the policy scope constraints"
_TYPES: Final = {
    "principal": "Actor", "principal.kind": "ActorKind", "principal.identity": "Identity",
    "resource": "Route", "resource.provider": "Provider", "resource.region": "Region",
    "resource.encryption": "Encryption", "context.class": "Class", "context.purpose": "Purpose",
    "context.task": "Task", "context.basis": "Basis", "context.consent": "Consent",
}  # fmt: skip
"""What kind of word each name that policies read holds."""
_WORDS: Final = frozenset({*_TYPES.values(), "Category", "Kind", "Regulation"})
"""All kinds of words; one that is not among them is told by Cedar."""


@dataclass(frozen=True, slots=True)
class Source:
    """One file of policies."""

    name: str
    """What errors call it."""

    text: str
    """What it says."""


@dataclass(frozen=True, slots=True)
class Rule:
    """One policy, with what its annotations say."""

    id: str
    """Its reason code."""

    where: str
    """`file:line` of its beginning."""

    permits: bool
    """Whether it is a permit; else it is a forbid."""

    redact: frozenset[str]
    """Categories that must have been taken out for it to hold."""

    style: Style
    """How."""

    approval: str | None
    """Whose approval it rests on."""

    escalate: str | None
    """Whose override it rests on."""


class PolicySet:
    """All policies of a deployment, parsed once."""

    def __init__(self, sources: Sequence[Source], schema: str) -> None:
        """Read and check policies.

        Raises:
            ConfigError: a policy is not Cedar, names something that does not exist, or has a wrong annotation; all
                faults that were found, a line each, with file and line.
        """
        chunks = [chunk for source in sources for chunk in _split(source)]
        if not chunks:
            raise ConfigError("there are no policies: everything would be denied")
        text = "\n".join(chunk.text for chunk in chunks)
        self.schema = cedarpy.Schema.from_str(schema)
        words = {name: tuple(json.loads(f"[{listed}]")) for name, listed in _ENUMERATED.findall(schema)}
        faults = [*_annotation_faults(chunks), *_validate(text, self.schema, chunks, words)]
        if faults:
            raise ConfigError("\n  ".join(["policies that cannot be used:", *faults] if len(faults) > 1 else faults))
        self.parsed = cedarpy.PolicySet.from_str(text)
        self.rules = {f"policy{number}": _rule(chunk) for number, chunk in enumerate(chunks)}
        self.digest = sha256_hex(text.encode())
        self.reads = frozenset(name for chunk in chunks for name in _names_read(chunk.template))
        self.names_actors = any(str(uid.type) == "Actor" for chunk in chunks for uid in pst.entity_uids(chunk.template))

    def check_routes(self, routes: Collection[str]) -> None:
        """Refuse a policy that names a route which does not exist.

        Raises:
            ConfigError: with file and line.
        """
        for rule, uid in self._uids():
            if str(uid.type) == "Route" and uid.id not in routes:
                raise ConfigError(
                    f'{rule.where}: policy {rule.id}: Route::"{uid.id}" is none of the routes {", ".join(routes)}'
                )

    def _uids(self) -> Iterable[tuple[Rule, pst.EntityUid]]:
        for key, template in self.parsed.to_pst().static_policies.items():
            for uid in sorted(pst.entity_uids(template), key=str):
                yield self.rules[key], uid


@dataclass(frozen=True, slots=True)
class _Chunk:
    """One policy's text."""

    source: str
    line: int
    text: str
    template: pst.Template

    @property
    def where(self) -> str:
        return f"{self.source}:{self.line}"

    def place_of(self, message: str) -> str:
        """Give the line that a message of Cedar's speaks of: the first that holds a word which it quotes."""
        lines = self.text.split("\n")
        for quoted in _QUOTED.findall(message):
            word = "".join(quoted).strip('"')
            if re.fullmatch(r"policy\d+", word):
                continue
            for number, line in enumerate(lines):
                if re.search(rf"(?<!\w){re.escape(word)}(?!\w)", line):
                    return f"{self.source}:{self.line + number}"
        return self.where


def read(folder: Path) -> tuple[Source, ...]:
    """Read the built-in policies and all `*.cedar` files of a folder, in the order of their names.

    Raises:
        ConfigError: the folder or a file cannot be read, or there is none.
    """
    try:
        paths = sorted(path for path in folder.iterdir() if path.suffix == ".cedar")
    except OSError as error:
        raise ConfigError(f"cannot read the policies in {folder}: {error.strerror}") from error
    if not paths:
        raise ConfigError(f"{folder}: no *.cedar file is there, so that everything would be denied")
    return (
        Source("(built in)", read_text(GUARDS, "built-in policies")),
        *(Source(str(path), read_text(path, "policies")) for path in paths),
    )


def _split(source: Source) -> Iterable[_Chunk]:
    """Take a text apart into its policies, each with its line."""
    found_one = False
    for line, text in _statements(source.text):
        found_one = True
        if _too_large(text):
            raise ConfigError(f"{source.name}:{line}: this policy is nested too deeply or too long: write several")
        try:
            found = cedarpy.policies_to_pst(text)
        except ValueError as error:
            unended = _unended(text)
            if unended is not None:
                raise ConfigError(
                    f"{source.name}:{line + unended}: a `;` is missing at the end of this policy"
                ) from None
            raise ConfigError(f"{source.name}:{line}: not a Cedar policy: {error}") from None
        if found.templates or len(found.static_policies) != 1:
            raise ConfigError(f"{source.name}:{line}: templates are not used here: write `principal` and `resource`")
        (template,) = found.static_policies.values()
        yield _Chunk(source.name, line, text, template)
    if not found_one:
        raise ConfigError(f"{source.name}:1: no policy is in this file: write one, or remove the file")


def _unended(text: str) -> int | None:
    """Return the line, from 0, after which a policy should have ended: where another begins, or the file does."""
    lines = [_UNREAD.sub("", line).strip() for line in text.split("\n")]
    last, effect = 0, False
    for number, line in enumerate(lines):
        if effect and _BEGINS.match(line) and lines[last].endswith(("}", ")")) and lines[last][0] != "@":
            return last
        effect = effect or _EFFECT.match(line) is not None
        last = number if line else last
    return last if effect and lines[last].endswith(("}", ")")) else None


def _too_large(text: str) -> bool:
    """Say whether a policy is more than Cedar's parser has room for: it ends the process where its stack does."""
    bare = _UNREAD.sub(" ", text)
    depth = deepest = 0
    for bracket in _BRACKET.findall(bare):
        depth += 1 if bracket in "([{" else -1
        deepest = max(deepest, depth)
    return deepest > _DEEPEST or len(_OPERATOR.findall(bare)) > _LONGEST


def _statements(text: str) -> Iterable[tuple[int, str]]:
    """Give line and text of each statement: what ends with a `;` outside of strings and comments."""
    begun: int | None = None
    line = 1
    position = 0
    while position < len(text):
        char = text[position]
        if text.startswith("//", position):
            end = text.find("\n", position)
            position = len(text) if end < 0 else end
            continue
        if begun is None and not char.isspace():
            begun, first = position, line
        if char == '"':
            end = position + 1
            while end < len(text) and text[end] != '"':
                end += 2 if text[end] == "\\" else 1
            line += text.count("\n", position, end)
            position = end
        elif char == ";" and begun is not None:
            yield first, text[begun : position + 1]
            begun = None
        elif char == "\n":
            line += 1
        position += 1
    if begun is not None:
        yield first, text[begun:]


def _annotation_faults(chunks: Iterable[_Chunk]) -> Iterable[str]:
    seen: dict[str, str] = {}
    for chunk in chunks:
        noted = chunk.template.annotations
        identity = noted.get("id", "")
        if not _ID.fullmatch(identity):
            yield f'{chunk.where}: a policy needs an @id("..."), its reason code: lower case, digits, - and _'
        elif identity in seen:
            yield f"{chunk.where}: policy {identity} stands at {seen[identity]} already: give it another @id"
        seen.setdefault(identity, chunk.where)
        for fault in (*_faults(chunk), *_opened(chunk)):
            yield f"{chunk.where}: policy {identity}: {fault}"
        for fault in _unnamed(chunk.template):
            yield f"{chunk.where}: policy {identity}: {fault}"
        for name, kind in _mistaken(chunk.template):
            told = f"{name} is compared with a {kind}, and is a {_TYPES[name]}: that never holds"
            yield f"{chunk.where}: policy {identity}: {told}"


def _faults(chunk: _Chunk) -> Iterable[str]:
    noted, permits = chunk.template.annotations, chunk.template.effect == "permit"
    for name in noted:
        if name not in _KNOWN:
            yield f"unknown annotation @{name}; those are @{', @'.join(_KNOWN)}"
    for name in _categories(noted.get("redact", "")):
        if name not in CATEGORIES:
            yield f"@redact: {name or '(nothing)'} is nothing that detectors find; they find {', '.join(CATEGORIES)}"
    if "redact" in noted and not permits:
        yield "@redact belongs to a permit; a forbid says `unless { context.redacted.contains(...) }`"
    if "style" in noted and (noted["style"] not in list(Style) or "redact" not in noted):
        yield f"@style is one of {', '.join(Style)}, beside a @redact"
    for name in ("approval", "escalate"):
        if name in noted and not _AUTHORITY.fullmatch(noted[name]):
            yield f"@{name} names the authority that is asked, in one word"
    if {"approval", "escalate"} <= set(noted):
        yield "@approval and @escalate exclude each other"


def _opened(chunk: _Chunk) -> Iterable[str]:
    opened = opened_by_data(chunk.template)
    if opened is not None:
        yield (
            f"more data must never permit more: `context.{opened}` may be asked for in a forbid's `when`, "
            "or in a permit's `unless`"
        )


def _unnamed(template: pst.Template) -> Iterable[str]:
    """Give what is wrong between the annotation that names a person and the condition that this person fulfils."""
    read = set(_names_read(template))
    for note, name in (("approval", "context.approved"), ("escalate", "context.overridden")):
        noted = note in template.annotations
        if name in read and not noted:
            yield f"it reads {name}, and no @{note} says whose word that is"
        if noted and template.effect == "forbid" and name not in read:
            yield f"a forbid with @{note} needs `unless {{ {name} }}`: as it is, nobody can lift it"


def _mistaken(node: Any) -> Iterable[tuple[str, str]]:
    """Give what is compared with a word of another kind; Cedar's validator takes that for a policy like any other."""
    if isinstance(node, pst.BinaryOp) and node.op in {"eq", "not_eq", "in"}:
        for one, other in ((node.left, node.right), (node.right, node.left)):
            name = next(iter(_names_read(one)), "") if isinstance(one, pst.Var | pst.GetAttr) else ""
            others = other.elements if isinstance(other, pst.Set) else (other,)
            for word in others if name in _TYPES else ():
                kind = str(word.value.type) if isinstance(word, pst.EntityLit) else ""
                if kind in _WORDS and kind != _TYPES[name]:
                    yield name, kind
    for part in _parts(node):
        yield from _mistaken(part)


def _categories(text: str) -> frozenset[str]:
    return frozenset(name.strip() for name in text.split(",")) if text else frozenset()


def _validate(text: str, schema: Any, chunks: Sequence[_Chunk], words: Mapping[str, Sequence[str]]) -> Iterable[str]:
    found: dict[int, set[str]] = {}
    for error in cedarpy.validate_policies(text, schema).errors:
        number = error.policy_id.removeprefix("policy")
        if not number.isdigit():
            yield f"{chunks[0].source}: {error.error}"
            continue
        # A policy of several actions is checked for each of them, in any order, and one fault is told once.
        said = re.sub(r"for policy `policy\d+`[,:] | for Action::\"[^\"]*\"", "", error.error)
        found.setdefault(int(number), set()).add(said)
    for place, faults in sorted(found.items()):
        chunk = chunks[place]
        # Where an action does not exist, that none applies follows from it.
        telling = {said for said in faults if not said.endswith(_NO_SCOPE)} or faults
        for said in sorted(telling):
            where, better = _in_plain_words(said, chunk, words)
            yield f"{where}: policy {chunk.template.annotations.get('id', '(no id)')}: {better}"


def _in_plain_words(said: str, chunk: _Chunk, words: Mapping[str, Sequence[str]]) -> tuple[str, str]:
    """Return a fault's place, and its sentence with the words that are allowed, where it is about words."""
    place = chunk.place_of(said)
    if no_word := _NO_WORD.search(said):
        kind = no_word[1]
        return place, f"{no_word[0].split('`')[1]} does not exist: use {_listed(kind, words)}"
    if no_type := _NO_TYPE.search(said):
        kind = no_type[1] or no_type[2]
        texts = [text for before, text in _STRING.findall(chunk.text) if not before]
        known = [text for text in texts if text in words.get(kind, ())]
        meant = next(iter([*known, *texts]), "...")
        return chunk.place_of(f"`{meant}`"), f'a {kind} is not a text: write {kind}::"{meant}"'
    return place, said


def _listed(kind: str, words: Mapping[str, Sequence[str]]) -> str:
    known = [f'{kind}::"{word}"' for word in words.get(kind, ())]
    return " or ".join([", ".join(known[:-1]), known[-1]]) if len(known) > 1 else "".join(known)


def _rule(chunk: _Chunk) -> Rule:
    noted = chunk.template.annotations
    return Rule(
        id=noted["id"],
        where=chunk.where,
        permits=chunk.template.effect == "permit",
        redact=_categories(noted.get("redact", "")),
        style=Style(noted.get("style", Style.MASK)),
        approval=noted.get("approval"),
        escalate=noted.get("escalate"),
    )


def _names_read(node: Any) -> Iterable[str]:
    """Give what a policy reads, as `<variable>.<attribute>`; the bare variable where it is used as a whole."""
    if isinstance(node, pst.GetAttr | pst.HasAttr) and isinstance(node.base, pst.Var):
        names = (node.attr,) if isinstance(node, pst.GetAttr) else node.attrs[:1]
        yield from (f"{node.base.name}.{name}" for name in names)
    elif isinstance(node, pst.Var):
        yield node.name
    else:
        for part in _parts(node):
            yield from _names_read(part)


def _parts(node: Any) -> Iterable[Any]:
    if isinstance(node, tuple):
        yield from node
    elif isinstance(node, dict):
        yield from node.values()
    elif is_dataclass(node):
        yield from (getattr(node, field.name) for field in fields(node))
