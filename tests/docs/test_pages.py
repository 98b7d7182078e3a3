"""What the pages list is all that there is: codes, events, outcomes, columns, record types; and their links lead on."""

from __future__ import annotations

import ast
import re
from functools import cache
from pathlib import Path

import pytest
from doc_pages import DOCS, ROOT, codes, read_table

from evidence.records import EventType, Outcome
from policy.engine import CLASS, DEFAULT_DENY
from queries.database import Evidence
from streams import envelope, request
from streams.processors import routing
from streams.topics import ALL, DEADLETTER, LEDGER
from waybill.settings import PREFIX, Settings

PAGES = sorted([ROOT / "README.md", ROOT / "CHANGELOG.md", ROOT / "CONTRIBUTING.md", *DOCS.rglob("*.md")])
BACKEND_ERRORS = {"NotSent", "Unavailable", "Malformed", "Rejected", "Ambiguous"}


@cache
def parsed(path: str) -> ast.Module:
    """Give a module's syntax tree."""
    return ast.parse((ROOT / path).read_text(encoding="utf-8"))


def calls(path: str, names: set[str]) -> set[str]:
    """Give the code that stands as the first argument, or as `code=`, of each call of one of these names."""
    found = set()
    for node in ast.walk(parsed(path)):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in names:
            values = [*node.args[:1], *(word.value for word in node.keywords if word.arg == "code")]
            found |= {each.value for each in values if isinstance(each, ast.Constant) and isinstance(each.value, str)}
    return found


def literals(path: str) -> set[str]:
    """Give every plain string of a module."""
    return {
        node.value for node in ast.walk(parsed(path)) if isinstance(node, ast.Constant) and isinstance(node.value, str)
    }


def modules(folder: str) -> list[str]:
    """Give the modules of a folder."""
    return [str(path.relative_to(ROOT)) for path in sorted((ROOT / folder).rglob("*.py"))]


def test_every_rejection_code_is_documented_and_no_other():
    """The codes with which admission rejects are those of the table."""
    told = {
        "streams/request.py", "streams/envelope.py", "streams/stages/admit.py", "streams/stages/admission.py",
        "streams/processors/classification.py", "policy/labels.py", "streams/batches.py", "streams/readable.py",
        *modules("policy/identity"),
    }  # fmt: skip
    thrown = set().union(*(calls(path, {"RecordError"}) for path in told)) | set(request._ORDER)
    # Of a case, admission only writes one; what cannot be read of one is met in dispatch.
    thrown |= calls("streams/processors/cases.py", {"RecordError"}) - {"bad_case"}
    assert set(codes(read_table("requests.md", "## Rejection codes"))) == thrown


def test_rejection_codes_stand_in_the_order_of_precedence():
    """Where several fields are wrong, the first code of the table is told."""
    documented = codes(read_table("requests.md", "## Rejection codes"))
    assert [code for code in documented if code in request._ORDER] == list(request._ORDER)


def test_codes_of_bad_evidence_are_documented():
    """What the evidence parser rejects with is on the page."""
    section = (DOCS / "requests.md").read_text(encoding="utf-8").partition("Dead letters of records on other topics")[2]
    for code in calls("evidence/parsing.py", {"RecordError"}) | {"missing_field", "unknown_field", "invalid_field"}:
        assert f"`{code}`" in section.partition("## Failure codes")[0], code


def test_every_failure_code_is_documented_and_no_other():
    """The codes that stages give to responses are those of the table."""
    given = set().union(*(calls(path, {"Failure"}) for path in modules("streams/stages"))) - {"bad_work"}
    assert set(codes(read_table("requests.md", "## Failure codes"))) == given


def test_every_code_of_an_attempt_is_documented():
    """Each code that a backend fails with is in the table, under its kind; each documented one is in the code."""
    table = read_table("requests.md", "## Codes of attempts")
    rows = {row[0]: set(re.findall(r"`([^`]+)`", row[2])) for row in table}
    kinds = dict(zip(("NotSent", "Unavailable", "Malformed", "Rejected", "Ambiguous"), rows.values(), strict=True))
    places = [*modules("inference"), *modules("streams/stages")]
    for kind, documented in kinds.items():
        used = set().union(*(calls(path, {kind}) for path in places))
        assert used <= documented, kind
    known = set().union(*(literals(path) for path in [*places, "inference/model_repository/smollm2/1/engine.py"]))
    engine = (ROOT / "inference" / "answer.py").read_text(encoding="utf-8")
    of_families = {"resend", "exchange_…"}
    for code in set().union(*rows.values()) - of_families:
        assert code in known or code in engine or re.fullmatch(r"http_\d{3}", code), code


