"""The file of the sites says exactly what may leave, and an export waybill cannot say more."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pytest
from bad_sites import CASES, GRANT, HQ, SITE, sites, without
from hypothesis import given
from hypothesis import strategies as st

from evidence.canonical import sha256_hex
from evidence.errors import ConfigError
from evidence.federation.columns import FIELDS, PATHS, REQUIRED
from policy import labels as label_files
from policy.contract import Destination
from policy.export_terms import ExportWaybill, check, redaction, regulations_at
from policy.files import Document
from policy.sites import Columns, Sites, load, parse

ROOT = Path(__file__).resolve().parents[2]
COLUMNS = Columns(FIELDS, REQUIRED)
LABELS = label_files.parse(
    Document(
        "version: 1\nclasses: [{name: public}, {name: internal}, {name: secret-ish}]\n"
        "categories: {personal: {implies: internal}, financial: {implies: internal}, secret: {implies: secret-ish}}\n"
        "purposes: [support, research]\nregulations: {gdpr: {regions: [eu]}, hipaa: {regions: [us]}, any: {}}\n",
        "labels",
    )
)


def read(text: str) -> Sites:
    """Read a list of sites."""
    return parse(Document(text, "sites.yaml"), COLUMNS, LABELS)


@pytest.mark.parametrize(("text", "message"), [case[1:] for case in CASES], ids=[case[0] for case in CASES])
def test_what_is_wrong_is_told_with_its_line(text, message):
    """Every fault of the file is an error that names line, field and what to do."""
    with pytest.raises(ConfigError) as caught:
        read(text)
    assert message in str(caught.value)
    assert "sites.yaml:" in str(caught.value)


def test_the_sample_loads():
    """The file that comes with the project is right, by the labels that come with it."""
    labels = label_files.load(ROOT / "config" / "policy" / "labels.yaml")
    sample = load(ROOT / "config" / "sites.yaml", COLUMNS, labels)
    assert [site.name for site, _ in sample.copies_for("hq")] == ["local", "edge-1"]
    assert {site.name: place for site, place in sample.copies_for("hq")}["local"] == ".waybill/copies/hq"
    assert "actor_ref" not in sample.grant("local", "hq").config.columns


def test_what_is_said_for_a_site_by_name_stands_instead_of_what_is_said_for_any():
    """A recipient's own grant is not joined with the general one; who has none gets nothing."""
    wide = without("to: hq, classes: [public]", by='to: "*", classes: [public, internal]')
    text = sites(SITE.replace("copies", "c/{recipient}"), wide, GRANT).replace(HQ, HQ + HQ.replace("hq", "lab"))
    found = read(text)
    assert found.grant("edge-1", "hq").config.classes == ("public",)
    assert found.grant("edge-1", "lab").config.classes == ("public", "internal")
    assert found.grant("edge-1", "lab").where == "sites.yaml:8"
    with pytest.raises(ConfigError, match=r"sites\.yaml:10: nothing may leave hq for lab"):
        found.grant("hq", "lab")
    with pytest.raises(ConfigError, match="there is no site 'moon'; there are edge-1, hq, lab"):
        found.grant("edge-1", "moon")
    with pytest.raises(ConfigError, match="is this site itself"):
        found.grant("hq", "hq")


def test_a_site_is_asked_where_it_may_have_a_copy_for_who_asks():
    """Its grants say for whom it has copies; where the file has none of its grants, it is asked."""
    found = read(sites(SITE, GRANT).replace(HQ, HQ + HQ.replace("hq", "lab")))
    assert [(site.name, where) for site, where in found.copies_for("hq")] == [("edge-1", "copies")]
    assert (found.copies_for("lab"), [site.name for site in found.closed_to("lab")]) == ((), ["edge-1"])
    assert (found.copies_for("edge-1"), found.closed_to("edge-1"), found.closed_to("hq")) == ((), (), ())
    assert [site.name for site, _ in read(sites()).copies_for("hq")] == ["edge-1"]


