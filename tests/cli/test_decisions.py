"""`waybill decisions`: what it says, with which exit code, and what it leaves in the files."""

from __future__ import annotations

import json
import re
import shutil
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import yaml
from decision_samples import POLICY, TEXT
from evidence_stores import local_store

from evidence.errors import ConfigError
from evidence.parsing import parse
from evidence.records import EventType, EvidenceEvent, Placement, RouteRef, Stage, Usage
from inference.routes import load as load_routes
from policy.placement.records import RouteFacts
from waybill import decision_pins
from waybill.cli import decisions, program
from waybill.decision_pins import price_digest, repin, table_facts
from waybill.settings import load

ROOT = Path(__file__).resolve().parents[2]
ROUTES = ROOT / "config" / "routes.yaml"
TODAY = datetime.now(UTC).date()
REVIEW = TODAY + timedelta(days=100)
DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
ZEROS = "sha256:" + "0" * 64
CURRENT = decision_pins.current_policy_digest
"""What the program takes for the policy's digest."""


@pytest.fixture(autouse=True)
def _known(monkeypatch):
    """Let the program know the commands, without a policy of which there could be a digest."""
    if all(group.typer_instance is not decisions.app for group in program.app.registered_groups):
        program.app.add_typer(decisions.app, name="decisions")
    monkeypatch.setattr(decision_pins, "current_policy_digest", lambda _: None)


@pytest.fixture
def folder(tmp_path):
    """Give a copy of the shipped records, pinned to the shipped route table and reviewed again in a hundred days."""
    copy = tmp_path / "decisions"
    shutil.copytree(ROOT / "config" / "decisions", copy)
    for facts in table_facts(load_routes(ROUTES)):
        path = copy / f"{facts.name}.yaml"
        text, _ = repin(path.read_text(encoding="utf-8"), str(path), facts, None)
        text = re.sub(r"^decided: \S+", f"decided: {TODAY}", text, flags=re.MULTILINE)
        text = re.sub(r"^review_by: \S+", f"review_by: {REVIEW}", text, flags=re.MULTILINE)
        path.write_text(text, encoding="utf-8")
    return copy


def run(capsys, *arguments: str, folder: Path, home: Path | None = None) -> tuple[int, str, str]:
    """Run a command over a folder of records; give exit code, output and errors."""
    more = [] if home is None else ["--home", str(home)]
    if arguments[0] in {"check", "pin"}:
        more += ["--routes", str(ROUTES)]
    code = program.run(["decisions", *arguments, "--decisions", str(folder), *more])
    told = capsys.readouterr()
    return code, told.out, told.err


def test_check_tells_each_route_in_a_line(capsys, folder):
    """Complete records give exit code 0 and one line for each route, with the day of its review."""
    code, out, err = run(capsys, "check", folder=folder)
    assert (code, err) == (0, "")
    assert [line.partition(":")[0] for line in out.splitlines()] == [
        "hosted-summaries",
        "hosted-general",
        "local-small",
    ]
    assert all(f"accepted, review by {REVIEW} (" in line for line in out.splitlines())


def test_check_tells_every_fault(capsys, folder):
    """A missing record, a placeholder and a price that changed come together, with exit code 2."""
    (folder / "local-small.yaml").unlink()
    path = folder / "hosted-general.yaml"
    text = path.read_text(encoding="utf-8")
    path.write_text(text.replace("owner: AI platform team", "owner: TBD"), encoding="utf-8")
    path = folder / "hosted-summaries.yaml"
    path.write_text(re.sub(r"price: sha256:\w+", f"price: {ZEROS}", path.read_text(encoding="utf-8")), encoding="utf-8")
    code, out, err = run(capsys, "check", folder=folder)
    assert (code, out) == (2, "")
    assert err.startswith("waybill: 3 faults in decision records:\n")
    line = next(n for n, each in enumerate(text.splitlines(), 1) if each.startswith("owner:"))
    assert f"{folder}/hosted-general.yaml:{line}: owner: this is a placeholder" in err
    assert "pins.price: price and limits are sha256:" in err
    assert f"{folder}/local-small.yaml:1: route local-small has no decision record" in err


