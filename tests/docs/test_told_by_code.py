"""What the code tells stands on its page as the code tells it now."""

from __future__ import annotations

import re

import pytest
from doc_pages import DOCS, PARTS, commands, fields, help_text, part

from evidence.records import EvidenceEvent
from inference.routes import RouteTable
from policy.contract import Waybill
from streams.request import RuntimeRequest
from streams.response import DeadLetter, Response
from waybill.endpoints import EndpointConfig
from waybill.settings import Settings

HOW = "run: PYTHONPATH=tests/support .venv/bin/python -m doc_pages"


@pytest.mark.parametrize(("page", "name"), PARTS, ids=lambda value: value)
def test_each_part_is_what_the_code_tells(page, name):
    """Tables of fields, settings, topics and questions, and all help texts, are up to date."""
    assert part(page, name) == PARTS[page, name](), HOW


def test_every_part_of_a_page_is_known():
    """No page has a part that nothing writes anew."""
    found = {
        (page.name, name)
        for page in DOCS.glob("*.md")
        for name in re.findall(r"^<!-- from the code: (.+) -->$", page.read_text(encoding="utf-8"), flags=re.MULTILINE)
    }
    assert found == set(PARTS)


def test_every_field_says_what_it_is():
    """Each field of each documented record has a sentence of its own."""
    for model in (RuntimeRequest, Response, DeadLetter, EvidenceEvent, Waybill, RouteTable, Settings, EndpointConfig):
        for name, _, _, meaning in fields(model):
            assert meaning.endswith((".", "`.")), f"{model.__name__}: {name}"


@pytest.mark.parametrize("command", commands())
def test_every_command_shows_an_example(command):
    """The help of each command ends in one that can be typed, and begins with that command."""
    assert re.search(rf"Example: waybill {command}\b", help_text(command)), command
