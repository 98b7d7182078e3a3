"""The JSON Schemas in `docs/schemas` are those of the records."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from doc_pages import DOCS, ROOT

from waybill import schemas

FOLDER = DOCS / "schemas"


def test_files_are_what_the_code_makes():
    """No record has changed without its schema."""
    assert schemas.check(FOLDER) == (), "run: python -m waybill.schemas"


@pytest.mark.parametrize("name", schemas.SCHEMAS)
def test_every_field_is_described(name):
    """Each field of each record has a sentence, and the record takes no other field."""
    content = json.loads((FOLDER / f"{name}.json").read_bytes())
    for record in [content, *content.get("$defs", {}).values()]:
        if record.get("type") != "object":
            continue
        assert record["additionalProperties"] is False
        assert all(field["description"] for field in record["properties"].values())


def test_sample_requests_have_only_fields_of_the_schema():
    """What the samples say is in the schema, and what it requires, they or `waybill send` say."""
    schema = json.loads((FOLDER / "runtime-request.json").read_bytes())
    for line in (ROOT / "config" / "requests.jsonl").read_text(encoding="utf-8").splitlines():
        given = json.loads(line)
        if "raw" in given:
            continue
        assert set(given) - {"deadlineInSeconds"} <= set(schema["properties"])
        assert set(schema["required"]) <= set(given) | {"requestId", "timestampUtc"}


def test_differences_are_named(tmp_path: Path, capsys):
    """A changed, a missing and a stray file are each named, and the check fails."""
    schemas.generate(tmp_path)
    assert schemas.main(["--check", "--folder", str(tmp_path)]) == 0
    (tmp_path / "work.json").unlink()
    (tmp_path / "waybill.json").write_text("{}")
    (tmp_path / "other.json").write_text("{}")
    assert schemas.main(["--check", "--folder", str(tmp_path)]) == 1
    told = capsys.readouterr().err
    assert f"{tmp_path / 'work.json'} is missing" in told
    assert f"{tmp_path / 'waybill.json'} is not what the code makes" in told
    assert f"{tmp_path / 'other.json'} is the schema of no record" in told
