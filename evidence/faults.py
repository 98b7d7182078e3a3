"""Faults of what somebody else wrote, in the words of its contract: one translation for requests, files and settings.

The validator's own sentences speak of Python ("Input should be a valid tuple"). Here each fault names its place and
what would be right there, and an unknown field the one that was probably meant. No sentence repeats a value.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from difflib import get_close_matches
from typing import Annotated, Any, Final, NamedTuple, get_args, get_origin

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails
from pydantic_core.core_schema import ErrorType

Place = tuple[str | int, ...]
"""Fields and positions, from the top."""


class Fault(NamedTuple):
    """One thing that is wrong."""

    place: Place
    """Where."""
    kind: str
    """The validator's name for it."""
    text: str
    """What would be right, as the rest of a sentence that begins with the place."""


_TEXT: Final = "must be a text"
_NUMBER: Final = "must be a number"
_WHOLE: Final = "must be a whole number"
_LIST: Final = "must be a list"
_OBJECT: Final = "must be an object: names with values"
_TIME: Final = "must be a time in UTC, such as 2026-04-01T09:00:00Z"
_DAY: Final = "must be a day, such as 2026-04-01"
_SAID: Final[Mapping[str, str]] = {
    "missing": "is missing",
    "extra_forbidden": "unknown field",
    "model_type": _OBJECT, "model_attributes_type": _OBJECT, "dict_type": _OBJECT, "mapping_type": _OBJECT,
    "dataclass_type": _OBJECT, "invalid_key": "must have texts as names",
    "none_required": "must be null", "bool_type": "must be true or false", "bool_parsing": "must be true or false",
    "string_type": _TEXT, "string_unicode": _TEXT, "string_too_short": "must have {min_length} characters or more",
    "string_too_long": "may have {max_length} characters at most", "string_pattern_mismatch": "must match {pattern}",
    "int_type": _WHOLE, "int_parsing": _WHOLE, "int_parsing_size": _WHOLE, "int_from_float": _WHOLE,
    "float_type": _NUMBER, "float_parsing": _NUMBER, "finite_number": "must be a finite number",
    "decimal_type": _NUMBER, "decimal_parsing": _NUMBER,
    "greater_than": "must be more than {gt}", "greater_than_equal": "must be {ge} or more",
    "less_than": "must be less than {lt}", "less_than_equal": "must be {le} or less",
    "multiple_of": "must be a multiple of {multiple_of}",
    "tuple_type": _LIST, "list_type": _LIST, "set_type": _LIST, "frozen_set_type": _LIST, "iterable_type": _LIST,
    "too_short": "must list {min_length} or more", "too_long": "may list {max_length} at most",
    "enum": "must be {expected}", "literal_error": "must be {expected}",
    "date_type": _DAY, "date_parsing": _DAY, "date_from_datetime_parsing": _DAY, "date_from_datetime_inexact": _DAY,
    "datetime_type": _TIME, "datetime_parsing": _TIME, "datetime_object_invalid": _TIME,
    "datetime_from_date_parsing": _TIME, "timezone_aware": _TIME, "timezone_offset": _TIME,
    "json_invalid": "is not JSON", "json_type": "is not JSON", "recursion_depth_exceeded": "is nested too deeply",
}  # fmt: skip
"""By the validator's name for a fault; braces hold what it knows of the bound."""

_FORMS: Final[Mapping[str, str]] = {
    r"^[a-z0-9][a-z0-9._-]{0,63}$": "must be lower-case letters, digits, `.`, `_` and `-`, 64 at most",
    r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$": "must be letters, digits, `.`, `_` and `-`, 64 at most",
    r"^[a-z0-9][a-z0-9-]{0,62}$": "must be lower-case letters, digits and `-`, 63 at most",
    r"^(\*|[a-z0-9][a-z0-9-]{0,62})$": "must be `*`, or lower-case letters, digits and `-`, 63 at most",
    r"^[!-~]+$": "must be printable ASCII without blanks",
}
"""What patterns mean."""

_OWN: Final = frozenset(get_args(ErrorType)) - {"value_error", "assertion_error"}
"""Faults that the validator tells in its own words; the others are told by this program's."""

_PREFIX: Final = re.compile(r"^(?:Value error|Assertion failed), ")
_WORDS: Final = re.compile(r"[^a-z0-9]")
_CLOSE: Final = 0.75


