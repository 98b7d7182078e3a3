"""The pages on retention and the vault say what the code does."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from vault_children import NOW, an_object

from policy.files import Document
from policy.retention import RetentionConfig, RuleConfig, parse
from policy.vault.sealing import REVALIDATE_S, Bucket, Vault
from policy.vault.store import VaultStore

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


@pytest.mark.parametrize(("model", "number"), [(RetentionConfig, 0), (RuleConfig, 1)])
def test_every_field_of_the_file_is_on_the_page(model, number):
    """The tables of fields have each field of the file, in its order, with its default."""
    body = PAGE.split("| field | default | meaning |\n| --- | --- | --- |\n")[1 + number].partition("\n\n")[0]
    found = dict(re.findall(r"^\| `(\w+)` \| (\S.*?) \|", body, flags=re.MULTILINE))
    assert list(found) == list(model.model_fields)
    for name, field in model.model_fields.items():
        if field.is_required():
            assert found[name] == "required"
        elif isinstance(field.default, str | int):
            assert found[name] == f"`{field.default}`"


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
    vault.destroy(vault.ring.keys()[0].key, now=NOW, reason="test")
    there = {
        str(path.relative_to(tmp_path)).replace(hashed, "<tenant>") for path in tmp_path.rglob("*") if path.is_file()
    }
    assert listed - there == {"keys/<tenant>/2026-11-24-keep-10-30.key"}
    assert REVALIDATE_S == 1.0
    assert "at most one second more" in VAULT
