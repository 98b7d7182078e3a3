"""The page on federation says what the code does."""

from __future__ import annotations

import re
from pathlib import Path
from typing import get_args

from doc_pages import field_table

from evidence.federation.columns import FIELDS, REQUIRED
from evidence.federation.export import SETTLE_S
from evidence.log.notes import Verifier
from policy.contract import Destination
from policy.export_terms import ExportWaybill
from policy.files import Document
from policy.sites import Columns, GrantConfig, SiteConfig, parse
from queries.federated import CROSSINGS_BY_SITE, DEFAULT_SITE_TIMEOUT_S, REQUESTS_BY_SITE, Condition

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "federation.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    """Give the page's blocks in a language."""
    return re.findall(rf"^```{language}\n(.*?)^```$", PAGE, flags=re.MULTILINE | re.DOTALL)


def test_the_tables_are_those_of_the_code():
    """Every field of the file and of the export waybill is on the page, with what it means."""
    assert field_table(SiteConfig, GrantConfig) in PAGE
    assert field_table(GrantConfig) in PAGE
    assert field_table(ExportWaybill, Destination) in PAGE


def test_the_example_is_a_file_that_loads():
    """It grants what it says, and needs no column more."""
    (text,) = blocks("yaml")
    sites = parse(Document(text, "page"), Columns(FIELDS, REQUIRED))
    grant = sites.grant("edge-1", "hq")
    assert set(grant.config.columns) == REQUIRED | {"classification.effective", "route.name", "outcome"}
    assert [place for _, place in sites.copies_for("hq")] == ["/srv/copies/hq"]
    assert f"--key {Verifier.from_vkey(grant.sender.key or '').vkey}\n" in PAGE


def test_every_condition_of_a_site_is_on_the_page():
    """The table of conditions is the code's list."""
    assert re.findall(r"^\| `(\w+)` \| (?:yes|no) \|", PAGE, flags=re.MULTILINE) == list(get_args(Condition))


def test_the_limits_are_those_of_the_code():
    """Times that the page tells are the ones that count."""
    assert f"younger than {SETTLE_S / 60:g} minutes" in PAGE
    assert f"nothing came from it for {DEFAULT_SITE_TIMEOUT_S:g} seconds" in PAGE


def test_the_views_have_the_site_in_front():
    """The two readings of the events are made for several sites."""
    assert re.search(r"SELECT\n +site,\n +intake_id,", REQUESTS_BY_SITE)
    assert REQUESTS_BY_SITE.count("GROUP BY site, intake_id") == 1
    assert re.search(r"SELECT\n +intent\.site,\n", CROSSINGS_BY_SITE)
    assert "AND ending.site = intent.site" in CROSSINGS_BY_SITE
