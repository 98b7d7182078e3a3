"""`waybill export`, and `--federated` of the commands that ask, over real stores and a real broker."""

from __future__ import annotations

import csv
import io
import json
import re
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import yaml
from doc_pages import DOCS
from evidence_samples import NOON, stories
from evidence_stores import OneKey, local_store
from federated_sites import LOG, exporter, fill, rows
from federated_sites import export as make_copy
from vault_rig import Deployment, deployment

from evidence.errors import ConfigError, StoreError, UnavailableError
from evidence.federation.chain import commits
from evidence.federation.choice import Terms
from evidence.federation.columns import REQUIRED
from evidence.files.local import LocalFiles
from evidence.log.keys import KeyRing
from evidence.store.live import read_live
from streams.brokers.process import free_port
from waybill.cli import ask
from waybill.cli.evidence import keys
from waybill.cli.export import _encryption, export
from waybill.cli.trace import trace

COLUMNS = sorted(REQUIRED | {"classification.effective", "outcome", "route.name", "route.provider", "route.placement"})
COPY = "cluster-to-hq.ai.evidence-0"


@dataclass
class Here:
    """A folder with the sites, of which one is this one."""

    folder: Path
    """Everything of this test."""
    file: Path
    """The sites."""

    def sites(self, *entries: str) -> None:
        """Write the sites."""
        self.file.write_text("version: 1\nsites:\n" + "".join(f"  - {entry}\n" for entry in entries))

    def rows(self) -> list[dict[str, object]]:
        """Give the rows of the copy for hq."""
        copy = self.folder / "copies" / "hq"
        paths = sorted(read_live(LocalFiles(copy), COPY).files)
        return [row for path in paths for row in pq.ParquetFile(copy / path).read().to_pylist()]


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Here:
    """A site named edge-1 with evidence and a key of its own."""
    monkeypatch.setenv("WAYBILL_HOME", str(tmp_path))
    monkeypatch.setenv("WAYBILL_SITE", "edge-1")
    monkeypatch.setenv("WAYBILL_KAFKA", f"127.0.0.1:{free_port()}")
    ring = KeyRing.create(tmp_path / "keys", "edge-1")
    fill(tmp_path / "evidence", "edge-1", stories(40), keys=ring)
    made = Here(tmp_path, tmp_path / "sites.yaml")
    made.sites(edge(tmp_path, ring.newest().vkey), "{name: hq, region: eu}", "{name: us, region: us}")
    return made


def edge(folder: Path, key: str, **changes: str) -> str:
    """Give the entry of edge-1: internal evidence may go to hq."""
    grant = {"to": "hq", "classes": "[public, internal]", "purposes": '["*"]', "retention_days": "30"} | changes
    grants = ", ".join(f"{name}: {value}" for name, value in grant.items())
    return (
        f"{{name: edge-1, region: eu, location: '{folder}/copies/{{recipient}}', key: {key}, "
        f"leaves: [{{{grants}, columns: [{', '.join(COLUMNS)}]}}]}}"
    )


@pytest.fixture
def place(here: Here, kafka: str, prefix: str, monkeypatch: pytest.MonkeyPatch) -> Deployment:
    """The same site with a broker."""
    return deployment(here.folder, kafka, prefix, monkeypatch)