def waybill(**changes: object) -> ExportWaybill:
    """Give an export waybill that stays within GRANT, with changes."""
    said = {
        "export_id": "export-1",
        "data_classification": "public",
        "classes": ("public",),
        "purposes": ("*",),
        "destination": Destination(provider="hq", endpoint="copies", region="eu"),
        "destination_days": 1,
        "encryption": "loopback",
        "columns": tuple(sorted(REQUIRED)),
        "redaction": redaction(REQUIRED, PATHS),
        "consent": "none",
        "sources": (),
        "operator": "user:dora",
        "at_utc": datetime(2026, 11, 24, tzinfo=UTC),
    }
    return ExportWaybill(**(said | changes))


def test_a_waybill_within_the_grant_passes_and_its_document_has_its_digest():
    """What is granted, or less, may leave; the SHA-256 of the document's bytes is the record's digest."""
    grant = read(sites(SITE, GRANT)).grant("edge-1", "hq")
    check(waybill(), grant, LABELS, PATHS)
    check(waybill(destination_days=0, purposes=("support",)), grant, LABELS, PATHS)
    assert sha256_hex(waybill().document()) == waybill().digest()
    assert "detail:removed" in waybill().redaction
    assert redaction(PATHS, PATHS) == ("none",)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"classes": ("public", "internal"), "data_classification": "internal"}, "the class internal may not go to hq"),
        ({"columns": (*sorted(REQUIRED), "detail")}, "the column detail may not go to hq"),
        ({"destination": Destination(provider="lab", endpoint="x", region="eu")}, "lab in eu is not the recipient"),
        ({"destination": Destination(provider="hq", endpoint="x", region="us")}, "hq in us is not the recipient"),
        ({"encryption": "none"}, "is protected by none, and it takes tls or loopback"),
        ({"destination_days": 2}, "may keep it 1 days, not 2"),
        ({"consent": "consent:all"}, "under the basis none"),
        ({"fallback": ("elsewhere",)}, "under the basis none or not at all"),
        ({"redaction": ("none",)}, "names every column that is taken out"),
        ({"data_classification": "internal"}, "names the highest of its classes"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_a_waybill_that_would_widen_the_grant_is_an_error(changes, message):
    """Each term is held against what is granted."""
    grant = read(sites(SITE, GRANT)).grant("edge-1", "hq")
    with pytest.raises(ConfigError, match=message):
        check(waybill(**changes), grant, LABELS, PATHS)


def test_a_purpose_that_is_not_granted_is_an_error():
    """Where the purposes are listed, any other and `*` widen them."""
    grant = read(sites(SITE, without('["*"]', by="[support]"))).grant("edge-1", "hq")
    check(waybill(purposes=("support",)), grant, LABELS, PATHS)
    for wider in ("research", "*"):
        with pytest.raises(ConfigError, match="may not go to hq; granted: support"):
            check(waybill(purposes=("support", wider)), grant, LABELS, PATHS)


@given(
    st.sets(st.sampled_from(("public", "internal", "secret-ish")), min_size=1), st.sets(st.sampled_from(sorted(PATHS)))
)
def test_only_subsets_of_a_grant_pass(classes, more):
    """Whatever is asked for: it passes exactly if every class and column of it is granted."""
    granted = REQUIRED | {"detail", "usage.cost_usd"}
    text = without("event_id", by="event_id, detail, usage.cost_usd").replace("[public]", "[public, internal]")
    grant = read(sites(SITE, text)).grant("edge-1", "hq")
    columns = REQUIRED | more
    asked = waybill(
        classes=tuple(sorted(classes)),
        data_classification=LABELS.join(classes),
        columns=tuple(sorted(columns)),
        redaction=redaction(columns, PATHS),
    )
    try:
        check(asked, grant, LABELS, PATHS)
        passed = True
    except ConfigError:
        passed = False
    assert passed == (classes <= {"public", "internal"} and columns <= granted)


def test_regulations_say_where_evidence_of_data_under_them_may_be():
    """Only regulations that allow the recipient's region, or every one, let rows go there."""
    assert regulations_at(LABELS, "eu") == {"gdpr", "any"}
    assert regulations_at(LABELS, "us") == {"hipaa", "any"}
