"""Faults in the words of the contract: no sentence of the validator's own reaches anybody."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Any, Literal

import pytest
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from pydantic_core import InitErrorDetails
from pydantic_core._pydantic_core import list_all_errors

from evidence.faults import faults, nearest

ROOT = Path(__file__).resolve().parents[2]
OTHERS_WORDS = re.compile(
    r"Extra inputs|Input should|Field required|Tuple should|List should|String should|Value error|Assertion failed"
    r"|validat|valid |pydantic|dictionary|parse|NoneType|instance"
)
"""Phrases of the validator."""


class Inner(BaseModel):
    """A part."""

    model_config = ConfigDict(extra="forbid")
    key_file: str = ""
    parts: tuple[Annotated[int, Field(ge=0)], ...] = Field(default=(1,), min_length=1)


class Outer(BaseModel):
    """A whole, with parts in a list, in a mapping and by itself."""

    model_config = ConfigDict(extra="forbid")
    kind: Literal["a", "b"]
    by_name: dict[str, Inner] = Field(default_factory=dict)
    listed: tuple[Inner, ...] = ()
    one: Inner | None = None


def told(content: Any) -> list[tuple[str, str]]:
    """What is wrong, by place."""
    with pytest.raises(ValidationError) as caught:
        Outer.model_validate(content)
    return [(".".join(map(str, fault.place)), fault.text) for fault in faults(caught.value, Outer)]


@pytest.mark.parametrize("known", list_all_errors(), ids=lambda one: one["type"])
def test_every_fault_that_the_validator_knows_is_translated(known: Any) -> None:
    """Each of its kinds of faults has a sentence in the words of the contract."""
    if known["type"] in {"value_error", "assertion_error"}:
        context: Any = {"error": ValueError("must be even")}
    else:
        context = {name: 0 if value is None else value for name, value in (known["example_context"] or {}).items()}
    line: InitErrorDetails = {"type": known["type"], "loc": ("a",), "input": 1, "ctx": context}
    error = ValidationError.from_exception_data("Outer", [line])
    (fault,) = faults(error, Outer)
    assert not OTHERS_WORDS.search(fault.text)
    assert "{" not in fault.text


def test_unknown_field_is_told_with_the_one_that_was_meant() -> None:
    """In a list, in a mapping and by itself, whatever its case and its `_`; and the field meant is not missing too."""
    assert told({"knd": "a"}) == [("knd", "unknown field; did you mean kind?")]
    for content in ({"by_name": {"x": {"KEYFILE": ""}}}, {"listed": [{"keyFile": ""}]}, {"one": {"key-file": ""}}):
        ((place, text),) = told({"kind": "a", **content})
        assert text == "unknown field; did you mean key_file?"
        assert place.lower().replace("-", "").endswith("keyfile")
    assert told({"kind": "a", "zebra": 1}) == [("zebra", "unknown field")]


def test_list_whose_parts_are_wrong_is_not_empty_as_well() -> None:
    """A fault of a part is one fault; a list that is empty is told as such."""
    assert told({"kind": "a", "one": {"parts": [-1]}}) == [("one.parts.0", "must be 0 or more")]
    assert told({"kind": "a", "one": {"parts": []}}) == [("one.parts", "must list 1 or more")]


def test_nothing_is_meant_by_what_is_far_from_every_name() -> None:
    """A name is proposed only where it is close."""
    assert nearest("WEB_PROT", ["web_port", "web_host"]) == "web_port"
    assert nearest("colour", ["web_port", "web_host"]) is None


def test_no_other_place_repeats_the_validator() -> None:
    """Only the translation, and the one that takes the place of a fault in JSON from it, read the validator's text."""
    readers = [
        f"{path.relative_to(ROOT)}"
        for folder in ("evidence", "policy", "inference", "streams", "queries", "waybill")
        for path in sorted((ROOT / folder).rglob("*.py"))
        if re.search(r"""\[["']msg["']\]""", path.read_text(encoding="utf-8"))
    ]
    assert readers == ["evidence/faults.py", "streams/request.py"]