@pytest.mark.kafka
def test_an_export_is_evidence_first_and_holds_what_the_sites_grant(here, place, capsys):
    """The event names recipient, terms and waybill, which lies in the copy; a second run adds nothing."""
    export(to="hq", sites=here.file, by="user:dora")
    said = capsys.readouterr().out
    (event,) = place.events(1)
    detail = json.loads(event["detail"])
    assert (event["eventType"], event["actorRef"], event["stage"]) == ("evidence.exported", "user:dora", "operator")
    assert (detail["recipient"], detail["classes"], detail["region"]) == ("hq", ["public", "internal"], "eu")
    rows = here.rows()
    assert len(rows) == detail["rows"] > 100
    assert f"{len(rows):,} rows are in the copy for hq" in said
    assert {row["classification"]["effective"] for row in rows if row["classification"]} == {"internal"}
    assert {row["tenant_ref"] for row in rows} == {None}
    copy = here.folder / "copies" / "hq"
    statements = list((copy / "logs" / COPY / "statements").iterdir())
    assert [path.stem for path in statements] == [event["waybillHash"]]
    waybill = json.loads(statements[0].read_bytes())
    assert (waybill["transition"], waybill["dataClassification"]) == ("evidence-export", "internal")
    assert (waybill["encryption"], waybill["fallback"], waybill["exportId"]) == (
        "loopback",
        ["stop"],
        event["requestId"],
    )
    assert "tenant_ref:removed" in waybill["redaction"]
    assert waybill["sources"][0]["size"] == detail["rows"] + detail["withheld"]
    export(to="hq", sites=here.file)
    assert here.rows() == rows
    assert len(place.events(1)) == 1
    named = [noted.commit.statement for noted in commits(LocalFiles(copy), COPY) if noted.commit.source]
    assert len(named) == 2 + (len(rows) + detail["withheld"] > 50_000)


def test_nothing_leaves_where_evidence_cannot_say_so(here):
    """Without a broker there is no event, and so no copy."""
    with pytest.raises(UnavailableError):
        export(to="hq", sites=here.file)
    assert not (here.folder / "copies").exists()


def test_a_dry_run_says_what_would_leave_and_writes_nothing(here, capsys):
    """It needs no broker, tells rows that leave and stay, and leaves no trace."""
    export(to="hq", sites=here.file, dry_run=True)
    said = capsys.readouterr().out
    assert "cluster.ai.evidence-0" in said
    assert "would leave for hq: " in said
    assert not (here.folder / "copies").exists()


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"classes": ["confidential"]}, "the class confidential may not go to hq"),
        ({"classes": ["anything"]}, "the class anything may not go to hq"),
        ({"to": "us"}, "nothing may leave edge-1 for us"),
        ({"to": "moon"}, "there is no site 'moon'"),
        ({"to": "edge-1"}, "is this site itself"),
        ({"dest": "{folder}/evidence"}, "is this site's own evidence"),
        ({"dest": "{folder}/evidence/deeper"}, "is this site's own evidence"),
        ({"dest": "{folder}"}, "is this site's own evidence"),
    ],
)
def test_what_the_sites_do_not_grant_is_refused_before_anything_is_written(here, given, message):
    """Wider terms, another recipient, or a place within the original end the command."""
    told = {"to": "hq"} | {name: value for name, value in given.items() if name != "dest"}
    dest = str(given["dest"]).format(folder=here.folder) if "dest" in given else None
    with pytest.raises(ConfigError, match=message):
        export(**told, dest=dest, sites=here.file)
    assert not (here.folder / "copies").exists()


def test_a_key_that_the_sites_do_not_name_signs_no_copy(here):
    """Who would read the copy takes the key from the sites, so a different one is an error that shows the right one."""
    other = OneKey("edge-1", 5).signer.vkey
    here.sites(edge(here.folder, other), "{name: hq, region: eu}")
    with pytest.raises(ConfigError, match=r"sites\.yaml:3: edge-1 signs with waybill/edge-1\+"):
        export(to="hq", sites=here.file)


def test_the_way_is_named_as_the_place_shows_it(monkeypatch):
    """A folder is on this machine; a bucket is behind TLS unless its endpoint says otherwise."""
    for name in ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL"):
        monkeypatch.delenv(name, raising=False)
    assert [_encryption("copies", None), _encryption("s3://bucket/x", None)] == ["loopback", "tls"]
    assert _encryption("s3://bucket/x", "http://127.0.0.1:9000") == "loopback"
    for url, way in (("http://127.0.0.1:9000", "loopback"), ("http://minio:9000", "none"), ("https://minio", "tls")):
        monkeypatch.setenv("AWS_ENDPOINT_URL", url)
        assert _encryption("s3://bucket/x", None) == way


# Asking


