"""The page on consent: its example runs as it stands there, and its tables are the code's."""

from __future__ import annotations

import asyncio
from typing import get_args

import pytest
from command_rig import Commands
from console_examples import DOCS, examples, plain
from topic_rig import topics

from streams.consent import ConsentEntry, State
from streams.envelope import CONSENT_TYPE
from waybill.cli import consent

PAGE = (DOCS / "consent.md").read_text(encoding="utf-8")


@pytest.mark.kafka
def test_the_example_runs_as_it_is_shown(kafka, prefix, monkeypatch, capsys):
    """Each command of the page prints what stands below it, moments apart."""
    run = Commands(consent.app, asyncio.run(topics(kafka, prefix, partitions=1)), monkeypatch, capsys)
    shown = examples("consent.md")
    assert len(shown) == 6
    for arguments, output in shown:
        assert plain(run(*arguments).out) == plain(output), arguments


def test_every_state_and_every_field_is_documented():
    """The states are those that the register answers, and each field of the record is named."""
    for state in get_args(State):
        assert f"| `{state}` |" in PAGE
    for name, field in ConsentEntry.model_fields.items():
        assert f"`{field.alias or name}`" in PAGE
    assert f"`{CONSENT_TYPE}`" in PAGE