def test_check_looks_at_weights(capsys, folder, tmp_path):
    """Weights that are not those of the record are an error; the pin names the command that accepts them."""
    weights = tmp_path / "model.gguf"
    weights.write_bytes(b"other weights")
    code, _, err = run(capsys, "check", "--artifact", f"local-small={weights}", folder=folder)
    assert code == 2
    assert "pins.artifact.digest: the weights are sha256:" in err
    code, out, _ = run(capsys, "pin", "local-small", "--artifact", f"local-small={weights}", folder=folder)
    assert code == 0
    assert "pins.artifact.digest: sha256:" in out
    code, out, _ = run(capsys, "check", "--artifact", f"local-small={weights}", folder=folder)
    assert code == 0
    assert out.splitlines()[-1].endswith("pins compared: price, model, artifact")


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (["--artifact", "local-small"], "names no artifact"),
        (["--artifact", "gone=x"], "there is no route gone"),
        (["--artifact", "local-small=gone.gguf"], "cannot read the artifact gone.gguf"),
        (["--artifact", "local-small=a", "--artifact", "local-small=b"], "given twice"),
    ],
)
def test_artifacts_that_are_none_are_told(capsys, folder, given, said):
    """What cannot be digested is an error, never passed over."""
    code, _, err = run(capsys, "check", *given, folder=folder)
    assert code == 2
    assert said in err


def test_check_compares_the_policy(capsys, folder, monkeypatch):
    """Where a policy has a digest it must be one that was reviewed; after a pin it is."""
    monkeypatch.setattr(decision_pins, "current_policy_digest", lambda _: POLICY)
    code, _, err = run(capsys, "check", folder=folder)
    assert code == 2
    assert err.count(f"pins.policy: the policy is {POLICY}") == 3
    code, out, err = run(capsys, "pin", "--all", folder=folder)
    assert (code, err) == (0, "")
    assert out.count("pins.policy.0: sha256:") == 3
    code, out, _ = run(capsys, "check", folder=folder)
    assert code == 0
    assert out.count("pins compared: policy, price, model") == 3


def test_pin_changes_digests_alone(capsys, folder):
    """Comments, order and layout of a file are the same after a pin, and so is every value that is no digest."""
    path = folder / "hosted-general.yaml"
    before = path.read_text(encoding="utf-8")
    path.write_text(re.sub(r"price: sha256:\w+", f"price: {ZEROS}", before), encoding="utf-8")
    code, out, _ = run(capsys, "pin", "hosted-general", folder=folder)
    assert code == 0
    assert path.read_text(encoding="utf-8") == before
    line = next(n for n, each in enumerate(before.splitlines(), 1) if each.startswith("  price:"))
    assert out.startswith(f"{path}:{line}: pins.price: {ZEROS} -> sha256:")
    code, out, _ = run(capsys, "pin", "hosted-general", folder=folder)
    assert (code, out) == (0, f"{path}: nothing to change\n")
    assert sorted(each.name for each in folder.iterdir()) == sorted(
        each.name for each in (ROOT / "config/decisions").iterdir()
    )


@pytest.mark.parametrize("given", [[], ["hosted-general", "--all"], ["gone"]])
def test_pin_wants_one_route_or_all(capsys, folder, given):
    """Neither, both, and a route that there is none of are usage errors."""
    assert run(capsys, "pin", *given, folder=folder)[0] == 2


def test_pin_writes_nothing_where_one_file_is_wrong(capsys, folder):
    """With `--all`, a record that has no place for a digest leaves every file as it was."""
    first, last = folder / "hosted-summaries.yaml", folder / "local-small.yaml"
    first.write_text(DIGEST.sub(ZEROS, first.read_text(encoding="utf-8")), encoding="utf-8")
    last.write_text(last.read_text(encoding="utf-8").replace("  price: ", "  cost: "), encoding="utf-8")
    before = first.read_text(encoding="utf-8")
    code, _, err = run(capsys, "pin", "--all", folder=folder)
    assert code == 2
    assert "pins.price: is not there" in err
    assert first.read_text(encoding="utf-8") == before


FACTS = RouteFacts(
    name="hosted", placement=Placement.HOSTED, model="large-1", region="eu", price_digest="sha256:" + "a" * 64
)
NEW = "sha256:" + "b" * 64


def test_a_new_policy_comes_first():
    """The newest policy takes the first line, the others move down, and comments stay with their lines."""
    text, changes = repin(TEXT, "x", FACTS, NEW)
    assert yaml.safe_load(text)["pins"]["policy"] == [NEW, POLICY]
    assert f"    - {NEW}  # reviewed with everybody\n    - {POLICY}\n" in text
    assert [(change.line, change.place) for change in changes] == [
        (48, "pins.policy.0"), (49, "pins.policy.1"), (50, "pins.price"),
    ]  # fmt: skip
    assert DIGEST.sub("", text) == DIGEST.sub("", TEXT)
    assert repin(text, "x", FACTS, POLICY) == (text, ())