@pytest.fixture
def asking(here: Here, monkeypatch: pytest.MonkeyPatch) -> Here:
    """The same sites, asked from hq: edge-1 has a copy, and the one of plant is not there."""
    make_copy(here.folder / "evidence", here.folder / "copies" / "hq", "edge-1", **keyed(here))
    monkeypatch.setenv("WAYBILL_SITE", "hq")
    monkeypatch.setenv("WAYBILL_HOME", str(here.folder / "at-hq"))
    key = KeyRing(here.folder / "keys", "edge-1").newest().vkey
    plant = f"{{name: plant, region: eu, location: '{here.folder}/none', key: {OneKey('plant').signer.vkey}}}"
    here.sites(edge(here.folder, key), "{name: hq, region: eu}", plant)
    fill(here.folder / "at-hq" / "evidence", "hq", stories(10, seed=5, begin=NOON + timedelta(minutes=1)))
    return here


def keyed(here: Here) -> dict[str, object]:
    """Give the keys of edge-1, for its copy."""
    return {"keys": KeyRing(here.folder / "keys", "edge-1")}


SQL = "select site, count(*) as n from events group by site order by site"


def test_a_missing_site_is_named_beside_the_answer(asking, capsys):
    """A table has a note on standard error, JSON says it in `sites`, CSV in a comment before the head."""
    ask.sql(SQL, federated=True, sites=asking.file)
    told = capsys.readouterr()
    assert "edge-1" in told.out
    assert "site plant is down (not in the answer): " in told.err
    ask.sql(SQL, federated=True, sites=asking.file, form="json")
    answer = json.loads(capsys.readouterr().out)
    assert [row["site"] for row in answer["rows"]] == ["edge-1", "hq"]
    assert [(site["site"], site["condition"]) for site in answer["sites"]] == [
        ("hq", "ok"),
        ("edge-1", "ok"),
        ("plant", "down"),
    ]
    ask.sql(SQL, federated=True, sites=asking.file, form="csv")
    first, *rest = capsys.readouterr().out.splitlines()
    assert first.startswith("# site plant down: ")
    assert [row["site"] for row in csv.DictReader(io.StringIO("\n".join(rest)))] == ["edge-1", "hq"]


def test_strict_gives_no_answer_with_a_hole(asking, capsys):
    """With --strict a missing site ends the command; nothing is on standard output."""
    for ask_it in (
        lambda: ask.sql(SQL, federated=True, strict=True, sites=asking.file),
        lambda: ask.ask("outcomes", federated=True, strict=True, sites=asking.file),
        lambda: trace("req-00000001", federated=True, strict=True, sites=asking.file),
    ):
        with pytest.raises(UnavailableError, match="no answer without plant"):
            ask_it()
        assert capsys.readouterr().out == ""


def test_a_site_that_keeps_nothing_for_who_asks_is_named_and_no_fault(asking, monkeypatch, capsys):
    """A site from which nothing may come here is not read, is named, and --strict does not mind."""
    monkeypatch.setenv("WAYBILL_SITE", "us")
    monkeypatch.setenv("WAYBILL_HOME", str(asking.folder / "at-us"))
    key = KeyRing(asking.folder / "keys", "edge-1").newest().vkey
    asking.sites(edge(asking.folder, key), "{name: hq, region: eu}", "{name: us, region: us}")
    ask.sql(SQL, federated=True, strict=True, sites=asking.file, form="json")
    told = capsys.readouterr()
    answer = json.loads(told.out)
    assert (answer["rows"], [site["condition"] for site in answer["sites"]]) == ([], ["ok", "closed"])
    assert "site edge-1 is closed (not in the answer): nothing may leave it for us" in told.err


def test_the_flags_belong_together(asking):
    """--strict and --sites mean nothing without --federated, and a site that is not listed cannot ask."""
    for given in ({"strict": True}, {"sites": asking.file}):
        with pytest.raises(ConfigError, match="add --federated"):
            ask.sql(SQL, **given)
    asking.sites("{name: other, region: eu}")
    with pytest.raises(ConfigError, match="there is no site 'hq'"):
        ask.sql(SQL, federated=True, sites=asking.file)


def test_a_question_with_a_name_is_asked_of_all_sites(asking, capsys):
    """`waybill ask --federated` counts requests of both sites."""
    ask.ask("outcomes", federated=True, sites=asking.file, form="json")
    answer = json.loads(capsys.readouterr().out)
    ask.ask("outcomes", form="json")
    own = json.loads(capsys.readouterr().out)
    assert sum(row["requests"] for row in answer["rows"]) > sum(row["requests"] for row in own) == 10


