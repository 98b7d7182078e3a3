"""The route table: what is wrong in it stops the program, with the place and the field."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st
from requests_made import CLOSED, ENDPOINTS, LABELS, POLICY, RETENTION, ROUTES, TWO_HOSTED, book, labels, table

from evidence.errors import ConfigError
from evidence.records import Placement
from inference.routes import Endpoint, RouteConfig, fallbacks, load, parse, widens
from policy.files import Document


def changed(before: str, after: str) -> str:
    """The sample table with one text replaced."""
    assert before in ROUTES
    return ROUTES.replace(before, after, 1)


SECOND = """
  - name: second
    placement: hosted
    endpoint: other
    model: m
    region: eu
    capabilities: ["*"]
    classes: [public]
    purposes: ["*"]
    max_tokens: 1
    timeout_s: 1
    contract: "1.1"
    price: {input_per_million_usd: 0, output_per_million_usd: 0}
    answer: {forbid: [personal, financial, secret], action: mask}
"""


def with_second(before: str = "", after: str = "") -> str:
    """A table whose hosted route falls back to a second hosted one, changed in one place of the second."""
    assert before in SECOND
    return with_fallback("[second]") + SECOND.replace(before, after, 1)


def with_fallback(names: str) -> str:
    """The sample table with a list of fallbacks for its hosted route."""
    return ROUTES.replace('    contract: "1.1"', f'    contract: "1.1"\n    fallback: {names}', 1)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("routes: [", "my-routes.yaml:1: not YAML"),
        ("", "an empty file is no route table"),
        ("- a", "my-routes.yaml:1: must be an object"),
        ("? [a, b]\n: c", "a key must be a word"),
        (changed("version: 1", "version: 2"), "version"),
        (changed("policy_id: test-policy", "policy_id: ''"), "policy_id"),
        (changed("timeout_s: 5", "time_out: 5"), "routes.0.time_out"),
        (changed("timeout_s: 5", "timeout_s: 5\n    timeout_s: 6"), "given twice"),
        (changed("classes: [public, internal]", "classes: [public, secret]"),
         "my-routes.yaml:11: routes.0.classes.1: secret is none of the labels"),
        (changed("classes: [public, internal]", "classes: [internal]"), "routes.0.classes: public is missing"),
        (changed("classes: [public, internal]", "classes: []"), "routes.0.classes"),
        (changed("classes: [public, internal]", "classes: [public, public]"), "names something twice"),
        (changed("forbid: [personal, financial, secret]", "forbid: [persnal]"), "routes.0.answer.forbid.0"),
        (changed("max_risk: medium", "max_risk: extreme"), "routes.0.max_risk"),
        (changed("max_tokens: 64", "max_tokens: 0"), "routes.0.max_tokens"),
        (changed("timeout_s: 5", "timeout_s: .inf"), "routes.0.timeout_s"),
        (changed("input_per_million_usd: 1.0", "input_per_million_usd: .nan"), "finite"),
        (changed("input_per_million_usd: 1.0", "input_per_million_usd: .inf"), "finite"),
        (changed("input_per_million_usd: 1.0", "input_per_million_usd: -1"), "input_per_million_usd"),
        (changed("name: local-small", "name: hosted-general"), "another route is called hosted-general too"),
        (changed("name: local-small", "name: stop"), "`stop`"),
        (changed("name: local-small", "name: a/b"), "routes.1.name"),
        (with_fallback("[nowhere]"), "my-routes.yaml:17: routes.0.fallback.0: route hosted-general: fallback nowhere"),
        (with_fallback("[hosted-general]"), "no other route"),
        (with_fallback("[local-small, local-small]"), "names something twice"),
        (changed('contract: "1.1"', "contract: 1.1"), "routes.0.contract"),
        (changed('    contract: "1.1"\n', ""), "a hosted route says by which version of the waybill it goes"),
        (changed('contract: "1.1"', 'contract: "1.1"\n    context: some'), "routes.0.context"),
        (changed("max_tokens: 32", "max_tokens: 32\n    fallback: [hosted-general]"), "`placement`"),
        (with_second("region: eu", "region: us"), "`region`"),
        (with_second("max_tokens: 1", "max_tokens: 1\n    retention_days: 1"), "`retention_days`"),
        (with_second("[personal, financial, secret]", "[personal]"), "`answer.forbid`"),
        (with_second("max_tokens: 1", "max_tokens: 1\n    on_ambiguous: resend"), "`on_ambiguous`"),
        (with_second("[public]", "[public, internal, confidential]"), "`classes`"),
        (with_second('contract: "1.1"', 'contract: "1.0"'), "`contract`"),
        (with_second('contract: "1.1"', 'contract: "1.1"\n    context: useful'), "`context`"),
        (with_second().replace("action: mask", "action: refuse", 1), "`answer.action`"),
        (with_second().replace('purposes: ["*"]', "purposes: [support]", 1), "`purposes`"),
    ],
)  # fmt: skip
def test_each_mistake_is_named(text, told):
    """A mistake in the table is one `ConfigError` that names the file and the place or the field."""
    with pytest.raises(ConfigError) as caught:
        parse(Document(text, "my-routes.yaml"), labels())
    assert told in str(caught.value)
    assert re.search(r"my-routes\.yaml:\d+: ", str(caught.value))


def test_a_good_table_is_read():
    """A fallback within the grant is accepted, and a stricter answer rule too."""
    assert [route.name for route in table(with_second()).routes] == ["hosted-general", "local-small", "second"]
    assert table(with_second("action: mask", "action: refuse"))


def test_words_that_the_labels_list_are_the_only_ones():
    """Where labels list purposes and task types, a row names those or `*`."""
    assert table(ROUTES.replace('purposes: ["*"]', "purposes: [support]"), CLOSED)
    for before, field in (('purposes: ["*"]', "purposes"), ('capabilities: ["*"]', "capabilities")):
        with pytest.raises(ConfigError, match=f"routes.0.{field}.0: other is none of the labels"):
            table(ROUTES.replace(before, f"{field}: [other]", 1), CLOSED)


def names(routes: tuple[RouteConfig, ...]) -> list[str]:
    """The names of routes."""
    return [route.name for route in routes]


def test_fallbacks_are_computed_and_a_list_narrows_them():
    """All that stays within the grant may stand in, in the table's order; a list chooses among them, in its order."""
    made = table(TWO_HOSTED)
    assert names(fallbacks(made.by_name["hosted-general"], made)) == ["hosted-second", "local-small"]
    assert names(fallbacks(made.by_name["hosted-second"], made)) == ["local-small"]
    assert names(fallbacks(made.by_name["local-small"], made)) == []
    listed = TWO_HOSTED.replace('"1.1"', '"1.1"\n    fallback: [local-small, hosted-second]', 1)
    made = table(listed)
    assert names(fallbacks(made.by_name["hosted-general"], made)) == ["local-small", "hosted-second"]
    made = table(listed.replace("[local-small, hosted-second]", "[]"))
    assert names(fallbacks(made.by_name["hosted-general"], made)) == []