@pytest.mark.parametrize(
    ("listed", "expected"),
    [
        ("\n    - A  # why\n", "\n    - N  # why\n    - A\n"),
        ("\n  - A\n", "\n  - N\n  - A\n"),
        ("\r\n    - A\r\n", "\r\n    - N\r\n    - A\r\n"),
        (" [A]  # why\n", " [N, A]  # why\n"),
        ("\n    - A", "\n    - N\n    - A"),
        ("\n    - Z\n", "\n    - N\n"),
        ("\n    - A\n    - B\n    - C\n", "\n    - N\n    - A\n    - B\n"),
        ("\n    - A\n    - N\n", "\n    - A\n    - N\n"),
    ],
)
def test_the_policy_before_stays_reviewed(listed, expected):
    """A list of one grows in its own style, so that a rollback starts; zeros are not kept, longer lists do not grow."""
    named = {"A": POLICY, "B": ZEROS[:-1] + "b", "C": ZEROS[:-1] + "c", "N": NEW, "Z": ZEROS}

    def written(text: str) -> str:
        filled = re.sub(r"\b[ABCNZ]\b", lambda found: named[found[0]], text)
        return f"pins:\n  price: {FACTS.price_digest}\n  policy:{filled}"

    text, changes = repin(written(listed), "x", FACTS, NEW)
    assert text == written(expected)
    lines = text.splitlines()
    assert all(change.new in lines[change.line - 1] for change in changes)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("  price: sha256:" + "1" * 64, "  price: 'todo'"),
        ("  price: sha256:" + "1" * 64, '  price: "sha256:1"  # kept'),
        ("  price: sha256:" + "1" * 64, "  price:\n    sha256:1"),
        ("\n", "\r\n"),
        ("# Why", "# Wéß 😀 why"),
    ],
)
def test_pins_are_placed_whatever_the_layout(old, new):
    """Quotes, lines, line ends and wide letters do not shift where a digest is put."""
    text, _ = repin(TEXT.replace(old, new), "x", FACTS, NEW)
    assert yaml.safe_load(text)["pins"]["price"] == FACTS.price_digest
    expected = yaml.safe_load(TEXT)
    expected["pins"].update(price=FACTS.price_digest, policy=[NEW, POLICY])
    assert yaml.safe_load(text) == expected
    assert "\r\n" not in new or text.count("\r\n") == text.count("\n")


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("pins:", "pens:", "x:2: pins.price: is not there"),
        ("  price: sha256:" + "1" * 64 + "\n", "  price:\n", "x:50: pins.price: holds no digest"),
        ("  price: sha256:" + "1" * 64 + "\n", "  price: [a]\n", "x:50: pins.price: holds no digest"),
        ("  policy:\n", "  policy: none\n  policies:\n", "x:47: pins.policy: must be a list of digests"),
        ("title: Q", "title: [Q", "x:5: not YAML"),
    ],
)
def test_a_text_without_a_place_is_told(old, new, said):
    """Where a digest has no place, the error says which line to write."""
    with pytest.raises(ConfigError, match=re.escape(said)):
        repin(TEXT.replace(old, new, 1), "x", FACTS, NEW)


def test_price_and_limits_are_digested_by_their_values(tmp_path):
    """Another price, length or time limit is another digest; another way of writing the same number is not."""
    text = ROUTES.read_text(encoding="utf-8")

    def digest(old: str, new: str) -> str:
        path = tmp_path / "routes.yaml"
        assert old in text
        path.write_text(text.replace(old, new), encoding="utf-8")
        return price_digest(load_routes(path).by_name["hosted-summaries"])

    same = price_digest(load_routes(ROUTES).by_name["hosted-summaries"])
    assert DIGEST.fullmatch(same)
    assert digest("output_per_million_usd: 10.00", "output_per_million_usd: 10") == same
    assert digest("input_per_million_usd: 2.50", "input_per_million_usd: 2.5") == same
    assert digest("timeout_s: 60 ", "timeout_s: 60.0 ") == same
    changed = {
        digest("output_per_million_usd: 10.00", "output_per_million_usd: 10.01"),
        digest("input_per_million_usd: 2.50", "input_per_million_usd: 10.00"),
        digest("max_tokens: 512", "max_tokens: 513"),
        digest("timeout_s: 60 ", "timeout_s: 61 "),
    }
    assert len(changed | {same}) == 5


def test_show_tells_one_record_or_all(capsys, folder):
    """Every question, number and pin is shown; without a route, for every route."""
    code, out, _ = run(capsys, "show", "hosted-general", folder=folder)
    assert code == 0
    for words in (
        "Data classification",
        "accepted trade-off",
        "Latency, 95th percentile",
        "12,000 ms",
        "Price and limits",
    ):
        assert words in out
    code, out, _ = run(capsys, "show", folder=folder)
    assert code == 0
    assert out.count("Trace correlation") == 3
    assert run(capsys, "show", "gone", folder=folder)[0] == 2


def test_show_writes_markdown(capsys, folder):
    """The page is plain Markdown, with a head for each record and no line cut to a terminal's width."""
    code, out, _ = run(capsys, "show", "--markdown", folder=folder)
    assert code == 0
    assert re.findall(r"^# (.+)$", out, flags=re.MULTILINE) == [
        f"Runtime decision record: {name}" for name in ("hosted-general", "hosted-summaries", "local-small")
    ]
    assert "\x1b" not in out
    assert max(map(len, out.splitlines())) > 160