def test_a_trace_over_sites_is_one_story_in_order_of_time(here, monkeypatch, capsys):
    """What the edge sent on and the centre did with it is one table, by time, found by request or by trace."""
    edge_told, centre_told = (
        [
            one.model_copy(update={"trace_id": "f" * 32})
            for one in stories(1, seed=seed, begin=NOON + timedelta(hours=at))
        ]
        for seed, at in ((1, 0), (8, 1))
    )
    centre_told = [one.model_copy(update={"request_id": "req-centre"}) for one in centre_told]
    fill(here.folder / "e" / "evidence", "edge-2", edge_told)
    make_copy(here.folder / "e" / "evidence", here.folder / "e" / "copy", "edge-2")
    monkeypatch.setenv("WAYBILL_SITE", "hq")
    monkeypatch.setenv("WAYBILL_HOME", str(here.folder / "centre"))
    fill(here.folder / "centre" / "evidence", "hq", centre_told)
    key = OneKey("edge-2").signer.vkey
    here.sites(f"{{name: edge-2, region: eu, location: '{here.folder}/e/copy', key: {key}}}", "{name: hq, region: eu}")
    for name in (edge_told[0].request_id, "req-centre", "f" * 32):
        assert trace(name, federated=True, sites=here.file) == 0
        shown = re.findall(r"│ (edge-2|hq) +│", capsys.readouterr().out)
        assert shown == ["edge-2"] * len(edge_told) + ["hq"] * len(centre_told)
    assert trace("req-none", federated=True, sites=here.file) == 1
    assert trace(edge_told[0].request_id) == 1


def test_steps_that_stayed_at_a_site_are_counted_under_the_story(here, monkeypatch, capsys):
    """A hole in another site's story is told as what it is."""
    monkeypatch.setenv("WAYBILL_SITE", "hq")
    monkeypatch.setenv("WAYBILL_HOME", str(here.folder / "centre"))
    told = list(stories(1))
    fill(here.folder / "e" / "copy", "edge-2", [told[0], *told[3:]])
    key = OneKey("edge-2").signer.vkey
    here.sites(f"{{name: edge-2, region: eu, location: '{here.folder}/e/copy', key: {key}}}", "{name: hq, region: eu}")
    assert trace(told[0].request_id, federated=True, sites=here.file) == 0
    assert "not in evidence yet: 2 of edge-2" in capsys.readouterr().out


def test_a_lying_site_ends_the_question(asking, capsys):
    """A copy whose rows say another site is an error, not an answer."""
    copy = asking.folder / "liar"
    keys = OneKey("liar")
    with local_store(copy, "liar").open(*LOG) as writer:
        table = rows([one.model_copy(update={"site": "hq"}) for one in stories(1)])
        writer.append(table, end=len(table) - 1)
    asking.sites("{name: hq, region: eu}", f"{{name: liar, region: eu, location: '{copy}', key: {keys.signer.vkey}}}")
    with pytest.raises(StoreError, match="holds rows of 'hq'"):
        ask.sql(SQL, federated=True, sites=asking.file)
    assert capsys.readouterr().out == ""


# The page's own sites, done literally


