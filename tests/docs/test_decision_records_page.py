"""The page on decision records says what the form, the commands and the shipped records say."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from textwrap import dedent

import pytest
import yaml
from doc_pages import DOCS, END, ROOT, codes, field_table, fields, read_table

from inference.routes import load as load_routes
from policy.placement.form import LONGEST_REVIEW_DAYS, Assumed, Considered, DecisionRecord, Pins
from policy.placement.pages import NUMBERS
from policy.placement.records import load

PAGE = (DOCS / "decision-records.md").read_text(encoding="utf-8")
RECORDS = ROOT / "config" / "decisions"
PARTS = {
    "fields": lambda: field_table(DecisionRecord, Considered, Assumed),
    "question": lambda: field_table(Considered),
    "number": lambda: field_table(Assumed),
}


@pytest.mark.parametrize("name", PARTS)
def test_the_tables_of_fields_are_those_of_the_form(name):
    """Each field of a record is on the page, with its type and meaning."""
    assert PAGE.partition(f"<!-- {name} -->\n")[2].partition(END)[0].strip() == PARTS[name]()


def test_every_field_has_a_sentence():
    """Each field of the form says what it is."""
    assert all(meaning.endswith(".") for _, _, _, meaning in fields(DecisionRecord))


def test_every_number_and_every_pin_is_explained():
    """What drift measures and what a check compares is listed, each once and no more."""
    assert codes(read_table("decision-records.md", "## Drift")) == list(NUMBERS)
    pins = [name.removeprefix("pins.") for name in codes(read_table("decision-records.md", "## Pins"))]
    assert pins == list(Pins.model_fields)


def test_the_answered_question_is_a_shipped_one():
    """The example stands in a shipped record as it stands on the page."""
    name, shown = re.search(r"<!-- example: (config/\S+) -->\n\n```yaml\n(.+?)```", PAGE, flags=re.DOTALL).groups()
    assert shown in (ROOT / name).read_text(encoding="utf-8")
    assert set(yaml.safe_load(dedent(shown))["offline_fallback"]) == set(Considered.model_fields)


def test_the_shown_check_is_of_the_shipped_records():
    """The lines are those of the shipped routes, in their order, with the date of each review."""
    shown = PAGE.partition("<!-- example: check -->")[2].partition("```text\n")[2].partition("```")[0].splitlines()
    records = load(RECORDS).whole()
    expected = [
        f"{route.name}: accepted, review by {records[route.name].review_by} "
        for route in load_routes(ROOT / "config" / "routes.yaml").routes
    ]
    assert [line.partition("(")[0] for line in shown] == expected


def test_the_longest_review_is_told():
    """The page names the days that may lie between a decision and its review."""
    assert f"at most {LONGEST_REVIEW_DAYS} days after `decided`" in PAGE


def test_what_the_page_calls_a_placeholder_is_one():
    """Each example of a placeholder is refused by the form."""
    examples = re.search(r"a placeholder \((.+?)\)", PAGE)
    assert examples
    for word in re.findall(r"`([^`]+)`", examples[1]):
        with pytest.raises(ValueError, match="placeholder"):
            Considered(constraint=word, assumption="Labels are honest.", trade_off="Some texts stay here.")


def test_shipped_records_are_due_together_with_a_sentence_each():
    """The shipped records are accepted, decided in the past, and reviewed on one day."""
    records = load(RECORDS).whole().values()
    assert {record.status for record in records} == {"accepted"}
    assert all(record.decided <= datetime.now(UTC).date() for record in records)
    assert len({record.review_by for record in records}) == 1