def evidence(
    home: Path, ms: float, *, model: str = "gpt-4o-mini-2024-07-18", ago: timedelta = timedelta(hours=1)
) -> None:
    """Store one answered call of `hosted-general`."""
    event = EvidenceEvent(
        event_id="e-1",
        event_type=EventType.MODEL_COMPLETED,
        request_id="r-1",
        intake_id="r-1",
        trace_id="0" * 32,
        span_id="0" * 16,
        sequence=0,
        occurred_at_utc=datetime.now(UTC) - ago,
        stage=Stage.DISPATCH,
        site="home",
        route=RouteRef(name="hosted-general", placement=Placement.HOSTED, provider="p", model=model, region="eu"),
        usage=Usage(input_tokens=10, output_tokens=10, cost_usd=0.001),
        duration_ms=ms,
    )
    table = parse([event.to_json()], partition=0, offsets=[0], timestamps_ms=[0]).table
    with local_store(home / "evidence", "home").open("cluster", "ai.evidence", 0) as writer:
        writer.append(table, end=0)


def test_drift_without_evidence_is_no_drift(capsys, folder, tmp_path):
    """Where nothing was measured nothing is over, and each line says so."""
    code, out, _ = run(capsys, "drift", folder=folder, home=tmp_path / "home")
    assert code == 0
    assert out.count("no data") == 18


def test_drift_tells_what_is_over(capsys, folder, tmp_path):
    """A number beyond its tolerance gives exit code 1 and by how much; as JSON it is the same number."""
    home = tmp_path / "home"
    evidence(home, 5000)
    code, out, _ = run(capsys, "drift", folder=folder, home=home)
    assert code == 1
    assert "over by 100 %" in out
    code, out, _ = run(capsys, "drift", "--json", folder=folder, home=home)
    lines = {(line["route"], line["what"]): line for line in json.loads(out)}
    assert code == 1
    assert len(lines) == 18
    assert lines["hosted-general", "latency.p50_ms"] == {
        "route": "hosted-general",
        "what": "latency.p50_ms",
        "assumed": 2500,
        "tolerance_percent": 20,
        "measured": 5000,
        "over_percent": 100,
        "verdict": "over by 100 %",
        "calls": 1,
        "providers": ["p"],
    }
    assert lines["hosted-general", "cost.usd_per_request"]["verdict"] == "within"
    assert lines["local-small", "latency.p50_ms"]["verdict"] == "no data"


def test_drift_within_is_no_drift(capsys, folder, tmp_path):
    """Numbers within their tolerance give exit code 0."""
    home = tmp_path / "home"
    evidence(home, 2999)
    assert run(capsys, "drift", folder=folder, home=home)[0] == 0


@pytest.mark.parametrize(
    ("since", "code"), [("2h", 1), ("30m", 2), ("1d", 1), ("1h", 0), ("2026-01-01", 1), ("soon", 2)]
)
def test_drift_since(capsys, folder, tmp_path, since, code):
    """What ended before `--since` does not count; what is no time is a usage error."""
    home = tmp_path / "home"
    evidence(home, 5000)
    assert run(capsys, "drift", "--since", since, folder=folder, home=home)[0] == code


def test_drift_tells_another_model(capsys, folder, tmp_path):
    """A model that answers under a name that was not reviewed gives exit code 1, however fast and cheap it is."""
    home = tmp_path / "home"
    evidence(home, 10, model="gpt-4o-mini-2027-01-01")
    code, out, _ = run(capsys, "drift", folder=folder, home=home)
    assert code == 1
    assert "gpt-4o-mini-2027-01-01" in out
    code, out, _ = run(capsys, "drift", "--json", folder=folder, home=home)
    assert code == 1
    assert json.loads(out)[-1]["verdict"] == "another model"


def test_drift_tells_routes_without_a_record(capsys, folder, tmp_path):
    """Evidence of a route that no record speaks of is told."""
    home = tmp_path / "home"
    evidence(home, 10)
    (folder / "hosted-general.yaml").unlink()
    code, _, err = run(capsys, "drift", folder=folder, home=home)
    assert code == 0
    assert "evidence knows the route hosted-general, and there is no record of it" in err


def test_the_shipped_records_are_pinned_to_what_is_shipped(monkeypatch):
    """Price and policy of each shipped record are those of the sample deployment: `waybill decisions pin --all`."""
    monkeypatch.chdir(ROOT)
    digest = CURRENT(load())
    for facts in table_facts(load_routes(ROUTES)):
        path = ROOT / "config" / "decisions" / f"{facts.name}.yaml"
        assert repin(path.read_text(encoding="utf-8"), str(path), facts, digest)[1] == ()