@pytest.fixture(params=["the copy says what it holds", "the sites say it"])
def page(request, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Here:
    """The sites as docs/federation.md writes them, with a real key and place: edge-1 has a copy, hq asks."""
    text = (DOCS / "federation.md").read_text(encoding="utf-8")
    sites = re.search(r"^```yaml\n(version: 1\nsites:.*?)^```", text, flags=re.DOTALL | re.MULTILINE)[1]
    ring = KeyRing.create(tmp_path / "keys", "edge-1")
    sites = sites.replace("/srv/copies", str(tmp_path / "copies"))
    sites = re.sub(r"key: waybill/edge-1\S+", f"key: {ring.newest().vkey}", sites).replace("max_age_s: 7200", "")
    made = Here(tmp_path, tmp_path / "sites.yaml")
    made.file.write_text(sites)
    (leaves,) = next(site for site in yaml.safe_load(sites)["sites"] if site["name"] == "edge-1")["leaves"]
    columns = frozenset(leaves["columns"])
    fill(tmp_path / "edge" / "evidence", "edge-1", stories(60), keys=ring)
    fill(tmp_path / "hq" / "evidence", "hq", stories(30, seed=5, begin=NOON + timedelta(minutes=1)))
    terms = Terms(frozenset(leaves["classes"]), columns)
    through = exporter(tmp_path / "edge" / "evidence", tmp_path / "copies" / "hq", "edge-1", terms=terms, keys=ring)
    statement = {"columns": sorted(columns)} if request.param.startswith("the copy") else {"a": "waybill"}
    through.run(through.plan(datetime.now(UTC)), json.dumps(statement).encode(), lambda *_: None)
    if request.param.startswith("the copy"):
        made.file.write_text(sites.partition("    leaves:")[0] + "  - name: hq\n    region: eu\n")
    monkeypatch.setenv("WAYBILL_SITE", "hq")
    monkeypatch.setenv("WAYBILL_HOME", str(tmp_path / "hq"))
    return made


def asked_of(page: Here, capsys, name: str) -> tuple[list[dict], dict, str]:
    """Give the rows, what is said of edge-1, and the notes."""
    ask.ask(name, federated=True, sites=page.file, as_json=True)
    told = capsys.readouterr()
    answer = json.loads(told.out)
    return answer["rows"], next(site for site in answer["sites"] if site["site"] == "edge-1"), told.err


def test_a_site_that_grants_little_is_in_the_answer_and_what_it_withholds_is_named(page, capsys):
    """What left edge-1 is there although it grants no placement; its columns that are null are told in every form."""
    rows, edge_1, notes = asked_of(page, capsys, "left-the-building")
    crossed = [row for row in rows if row["site"] == "edge-1"]
    assert crossed
    assert {row["class"] for row in crossed} <= {"public", "internal"}
    assert {row["tenant_ref"] for row in crossed} == {None}
    assert next(iter(crossed[0])) == "site"
    assert {"tenant_ref", "route.provider", "intent_id"} <= set(edge_1["notGranted"])
    assert not {"route.placement", "classification.effective", "request_id"} & set(edge_1["notGranted"])
    assert "waybill: site edge-1 does not grant actor_ref, " in notes
    ask.ask("left-the-building", federated=True, sites=page.file, form="csv")
    first, *_ = capsys.readouterr().out.splitlines()
    assert first == f"# site edge-1 does not grant: {', '.join(edge_1['notGranted'])}"
    with pytest.raises(UnavailableError, match="columns that edge-1 does not grant"):
        ask.ask("left-the-building", federated=True, strict=True, sites=page.file)
    assert capsys.readouterr().out == ""


def test_hosted_calls_are_counted_where_no_placement_is_granted(page, capsys):
    """`hosted_calls` counts the crossings of edge-1, as `crossings` does."""
    rows, *_ = asked_of(page, capsys, "by-class")
    ask.sql("select site, count(*) as n from crossings group by site", federated=True, sites=page.file, as_json=True)
    counted = {row["site"]: row["n"] for row in json.loads(capsys.readouterr().out)["rows"]}
    assert counted["edge-1"] > 0
    for site, number in counted.items():
        assert sum(row["hosted_calls"] for row in rows if row["site"] == site) == number


def test_a_question_that_needs_nothing_else_has_no_note(page, capsys):
    """Where all that is asked for is granted, nothing is said and --strict gives the answer."""
    ask.sql(SQL, federated=True, strict=True, sites=page.file, as_json=True)
    told = capsys.readouterr()
    assert "notGranted" not in told.out
    assert "does not grant" not in told.err


def test_the_keys_that_are_printed_are_of_the_store_s_site(page, monkeypatch, capsys):
    """`evidence keys` names the site of the store, whatever the setting says."""
    monkeypatch.setenv("WAYBILL_HOME", str(page.folder / "edge"))
    (page.folder / "keys").rename(page.folder / "edge" / "keys")
    monkeypatch.setenv("WAYBILL_EVIDENCE_KEYS", str(page.folder / "edge" / "keys"))
    keys()
    assert capsys.readouterr().out.startswith("waybill/edge-1+")
