"""The canonical form: one text for one value, and an error for what has no such form here."""

from __future__ import annotations

import hashlib

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from evidence.canonical import canonical_json, sha256_hex

NAMES = st.text(st.characters(max_codepoint=127), max_size=8)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(max_size=12),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(NAMES, inner, max_size=4),
    max_leaves=12,
)


def shuffled(value, order):
    """The same value with the names of its objects in another order."""
    if isinstance(value, dict):
        names = list(value)
        order.shuffle(names)
        return {name: shuffled(value[name], order) for name in names}
    return [shuffled(item, order) for item in value] if isinstance(value, list) else value


@given(value=VALUES, order=st.randoms(use_true_random=False))
def test_the_order_of_names_changes_nothing(value, order):
    """Equal values have equal bytes, which read back as the value and stay as they are."""
    written = canonical_json(value)
    assert canonical_json(shuffled(value, order)) == written
    assert orjson.loads(written) == value
    assert canonical_json(orjson.loads(written)) == written


def test_the_form_is_that_of_rfc_8785():
    """No blanks, sorted names, short escapes, everything else as UTF-8."""
    value = {"b": [1, True, None], "a": '\u20ac\n\x0f"\\/ü', "A": {}}
    assert canonical_json(value) == '{"A":{},"a":"€\\n\\u000f\\"\\\\/ü","b":[1,true,null]}'.encode()


@pytest.mark.parametrize("value", [1.5, [1.0], {"a": {"b": 0.1}}, {"ü": 1}, {1: 2}, {"a": {1}}, b"x", object()])
def test_what_has_no_form_here_is_refused(value):
    """A float, a name that is not ASCII, and what is no JSON are errors."""
    with pytest.raises(TypeError, match="cannot be hashed canonically"):
        canonical_json(value)


@given(data=st.binary(max_size=99))
def test_a_digest_is_sha256_in_hex(data):
    """The digest is Python's own."""
    assert sha256_hex(data) == hashlib.sha256(data).hexdigest()
