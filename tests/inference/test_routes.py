"""The route table: what is wrong in it stops the program, with the place and the field."""

from __future__ import annotations

import pytest
from requests_made import ROUTES, table

from evidence.errors import ConfigError
from inference.routes import load, parse


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
    price: {input_per_million_usd: 0, output_per_million_usd: 0}
    answer: {forbid: [personal, financial, secret], action: mask}
"""


def with_second(before: str = "", after: str = "") -> str:
    """A table whose hosted route falls back to a second hosted one, changed in one place of the second."""
    assert before in SECOND
    return ROUTES.replace("fallback: [local-small]", "fallback: [second]") + SECOND.replace(before, after, 1)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("routes: [", "is not YAML"),
        ("", "is no route table"),
        ("- a", "is no route table"),
        ("? [a, b]\n: c", "a key must be a word"),
        (changed("version: 1", "version: 2"), "version"),
        (changed("policy_id: test-routes", "policy_id: ''"), "policy_id"),
        (changed("timeout_s: 5", "time_out: 5"), "routes.0.time_out"),
        (changed("timeout_s: 5", "timeout_s: 5\n    timeout_s: 6"), "given twice"),
        (changed("classes: [public, internal]", "classes: [public, secret]"), "routes.0.classes.1"),
        (changed("classes: [public, internal]", "classes: []"), "routes.0.classes"),
        (changed("classes: [public, internal]", "classes: [public, public]"), "names something twice"),
        (changed("forbid: [personal, financial, secret]", "forbid: [persnal]"), "routes.0.answer.forbid.0"),
        (changed("max_risk: medium", "max_risk: extreme"), "routes.0.max_risk"),
        (changed("max_tokens: 64", "max_tokens: 0"), "routes.0.max_tokens"),
        (changed("timeout_s: 5", "timeout_s: .inf"), "routes.0.timeout_s"),
        (changed("input_per_million_usd: 1.0", "input_per_million_usd: .nan"), "finite"),
        (changed("input_per_million_usd: 1.0", "input_per_million_usd: .inf"), "finite"),
        (changed("input_per_million_usd: 1.0", "input_per_million_usd: -1"), "input_per_million_usd"),
        (changed("name: local-small", "name: hosted-general"), "same name"),
        (changed("name: local-small", "name: stop"), "`stop`"),
        (changed("name: local-small", "name: a/b"), "routes.1.name"),
        (changed("fallback: [local-small]", "fallback: [nowhere]"), "no other route"),
        (changed("fallback: [local-small]", "fallback: [hosted-general]"), "no other route"),
        (changed("fallback: [local-small]", "fallback: [local-small, local-small]"), "names something twice"),
        (changed("max_tokens: 32", "max_tokens: 32\n    fallback: [hosted-general]"), "`placement`"),
        (with_second("region: eu", "region: us"), "`region`"),
        (with_second("max_tokens: 1", "max_tokens: 1\n    retention_days: 1"), "`retention_days`"),
        (with_second("[personal, financial, secret]", "[personal]"), "`answer.forbid`"),
        (with_second("max_tokens: 1", "max_tokens: 1\n    on_ambiguous: resend"), "`on_ambiguous`"),
        (with_second("[public]", "[public, restricted]"), "`classes`"),
        (with_second().replace("action: mask", "action: refuse", 1), "`answer.action`"),
        (with_second().replace('purposes: ["*"]', "purposes: [support]", 1), "`purposes`"),
    ],
)  # fmt: skip
def test_each_mistake_is_named(text, told):
    """A mistake in the table is one `ConfigError` that names the file and the place or the field."""
    with pytest.raises(ConfigError) as caught:
        parse(text, source="my-routes.yaml")
    assert told in str(caught.value)
    assert str(caught.value).startswith("my-routes.yaml")


def test_a_good_table_is_read():
    """A fallback within the grant is accepted, and a stricter answer rule too."""
    assert [route.name for route in parse(with_second(), source="s").routes] == [
        "hosted-general",
        "local-small",
        "second",
    ]
    assert parse(with_second("action: mask", "action: refuse"), source="s")


def test_a_version_tells_two_tables_apart():
    """The digest of a table changes with any field and with nothing else."""
    assert table().policy_version == table(ROUTES + "\n# a remark\n").policy_version
    assert table().policy_version != table(changed("max_tokens: 64", "max_tokens: 65")).policy_version


def test_a_file_that_is_not_there_is_named(tmp_path):
    """The error says which file cannot be read, and why."""
    with pytest.raises(ConfigError, match=r"nowhere\.yaml: No such file"):
        load(tmp_path / "nowhere.yaml")
    (tmp_path / "routes.yaml").write_text(ROUTES)
    assert load(tmp_path / "routes.yaml").policy_id == "test-routes"