def test_a_weaker_way_is_no_fallback():
    """A route whose way is unprotected does not stand in for one that is; listed, it is an error with its line."""
    plain = {**ENDPOINTS, "other": Endpoint("other", "other-ai", "none")}
    lax = LABELS.replace("{name: public}", "{name: public, handling: {encryption: [tls, loopback, none]}}")
    by = book(endpoints=plain, labels=lax, routes=TWO_HOSTED)
    assert names(by.fallbacks["hosted-general"]) == ["local-small"]
    listed = TWO_HOSTED.replace('"1.1"', '"1.1"\n    fallback: [hosted-second]', 1)
    with pytest.raises(ConfigError, match=r"routes\.yaml:17: .*fallback hosted-second would widen `encryption`"):
        book(endpoints=plain, labels=lax, routes=listed)


def test_handling_bounds_what_a_route_may_take():
    """A class that must not leave, needs another protection or may not be kept is no class of a hosted route."""
    words = """
version: 1
classes:
  - {name: public, handling: {encryption: [tls, none], destination_days: 30}}
  - {name: internal, handling: {encryption: [tls], destination_days: 30}}
  - {name: confidential, handling: {encryption: [tls]}}
  - {name: restricted, handling: {hosted: false}}
categories: {personal: {implies: public}, financial: {implies: public}, secret: {implies: restricted}}
"""
    every = ROUTES.replace("[public, internal]", "[public, internal, confidential, restricted]", 1)
    ways = [
        ("tls", 0, {"public", "internal", "confidential"}),
        ("tls", 30, {"public", "internal"}),
        ("tls", 31, set()),
        ("none", 0, {"public"}),
        ("loopback", 0, set()),
    ]
    for encryption, days, classes in ways:
        routes = every.replace('contract: "1.1"', f'contract: "1.1"\n    retention_days: {days}')
        by = book(endpoints={**ENDPOINTS, "hosted": Endpoint("hosted", "p", encryption)}, labels=words, routes=routes)
        assert by.facts["hosted-general"].classes == classes
        assert by.facts["local-small"].classes == {"public", "internal", "confidential"}