def test_every_reason_code_is_documented_and_no_other():
    """The reasons of decisions are those of the table."""
    tree, serving = parsed("streams/processors/routing.py"), parsed("streams/stages/serve.py")
    named = {routing.objects.__name__, "_objections", "_approval_objects", "_contract_objects"}
    objections = {
        node.value
        for body in (tree, serving)
        for function in ast.walk(body)
        if isinstance(function, ast.FunctionDef) and function.name in named
        for returned in ast.walk(function)
        if isinstance(returned, ast.Return) and isinstance(returned.value, ast.Constant | ast.Tuple)
        for node in ast.walk(returned)
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
    }
    engine = {DEFAULT_DENY, CLASS, "residency"}
    assert set(codes(read_table("routes.md", "## Reason codes"))) == objections | engine | {"allowed", "no_route"}


def test_every_event_and_every_outcome_is_documented():
    """The tables of events and of outcomes are those of the record, in its order."""
    documented = codes([(row[0],) for row in read_table("evidence.md", "## Events")])
    assert set(documented) == set(EventType)
    assert len(documented) == len(EventType)
    assert set(codes(read_table("evidence.md", "## Stories by outcome"))) == set(Outcome)


def test_every_outcome_says_what_to_do():
    """The table of outcomes on the page of requests has each one, in the record's order."""
    text = (DOCS / "requests.md").read_text(encoding="utf-8").partition("| outcome | what it means |")[2]
    names = re.findall(r"^\| `(\w+)` \|", text.partition("\n\n")[0], flags=re.MULTILINE)
    assert names == list(Outcome)


def test_every_topic_has_its_record_type():
    """The table of records names each topic once, with the type that its records carry."""
    rows = read_table("topics.md", "## Records")
    assert sorted(codes(rows)) == sorted(topic.name for topic in ALL)
    types = {value for name, value in vars(envelope).items() if name.endswith("_TYPE")}
    assert {row[1].strip("`") for row in rows} == types
    by_topic = {name: row[1].strip("`") for row in rows for name in codes([row])}
    assert by_topic[DEADLETTER.name] == envelope.DEADLETTER_TYPE
    assert by_topic[LEDGER.name] == envelope.LEDGER_TYPE


def test_every_header_of_a_request_is_documented():
    """The headers that mean something are those of the table."""
    documented = set(codes(read_table("topics.md", "## Headers of a request")))
    assert documented == set(envelope._READ) | {"traceparent", "tracestate"}


@pytest.mark.parametrize("view", ["requests", "crossings"])
def test_every_column_of_a_view_is_documented(view, tmp_path: Path):
    """The columns are those of the table, in its order."""
    with Evidence(tmp_path) as evidence, evidence.query(f"select * from {view}") as answer:  # noqa: S608 - one of two words
        columns = list(answer.columns)
    assert codes([(row[0],) for row in read_table("sql.md", f"## {view}")]) == columns


def test_settings_that_are_named_exist():
    """No page names a setting that there is none of."""
    known = {PREFIX + name.upper() for name in Settings.model_fields}
    for page in PAGES:
        for name in re.findall(r"WAYBILL_[A-Z0-9_]*[A-Z]", page.read_text(encoding="utf-8")):
            assert name in known or name.startswith(
                ("WAYBILL_ENDPOINTS__", "WAYBILL_IDENTITY__", "WAYBILL_EVIDENCE_S3__", "WAYBILL_BENCH_")
            ), f"{page}: {name}"


def anchors(page: Path) -> set[str]:
    """Give the anchors of a page's headings."""
    heads = re.findall(r"^#+ (.+)$", page.read_text(encoding="utf-8"), flags=re.MULTILINE)
    return {re.sub(r"[^\w -]", "", head).lower().replace(" ", "-") for head in heads}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_a_link_that_names_a_page_leads_to_it(page: Path):
    """Where the text of a link is a file's name, the link leads to that file."""
    for text, name in re.findall(r"\[`?([\w./-]+\.md)`?\]\(([^)#]+)", page.read_text(encoding="utf-8")):
        assert Path(text).name == Path(name).name


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path):
    """Each link within the project leads to a file that is there, and to a heading in it."""
    for link in re.findall(r"\]\(([^)\s]+)\)", page.read_text(encoding="utf-8")):
        if link.startswith(("https://", "http://")):
            continue
        name, _, anchor = link.partition("#")
        target = (page.parent / name).resolve() if name else page
        assert target.exists(), link
        assert not anchor or anchor in anchors(target), link


@pytest.mark.parametrize("page", sorted((DOCS / "decisions").glob("*.md")), ids=lambda page: page.name[:4])
def test_decisions_have_one_form(page: Path):
    """A decision has its number, a date, and says context, decision and consequences, on one page."""
    text = page.read_text(encoding="utf-8")
    assert re.match(rf"# {page.name[:4]} .+\n\n\d{{4}}-\d{{2}}-\d{{2}}, (accepted|replaced by \d{{4}})\n", text)
    heads = re.findall(r"^## (\w+)$", text, flags=re.MULTILINE)
    assert heads[0] == "Context"
    assert {"Context", "Decision", "Consequences"} <= set(heads)
    assert len(text.splitlines()) < 90
