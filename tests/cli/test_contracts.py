"""`waybill contracts`: written from the configuration, compared with it, and shown."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml
from warm_start import run_program

ROOT = Path(__file__).resolve().parents[2]
HOSTED = ("hosted-general", "hosted-summaries")


def waybill(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run the program without settings of the one who runs the tests."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("WAYBILL_")}
    return run_program("waybill", "contracts", *arguments, env={**inherited, "WAYBILL_HOME": "nowhere", **environment})


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give a folder with what the sample configuration makes."""
    folder = tmp_path_factory.mktemp("made") / "contracts"
    done = waybill("export", "--out", str(folder))
    assert done.returncode == 0, done.stderr
    return folder


@pytest.fixture
def exported(made: Path, tmp_path: Path) -> Path:
    """Give a copy of it that a test may change."""
    return Path(shutil.copytree(made, tmp_path / "contracts"))


def test_one_contract_for_each_hosted_route_and_one_document(exported):
    """Local routes have no contract; what is written is whole at once, and the comparison finds nothing."""
    assert sorted(path.name for path in exported.iterdir()) == [
        "asyncapi.yaml",
        *(f"{name}.odcs.yaml" for name in HOSTED),
    ]
    done = waybill("check", "--out", str(exported))
    assert (done.returncode, done.stderr) == (0, "")


def test_each_file_and_each_difference_is_named(exported):
    """A changed value, a missing part, a part too many, a stray, a missing and an unreadable file are all told."""
    general, topics, summaries = (
        exported / name for name in ("hosted-general.odcs.yaml", "asyncapi.yaml", "hosted-summaries.odcs.yaml")
    )
    content = yaml.safe_load(general.read_text(encoding="utf-8"))
    content["price"]["priceAmount"] = 99
    del content["status"]
    content["tenant"] = "acme"
    content["schema"].pop()
    general.write_text(yaml.safe_dump(content), encoding="utf-8")
    topics.write_text("channels: [", encoding="utf-8")
    summaries.rename(exported / "hosted-gone.odcs.yaml")
    done = waybill("check", "--out", str(exported))
    assert done.returncode == 1
    assert done.stderr.splitlines() == [
        f"{summaries}: is missing",
        f"{general}: status: is missing, would be 'active'",
        f"{general}: schema.answer: is missing, would be "
        + next(line for line in done.stderr.splitlines() if "schema.answer" in line).partition("would be ")[2],
        f"{general}: price.priceAmount: is 99, would be 0.15",
        f"{general}: tenant: is 'acme', would not be there",
        f"{topics}: is not YAML",
        f"{exported / 'hosted-gone.odcs.yaml'}: no hosted route has this contract; remove the file",
        f"run `waybill contracts export --out {exported}`",
    ]


def test_another_form_of_the_same_is_told(exported):
    """A file that says the same in another order is not what would be written."""
    path = exported / "asyncapi.yaml"
    path.write_text(yaml.safe_dump(yaml.safe_load(path.read_text(encoding="utf-8"))), encoding="utf-8")
    done = waybill("check", "--out", str(exported))
    assert done.returncode == 1
    assert done.stderr.startswith(f"{path}: says the same in another form")


def test_a_changed_route_table_is_drift(exported, tmp_path):
    """A route that may keep data for longer no longer agrees with its published contract."""
    table = tmp_path / "routes.yaml"
    text = (ROOT / "config" / "routes.yaml").read_text(encoding="utf-8")
    table.write_text(text.replace("timeout_s: 60", "timeout_s: 61"), encoding="utf-8")
    done = waybill("check", "--out", str(exported), "--routes", str(table))
    assert done.returncode == 1
    for name in HOSTED:
        path = exported / f"{name}.odcs.yaml"
        assert f"{path}: slaProperties.latency.value: is 60.0, would be 61.0" in done.stderr


def test_settings_reach_the_documents_and_logins_do_not(tmp_path):
    """Broker, prefix and sizes are those of the deployment; of an endpoint's URL only the address is published."""
    done = waybill(
        "export",
        "--out",
        str(tmp_path),
        WAYBILL_KAFKA="kafka-1:9093,kafka-2:9093",
        WAYBILL_KAFKA_SECURITY="SSL",
        WAYBILL_KAFKA_PREFIX="eu.",
        WAYBILL_PARTITIONS="12",
        WAYBILL_REPLICATION="3",
        WAYBILL_ENDPOINTS__HOSTED__KIND="openai",
        WAYBILL_ENDPOINTS__HOSTED__URL="https://ada:PLANTED@models.example/v1?key=PLANTED",
        WAYBILL_ENDPOINTS__HOSTED__PROVIDER="example",
        WAYBILL_ENDPOINTS__HOSTED__KEY="PLANTED",
    )
    assert done.returncode == 0, done.stderr
    assert not any("PLANTED" in path.read_text(encoding="utf-8") for path in tmp_path.iterdir())
    topics = yaml.safe_load((tmp_path / "asyncapi.yaml").read_text(encoding="utf-8"))
    assert [server["host"] for server in topics["servers"].values()] == ["kafka-1:9093", "kafka-2:9093"]
    assert topics["servers"]["broker"]["protocol"] == "kafka-secure"
    channel = topics["channels"]["requests"]
    assert channel["address"] == channel["bindings"]["kafka"]["topic"] == "eu.ai.requests"
    assert (channel["bindings"]["kafka"]["partitions"], channel["bindings"]["kafka"]["replicas"]) == (12, 3)
    group = topics["operations"]["admissionReceivesRequests"]["bindings"]["kafka"]["groupId"]
    assert group["enum"] == ["eu.waybill-admission"]
    contract = yaml.safe_load((tmp_path / "hosted-general.odcs.yaml").read_text(encoding="utf-8"))
    assert contract["servers"][0]["location"] == "https://models.example/v1"
    told = {each["property"]: each["value"] for each in contract["servers"][0]["customProperties"]}
    assert told == {"provider": "example", "encryption": "tls", "region": "eu"}


def test_show_prints_one_contract(exported):
    """What is shown is what is written."""
    done = waybill("show", "hosted-summaries")
    assert done.stdout == (exported / "hosted-summaries.odcs.yaml").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("show", "local-small"), "route local-small is local"),
        (("show", "nowhere"), "route nowhere is not in the table; routes with a contract: hosted-summaries"),
        (("check", "--routes", "nowhere.yaml"), "nowhere.yaml"),
        (("export", "--out", "README.md"), "cannot write contracts to README.md"),
    ],
    ids=("local", "unknown", "table", "folder"),
)
def test_what_cannot_be_done_is_said_in_one_sentence(arguments, said):
    """A wrong route, table or folder is an error of usage."""
    done = waybill(*arguments)
    assert done.returncode == 2
    assert said in done.stderr
    assert "Traceback" not in done.stderr


def test_the_example_of_the_page_is_what_the_program_says(exported):
    """The page's difference is the one that is told when the file is edited so."""
    path = exported / "hosted-general.odcs.yaml"
    text = path.read_text(encoding="utf-8")
    path.write_text(
        text.replace("property: retention\n    value: 0", "property: retention\n    value: 30"), encoding="utf-8"
    )
    page = (ROOT / "docs" / "contracts.md").read_text(encoding="utf-8")
    block = re.search(r"```text\n(.*?)```", page, flags=re.DOTALL)
    assert block
    done = waybill("check", "--out", str(exported))
    assert done.stderr.replace(str(exported), "contracts") == block[1]