def test_a_route_needs_an_endpoint_that_is_set():
    """A route that leads nowhere is an error that says which setting is missing."""
    with pytest.raises(ConfigError, match=r"routes\.yaml:21: .*WAYBILL_ENDPOINTS__LOCAL__KIND"):
        book(endpoints={"hosted": ENDPOINTS["hosted"]})


def test_a_rulebook_is_known_by_everything_that_decides():
    """Any change of labels, policies, retention or routes is another version; routes alone leave the policy digest."""
    changes = {"labels": LABELS + "# a", "policy": "// a\n" + POLICY, "retention": RETENTION + "# a"}
    versions = {book(**{name: text}).version for name, text in changes.items()}
    digests = {book(**{name: text}).policy_digest for name, text in changes.items()}
    assert len({book().version, book(routes=ROUTES + "# a").version, *versions}) == 5
    assert len({book().policy_digest, *digests}) == 4
    assert book(routes=ROUTES + "# a").policy_digest == book().policy_digest


FIELDS = st.fixed_dictionaries({
    "placement": st.sampled_from(["local", "hosted"]), "region": st.sampled_from(["eu", "us"]),
    "retention_days": st.integers(0, 2), "on_ambiguous": st.sampled_from(["stop", "resend"]),
    "contract": st.sampled_from(["1.0", "1.1"]), "context": st.sampled_from(["required", "useful", "all"]),
    "classes": st.sampled_from([("public",), ("public", "internal")]),
    "purposes": st.sampled_from([("*",), ("support",), ("support", "training")]),
    "answer": st.fixed_dictionaries({"forbid": st.lists(st.sampled_from(["personal", "secret"]), unique=True),
                                     "action": st.sampled_from(["mask", "drop", "refuse"])}),
})  # fmt: skip


def made(name: str, fields: dict) -> RouteConfig:
    """A route."""
    return RouteConfig.model_validate({
        "name": name, "endpoint": "e", "model": "m", "capabilities": ["*"], "max_tokens": 1, "timeout_s": 1,
        "price": {"input_per_million_usd": 0, "output_per_million_usd": 0}, **fields,
    })  # fmt: skip


@given(first=FIELDS, second=FIELDS, third=FIELDS)
def test_staying_within_a_grant_is_an_order(first, second, third):
    """A route is within its own grant; what is within something that is within a grant is within that grant."""
    a, b, c = made("a", first), made("b", second), made("c", third)
    assert widens(a, a) is None
    if widens(a, b) is None and widens(b, c) is None and b.placement is Placement.HOSTED:
        assert widens(a, c) is None


def test_a_version_tells_two_tables_apart():
    """The digest of a table changes with any field and with nothing else."""
    assert table().policy_version == table(ROUTES + "\n# a remark\n").policy_version
    assert table().policy_version != table(changed("max_tokens: 64", "max_tokens: 65")).policy_version


def test_a_file_that_is_not_there_is_named(tmp_path):
    """The error says which file cannot be read, and why."""
    with pytest.raises(ConfigError, match=r"nowhere\.yaml: No such file"):
        load(tmp_path / "nowhere.yaml")
    (tmp_path / "routes.yaml").write_text(ROUTES)
    assert load(tmp_path / "routes.yaml").policy_id == "test-policy"
