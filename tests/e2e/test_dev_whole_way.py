"""The newcomer's way: `waybill dev` with the sample requests, on the development broker, from nothing to SQL."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import pytest
from dev_run import ROOT, waybill
from triton_fixtures import need_triton

SAMPLES = ROOT / "config" / "requests.jsonl"
RUNS = 2
OUTCOMES = {"completed": 12, "denied": 1, "refused": 1, "unknown": 1, "rejected": 1}


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory):
    """Two whole runs in one home: the home, and what the second printed."""
    need_triton()
    home = tmp_path_factory.mktemp("dev") / "home"
    for _ in range(RUNS):
        done = waybill("dev", "--requests", str(SAMPLES), "--until-done", "--home", str(home))
        assert done.returncode == 0, done.stdout + done.stderr
    return home, done


def rows(home: Path, query: str) -> list[dict]:
    """Ask the evidence of a run."""
    done = waybill("sql", query, "--format", "json", "--home", str(home))
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.triton
def test_first_line_says_development_broker(finished):
    """Nobody can take the development broker for a production one."""
    assert finished[1].stdout.splitlines()[0].startswith("broker: development broker (noida-db ")


@pytest.mark.triton
def test_it_prints_what_a_newcomer_looks_for(finished):
    """Outcomes, a route receipt with its waybill, an SQL answer, and where everything lies."""
    said = finished[1].stdout
    for part in ("How the requests ended", "Route receipt", "Waybill", "What left the building", "evidence ", "next "):
        assert part in said
    assert "complete in evidence 16/16" in said


@pytest.mark.triton
def test_standard_error_is_silent(finished):
    """A run in which all is well has nothing to complain of."""
    assert finished[1].stderr == ""


@pytest.mark.triton
def test_every_request_has_one_end_in_evidence(finished):
    """Both runs together: as many ends as lines were sent, with the outcomes that the samples are made for."""
    ends = rows(
        finished[0],
        "select outcome from events where event_type in ('request.ended', 'request.rejected')",
    )
    assert Counter(row["outcome"] for row in ends) == {outcome: RUNS * count for outcome, count in OUTCOMES.items()}


@pytest.mark.triton
def test_stories_have_no_holes(finished):
    """Each story has every step from 0 on exactly once."""
    holes = "select intake_id from events group by 1 having count(*) <> max(sequence) + 1"
    assert rows(finished[0], holes) == []


@pytest.mark.triton
def test_only_public_and_internal_data_left(finished):
    """What left was public or internal, or had all that was personal taken out; the stand-in is called by its name."""
    intents = rows(
        finished[0],
        "select classification.effective as class, route.provider as provider, redaction.applied as applied "
        "from events where event_type = 'model.intended'",
    )
    assert {row["class"] for row in intents if not row["applied"]} == {"public", "internal"}
    assert {item for row in intents for item in row["applied"] or ()} >= {"personal:pseudonym"}
    assert all("personal:pseudonym" in row["applied"] for row in intents if row["applied"])
    assert {row["provider"] for row in intents} == {"stand-in"}


@pytest.mark.triton
def test_the_stand_in_saw_only_what_evidence_says(finished):
    """The calls in the stand-in's own log are the hosted calls in evidence, one for one, by their intents."""
    home = finished[0]
    seen = [json.loads(line) for line in (home / "logs" / "stand-in-calls.jsonl").read_text().splitlines()]
    intents = [row["intent_id"] for row in rows(home, "select intent_id from crossings")]
    assert sorted(call["call_id"] for call in seen) == sorted(intents)


@pytest.mark.triton
def test_what_retention_forbids_is_nowhere_on_the_disk(finished):
    """The personal data in a hosted answer is in no file of the run: not in the broker's, not in a log."""
    forbidden = b"jonas.beispiel@example.org"
    assert forbidden in (ROOT / "config" / "standin.json").read_bytes()
    assert [path for path in finished[0].rglob("*") if path.is_file() and forbidden in path.read_bytes()] == []
    assert "[EMAIL]" in finished[1].stdout
