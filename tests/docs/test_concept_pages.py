"""The examples of the pages on policy, labels, redaction, context and the waybill do what the pages say."""

from __future__ import annotations

import json
import re
from pathlib import Path

import orjson
import pytest
from doc_pages import DOCS, ROOT

from inference import rulebook
from inference.routes import Endpoint
from inference.rulebook import Rulebook
from policy import labels
from policy.cedar import Source
from policy.detection.detectors import Detectors
from policy.engine import Engine, Held
from policy.files import Document
from policy.identity.verify import unsigned
from policy.labels import Label
from policy.questions import Facts, Outcome, Style
from policy.view import Redactor
from streams.processors.classification import classify
from streams.processors.routing import decide, waybills
from streams.request import parse
from streams.stages.admitted import case_of

ENDPOINTS = {
    "hosted": Endpoint("hosted", "stand-in", "loopback"),
    "local": Endpoint("local", "triton", "loopback"),
}


@pytest.fixture(scope="module")
def book() -> Rulebook:
    """Give the rulebook of the sample deployment."""
    return rulebook.load(ROOT / "config" / "policy", ROOT / "config" / "routes.yaml", ENDPOINTS)


def blocks(page: str, language: str) -> list[str]:
    """Give the code of a page in one language."""
    text = (DOCS / page).read_text(encoding="utf-8")
    return re.findall(rf"^```{language}\n(.*?)^```", text, flags=re.MULTILINE | re.DOTALL)


def test_the_policies_on_the_page_load_and_decide(book):
    """The example permits internal data to cross, forbids a destination that keeps data, and has a reason for each."""
    (text,) = blocks("policy.md", "cedar")
    facts = book.facts["hosted-general"]
    engine = Engine([Source("policy.md", text)], book.labels, [facts, facts._replace(name="keeps", retention_days=7)])
    asked = Facts("ana", "user", "acme", frozenset(), "jwt", "model-call", "customer-support", "question", 0,
                  "contract", "none")  # fmt: skip
    held = Held(Label("internal"))
    allowed = engine.decide(asked, held, facts)
    denied = engine.decide(asked, held, facts._replace(name="keeps", retention_days=7))
    assert (allowed.outcome, allowed.reasons) == (Outcome.ALLOW, ("ordinary-work",))
    assert (denied.outcome, denied.reasons) == (Outcome.DENY, ("keeps-nothing",))
    assert engine.decide(asked, Held(Label("confidential")), facts).reasons == ("default-deny",)


def test_the_labels_on_the_page_say_what_the_page_says():
    """An e-mail address makes an open text ours, under gdpr and its regions; a card makes it secret."""
    (text,) = blocks("labels.md", "yaml")
    made = labels.parse(Document(text, "labels.md"))
    with_mail = made.label("open", (), (), ("email",))
    assert (with_mail.cls, with_mail.regulations) == ("ours", {"gdpr"})
    assert made.regions(with_mail.regulations) == {"eu", "on-site"}
    assert made.label("open", (), (), ("email", "card")).cls == "secret"
    assert not made.handling["secret"].hosted


def test_every_style_gives_what_the_table_shows():
    """The four styles make of the example what the table says."""
    text = "Write to erika@example.org"
    findings = Detectors().scan(text)
    shown = dict(re.findall(r"^\| `(\w+)` \| `([^`]+)`", (DOCS / "redaction.md").read_text(), flags=re.MULTILINE))
    assert set(shown) == set(Style)
    for style in Style:
        made = Redactor({"personal": style}, b"key").take_out(text, findings)
        if style is Style.HASH:
            made = re.sub(r":[0-9a-f]{12}\]", ":]", made)
            assert made == re.sub(r":[0-9a-f]{12}\]", ":]", shown[style])
        else:
            assert made == shown[style]


def request(content: dict[str, object]) -> bytes:
    """Give a request with an input."""
    said = {
        "contractVersion": "1.0", "requestId": "r-1", "timestampUtc": "2026-11-24T09:00:00Z", "actor": {"id": "ana"},
        "tenant": {"id": "acme"}, "taskType": "question", "purpose": "product-research", "classification": "public",
        "consent": {"basis": "contract", "reference": "dpa-2026-04"}, "input": content,
    }  # fmt: skip
    return orjson.dumps(said)


def test_of_the_sources_on_the_page_the_required_one_goes_along(book):
    """On the sample's hosted route the manual goes along; the ticket and the history stay, as not required."""
    (text,) = blocks("context.md", "json")
    asked = parse(request(json.loads(text)))
    classified = classify(asked, book.labels, Detectors())
    case = case_of(asked, unsigned("ana", "user", "acme"), classified, "none", frozenset())
    chosen = decide(case, book)
    assert chosen.routes[0].name == "hosted-general"
    assert chosen.selection.items == (0,)
    assert chosen.selection.left == ((1, "not_required"), (2, "not_required"))
    local = decide(case._replace(wish=case.wish._replace(placement="local")), book)
    assert local.selection.items == (0, 1, 2)


def test_a_waybill_has_the_nine_terms_of_the_page(book):
    """Each term that the page names is a field of a real waybill, and none is empty."""
    asked = parse(request({"messages": [{"role": "user", "content": "Hello"}]}))
    classified = classify(asked, book.labels, Detectors())
    case = case_of(asked, unsigned("ana", "user", "acme"), classified, "none", frozenset())
    contract = waybills("intake", case, decide(case, book), "contract:dpa-2026-04", (), book)["hosted-general"]
    text = (DOCS / "waybill.md").read_text(encoding="utf-8")
    named = re.search(r"nine terms: ([^.]+)\.", text)[1].split(", ")
    assert len(named) == 9
    for name in named:
        assert getattr(contract, name.replace(" ", "_"))
    (code,) = blocks("waybill.md", "python")
    compile(code, "waybill.md", "exec")


def test_every_command_on_the_pages_exists():
    """Each `waybill` command that the pages show is one."""
    from doc_pages import commands  # noqa: PLC0415 - it loads every command

    known = commands()
    for page in ("policy.md", "redaction.md", "labels.md", "context.md", "waybill.md"):
        for block in blocks(page, "sh"):
            for line in filter(None, block.splitlines()):
                words = line.removeprefix("waybill ").split()
                assert any(" ".join(words[:size]) in known for size in (1, 2)), line


def test_the_sample_deployment_is_whole():
    """The folder that the page on policy names has the files that it names."""
    folder = ROOT / "config" / "policy"
    assert {"labels.yaml", "retention.yaml"} <= {path.name for path in folder.iterdir()}
    assert list(Path(folder).glob("*.cedar"))