def faults(error: ValidationError, model: Any = None, hints: Mapping[str, str] | None = None) -> list[Fault]:
    """Return what is wrong, in the words of the contract, in the order in which it was found.

    Args:
        error: what the validator says.
        model: the model that was asked for; its fields are what an unknown one may have been meant as.
        hints: what to say of unknown fields, by name in lower case without `_`.
    """
    details = error.errors(include_url=False)
    below = {place[:size] for item in details for place in (item["loc"],) for size in range(len(place))}
    found = []
    meant: set[Place] = set()
    for item in details:
        place = tuple(item["loc"])
        # A list whose parts are wrong counts as empty to the validator: that is no second fault.
        if item["type"] == "too_short" and place in below:
            continue
        text = sentence(item)
        if item["type"] == "extra_forbidden":
            text, likely = _unknown(place, model, hints or {})
            meant |= likely
        found.append(Fault(place, item["type"], text))
    return [fault for fault in found if not (fault.kind == "missing" and fault.place in meant)]


def sentence(item: ErrorDetails) -> str:
    """Return one fault in the words of the contract."""
    kind, context = item["type"], item.get("ctx", {})
    if kind not in _OWN:
        return _PREFIX.sub("", item["msg"])
    if kind == "string_too_short" and context["min_length"] == 1:
        return "must not be empty"
    if kind == "string_type" and isinstance(item["input"], list):
        return "must be a text, and not a list"
    if kind == "string_pattern_mismatch" and context["pattern"] in _FORMS:
        return _FORMS[context["pattern"]]
    bounds = {
        name: int(bound) if isinstance(bound, float) and bound.is_integer() else bound
        for name, bound in context.items()
    }
    return _SAID.get(kind, "has a form that is not taken here").format(**bounds)


def nearest(name: str, known: Sequence[str]) -> str | None:
    """Return the known name that was probably meant, whatever its case and its `_`; None where none is close."""
    plain = {_WORDS.sub("", one.lower()): one for one in reversed(known)}
    found = get_close_matches(_WORDS.sub("", name.lower()), list(plain), n=1, cutoff=_CLOSE)
    return plain[found[0]] if found else None


def _unknown(place: Place, model: Any, hints: Mapping[str, str]) -> tuple[str, set[Place]]:
    """Say what an unknown field was probably meant as, and give the places that it may have been meant for."""
    name = str(place[-1])
    hint = hints.get(_WORDS.sub("", name.lower()))
    if hint is not None:
        return f"unknown field; {hint}", set()
    here = [one for part in _at(model, place[:-1]) for one in _names(part)]
    meant = nearest(name, here)
    if meant is not None:
        return f"unknown field; did you mean {meant}?", {(*place[:-1], meant)}
    same = _WORDS.sub("", name.lower())
    elsewhere = next((path for path in _paths(model) if _WORDS.sub("", path[-1].lower()) == same), None)
    if elsewhere is not None and len(place) == 1:
        return f"unknown field; it is {'.'.join(elsewhere)}", set()
    return "unknown field", set()


def _names(model: type[BaseModel]) -> Iterator[str]:
    for name, field in model.model_fields.items():
        yield field.alias or name


def _at(model: Any, place: Place) -> list[type[BaseModel]]:
    """Return the models that describe what stands at a place."""
    here = _models(model)
    for part in place:
        if isinstance(part, int):
            continue
        fields = [
            field.annotation for one in here for name, field in one.model_fields.items() if part in {name, field.alias}
        ]
        if fields:  # else it is a name in a mapping, or one that the validator gives to a part of a union
            here = [found for annotation in fields for found in _models(annotation)]
    return here


def _models(annotation: Any) -> list[type[BaseModel]]:
    if isinstance(annotation, type) and get_origin(annotation) is None:
        return [annotation] if issubclass(annotation, BaseModel) else []
    parts = get_args(annotation)
    return [found for part in (parts[:1] if get_origin(annotation) is Annotated else parts) for found in _models(part)]


def _paths(model: Any, before: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    for one in _models(model):
        for name, field in one.model_fields.items():
            path = (*before, field.alias or name)
            yield path
            if len(path) < 4:  # noqa: PLR2004 - deeper than any contract
                yield from _paths(field.annotation, path)
