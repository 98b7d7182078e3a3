"""`waybill policy`, `decide` and `replay`: what they say, and that they send nothing."""

from __future__ import annotations

import json
import shutil
from datetime import UTC, datetime, timedelta
from pathlib import Path

import orjson
import pytest
from evidence_stores import local_store

from evidence.errors import ConfigError
from evidence.parsing import parse as parse_events
from evidence.records import EventType, EvidenceEvent, PolicyRef, Stage
from inference import rulebook
from policy.engine import Held
from policy.labels import Label
from policy.questions import Facts
from policy.versions import Activation, Versions
from streams.processors.cases import Case, Wish, to_json
from waybill.cli.moments import moment
from waybill.cli.policy import _previous
from waybill.cli.program import run

ROOT = Path(__file__).resolve().parents[2]
NOW = datetime(2026, 11, 24, 12, tzinfo=UTC)


@pytest.fixture(autouse=True)
def _at_home(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Run in the project's folder with a home of one's own, and without any setting."""
    monkeypatch.chdir(ROOT)
    for name in ("WAYBILL_HOME", "WAYBILL_POLICY", "WAYBILL_ROUTES"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("WAYBILL_HOME", str(tmp_path / "home"))


def request(tmp_path: Path, content: str, **changes: object) -> str:
    """Write a request and give its path."""
    said = {
        "contractVersion": "1.0",
        "requestId": "r-1",
        "timestampUtc": "2026-11-24T09:00:00Z",
        "actor": {"id": "ana"},
        "tenant": {"id": "acme"},
        "taskType": "question",
        "purpose": "customer-support",
        "classification": "public",
        "consent": {"basis": "contract"},
        "input": {"messages": [{"role": "user", "content": content}]},
        **changes,
    }
    path = tmp_path / "request.json"
    path.write_bytes(orjson.dumps(said))
    return str(path)


def decided(capsys: pytest.CaptureFixture[str], *argv: str) -> tuple[int, dict[str, object]]:
    """Run `decide --json` and give its exit code and what it printed."""
    code = run(["decide", "--json", *argv])
    return code, json.loads(capsys.readouterr().out)


def test_a_request_is_explained_with_labels_routes_and_places(capsys, tmp_path):
    """The explanation names the class, each route's answer, and file and line of the deciding policies."""
    assert run(["decide", "--request", request(tmp_path, "Write to erika@example.org")]) == 0
    said = capsys.readouterr().out
    assert "declared public, found email: held to be confidential" in said
    assert "config/policy/sample.cedar:" in said
    assert "it would go to hosted-general, else to local-small" in said
    assert "erika" not in said


def test_a_denied_request_gives_exit_code_1(capsys, tmp_path):
    """What no route may serve ends with 1, and the reasons name each route."""
    path = request(tmp_path, "x", classification="confidential", modelPolicy={"placement": "hosted"})
    code, said = decided(capsys, "--request", path)
    assert code == 1
    assert said["decision"]["decision"] == "deny"
    assert said["decision"]["reasons"][0] == "no_route"
    assert {reason.partition(":")[0] for reason in said["decision"]["reasons"][1:]} >= {"hosted-general", "local-small"}


@pytest.mark.parametrize(("consent", "route"), [("granted", "hosted-general"), ("withdrawn", "local-small"),
                                                ("unknown", "local-small"), ("none", "local-small")])  # fmt: skip
def test_consent_decides_where_it_is_the_basis(capsys, tmp_path, consent, route):
    """On the basis of consent only a granted one lets a request cross; any other state keeps it here."""
    path = request(tmp_path, "Hello", consent={"basis": "consent"})
    code, said = decided(capsys, "--request", path, "--consent", consent)
    assert (code, said["routes"][0]) == (0, route)


def test_other_policies_can_be_asked_without_being_in_force(capsys, tmp_path):
    """`--policy DIR` decides by that folder, and the folder in force stays as it is."""
    other = tmp_path / "other"
    shutil.copytree(ROOT / "config" / "policy", other)
    (other / "stop.cedar").write_text('@id("all-stop")\nforbid(principal, action in Action::"cross", resource);\n')
    path = request(tmp_path, "Hello")
    assert decided(capsys, "--request", path)[1]["routes"][0] == "hosted-general"
    assert decided(capsys, "--request", path, "--policy", str(other))[1]["routes"] == ["local-small"]


@pytest.mark.parametrize("argv", [["decide", "--request", "nowhere.json"], ["policy", "check", "nowhere"],
                                  ["policy", "rollback", "--reason", "x"],
                                  ["replay", "--since", "yesterday"]])  # fmt: skip
def test_what_cannot_be_done_is_one_sentence(capsys, argv):
    """A file, a folder, a version or a moment that is none gives exit code 2 and one line."""
    assert run(argv) == 2
    said = capsys.readouterr()
    assert said.err.startswith("waybill: ")
    assert said.err.count("\n") == 1
    assert not said.out


def test_the_sample_policies_check_and_show(capsys):
    """`policy check` and `policy show` agree on the digest, and every policy is shown with its line."""
    assert run(["policy", "check"]) == 0
    digest = capsys.readouterr().out.split("policy sha256:")[1].split(",")[0]
    assert run(["policy", "show", "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert said["digest"] == f"sha256:{digest}"
    assert {"ordinary-work", "support-without-names", "no_consent"} <= {policy["id"] for policy in said["policies"]}


def test_policies_that_no_record_pins_are_not_accepted(capsys, tmp_path):
    """A folder whose digest no decision record lists is refused, with the command that mends it."""
    other = tmp_path / "other"
    shutil.copytree(ROOT / "config" / "policy", other)
    (other / "sample.cedar").write_text((other / "sample.cedar").read_text() + '\n// reviewed by nobody\n@id("x")\n'
                                        'permit(principal, action == Action::"local-call", resource);\n')  # fmt: skip
    assert run(["policy", "check", str(other)]) == 2
    assert "waybill decisions pin" in capsys.readouterr().err


def activation(digest: str, previous: str | None, *, rollback: bool = False) -> Activation:
    """Make an activation."""
    return Activation(digest=digest, previous=previous, at=NOW, by="user:dora", reason="test", rollback=rollback)


def test_edits_after_an_activation_are_told(capsys, tmp_path, monkeypatch):
    """Where a version was activated, `check` and `decide` say that edits of the configured folder have no effect."""
    folder = tmp_path / "policy"
    shutil.copytree(ROOT / "config" / "policy", folder)
    monkeypatch.setenv("WAYBILL_POLICY", str(folder))
    path = request(tmp_path, "Hello.")
    told = f"waybill: {folder} differs from the policies in force since 2026-11-24 12:00, and has no effect"

    def said() -> list[bool]:
        assert run(["policy", "check"]) == 0
        checked = capsys.readouterr().err
        assert run(["decide", "--request", path]) == 0
        return [told in checked, told in capsys.readouterr().err]

    versions = Versions(tmp_path / "home" / "policies")
    digest = rulebook.read(folder, ROOT / "config" / "routes.yaml").policy_digest
    versions.add(digest, sorted(folder.iterdir()))
    assert said() == [False, False]  # nothing was activated
    versions.activate(activation(digest, None))
    assert said() == [False, False]  # what was activated is what is configured
    (folder / "extra.cedar").write_text('@id("nothing")\nforbid(principal, action, resource);\n')
    assert said() == [True, True]
    (folder / "extra.cedar").write_text("half written")
    assert said() == [True, True]


def test_going_back_goes_further_back_each_time():
    """After a rollback the next one goes to what was before that version, not forward again."""
    past = (activation("b", "a"), activation("c", "b"), activation("b", "c", rollback=True))
    assert _previous("c", past) == "b"
    assert _previous("b", past) == "a"
    with pytest.raises(ConfigError, match="--to"):
        _previous("a", past)


def stored(home: Path, cases: list[tuple[str, Case, str, str]]) -> None:
    """Store decisions as evidence."""
    events = [
        EvidenceEvent(
            event_id=f"{name}-0",
            event_type=EventType.POLICY_DECIDED,
            request_id=name,
            intake_id=name,
            trace_id="a" * 32,
            span_id="b" * 16,
            sequence=0,
            occurred_at_utc=NOW,
            stage=Stage.ADMISSION,
            site="here",
            policy=PolicyRef(
                decision=outcome, policy_id="p", policy_version="v", scope=f"model-call:{route}", inputs=to_json(case)
            ),
        )
        for name, case, outcome, route in cases
    ]
    values = [event.to_json() for event in events]
    table = parse_events(values, partition=0, offsets=range(len(values)), timestamps_ms=[0] * len(values)).table
    with local_store(home / "evidence", "here").open("log", "ai.evidence", 0) as writer:
        writer.append(table, end=len(values))


CASE = Case(
    facts=Facts("ana", "user", "acme", frozenset(), "unsigned", "model-call", "product-research", "question", 0,
                "contract", "none"),
    wish=Wish(size=10, turns=2),
    held=Held(Label("internal")),
)  # fmt: skip


def test_past_requests_are_decided_again(capsys, tmp_path):
    """Replay finds what other policies would change, counts what it cannot read, and calls nobody."""
    other = tmp_path / "other"
    shutil.copytree(ROOT / "config" / "policy", other)
    (other / "stop.cedar").write_text('@id("all-stop")\nforbid(principal, action in Action::"cross", resource);\n')
    local = CASE._replace(wish=CASE.wish._replace(placement="local"))
    stored(tmp_path / "home", [("crossed", CASE, "allow", "hosted-general"), ("stayed", local, "allow", "local-small")])
    assert run(["replay", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["decided"] == 2
    assert run(["replay", "--json", "--policy", str(other)]) == 1
    said = json.loads(capsys.readouterr().out)
    assert [(change["requestId"], change["before"], change["after"]) for change in said["changes"]] == [
        ("crossed", "allow hosted-general", "allow local-small")
    ]
    assert (said["decided"], said["unreadable"]) == (2, 0)
    assert run(["replay", "--json", "--policy", str(other), "--since", "2026-11-24T12:00:01Z"]) == 0
    assert json.loads(capsys.readouterr().out)["decided"] == 0


def test_words_that_labels_no_longer_know_would_be_rejected(capsys, tmp_path):
    """A past request whose purpose was struck from the labels shows as rejected, not as an error."""
    gone = CASE._replace(facts=CASE.facts._replace(purpose="a-purpose-of-old"))
    stored(tmp_path / "home", [("old", gone, "allow", "hosted-general")])
    assert run(["replay", "--json"]) == 1
    assert json.loads(capsys.readouterr().out)["summary"][0]["after"] == "rejected"


def test_versions_are_kept_and_listed(capsys, tmp_path):
    """`policy history` lists every activation with who and why."""
    versions = Versions(tmp_path / "home" / "policies")
    versions.add("sha256:" + "1" * 64, sorted((ROOT / "config" / "policy").glob("*")))
    versions.activate(activation("sha256:" + "1" * 64, None))
    assert run(["policy", "history", "--json"]) == 0
    (one,) = json.loads(capsys.readouterr().out)
    assert (one["by"], one["reason"], one["rollback"]) == ("user:dora", "test", False)


def test_moments_are_times_or_ago():
    """`30d` and `12h` count back from now; a time without a zone is UTC."""
    assert moment("12h", NOW) == NOW - timedelta(hours=12)
    assert moment("2d", NOW) == NOW - timedelta(days=2)
    assert moment("2026-11-24T12:00:00", NOW) == NOW
