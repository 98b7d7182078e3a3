"""Every fault in the files that people write is one clear error with file and line, and nothing starts half-way."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
from pathlib import Path

import pytest
from aiokafka.admin import AIOKafkaAdminClient
from bad_decision_records import CASES as BAD_RECORDS
from bad_files import CASES, ENDPOINTS, GOOD, BadFile, write
from bad_retention import CASES as BAD_RETENTION
from pydantic import ValidationError
from warm_start import run_program

from evidence.errors import ConfigError
from inference.rulebook import load
from policy.contract import Destination, RetentionTerms, Waybill


def test_the_good_files_are_good(tmp_path):
    """Without its fault, the deployment of the table is read."""
    write(tmp_path)
    book = load(tmp_path / "policy", tmp_path / "routes.yaml", ENDPOINTS)
    assert [route.name for route in book.fallbacks["first"]] == ["second", "inside"]


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case.file}: {case.name}")
def test_a_bad_file_is_one_clear_error(tmp_path, case: BadFile):
    """One sentence begins with the file, the line and the place, says what is wrong there, and is the only one."""
    path = case.write(tmp_path)
    with pytest.raises(ConfigError) as error:
        load(tmp_path / "policy", tmp_path / "routes.yaml", ENDPOINTS)
    told = str(error.value)
    assert told.startswith(f"{path}{case.said}"), told
    assert case.words in told
    assert "\n" not in told.strip()
    assert len(told) < 1000


def test_the_table_is_large_and_each_fault_is_its_own():
    """There are at least 60 distinct faults, 45 of them not of retention rules or decision records."""
    made = {(case.file, case.old, case.new) for case in CASES}
    assert len(made) == len(CASES) == len({(case.file, case.name) for case in CASES})
    assert len(CASES) >= 45
    assert len(CASES) + len(BAD_RETENTION) + len(BAD_RECORDS) >= 60
    assert {case.file for case in CASES} == set(GOOD)


SAMPLE = {
    "policy/labels.yaml: a class twice",
    "policy/labels.yaml: nested without end",
    "policy/main.cedar: an unknown class",
    "policy/main.cedar: nested without end",
    "policy/main.cedar: a route that does not exist",
    "policy/main.cedar: policies in Latin-1",
    "routes.yaml: widens: retention",
    "routes.yaml: an endpoint that is not set",
    "policy/retention.yaml: retention without a rule for a purpose",
}
"""Faults with which the real programs are started."""

FEW = [case for case in CASES if f"{case.file}: {case.name}" in SAMPLE]


def environment(folder: Path, kafka: str = "127.0.0.1:1") -> dict[str, str]:
    """Settings of a worker over a deployment; everything but the files is right."""
    ours = {name: value for name, value in os.environ.items() if not name.startswith("WAYBILL_")}
    return ours | {
        "WAYBILL_HOME": str(folder / "home"), "WAYBILL_KAFKA": kafka, "WAYBILL_KAFKA_PREFIX": "badfiles.",
        "WAYBILL_POLICY": str(folder / "policy"), "WAYBILL_ROUTES": str(folder / "routes.yaml"),
        "WAYBILL_DECISIONS": str(folder / "decisions"),
        "WAYBILL_ENDPOINTS__HOSTED__KIND": "openai", "WAYBILL_ENDPOINTS__HOSTED__URL": "https://provider.example/v1",
        "WAYBILL_ENDPOINTS__LOCAL__KIND": "in-process",
        "WAYBILL_IDENTITY__METHOD": "unsigned", "WAYBILL_IDENTITY__ALLOW_UNSIGNED": "true",
    }  # fmt: skip


def start(folder: Path, *arguments: str, **more: str) -> subprocess.CompletedProcess[str]:
    """Start a program as an operator does."""
    (folder / "decisions").mkdir(exist_ok=True)
    return run_program("waybill", *arguments, cwd=folder, env={**environment(folder), **more})


def written(folder: Path) -> list[str]:
    """Files in the home of a run."""
    home = folder / "home"
    return sorted(str(path.relative_to(home)) for path in home.rglob("*") if path.is_file()) if home.exists() else []


def topics(kafka: str) -> set[str]:
    """Topics of a broker."""

    async def ask() -> set[str]:
        client = AIOKafkaAdminClient(bootstrap_servers=kafka)
        await client.start()
        try:
            return set(await client.list_topics())
        finally:
            await client.close()

    return asyncio.run(ask())


def test_the_sample_is_of_the_table():
    """Each fault of the sample is one of the table."""
    assert len(FEW) == len(SAMPLE)


@pytest.mark.parametrize("case", FEW, ids=lambda case: f"{case.file}: {case.name}")
def test_a_worker_does_not_start_over_a_bad_file(tmp_path, dev_broker, case: BadFile):
    """The real worker ends with code 2 and the one sentence; no topic is made and no file is written."""
    path, before = case.write(tmp_path), topics(dev_broker)
    ended = start(tmp_path, "worker", WAYBILL_KAFKA=dev_broker)
    assert ended.returncode == 2, ended.stderr
    assert f"{path}{case.said}" in " ".join(ended.stderr.split())
    assert "Traceback" not in ended.stderr
    assert ended.stdout == ""
    assert written(tmp_path) == []
    assert topics(dev_broker) == before


@pytest.mark.parametrize("case", FEW[::3], ids=lambda case: f"{case.file}: {case.name}")
def test_a_development_run_does_not_start_over_a_bad_file(tmp_path, case: BadFile):
    """`waybill dev` reads the files before it starts anything: code 2, the sentence, nothing written."""
    path = case.write(tmp_path)
    (tmp_path / "requests.jsonl").write_text("{}\n", encoding="utf-8")
    ended = start(tmp_path, "dev", "--requests", "requests.jsonl", "--until-done")
    assert ended.returncode == 2, ended.stderr
    assert f"{path}{case.said}" in " ".join(ended.stderr.split())
    assert "Traceback" not in ended.stderr
    assert "broker" not in ended.stdout
    assert written(tmp_path) == []


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({}, "decisions/first.yaml:1: route first has no decision record: write this file"),
        (
            {"WAYBILL_ENDPOINTS__LOCAL__KIND": "triton"},
            "WAYBILL_ENDPOINTS__LOCAL: an endpoint of kind triton",
        ),
        ({"WAYBILL_POLICIES": "x"}, "unknown setting WAYBILL_POLICIES"),
        (
            {"WAYBILL_POLICY": "nowhere"},
            "cannot read the list of labels nowhere/labels.yaml: No such file or directory",
        ),
        ({"WAYBILL_ROUTES": "policy"}, "cannot read the route table policy: Is a directory"),
    ],
)
def test_a_worker_does_not_start_where_the_files_are_not_all_there(tmp_path, more, said):
    """What is missing beside the files, or is set wrongly, is told in the same way."""
    write(tmp_path)
    ended = start(tmp_path, "worker", **more)
    assert ended.returncode == 2, ended.stderr
    assert said in " ".join(ended.stderr.split())
    assert "Traceback" not in ended.stderr
    assert written(tmp_path) == []


def test_a_folder_without_policies_is_told(tmp_path):
    """Where no policy is, everything would be denied, and that is an error."""
    write(tmp_path)
    (tmp_path / "policy" / "main.cedar").unlink()
    with pytest.raises(ConfigError, match=r"policy: no \*\.cedar file is there, so that everything would be denied"):
        load(tmp_path / "policy", tmp_path / "routes.yaml", ENDPOINTS)


def test_a_second_file_of_policies_has_lines_of_its_own(tmp_path):
    """A fault in another file is told with that file and its line, and the id of a policy counts in all of them."""
    write(tmp_path)
    second = tmp_path / "policy" / "second.cedar"
    second.write_text('\n\n@id("inside")\nforbid(principal, action, resource);\n', encoding="utf-8")
    with pytest.raises(ConfigError) as error:
        load(tmp_path / "policy", tmp_path / "routes.yaml", ENDPOINTS)
    first = tmp_path / "policy" / "main.cedar"
    assert str(error.value) == f"{second}:3: policy inside stands at {first}:2 already: give it another @id"


NINE = (
    "intakeId", "dataClassification", "purpose", "destination", "modelRoute", "retention", "encryption", "redaction",
    "consent", "fallback",
)  # fmt: skip
CONTRACT = Waybill(
    intake_id="i", data_classification="public", purpose="support",
    destination=Destination(provider="acme-ai", endpoint="hosted", region="eu"), model_route="first/m",
    retention=RetentionTerms(destination_days=0, forbidden_in_answer=(), action="mask"), encryption="tls",
    redaction=("none",), consent="contract", fallback=("stop",),
)  # fmt: skip


@pytest.mark.parametrize("field", NINE)
@pytest.mark.parametrize("fault", ["empty", "missing"])
def test_a_waybill_with_a_field_that_is_empty_or_missing_is_none(field, fault):
    """Each of the nine fields has to be there and say something; the error names the field."""
    content = CONTRACT.model_dump(mode="json", by_alias=True)
    assert Waybill.model_validate_json(json.dumps(content)) == CONTRACT
    content[field] = {"empty": [] if isinstance(content[field], list) else ""}.get(fault)
    if fault == "missing":
        del content[field]
    with pytest.raises(ValidationError) as error:
        Waybill.model_validate_json(json.dumps(content))
    assert {item["loc"][0] for item in error.value.errors()} == {field}
