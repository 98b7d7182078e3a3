"""Moments as the contracts write them: RFC 3339 with `T`, `Z` and a point, such as `2026-04-01T09:00:00.250Z`."""

from __future__ import annotations

import re
from datetime import datetime
from typing import Annotated, Any, Final

from pydantic import GetCoreSchemaHandler, GetJsonSchemaHandler
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import PydanticCustomError, core_schema

_YEAR: Final = "(?:[0-9]{3}[1-9]|[0-9]{2}[1-9]0|[0-9][1-9]00|[1-9]000)"
_LEAP_YEAR: Final = "(?:[0-9]{2}(?:0[48]|[2468][048]|[13579][26])|(?:0[48]|[2468][048]|[13579][26])00)"
_DAY: Final = (
    "(?:(?:0[13578]|1[02])-(?:0[1-9]|[12][0-9]|3[01])|(?:0[469]|11)-(?:0[1-9]|[12][0-9]|30)"
    "|02-(?:0[1-9]|1[0-9]|2[0-8]))"
)
_TIME: Final = r"(?:[01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9](?:\.[0-9]{1,9})?"

MOMENT_PATTERN: Final = f"^(?:{_YEAR}-{_DAY}|{_LEAP_YEAR}-02-29)T{_TIME}Z$"
"""Exactly the texts that are moments, in the syntax that JSON Schema uses: years 0001 to 9999, no leap seconds."""

_MOMENT: Final = re.compile(MOMENT_PATTERN[1:-1])
_SHOWN: Final = "such as 2026-04-01T09:00:00Z"
_FAULTS: Final = (
    (re.compile(r"-?[0-9]+(?:\.[0-9]+)?"), f"must be a time {_SHOWN}, and not a number"),
    (re.compile(r".+[Tt ].+[+-][0-9]{2}:?[0-9]{2}", re.DOTALL), f"must be in UTC and end in `Z`, {_SHOWN}"),
    (re.compile(r".+[Tt ][0-9:.,]+", re.DOTALL), f"must name its time zone: end in `Z`, {_SHOWN}"),
    (re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}"), f"must have a time and its time zone beside the day, {_SHOWN}"),
    (re.compile(r".+,[0-9]+Z", re.DOTALL), "must have a point before the fraction of a second, as 09:00:00.5Z"),
    (re.compile(r".+\.[0-9]{10,}Z", re.DOTALL), "may have nine digits of a second's fraction at most"),
    (re.compile(r".+:60(?:\.[0-9]+)?Z", re.DOTALL), "must not be a leap second: write second 59"),
    (re.compile(r"[0-9-]{8,}(?:[t ][0-9:.]+[Zz]|T[0-9:.]+z)"), "must have `T` before the time and `Z` at its end"),
    (re.compile(r"[0-9-]{10}T[0-9:]{8}(?:\.[0-9]*)?Z"), "must be a day and a time that exist"),
)  # fmt: skip
"""Near misses, each with what would be right; the first that fits is told."""


def parse_moment(text: str) -> datetime:
    """Read a moment; digits beyond microseconds are cut.

    Raises:
        ValueError: it has another form; the text says which is right, and never repeats it.
    """
    if _MOMENT.fullmatch(text) is None:
        raise ValueError(_fault(text))
    return datetime.fromisoformat(text)


def _fault(text: str) -> str:
    near = text[:64]
    return next((said for form, said in _FAULTS if form.fullmatch(near)), f"must be a time {_SHOWN}")


class _Written:
    """In JSON exactly the form; in Python a `datetime` in UTC."""

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> core_schema.CoreSchema:
        del source, handler
        return core_schema.json_or_python_schema(
            json_schema=core_schema.no_info_plain_validator_function(_of_json),
            python_schema=core_schema.datetime_schema(tz_constraint=0),
        )

    def __get_pydantic_json_schema__(
        self, schema: core_schema.CoreSchema, handler: GetJsonSchemaHandler
    ) -> JsonSchemaValue:
        del schema, handler
        return {"type": "string", "format": "date-time", "pattern": MOMENT_PATTERN}


def _of_json(value: object) -> datetime:
    if not isinstance(value, str):
        raise PydanticCustomError("moment", "must be a time {shown}, as a text", {"shown": _SHOWN})
    try:
        return parse_moment(value)
    except ValueError as error:
        raise PydanticCustomError("moment", "{said}", {"said": str(error)}) from None


Moment = Annotated[datetime, _Written()]
"""A moment that somebody else writes: what is not exactly in the form is an error."""
