"""Named questions: SQL files whose first lines say what they ask.

    -- title: What left the building
    -- about: One row for each intended call to a hosted model.
    -- param: since moment = null

Where `/* site */` stands, the column `site` is put when several sites are asked.

A parameter is `name type` with an optional `= default`; without one it must be given. Types: `text`, `integer`,
`number`, `moment` (RFC 3339, or `12h` or `30d` ago). Parameters are bound as `$name`, never pasted into the text.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib import resources
from typing import Any, Final

from evidence.errors import ConfigError
from queries.errors import QueryError
from queries.moments import moment

TYPES: Final = ("text", "integer", "number", "moment")
"""What a parameter can be."""

_KINDS: Final = {
    "integer": "a whole number",
    "number": "a number",
    "moment": "a time such as 2026-04-01T00:00:00Z, or how long ago, such as 12h or 30d",
    "text": "a text",
}

_HEADER: Final = re.compile(r"--\s*(?P<key>\w+):\s*(?P<value>.*\S)\s*")
_SITE: Final = re.compile(r"/\* ((?:\w+\.)?site) \*/")
"""Where the column `site` goes when several sites are asked."""
_PARAM: Final = re.compile(r"(?P<name>[a-z_]+)\s+(?P<type>[a-z]+)(?:\s*=\s*(?P<default>.+))?")


@dataclass(frozen=True, slots=True)
class Parameter:
    """One value that a question takes."""

    name: str
    """Its name, written `$name` in the SQL."""

    type: str
    """One of `TYPES`."""

    required: bool
    """Whether it must be given."""

    default: Any = None
    """Its value where it is not given."""

    def value(self, text: str, now: datetime | None = None) -> Any:
        """Return the value that a text stands for; `null` stands for none, and `12h` is before `now`.

        Raises:
            QueryError: the text is not of the parameter's type.
        """
        if text == "null":
            return None
        try:
            match self.type:
                case "integer":
                    return int(text)
                case "number":
                    return float(text)
                case "moment":
                    return moment(text, now or datetime.now(UTC))
                case _:
                    return text
        except ValueError:
            raise QueryError(f"{self.name}: {text!r} is not {_KINDS[self.type]}") from None


@dataclass(frozen=True, slots=True)
class Question:
    """A question that has a name."""

    name: str
    """How to ask for it: the file's name."""

    title: str
    """What it asks, as a heading."""

    about: str
    """What its rows mean."""

    parameters: tuple[Parameter, ...]
    """Its parameters, in order."""

    sql: str
    """The SELECT that answers it."""

    @property
    def sql_by_site(self) -> str:
        """The same SELECT over several sites: its rows say which, and are counted site by site."""
        return _SITE.sub(r"\1,", self.sql)

    def bind(self, given: Mapping[str, str] | None = None) -> dict[str, Any]:
        """Give the values of all parameters.

        Args:
            given: their texts, by name.

        Raises:
            QueryError: one is missing, unknown, or not of its type.
        """
        given = given or {}
        known = {parameter.name: parameter for parameter in self.parameters}
        if unknown := sorted(set(given) - set(known)):
            told = ", ".join(known) or "none"
            raise QueryError(f"{self.name} has no parameter {', '.join(unknown)}; it has: {told}")
        if missing := [name for name, parameter in known.items() if parameter.required and name not in given]:
            example = " ".join(f"{name}={'ID' if name.endswith('_id') else 'VALUE'}" for name in missing)
            needs = "a parameter" if len(missing) == 1 else "parameters"
            raise QueryError(f"{self.name} needs {needs}: waybill ask {self.name} {example}")
        return {
            name: parameter.value(given[name]) if name in given else parameter.default
            for name, parameter in known.items()
        }


def read(name: str, text: str) -> Question:
    """Read a question from the text of its file.

    Raises:
        ConfigError: a header is unknown, twice there or missing, or the declared parameters are not the used ones.
    """
    told: dict[str, str] = {}
    parameters: list[Parameter] = []
    lines = text.splitlines()
    while lines and lines[0].startswith("--"):
        line = lines.pop(0)
        header = _HEADER.fullmatch(line)
        key = header["key"] if header else ""
        if header and key == "param":
            parameters.append(_parameter(name, header["value"]))
        elif header and key in {"title", "about"} and key not in told:
            told[key] = header["value"]
        else:
            raise ConfigError(f"question {name}: {line!r} is no header; known: title, about (each once), param")
    sql = "\n".join(lines).strip()
    if missing := [key for key in ("title", "about") if key not in told]:
        raise ConfigError(f"question {name}: the header {missing[0]} is missing")
    declared, used = {parameter.name for parameter in parameters}, set(re.findall(r"\$([a-z_]+)", sql))
    if declared != used or len(declared) != len(parameters):
        raise ConfigError(f"question {name}: declares the parameters {sorted(declared)} and uses {sorted(used)}")
    return Question(name, told["title"], told["about"], tuple(parameters), sql)


def load() -> dict[str, Question]:
    """Give every question that comes with the program, by name.

    Raises:
        ConfigError: one of the files is wrong.
    """
    files = resources.files("queries").joinpath("sql").iterdir()
    names = sorted((file.name.removesuffix(".sql"), file) for file in files if file.name.endswith(".sql"))
    return {name: read(name, file.read_text(encoding="utf-8")) for name, file in names}


def _parameter(question: str, text: str) -> Parameter:
    match = _PARAM.fullmatch(text)
    if match is None or match["type"] not in TYPES:
        raise ConfigError(f"question {question}: {text!r} is no parameter; write `name type [= default]`")
    parameter = Parameter(match["name"], match["type"], required=match["default"] is None)
    if match["default"] is None:
        return parameter
    return Parameter(match["name"], match["type"], required=False, default=parameter.value(match["default"]))
