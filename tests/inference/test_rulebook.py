"""The rulebook: whole or not made, known by one version, and what stays within the grant of each route."""

from __future__ import annotations

from dataclasses import replace

import pytest
from bad_files import ENDPOINTS, GOOD, LABELS, POLICY, RETENTION, ROUTES, write

from evidence.canonical import sha256_hex
from evidence.errors import ConfigError
from inference.routes import Endpoint
from inference.rulebook import Shelf, Texts, compile_texts, load, read
from policy.cedar import GUARDS, Source


def texts(**changes: str) -> Texts:
    """The good files, of which some are changed."""
    return Texts(
        labels=Source(LABELS, changes.get("labels", GOOD[LABELS])),
        retention=Source(RETENTION, changes.get("retention", GOOD[RETENTION])),
        policies=(
            Source("(built in)", GUARDS.read_text(encoding="utf-8")),
            Source(POLICY, changes.get("policies", GOOD[POLICY])),
        ),
        routes=Source(ROUTES, changes.get("routes", GOOD[ROUTES])),
    )


def test_a_rulebook_is_read_from_its_files(tmp_path):
    """All files together make one, which knows every route as policy sees it."""
    write(tmp_path)
    book = load(tmp_path / "policy", tmp_path / "routes.yaml", ENDPOINTS)
    first = book.facts["first"]
    assert (first.provider, first.region, first.retention_days, first.encryption) == ("acme-ai", "eu", 1, "tls")
    assert first.classes == {"public", "internal"}
    assert book.facts["inside"].classes == {"public", "internal", "secret"}
    assert book.version == read(tmp_path / "policy", tmp_path / "routes.yaml").version


def test_the_name_of_a_file_decides_nothing(tmp_path):
    """The same texts elsewhere are the same version, and its digests are those of the texts."""
    write(tmp_path)
    here = read(tmp_path / "policy", tmp_path / "routes.yaml")
    assert (here.policy_digest, here.version) == (texts().policy_digest, texts().version)
    parts = [GOOD[LABELS], GOOD[RETENTION], GUARDS.read_text(encoding="utf-8"), GOOD[POLICY]]
    assert here.policy_digest == "sha256:" + sha256_hex("\x00".join(parts).encode())


@pytest.mark.parametrize(
    ("part", "policy"), [("labels", True), ("policies", True), ("retention", True), ("routes", False)]
)
def test_every_file_is_part_of_the_version(part, policy):
    """One more blank line anywhere is another version; the routes are no part of the policy's digest."""
    good = {"labels": GOOD[LABELS], "policies": GOOD[POLICY], "retention": GOOD[RETENTION], "routes": GOOD[ROUTES]}
    changed = texts(**{part: good[part] + "\n"})
    assert changed.version != texts().version
    assert (changed.policy_digest != texts().policy_digest) is policy


def test_the_handling_of_a_class_narrows_a_row():
    """What a row lists goes outside only as far as its handling allows days and encryption."""
    longer = GOOD[ROUTES].replace("retention_days: 1", "retention_days: 20").replace("fallback: [second, inside]", "")
    assert compile_texts(texts(routes=longer), ENDPOINTS).facts["first"].classes == {"public"}
    bare = {**ENDPOINTS, "hosted": replace(ENDPOINTS["hosted"], encryption="none")}
    assert compile_texts(texts(), bare).facts["first"].classes == {"public"}
    kept = GOOD[LABELS].replace("{hosted: true, encryption: [tls, loopback], destination_days: 3}", "{hosted: false}")
    assert compile_texts(texts(labels=kept), ENDPOINTS).facts["first"].classes == {"public"}
    assert compile_texts(texts(labels=kept), ENDPOINTS).facts["inside"].classes == {"public", "internal", "secret"}


def test_the_fallbacks_are_computed():
    """Where none are listed, every route that stays within the grant is one, in the order of the table."""
    free = GOOD[ROUTES].replace("    fallback: [second, inside]\n", "")
    book = compile_texts(texts(routes=free), ENDPOINTS)
    assert {name: [other.name for other in found] for name, found in book.fallbacks.items()} == {
        "first": ["second", "inside"],
        "second": ["inside"],
        "inside": [],
    }


def test_a_list_narrows_the_fallbacks():
    """A list leaves out what it does not name, and an empty one leaves nothing."""
    narrowed = compile_texts(texts(routes=GOOD[ROUTES].replace("[second, inside]", "[inside]")), ENDPOINTS)
    assert [route.name for route in narrowed.fallbacks["first"]] == ["inside"]
    none = compile_texts(texts(routes=GOOD[ROUTES].replace("[second, inside]", "[]")), ENDPOINTS)
    assert none.fallbacks["first"] == ()


def test_a_way_without_encryption_is_no_computed_fallback():
    """A route that would widen the encryption alone is left out where it is not listed."""
    row = "name: second\n    placement: hosted\n    endpoint: {}\n"
    free = GOOD[ROUTES].replace("    fallback: [second, inside]\n", "")
    free = free.replace(row.format("hosted"), row.format("plain"))
    book = compile_texts(texts(routes=free), ENDPOINTS)
    assert [route.name for route in book.fallbacks["first"]] == ["inside"]
    plain = {**ENDPOINTS, "hosted": Endpoint("hosted", "acme-ai", "none")}
    assert [route.name for route in compile_texts(texts(routes=free), plain).fallbacks["first"]] == ["second", "inside"]


def test_the_first_file_that_is_wrong_is_told_and_nothing_is_made():
    """Labels come before routes, routes before retention, retention before policies: one error, not four."""
    wrong = {"labels": "version: 2\n", "routes": "version: 2\n", "retention": "version: 2\n", "policies": "bogus;\n"}
    for first in ("labels", "routes", "retention", "policies"):
        with pytest.raises(ConfigError) as error:
            compile_texts(texts(**wrong), ENDPOINTS)
        name = {"labels": LABELS, "routes": ROUTES, "retention": RETENTION, "policies": POLICY}[first]
        assert name in str(error.value)
        assert all(other not in str(error.value) for other in {LABELS, ROUTES, RETENTION, POLICY} - {name})
        del wrong[first]
    assert compile_texts(texts(**wrong), ENDPOINTS)


def test_a_new_rulebook_takes_its_place_at_once():
    """Who holds the shelf sees the old one or the new one."""
    shelf = Shelf(compile_texts(texts(), ENDPOINTS))
    before = shelf.current
    shelf.current = compile_texts(texts(policies=GOOD[POLICY] + "\n"), ENDPOINTS)
    assert before.version != shelf.current.version
