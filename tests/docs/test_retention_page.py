"""The pages on retention and the vault say what the code does."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from evidence_samples import stories
from evidence_stores import local_store
from vault_children import NOW, an_object
from vault_rotating import whole

from evidence.parsing import parse as parse_rows
from evidence.records import EventType
from evidence.store.expiry import Expiry, Plan, Rule
from policy.files import Document
from policy.holds import Holds
from policy.retention import RetentionConfig, RowsRule, RuleConfig, parse
from policy.vault.sealing import REVALIDATE_S, Bucket, Vault
from policy.vault.store import VaultStore
from waybill.site import ID_FILE, MARKS

DOCS = Path(__file__).resolve().parents[2] / "docs"
PAGE = (DOCS / "retention.md").read_text(encoding="utf-8")
VAULT = (DOCS / "vault.md").read_text(encoding="utf-8")


def block(language: str, containing: str) -> str:
    """Give the block of the page that holds some text."""
    found = re.findall(rf"^```{language}\n(.*?)^```$", PAGE, flags=re.MULTILINE | re.DOTALL)
    return next(text for text in found if containing in text)


def rows(head: str) -> list[list[str]]:
    """Give the rows of the table with this head."""
    body = PAGE.partition(f"{head}\n")[2].partition("\n")[2].partition("\n\n")[0]
    return [[cell.strip() for cell in line.strip("|").split(" | ")] for line in body.splitlines()]


def test_the_example_says_what_the_table_says():
    """The rules on the page load, and mean what the table under them says."""
    rules = parse(
        Document(block("yaml", "rules:"), "page"),
        classes=("public", "internal", "confidential", "restricted"),
        categories={"personal", "financial", "secret"},
        purposes=None,
    )
    table = rows("| class | purpose | request and answer | pseudonyms |")
    assert len(table) == 4
    for data_class, purpose, payload, pseudonyms in table:
        names = data_class.strip("`"), purpose.strip("`")
        kept = {rules.bucket_for(*names, "request"), rules.bucket_for(*names, "response")}
        (bucket,) = kept
        assert payload == ("not kept" if bucket is None else f"{bucket.min_days} to {bucket.max_days} days")
        originals = rules.bucket_for(*names, "pseudonyms")
        assert originals is not None
        assert pseudonyms == f"up to {originals.max_days} days"


@pytest.mark.parametrize(("model", "number"), [(RetentionConfig, 0), (RuleConfig, 1), (RowsRule, 2)])
def test_every_field_of_the_file_is_on_the_page(model, number):
    """The tables of fields have each field of the file, in its order, with its default."""
    body = PAGE.split("| field | default | meaning |\n| --- | --- | --- |\n")[1 + number].partition("\n\n")[0]
    found = dict(re.findall(r"^\| `(\w+)` \| (\S.*?) \|", body, flags=re.MULTILINE))
    assert list(found) == list(model.model_fields)
    for name, field in model.model_fields.items():
        if field.is_required():
            assert found[name] == "required"
        elif isinstance(field.default, str | int) and field.default != ():
            assert found[name] == f"`{field.default}`"


def test_the_rules_on_rows_that_the_page_shows_are_those_of_expiry():
    """The rules under `evidence` become a plan in their order, each with its name, classes and days."""
    from waybill.expiring import plan_of  # noqa: PLC0415 - the program is needed here alone

    rules = parse(
        Document(block("yaml", "rules:"), "page"),
        classes=("public", "internal", "confidential", "restricted"),
        categories={"personal", "financial", "secret"},
        purposes=None,
    )
    plan = plan_of(rules, Holds())
    assert [(rule.name, rule.min_days, rule.max_days) for rule in plan.rules] == [
        ("restricted-rows", 183, 730),
        ("all-rows", 183, 1827),
    ]
    assert plan.rule_for("restricted", "customer-support") == plan.rules[0]
    assert plan.rule_for(None, None) == plan.rules[1]
    assert plan.version == rules.digest


def test_every_member_of_a_statement_is_on_the_page(tmp_path):
    """The table of a statement names what a real one says."""
    store = local_store(tmp_path)
    events = list(stories(5))
    offsets = list(range(len(events)))
    told = parse_rows([event.to_json() for event in events], partition=0, offsets=offsets, timestamps_ms=offsets)
    with store.open("cluster-1", "ai.evidence", 0) as writer:
        writer.append(told.table, end=len(events) - 1)
        (removal,) = Expiry(store.files, lambda: Plan((Rule("rows", 1),)), now=NOW.timestamp)(writer)
    said = json.loads(removal.statement)
    table = PAGE.partition("| member | meaning |\n| --- | --- |\n")[2].partition("\n\n")[0]
    members = set(re.findall(r"`(\w+)`", table))
    assert set(said) | set(said["rules"][0]) | set(said["files"][0]) <= members
    assert f"`{said['statement']}`" in table


@pytest.mark.parametrize("kind", ["hold.", "erasure.", "subject.", "evidence.expired", "retention."])
def test_every_event_of_retention_is_on_the_page(kind):
    """Each type of event that retention, holds and erasure write is named."""
    found = [each for each in EventType if each.startswith(kind)]
    assert found
    assert [each for each in found if f"`{each}`" not in PAGE] == []


def test_the_dry_run_prints_what_the_page_shows(tmp_path, capsys):
    """Over the vault that the page describes, the command prints the block of the page."""
    from waybill.cli import retention  # noqa: PLC0415 - the program is needed here alone

    vault, store = Vault(tmp_path / "vault"), VaultStore(tmp_path / "vault")
    store.put(an_object(vault, "i1"))
    store.put(an_object(vault, "i1", kind="response", bucket=Bucket("keep", 10, 30, "day")))
    retention.run(now="2027-01-01T00:00:00Z", dry_run=True, home=tmp_path)
    assert capsys.readouterr().out == block("text", "would remove")


def test_the_page_on_the_vault_names_what_is_there(tmp_path):
    """The files of a vault are those that its page lists, and the time that it states is the code's."""
    vault, store = Vault(tmp_path), VaultStore(tmp_path)
    item = an_object(vault, "i1", bucket=Bucket("keep", 10, 30, "day"))
    store.put(item)
    store.close()
    listed = {line.split()[0].removeprefix("vault/") for line in VAULT.splitlines() if line.startswith("vault/")}
    hashed = next((tmp_path / "keys").iterdir()).name
    there = {
        str(path.relative_to(tmp_path)).replace(hashed, "<tenant>") for path in tmp_path.rglob("*") if path.is_file()
    }
    assert there - {"lock"} <= listed
    whole(tmp_path)
    vault.destroy(vault.ring.keys()[0].key, now=NOW, reason="test")
    there = {
        str(path.relative_to(tmp_path)).replace(hashed, "<tenant>") for path in tmp_path.rglob("*") if path.is_file()
    }
    by_workers = {"site-id", "workers/<id>"}
    assert listed - there == {"keys/<tenant>/2026-11-24-keep-10-30.key"} | by_workers
    assert by_workers == {ID_FILE, f"{MARKS}/<id>"}
    assert REVALIDATE_S == 1.0
    assert "at most one second more" in VAULT
